"""The parts of the MongoDB engine that need no server."""

import json
import socket
import subprocess
import sys

import pymongo.errors
import pytest

from engines.action import Action
from engines.engine import GrantsFor
from engines.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidParams,
    PrivilegeMissing,
    UserNotFound,
)
from engines.mongodb import ENGINE
from engines.mongodb.databases import lower_ascii
from engines.mongodb.driver import CAUSES, IllegalOperation, NamespaceNotFound, reason, text_of
from engines.mongodb.grants import BACKUP_ROLE, PRIVILEGES, USER_ROLE, backup_commands, commands, grants, user_commands
from engines.mongodb.requirements import ANY_COLLECTION, CLUSTER, REQUIREMENTS, covers


def test_the_engine_has_the_four_documented_actions() -> None:
    assert [*ENGINE.actions] == ["create-database", "delete-database", "list-databases", "reset-database"]


@pytest.mark.parametrize("action", ENGINE.actions.values(), ids=lambda action: action.name)
def test_every_privilege_of_an_action_is_a_requirement_and_in_the_script(action: Action) -> None:
    assert action.privileges
    assert {*action.privileges} <= {*REQUIREMENTS}
    assert {*action.privileges} <= {granted for privilege in PRIVILEGES for granted in privilege["actions"]}


@pytest.mark.parametrize("action", ENGINE.actions.values(), ids=lambda action: action.name)
def test_the_examples_are_of_the_declared_types(action: Action) -> None:
    if action.takes_params:
        action.validate(action.example_params)
    action.result.validate_python(action.example_result)


def test_the_schema_of_a_new_name_tells_mongodbs_own_limit() -> None:
    name = ENGINE.actions["create-database"].params.json_schema()["properties"]["database_name"]
    assert name["maxLength"] == 63
    assert "63" in name["description"]


def test_importing_the_engine_and_its_actions_does_not_import_the_driver() -> None:
    program = (
        "import sys; from engines.mongodb import ENGINE; from engines.address import parse_address;"
        "ENGINE.connect(parse_address('mongodb://u:p@h/app', 27017)); assert ENGINE.actions;"
        "assert not {'pymongo', 'bson', 'dns'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("h:1: [Errno 111] Connect call failed ('h', 1) (configured timeouts: x)", "connection refused"),
        ("h:1: [Errno 113] Connect call failed ('h', 1) (configured timeouts: x)", "no route to host"),
        (f"h:1: [Errno {socket.EAI_NONAME}] Name or service not known (configured timeouts: x)", "cannot be resolved"),
        (
            "SSL handshake failed: h:1: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed "
            "certificate (_ssl.c:1006) (configured timeouts: x)",
            "TLS: certificate verify failed: self-signed certificate",
        ),
        ("SSL handshake failed: h:1:  (configured timeouts: x)", "TLS: the handshake failed"),
        ("connection closed", "the connection was closed"),
    ],
)
def test_the_reason_for_no_connection_is_told_in_a_few_words(text: str, cause: str) -> None:
    told = reason(pymongo.errors.AutoReconnect(text))
    assert told.endswith(cause)
    assert "configured" not in told


def test_a_silent_server_is_told_as_one() -> None:
    assert reason(pymongo.errors.NetworkTimeout("h:1: timed out")) == "no answer"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (8, EngineUnavailable),
        (11, UserNotFound),
        (13, PrivilegeMissing),
        (18, EngineUnavailable),
        (20, IllegalOperation),
        (24, DeadlineExceeded),
        (26, NamespaceNotFound),
        (48, AlreadyExists),
        (50, DeadlineExceeded),
        (73, InvalidParams),
        (112, Conflict),
        (117, Conflict),
        (215, Conflict),
        (262, DeadlineExceeded),
        (11601, Conflict),
        (12586, Conflict),
        (12587, Conflict),
        (13297, AlreadyExists),
        (14031, EngineUnavailable),
        (51003, AlreadyExists),
    ],
)
def test_codes_are_the_causes_that_they_stand_for(code: int, cause: type[Exception]) -> None:
    assert isinstance(CAUSES[code]("text of the server"), cause)


def test_the_text_of_a_refusal_is_the_servers_alone() -> None:
    refused = pymongo.errors.OperationFailure("text, full error: {…}", 13, {"errmsg": "text", "code": 13})
    assert text_of(refused) == "text"


def test_names_are_folded_as_mongodb_does_and_no_further() -> None:
    assert lower_ascii("ABC") == lower_ascii("abc")
    # The Kelvin sign: to Python a K, to MongoDB another name.
    assert lower_ascii("\u212a") != lower_ascii("k")
    assert lower_ascii("\ud800")


def test_a_privilege_covers_its_own_resource_and_any_resource_every_one() -> None:
    assert covers({"db": "", "collection": ""}, ANY_COLLECTION)
    assert covers({"anyResource": True}, CLUSTER)
    assert not covers({"db": "app", "collection": ""}, ANY_COLLECTION)
    assert not covers({"db": "", "collection": ""}, CLUSTER)


def test_the_script_quotes_what_it_is_given_and_says_what_its_commands_say() -> None:
    odd = 'it\'s "x" \\ \u2028 */ </script> ${x} \n // %s'
    wanted = GrantsFor(user=odd, password=odd, database=odd)
    script = grants(wanted)
    assert odd not in script
    assert script.count(json.dumps(odd)) == 6
    role, account = commands(wanted)
    assert all(json.dumps(privilege) in script for privilege in role["privileges"])
    assert (account["createUser"], account["pwd"]) == (odd, odd)
    backup_role, grant = backup_commands(wanted)
    assert all(json.dumps(privilege) in script for privilege in backup_role["privileges"])
    assert grant == {"grantRolesToUser": odd, "roles": [{"role": BACKUP_ROLE, "db": "admin"}]}
    user_role, grant = user_commands(wanted)
    assert all(json.dumps(privilege) in script for privilege in user_role["privileges"])
    assert grant == {"grantRolesToUser": odd, "roles": [{"role": USER_ROLE, "db": "admin"}]}


def test_the_account_of_the_script_reads_no_document_unless_backups_are_asked_for() -> None:
    script = grants(GrantsFor())
    assert "const backups = false;" in script
    assert "const users = false;" in script
    assert "const figures = false;" in script
    assert BACKUP_ROLE not in json.dumps(commands(GrantsFor(password="p")))


def test_without_a_password_the_script_makes_no_account() -> None:
    assert "const password = null;" in grants(GrantsFor())
    with pytest.raises(ValueError, match="needs a password"):
        commands(GrantsFor())
