"""What the package promises to the service that loads it."""

import subprocess
import sys

import pytest

from engines.address import parse_address
from engines.postgresql import ENGINE
from engines.postgresql.backup import PostgresBackups
from engines.postgresql.statements import LIST_STATEMENTS, RESET_STATEMENTS, for_version

DOCUMENTED = {
    "list-extensions",
    "pg-cancel-query",
    "pg-list-queries",
    "pg-stat-statements-enable",
    "pg-stat-statements-list",
    "pg-stat-statements-reset",
    "pg-terminate-query",
}


def test_every_documented_action_is_there() -> None:
    assert set(ENGINE.actions) == DOCUMENTED


def test_there_are_backups_of_every_server() -> None:
    server = ENGINE.connect(parse_address("postgresql://valet@127.0.0.1:1/app", ENGINE.default_port))
    assert isinstance(ENGINE.backups_of(server), PostgresBackups)


def test_the_driver_is_imported_only_when_a_session_is_needed() -> None:
    code = """
import sys
from engines.address import parse_address
from engines.postgresql import ENGINE
assert ENGINE.actions
server = ENGINE.connect(parse_address("postgresql://valet@no-such-host.invalid/app", 5432))
assert (server.pool_use().open, server.pool_use().limit) == (0, 5)
sys.exit(any(name.split(".")[0].startswith("psycopg") for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_every_requirement_of_an_action_is_known(name: str) -> None:
    action = ENGINE.actions[name]
    assert set(action.privileges + action.settings) <= set(ENGINE.requirements)
    assert action.summary and "Raises:" not in action.description


def test_a_remedy_names_the_account_quoted() -> None:
    server = ENGINE.connect(parse_address("postgresql://o%22dd@localhost/app", 5432))
    assert ENGINE.requirements["pg_signal_backend"].remedy(server) == 'GRANT pg_signal_backend TO "o""dd";'


@pytest.mark.parametrize(
    ("version", "column"),
    [((1, 3), "total_time,"), ((1, 4), "total_time,"), ((1, 7), "total_time,"), ((1, 8), "total_exec_time AS")]
    + [((1, minor), "total_exec_time AS") for minor in range(9, 14)]
    + [((2, 0), "total_exec_time AS")],
)
def test_the_columns_of_a_version_are_chosen(version: tuple[int, ...], column: str) -> None:
    assert f"       {column}" in for_version(LIST_STATEMENTS, version)


@pytest.mark.parametrize(("version", "arguments"), [((1, 6), "()"), ((1, 7), "(0, oid, 0)"), ((1, 12), "(0, oid, 0)")])
def test_the_reset_of_a_version_is_chosen(version: tuple[int, ...], arguments: str) -> None:
    assert f"pg_stat_statements_reset{arguments}" in for_version(RESET_STATEMENTS, version)


def test_a_version_older_than_all_that_is_known_gets_the_oldest_form() -> None:
    assert for_version(RESET_STATEMENTS, (0, 9)) == RESET_STATEMENTS[-1][1]
