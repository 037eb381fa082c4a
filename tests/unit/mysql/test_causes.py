import socket
import ssl

import pymysql
import pytest

from engines import errors
from engines.address import parse_address
from engines.mysql import driver
from engines.mysql.causes import CAUSES


@pytest.mark.parametrize(("number", "cause"), CAUSES.items())
def test_a_number_of_the_table_is_its_cause_and_the_text_is_the_engines(
    number: int, cause: type[errors.EngineError]
) -> None:
    raised = driver.cause_of(pymysql.OperationalError(number, "what the server says"))
    assert type(raised) is cause
    assert "what the server says" in raised.message
    assert str(number) in raised.message


def test_a_refusal_that_nobody_foresaw_is_a_conflict_with_its_text() -> None:
    raised = driver.cause_of(pymysql.OperationalError(1006, "Can't create database 'x' (errno: 28)"))
    assert type(raised) is errors.Conflict
    assert "errno: 28" in raised.message


def test_a_statement_that_the_server_cannot_read_is_a_mistake_of_dbvalet() -> None:
    assert type(driver.cause_of(pymysql.ProgrammingError(1064, "You have an error"))) is errors.EngineError


@pytest.mark.parametrize(
    "error", [pymysql.InterfaceError(0, ""), pymysql.InternalError("Packet sequence number wrong - got 3 expected 1")]
)
def test_a_connection_out_of_step_is_a_cut_one(error: pymysql.MySQLError) -> None:
    assert type(driver.cause_of(error)) is errors.ConnectionLost


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        (socket.gaierror(-2, "Name or service not known"), "cannot be resolved: Name or service not known"),
        (TimeoutError("timed out"), "does not answer"),
        (ConnectionRefusedError(111, "Connection refused"), "nothing listens there"),
        (OSError(113, "No route to host"), "cannot be reached: No route to host"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), "TLS with db:3306 failed"),
    ],
)
def test_why_there_is_no_connection_is_said_without_the_password(origin: OSError, text: str) -> None:
    login = driver.Login(
        address=parse_address("mysql://valet:secret-word@db/app", 3306), context=None, tls_required=False
    )
    error = pymysql.OperationalError(2003, f"Can't connect ({origin})")
    error.original_exception = origin  # pyright: ignore[reportAttributeAccessIssue] - as PyMySQL does
    said = driver.why_not(login, error)
    assert text in said
    assert "db:3306" in said
    assert "secret-word" not in said + repr(login)
