"""The parts of the InfluxDB engine that need no server."""

import json
import subprocess
import sys

import pytest
from influxdb.exceptions import InfluxDBClientError, InfluxDBServerError

from engines.action import Action
from engines.engine import GrantsFor
from engines.errors import (
    AlreadyExists,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    InvalidParams,
    PrivilegeMissing,
    RetentionPolicyNotFound,
    UserNotFound,
)
from engines.influxdb import ENGINE
from engines.influxdb.driver import cause_of, certificates
from engines.influxdb.grants import grants


def test_the_engine_has_the_three_documented_actions() -> None:
    assert [*ENGINE.actions] == ["add-retention-policy", "del-retention-policy", "list-retention-policies"]


@pytest.mark.parametrize("action", ENGINE.actions.values(), ids=lambda action: action.name)
def test_every_privilege_of_an_action_is_a_requirement(action: Action) -> None:
    assert action.privileges
    assert {*action.privileges} <= {*ENGINE.requirements}


@pytest.mark.parametrize("action", ENGINE.actions.values(), ids=lambda action: action.name)
def test_the_examples_are_of_the_declared_types(action: Action) -> None:
    if action.takes_params:
        action.validate(action.example_params)
    action.result.validate_python(action.example_result)


def test_importing_the_engine_and_its_actions_does_not_import_the_driver() -> None:
    program = (
        "import sys; from engines.influxdb import ENGINE; from engines.address import parse_address;"
        "ENGINE.connect(parse_address('influxdb://u:p@h/app', 8086)); assert ENGINE.actions;"
        "assert not {'influxdb', 'requests', 'msgpack', 'urllib3'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


ON_HTTP = [
    (401, "authorization failed", EngineUnavailable),
    (401, "unable to parse authentication credentials", EngineUnavailable),
    (
        403,
        "error authorizing query: v not authorized to execute statement 'SHOW USERS', requires admin privilege",
        PrivilegeMissing,
    ),
    (403, '"v" user is not authorized to write to database "app"', PrivilegeMissing),
    (403, "error authorizing query: create admin user first or disable authentication", EngineUnavailable),
    (400, "error parsing query: found x, expected identifier at line 1, char 24", EngineError),
]
OF_A_STATEMENT = [
    ("retention policy already exists", AlreadyExists),
    ("retention policy conflicts with an existing policy", AlreadyExists),
    ("retention policy not found: p", RetentionPolicyNotFound),
    ("retention policy duration must be at least 1h0m0s", InvalidParams),
    ("retention policy duration must be greater than the shard duration", InvalidParams),
    ("invalid name", InvalidParams),
    ("name too long", InvalidParams),
    ("database not found: app", EngineUnavailable),
    ("user already exists", AlreadyExists),
    ("user not found", UserNotFound),
    ("query-timeout limit exceeded", DeadlineExceeded),
    ("query interrupted", DeadlineExceeded),
    ("max-concurrent-queries limit exceeded(1, 1)", EngineUnavailable),
    ("write /var/lib/influxdb/meta/meta.dbtmp: no space left on device", EngineUnavailable),
    ("something new", EngineError),
]


@pytest.mark.parametrize(("status", "text", "cause"), ON_HTTP)
def test_the_text_of_an_http_error_is_the_cause_that_it_stands_for(
    status: int, text: str, cause: type[EngineError]
) -> None:
    found = cause_of(InfluxDBClientError(json.dumps({"error": text}), status), "InfluxDB at h:1")
    assert type(found) is cause


@pytest.mark.parametrize(("text", "cause"), OF_A_STATEMENT)
def test_the_text_of_a_statements_error_is_the_cause_that_it_stands_for(text: str, cause: type[EngineError]) -> None:
    assert type(cause_of(InfluxDBClientError(text), "InfluxDB at h:1")) is cause


@pytest.mark.parametrize(
    "name",
    ["database not found", "name too long", "requires admin privilege", "timeout", "/a: no space left on device"],
)
def test_a_name_inside_the_text_is_not_taken_for_a_cause(name: str) -> None:
    text = f'error parsing query: found {name}, expected "{name}" at line 1'
    assert type(cause_of(InfluxDBClientError(json.dumps({"error": text}), 400), "InfluxDB at h:1")) is EngineError


@pytest.mark.parametrize("content", ["<html>", "", "[]", '{"message": "unauthorized access"}', "null"])
def test_what_does_not_answer_as_influxdb_is_told_as_something_else(content: str) -> None:
    for refused in (InfluxDBClientError(content, 404), InfluxDBServerError(content)):
        found = cause_of(refused, "InfluxDB at h:1")
        assert isinstance(found, EngineUnavailable) and "something else" in found.message


def test_a_server_error_is_an_unavailable_engine() -> None:
    found = cause_of(InfluxDBServerError('{"error": "disk full"}'), "InfluxDB at h:1")
    assert isinstance(found, EngineUnavailable) and "disk full" in found.message


def test_the_certificate_is_checked_unless_the_url_says_otherwise() -> None:
    assert certificates({}) is True
    assert certificates({"ca_file": "/etc/ca.pem"}) == "/etc/ca.pem"
    assert certificates({"verify_ssl": "false", "ca_file": "/etc/ca.pem"}) is False


def test_the_script_quotes_what_it_is_given() -> None:
    script = grants(GrantsFor(user='u"; DROP', password="p'; DROP", database='d"\n'))
    assert r"""CREATE USER "u\"; DROP" WITH PASSWORD 'p\'; DROP' WITH ALL PRIVILEGES;""" in script
    assert r'GRANT ALL ON "d\"\n" TO "u\"; DROP"' in script


def test_without_a_password_the_script_makes_no_account() -> None:
    statements = [line for line in grants(GrantsFor()).splitlines() if line and not line.startswith("--")]
    assert statements == ['GRANT ALL PRIVILEGES TO "valet";', 'GRANT ALL ON "app" TO "valet"']
