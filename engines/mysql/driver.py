"""The one module that imports PyMySQL: a kept connection, its limits in time, and the causes behind error numbers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from engines import errors
from engines.address import Address
from engines.lean import without
from engines.mysql.causes import CAUSES, OF_FILES, REMEDIES, FileFailed
from engines.mysql.facts import FACTS, Facts, Flavour, account_of, flavour_of, parse_version, readable, started
from engines.mysql.identifiers import Identifier, quoted

# PyMySQL reads the whole of cryptography, 8 MiB, for one way to log in: see `_with_cryptography`.
with without("cryptography"):
    import pymysql
    from pymysql import _auth
    from pymysql.connections import Connection
    from pymysql.cursors import Cursor

Rows = tuple[tuple[Any, ...], ...]

CONNECT_TIMEOUT = 3.0
"""Seconds for each step of a connection: the socket, the greeting, the login."""

STOP_TIMEOUT = 0.4
"""Seconds for stopping a statement whose time is up; within `deadline.GRACE`."""

SESSION = {
    # The limits are for what outlives dbvalet itself; the exact one of each statement is kept by `Session`.
    # The session's sql_mode is fixed, so that no ANSI_QUOTES or NO_BACKSLASH_ESCAPES of the server changes a statement.
    "mysql": "SET SESSION sql_mode = '', time_zone = '+00:00', lock_wait_timeout = 24, innodb_lock_wait_timeout = 24,"
    " max_execution_time = 24000",
    "mariadb": "SET SESSION sql_mode = '', time_zone = '+00:00', lock_wait_timeout = 24, innodb_lock_wait_timeout = 24,"
    " max_statement_time = 24",
}

LOCK_LIMIT = "SET SESSION lock_wait_timeout = %s, innodb_lock_wait_timeout = %s"

TLS_NOT_OFFERED = 2026
"""CR_SSL_CONNECTION_ERROR, as PyMySQL uses it."""

UNREACHABLE: tuple[tuple[type[Exception], str], ...] = (
    # The first that fits: all of these are OSErrors.
    (socket.gaierror, "The name in {place} cannot be resolved: {text}."),
    (TimeoutError, "{place} does not answer."),
    (ConnectionRefusedError, "{place} refuses connections: nothing listens there."),
    (ssl.SSLCertVerificationError, "The certificate of {place} is not accepted: {text}."),
    (ssl.SSLError, "TLS with {place} failed: {text}."),
    (OSError, "{place} cannot be reached: {text}."),
)


def _with_cryptography(encrypt: Callable[..., bytes]) -> Callable[..., bytes]:
    """Let PyMySQL encrypt a password once it has what it takes.

    It is asked to by a server that speaks no TLS and has not cached the password of the account since its start.
    """

    def encrypt_with_it(*args: Any) -> bytes:
        from cryptography.hazmat.backends import default_backend
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding

        module.default_backend, module.hashes, module.serialization = default_backend, hashes, serialization
        module.padding, module._have_cryptography = padding, True
        return encrypt(*args)

    module: Any = _auth
    return encrypt if module._have_cryptography else encrypt_with_it


cast(Any, _auth).sha2_rsa_encrypt = _with_cryptography(cast(Any, _auth).sha2_rsa_encrypt)

# Generic in the stubs, not in PyMySQL itself.
_Connection = Connection[Cursor] if TYPE_CHECKING else Connection


class _Wire(_Connection):
    """PyMySQL's connection, whose limits can be changed while it is open and whose reading can be interrupted."""

    server_version: str
    server_thread_id: tuple[int]
    _sock: socket.socket | None
    _read_timeout: float | None
    _write_timeout: float | None

    def limit(self, seconds: float) -> None:
        self._read_timeout = self._write_timeout = seconds

    def interrupt(self) -> None:
        if (used := self._sock) is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket's own, which would take its state away under the thread that reads.
                socket.socket.shutdown(used, socket.SHUT_RDWR)

    def ask(self, statement: str | bytes) -> Rows:
        with self.cursor() as cursor:
            cursor.execute(cast("str", statement))  # bytes are sent as they are, which the stubs do not say
            return tuple(cursor.fetchall())


@dataclass(frozen=True, kw_only=True)
class Login:
    """What all connections of a server share."""

    address: Address
    context: ssl.SSLContext | None
    tls_required: bool


class Session:
    """One kept connection, used by one thread; only `interrupt` and `connected` are for others."""

    def __init__(self, login: Login, learned: Callable[[Facts], None]) -> None:
        """`learned` is told what each login finds out, in the thread."""
        self._login = login
        self._learned = learned
        self._wire: _Wire | None = None
        self._ends_at = 0.0
        self._interrupted = False
        self._fresh = False
        self._facts: Facts | None = None

    @property
    def connected(self) -> bool:
        """Tell whether there is a connection, alive or not."""
        return self._wire is not None

    @property
    def fresh(self) -> bool:
        """Tell whether the connection was made in this job."""
        return self._fresh

    @property
    def facts(self) -> Facts:
        """What the last login found out.

        Raises: EngineUnavailable, DeadlineExceeded, when it takes a login to know
        """
        return self._facts or self.log_in()

    def log_in(self) -> Facts:
        """Make a new connection in place of the one there is, if any.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        self._logged_in()
        return self.facts

    def begin(self, ends_at: float) -> None:
        """Start a job that ends at this moment of `time.monotonic`."""
        self._ends_at = ends_at
        self._interrupted = False
        self._fresh = False

    def fetch(self, statement: str, *args: object) -> Rows:
        """Run a statement that changes nothing; when a kept connection turns out to be dead, again on a new one.

        Raises: EngineUnavailable, ConnectionLost, DeadlineExceeded, and the causes in `CAUSES`
        """
        if self._wire is not None:
            try:
                return self._run(self._wire, _bound(self._wire, statement, args))
            except errors.ConnectionLost:
                # The server was restarted, or closed a connection that was idle for long.
                if self._fresh or self._interrupted:
                    raise
        wire = self._logged_in()
        return self._run(wire, _bound(wire, statement, args))

    def prepare_to_write(self) -> None:
        """Make sure of a live connection, and let the engine itself give up waiting for locks in time.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        seconds = max(1, int(self._left()))
        self.fetch(LOCK_LIMIT, seconds, seconds)

    def execute(self, statement: str | bytes, *args: object) -> Rows:
        """Run a statement once, on the connection as it is (see `prepare_to_write`); after a cut it has been stopped.

        As bytes it is one without values, in whatever character_set_client the session has by then.

        Raises: ConnectionLost, DeadlineExceeded, and the causes in `CAUSES`
        """
        wire = self._wire
        if wire is None:
            raise errors.ConnectionLost
        text = _bound(wire, statement, args) if isinstance(statement, str) else statement
        try:
            return self._run(wire, text)
        except errors.ConnectionLost as cut:
            raise errors.ConnectionLost(f"{cut.message} {self._stopped(wire, text)}") from cut

    def close(self) -> None:
        """Close the connection; the next use makes a new one, and finds out anew what the account may do."""
        wire, self._wire, self._facts = self._wire, None, None
        if wire is not None and wire.open:
            wire.limit(STOP_TIMEOUT)
            wire.close()

    def interrupt(self) -> None:
        """Let the thread that uses it stop its statement and raise."""
        self._interrupted = True
        if (wire := self._wire) is not None:
            wire.interrupt()

    def _left(self) -> float:
        left = self._ends_at - time.monotonic()
        if left <= 0 or self._interrupted:
            raise errors.DeadlineExceeded("The time was up before the next statement, which was not sent.")
        return left

    def _logged_in(self) -> _Wire:
        self.close()
        wire = _open(self._login, min(CONNECT_TIMEOUT, self._left()))
        try:
            wire.limit(min(CONNECT_TIMEOUT, self._left()))
            flavour = flavour_of(wire.server_version)
            wire.ask(SESSION[flavour])
            self._facts = _facts(flavour, wire)
        except pymysql.MySQLError as error:
            if wire.open:
                wire.close()
            raise errors.EngineUnavailable(why_not(self._login, error)) from error
        self._wire, self._fresh = wire, True
        self._learned(self._facts)
        return wire

    def _run(self, wire: _Wire, text: str | bytes) -> Rows:
        wire.limit(self._left())
        try:
            return wire.ask(text)
        except pymysql.MySQLError as error:
            if not wire.open:
                self._wire = None
                if self._interrupted or isinstance(error.__context__, TimeoutError):
                    raise errors.DeadlineExceeded(f"The time was up. {self._stopped(wire, text)}") from error
            cause = cause_of(error)
            if isinstance(cause, errors.ConnectionLost):
                self._wire = None
                if wire.open:
                    wire.close()
            raise cause from error
        except BaseException:
            self.close()
            raise

    def _stopped(self, wire: _Wire, text: str | bytes) -> str:
        """Stop a statement in the engine whose connection is closed here, and say what is known then.

        It is looked up first: behind a proxy, or after a restart, the number of the connection may be somebody else's.
        """
        [number] = wire.server_thread_id
        killed = False
        until = time.monotonic() + STOP_TIMEOUT
        try:
            with contextlib.closing(_open(self._login, STOP_TIMEOUT)) as other:
                while time.monotonic() < until:
                    other.limit(STOP_TIMEOUT)
                    if not any(row[0] == number and row[7] == text for row in other.ask("SHOW FULL PROCESSLIST")):
                        return (
                            "The statement was stopped in the engine."
                            if killed
                            else "The statement has ended in the engine."
                        )
                    if not killed:
                        other.ask(f"KILL {number:d}")
                        killed = True
                    time.sleep(0.01)
        except (pymysql.MySQLError, errors.EngineUnavailable):
            return "The engine does not answer: whether the statement was done is not known."
        return "The engine was told to stop the statement and has not done so yet."


def _bound(wire: _Wire, statement: str, args: tuple[object, ...]) -> str:
    """Write a statement with its values; without space around it, as the server shows it in its process list."""
    text = statement.strip()
    if not args:
        return text
    return text % tuple(quoted(arg) if isinstance(arg, Identifier) else wire.escape(arg) for arg in args)


def _open(login: Login, timeout: float) -> _Wire:
    """Log in.

    Raises: EngineUnavailable
    """
    context = login.context
    try:
        try:
            return _wire(login, context, timeout)
        except pymysql.MySQLError as error:
            tls_failed = _number(error) == TLS_NOT_OFFERED or isinstance(_origin(error), ssl.SSLError)
            if login.tls_required or not tls_failed:
                raise
            return _wire(login, None, timeout)
    except pymysql.MySQLError as error:
        raise errors.EngineUnavailable(why_not(login, error)) from error
    except RuntimeError as error:
        # PyMySQL needs the package `cryptography` for caching_sha2_password without TLS, `pynacl` for ed25519.
        raise errors.EngineUnavailable(
            f"The account's authentication plugin cannot be used on this connection ({error}): "
            "enable TLS on the server, or give the account another plugin."
        ) from error


def _wire(login: Login, context: ssl.SSLContext | None, timeout: float) -> _Wire:
    address = login.address
    return _Wire(
        host=address.host,
        port=address.port,
        user=address.user,
        # PyMySQL would write a str as Latin-1; the server expects the bytes that the account was made with.
        password=(address.password or "").encode(),
        database=address.database,
        charset="utf8mb4",
        autocommit=True,
        program_name="dbvalet",
        connect_timeout=timeout,
        read_timeout=timeout,
        write_timeout=timeout,
        ssl=context,
        ssl_disabled=context is None,
    )


def _facts(flavour: Flavour, wire: _Wire) -> Facts:
    [(version, folding, account, now, uptime)] = wire.ask(FACTS[flavour])
    numbers = parse_version(version)
    return Facts(
        flavour=flavour,
        version=numbers,
        readable_version=readable(flavour, numbers),
        started_at=started(now, uptime),
        folds_case=folding != 0,
        account=account_of(account),
        grants=tuple(row[0] for row in wire.ask("SHOW GRANTS")),
    )


def _number(error: pymysql.MySQLError) -> int:
    number: object = error.args[0] if error.args else None
    return number if isinstance(number, int) else 0


def _text(error: pymysql.MySQLError) -> str:
    return str(error.args[1]) if len(error.args) > 1 else str(error)


def cause_of(error: pymysql.MySQLError) -> errors.EngineError:
    """Turn what the server or PyMySQL says into its cause; an unknown number is one that no action foresaw."""
    number = _number(error)
    text = f"{_text(error).rstrip('.')} (error {number}).{REMEDIES.get(number, '')}"
    cause = CAUSES.get(number)
    if cause is None:
        if number in OF_FILES:
            cause = FileFailed
        elif isinstance(error, pymysql.InterfaceError | pymysql.InternalError):
            # PyMySQL itself: the connection is closed, or the packets are out of step.
            cause = errors.ConnectionLost
        else:
            # A statement that the server cannot read is a mistake of dbvalet; whatever else it refuses, it explains.
            cause = errors.EngineError if isinstance(error, pymysql.ProgrammingError) else errors.Conflict
    if cause is errors.InvalidParams:
        return errors.InvalidParams({"params": [text]})
    if cause is errors.ConnectionLost:
        return errors.ConnectionLost(f"The connection was cut while the engine was working: {text}")
    if cause is errors.DeadlineExceeded:
        return errors.DeadlineExceeded(f"The engine gave the statement up: {text}")
    return cause(text)


def _origin(error: pymysql.MySQLError) -> object:
    return getattr(error, "original_exception", None) or error.__context__


def why_not(login: Login, error: pymysql.MySQLError) -> str:
    """Say why there is no connection: where to, and what went wrong."""
    place = f"{login.address.host}:{login.address.port}"
    origin = _origin(error)
    text = f"{_text(error)} (error {_number(error)})"
    if isinstance(origin, ssl.SSLCertVerificationError):
        text = origin.verify_message
    elif isinstance(origin, ssl.SSLError):
        text = getattr(origin, "reason", None) or str(origin)
    elif isinstance(origin, OSError):
        text = origin.strerror or str(origin)
    said = next((said for kind, said in UNREACHABLE if isinstance(origin, kind)), "{place} refuses the login: {text}.")
    return said.format(place=place, text=text)
