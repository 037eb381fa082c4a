from datetime import UTC, datetime
from typing import SupportsIndex

import pytest

from engines.mysql.facts import (
    account_of,
    drops_at_once,
    flavour_of,
    granted,
    granted_on,
    has_dynamic_privileges,
    has_system_users,
    like,
    parse_version,
    readable,
    started,
)

MARIADB = [
    "GRANT `keeper` TO `valet`@`%`",
    "GRANT SHOW DATABASES, SUPER ON *.* TO `valet`@`%` IDENTIFIED BY PASSWORD '*00'",
    "GRANT DROP, EVENT ON `app\\_1`.* TO `valet`@`%`",
    "GRANT SELECT (a, b), INSERT ON `app`.`t` TO `valet`@`%`",
    "GRANT CREATE ON *.* TO `keeper`",
    "SET DEFAULT ROLE `keeper` FOR `valet`@`%`",
]
MYSQL = [
    "GRANT CREATE, DROP, EVENT ON *.* TO `valet`@`%`",
    "GRANT SYSTEM_USER,SYSTEM_VARIABLES_ADMIN ON *.* TO `valet`@`%` WITH GRANT OPTION",
    "REVOKE DROP ON `mysql`.* FROM `valet`@`%`",
    "GRANT PROXY ON ``@`` TO `valet`@`%`",
]


@pytest.mark.parametrize(
    ("greeting", "flavour", "version", "text"),
    [
        ("9.7.4-2", "mysql", (9, 7, 4), "9.7.4"),
        ("8.0.36-28", "mysql", (8, 0, 36), "8.0.36"),
        ("5.7.44-log", "mysql", (5, 7, 44), "5.7.44"),
        ("10.11.18-MariaDB-0+deb12u1", "mariadb", (10, 11, 18), "10.11.18-MariaDB"),
        ("11.8.9-MariaDB-0+deb13u1 from Debian", "mariadb", (11, 8, 9), "11.8.9-MariaDB"),
    ],
)
def test_flavours_and_versions(greeting: str, flavour: str, version: tuple[int, ...], text: str) -> None:
    assert flavour_of(greeting) == flavour
    assert parse_version(greeting) == version
    assert readable(flavour_of(greeting), version) == text


def test_an_old_greeting_of_mariadb_is_one_of_mariadb() -> None:
    assert flavour_of("5.5.5-10.5.23-MariaDB-0+deb11u1") == "mariadb"


def test_a_version_that_is_none_has_no_numbers() -> None:
    assert parse_version("source") == ()


@pytest.mark.parametrize(
    ("flavour", "version", "dynamic", "system_users"),
    [
        ("mysql", (5, 7, 44), False, False),
        ("mysql", (8, 0, 11), True, False),
        ("mysql", (8, 0, 16), True, True),
        ("mysql", (9, 7, 4), True, True),
        ("mariadb", (10, 5, 23), False, False),
        ("mariadb", (11, 8, 9), False, False),
    ],
)
def test_what_versions_have(flavour: str, version: tuple[int, ...], dynamic: bool, system_users: bool) -> None:
    assert flavour in ("mysql", "mariadb")
    assert has_dynamic_privileges(flavour, version) == dynamic
    assert has_system_users(flavour, version) == system_users
    assert drops_at_once(flavour, version) == dynamic, "since the same version"


def test_the_start_is_the_difference_of_the_servers_own_clock() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5)
    assert started(now, "65") == datetime(2026, 1, 2, 3, 3, 0, tzinfo=UTC)


def test_global_privileges_are_read_with_those_of_roles() -> None:
    assert granted(MARIADB) == {"SHOW DATABASES", "SUPER", "CREATE"}
    assert granted(MYSQL) == {"CREATE", "DROP", "EVENT", "SYSTEM_USER", "SYSTEM_VARIABLES_ADMIN"}
    assert granted(["GRANT USAGE ON *.* TO `x`@`%`"]) == set()
    assert granted(["GRANT ALL PRIVILEGES ON *.* TO `root`@`%` WITH GRANT OPTION"]) == {"ALL PRIVILEGES"}


def test_privileges_on_a_database_are_the_global_ones_and_its_own() -> None:
    assert {"DROP", "EVENT", "CREATE"} <= granted_on(MARIADB, "app_1")
    assert "DROP" not in granted_on(MARIADB, "appx1")
    assert "INSERT" not in granted_on(MARIADB, "app")
    assert {"DROP", "EVENT"} <= granted_on(MYSQL, "app")
    assert "DROP" not in granted_on(MYSQL, "mysql")
    assert {"DROP", "EVENT"} <= granted_on(["GRANT ALL PRIVILEGES ON `a``b`.* TO `x`@`%`"], "a`b")


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("app", "app", True),
        ("App", "app", False),
        ("app_1", "app\\_1", True),
        ("appx1", "app\\_1", False),
        ("appx1", "app_1", True),
        ("app_production", "app%", True),
        ("app%", "app\\%", True),
        ("apple", "app\\%", False),
        ("a.b", "a.b", True),
        ("axb", "a.b", False),
        ("a\nb", "a%", True),
        ("a\\", "a\\\\", True),
        ("a\\", "a\\", True),
        ("", "", True),
        ("", "%%", True),
        ("", "_", False),
        ("app", "", False),
        ("app", "%_%_%_%", True),
        ("app", "%_%_%_%_", False),
        ("abcabd", "a%abd", True),
        ("aXbXc", "%X_", True),
        ("a%b", "%\\%b", True),
        ("a%b", "%\\%c", False),
    ],
)
def test_patterns_of_grants(name: str, pattern: str, fits: bool) -> None:
    assert like(name, pattern) == fits


class Watched(str):
    """A name that counts how often one of its characters is looked at."""

    looks = 0

    def __getitem__(self, place: SupportsIndex | slice) -> str:
        Watched.looks += 1
        return super().__getitem__(place)


@pytest.mark.parametrize("pattern", ["%" * 63 + "b", "%a" * 31 + "%b", "%_" * 31 + "b"])
def test_a_pattern_of_many_wildcards_takes_few_steps(pattern: str) -> None:
    Watched.looks = 0
    assert not like(Watched("a" * 64), pattern)
    # None at all is no proof: the name was then compared by something that does not count.
    assert 0 < Watched.looks <= 64 * 64


@pytest.mark.parametrize(
    ("current", "quoted"),
    [
        ("valet@%", "'valet'@'%'"),
        ("a@b@10.0.0.%", "'a@b'@'10.0.0.%'"),
        ("it's@%", "'it''s'@'%'"),
        ("@localhost", "''@'localhost'"),
    ],
)
def test_accounts_are_quoted_for_a_grant(current: str, quoted: str) -> None:
    assert account_of(current) == quoted
