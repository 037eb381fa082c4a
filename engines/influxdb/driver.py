"""Everything that touches the driver of InfluxDB: kept connections, the deadline of a request, what answers mean."""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from engines import errors
from engines.address import Address
from engines.lean import without

# To guess the encoding of an answer that does not say it, where InfluxDB's is UTF-8: 3 MiB.
with without("charset_normalizer", "chardet"):
    import requests
from influxdb.client import InfluxDBClient
from influxdb.exceptions import InfluxDBClientError, InfluxDBServerError

CONNECT_SECONDS = 3.0

CUT = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, http.client.HTTPException)
"""What stands below the library's error when a connection was there and was closed under a request."""

Rows = dict[str, list[dict[str, Any]]]
"""What a statement gives: rows by the name of their series, which is "" for one without."""

Cause = Callable[[str], errors.EngineError]

CAUSES: tuple[tuple[re.Pattern[str], Cause], ...] = (
    # InfluxDB 1.x has no codes, only text. Seen on 1.6.7; the sources of 1.7 and 1.8 have the same.
    (re.compile(r"^retention policy already exists"), lambda _: errors.AlreadyExists()),
    (re.compile(r"^retention policy conflicts with an existing policy"), lambda _: errors.AlreadyExists()),
    (re.compile(r"^retention policy not found"), lambda _: errors.RetentionPolicyNotFound()),
    (re.compile(r"^retention policy duration "), lambda text: errors.InvalidParams({"duration": [text]})),
    # Before what else begins with "user": these are of another than dbvalet's own.
    (re.compile(r"^user already exists"), lambda _: errors.AlreadyExists()),
    (re.compile(r"^user not found"), lambda _: errors.UserNotFound()),
    (re.compile(r"^invalid name"), lambda _: errors.InvalidParams({"name": ["InfluxDB does not take this name"]})),
    (re.compile(r"^name too long"), lambda _: errors.InvalidParams({"name": ["is too long for InfluxDB"]})),
    (
        re.compile(r"^database not found"),
        lambda _: errors.EngineUnavailable("The logical database of this deployment's URL does not exist in InfluxDB."),
    ),
    (
        re.compile(r"^(authorization failed|unable to parse authentication credentials|user )"),
        lambda _: errors.EngineUnavailable("InfluxDB refuses the account: wrong user or password."),
    ),
    (
        re.compile(r"^error authorizing query: create admin user first"),
        lambda _: errors.EngineUnavailable("InfluxDB has no admin user yet, and answers nothing until it has."),
    ),
    (
        re.compile(r'^error authorizing query|^".*" user is not authorized to write'),
        lambda text: errors.PrivilegeMissing(f"InfluxDB refused: {text}"),
    ),
    (
        re.compile(r"^(query-timeout limit exceeded|timeout|query interrupted|query killed)"),
        lambda text: errors.DeadlineExceeded(f"InfluxDB stopped it: {text}"),
    ),
    (
        re.compile(r"^(max-concurrent-queries limit exceeded|service unavailable|server closed|engine is closed)"),
        lambda text: errors.EngineUnavailable(f"InfluxDB cannot do this just now: {text}"),
    ),
    (
        # As Go words what a system call on a file failed with.
        re.compile(r"^[a-z]+ /.*: no space left on device$"),
        lambda text: errors.EngineUnavailable(f"InfluxDB cannot do this just now: {text}"),
    ),
)


class NoAnswer(errors.DeadlineExceeded):
    """The time for this action is up and InfluxDB does not answer."""


class _Session(requests.Session):
    """A session that asks nothing but the server of the URL, each time within the seconds that are left."""

    def __init__(self) -> None:
        super().__init__()
        # No proxy, no .netrc, no CA bundle of the environment: the account goes where the configuration says.
        # It also saves a look through the environment with each request.
        self.trust_env = False
        self.max_redirects = 0
        self.seconds = CONNECT_SECONDS

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send it with a limit: the driver knows one for its lifetime only."""
        kwargs["timeout"] = (min(CONNECT_SECONDS, self.seconds), self.seconds)
        return super().send(request, **kwargs)


class Client:
    """One kept connection; used by one thread at a time."""

    def __init__(self, address: Address) -> None:
        """Read the address; connects when the first request is sent."""
        self._address = address
        self._session = _Session()
        # Not MessagePack, the driver's default: 1.6 cuts the answer to SHOW DIAGNOSTICS short in it.
        headers = {"Accept": "application/json"}
        if address.user is not None:
            # The driver would leave it to requests, which writes Latin-1; InfluxDB reads UTF-8.
            account = f"{address.user}:{address.password or ''}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(account).decode()}"
        self._headers = {**headers}  # the driver adds its own to those that it is given
        host = f"[{address.host}]" if ":" in address.host else address.host
        secure = address.scheme.startswith("https")
        self._url = f"{'https' if secure else 'http'}://{host}:{address.port}"
        self._driver = InfluxDBClient(
            host=host,
            port=address.port,
            username=None,
            password=None,
            database=address.database,
            ssl=secure,
            verify_ssl=certificates(address.options),
            retries=1,
            pool_size=1,
            session=self._session,
            headers=headers,
        )

    def read(self, statement: str, ends_at: float) -> Rows:
        """Run a statement that changes nothing; a kept connection that was cut meanwhile is replaced once, in silence.

        Raises: EngineUnavailable, DeadlineExceeded, and what stands in CAUSES
        """
        try:
            return self._query(statement, "GET", ends_at)
        except errors.ConnectionLost:
            return self._query(statement, "GET", ends_at)

    def write(self, statement: str, ends_at: float) -> Rows:
        """Run a statement that changes something, once. The library first looks whether a kept connection still is one.

        Raises: ConnectionLost, when it may or may not have been done; and as `read`
        """
        try:
            return self._query(statement, "POST", ends_at)
        except NoAnswer as silent:
            raise errors.DeadlineExceeded(
                f"{silent.message} Whether it was done is not known; look before trying again."
            ) from silent

    def write_nothing(self, ends_at: float) -> None:
        """Write no points to the logical database: the server checks first whether the account may write there.

        Raises: PrivilegeMissing, and as `read`
        """
        with self._until(ends_at):
            self._driver.request(
                "write", "POST", params={"db": self._address.database}, data=b"", expected_response_code=204
            )

    def version_and_clock(self, ends_at: float) -> tuple[str, datetime]:
        """Ask for the server's version and the time it has, which it tells anybody.

        Raises: as `read`
        """
        with self._until(ends_at):
            headers = self._driver.request("ping", expected_response_code=204).headers
        return headers["X-Influxdb-Version"], parsedate_to_datetime(headers["Date"])

    def close(self) -> None:
        """Close the connection."""
        self._driver.close()

    def _query(self, statement: str, method: str, ends_at: float) -> Rows:
        with self._until(ends_at):
            result = self._driver.query(statement, method=method)
        return {
            series.get("name", ""): [dict(zip(series["columns"], row, strict=True)) for row in series.get("values", [])]
            for series in result.raw.get("series", [])
        }

    @contextmanager
    def _until(self, ends_at: float) -> Generator[None]:
        """Let requests inside take until then, and turn their errors into those of `engines.errors`.

        At the limit the connection is closed, which is what stops a query in 1.x: the server aborts what runs for a
        client that is gone. So KILL QUERY would find nothing. Statements about policies cannot be stopped at all.
        """
        self._session.seconds = max(ends_at - time.monotonic(), 0.001)
        place = f"InfluxDB at {self._address.host}:{self._address.port}"
        try:
            yield
        except (InfluxDBClientError, InfluxDBServerError) as refused:
            raise cause_of(refused, place) from refused
        except requests.exceptions.SSLError as refused:
            raise errors.EngineUnavailable(f"{place} cannot be reached: {reason(refused)}.") from refused
        except requests.exceptions.ConnectTimeout as silent:
            raise errors.EngineUnavailable(f"{place} cannot be reached: no answer.") from silent
        except requests.exceptions.Timeout as late:
            raise NoAnswer() from late
        except requests.exceptions.JSONDecodeError as foreign:
            raise foreign_server(place) from foreign
        except requests.exceptions.RequestException as failed:
            if any(isinstance(below, CUT) for below in chain(failed)):
                raise errors.ConnectionLost() from failed
            raise errors.EngineUnavailable(f"{place} cannot be reached: {reason(failed)}.") from failed


def certificates(options: dict[str, str]) -> bool | str:
    """Read from the URL's options how the server's certificate is checked: `ca_file=PATH`, or `verify_ssl=false`."""
    if options.get("verify_ssl", "true").lower() == "false":
        return False
    return options.get("ca_file", True)


def cause_of(refused: InfluxDBClientError | InfluxDBServerError, place: str) -> errors.EngineError:
    """Find the cause that an error text stands for: in the answer's JSON on an HTTP error, bare from a statement."""
    content = refused.content if isinstance(refused, InfluxDBClientError) else str(refused)
    status = refused.code if isinstance(refused, InfluxDBClientError) else 500
    text = content
    if status is not None:
        try:
            text = json.loads(content)["error"]
        except (ValueError, KeyError, TypeError):
            return foreign_server(place)
    for pattern, cause in CAUSES:
        if pattern.search(text):
            return cause(text)
    if isinstance(refused, InfluxDBServerError):
        return errors.EngineUnavailable(f"InfluxDB cannot do this just now: {text}")
    return errors.EngineError(f"InfluxDB refused: {text}")


def foreign_server(place: str) -> errors.EngineUnavailable:
    """Say that something answers there, and that it is not InfluxDB 1.x."""
    return errors.EngineUnavailable(f"{place} does not answer as InfluxDB 1.x does: something else is there.")


def chain(error: BaseException) -> Iterator[BaseException]:
    """Give an error and those below it."""
    below: BaseException | None = error
    while below is not None:
        yield below
        below = below.__cause__ or below.__context__


def reason(error: BaseException) -> str:
    """Say in a few words why there is no connection, from the error below the library's."""
    for below in chain(error):
        if isinstance(below, socket.gaierror):
            return "the host name cannot be resolved"
        if isinstance(below, ssl.SSLCertVerificationError):
            return f"TLS: {below.verify_message}"
        if isinstance(below, ssl.SSLError):
            return f"TLS: {below.reason or 'no handshake'}"
        if isinstance(below, OSError) and below.strerror:
            return below.strerror.lower()
    return "the connection was closed"
