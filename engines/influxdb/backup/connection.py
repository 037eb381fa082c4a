"""A connection of its own for one dump or restore, used in a thread of its own, so that actions find theirs free."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import msgpack
from influxdb.exceptions import InfluxDBClientError

from engines import errors
from engines.address import Address
from engines.backup import Progress
from engines.influxdb.driver import Client, Rows, cause_of, certificates, foreign_server
from engines.threads import in_own_thread

T = TypeVar("T")

SILENCE_SECONDS = 60.0
"""How long the server may be silent, on a small request or between two pieces of a long answer."""

READ_BYTES = 64 * 1024

HTTP_OK = 200


class Stopped(Exception):
    """Nobody waits for this work any more."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """A piece of a series: rows of the time in nanoseconds and a value, or None, for each of the fields."""

    measurement: str
    tags: dict[str, str]
    fields: list[str]
    rows: list[list[Any]]


class Connection(Client):
    """Runs statements of any length, and reads and writes points in streams."""

    def __init__(self, address: Address, stop: threading.Event, progress: Progress) -> None:
        """Read the address; connects when the first request is sent. `stop` ends the work at its next request."""
        super().__init__(address)
        self.database = address.database
        self._verify = certificates(address.options)
        self.progress = progress
        self._stop = stop

    def ask(self, statement: str) -> Rows:
        """Run a statement that changes nothing.

        Raises: EngineUnavailable, PrivilegeMissing, BackupFailed
        """
        with self._told():
            return self.read(statement, time.monotonic() + SILENCE_SECONDS)

    def tell(self, statement: str) -> None:
        """Run a statement that changes something, once.

        Raises: ConnectionLost, EngineUnavailable, PrivilegeMissing, BackupFailed
        """
        with self._told():
            self.write(statement, time.monotonic() + SILENCE_SECONDS)

    def stream(self, statement: str, chunk: int) -> Iterator[Series]:
        """Run a SELECT and give its rows, `chunk` at a time at most.

        In MessagePack, as JSON does not tell the integer 5 from the float 5.0.

        Raises: as `ask`
        """
        with self._told(), self._until(time.monotonic() + SILENCE_SECONDS):
            answer = self._session.request(
                "POST",
                f"{self._url}/query",
                params={"epoch": "ns", "chunked": "true", "chunk_size": str(chunk)},
                # Not in the URL: a measurement's name and a lot of fields may be long.
                data={"q": statement.encode("utf-8", "surrogateescape")},
                headers={
                    **self._headers,
                    "Accept": "application/x-msgpack",
                    "Content-Type": "application/x-www-form-urlencoded",
                },
                stream=True,
                verify=self._verify,
            )
            with answer:
                unpacker = msgpack.Unpacker(strict_map_key=False, unicode_errors="surrogateescape")
                more = seen = False
                for block in answer.iter_content(READ_BYTES):
                    self.check()
                    unpacker.feed(block)
                    for part in self._parts_of(unpacker):
                        more = yield from self._series_of(part, answer.status_code)
                        seen = True
                if not seen:
                    raise foreign_server(self._url)
                if more:
                    raise errors.ConnectionLost("InfluxDB ended its answer before its end.")

    def _parts_of(self, unpacker: msgpack.Unpacker) -> Generator[dict[str, Any]]:
        """Give the pieces of an answer that are whole; what is none of InfluxDB's is of something before it."""
        try:
            for part in unpacker:
                if not isinstance(part, dict):
                    raise foreign_server(self._url)
                yield cast(dict[str, Any], part)
        except ValueError as foreign:
            raise foreign_server(self._url) from foreign

    def _series_of(self, part: dict[str, Any], status: int) -> Generator[Series, None, bool]:
        """Give what is in one piece of an answer, and whether it says that another follows."""
        results: list[dict[str, Any]] = part.get("results", [])
        said = part.get("error") or next((each["error"] for each in results if "error" in each), None)
        if said is not None or status != HTTP_OK:
            raise cause_of(InfluxDBClientError(json.dumps({"error": said or "no text"}), status), self._url)
        for result in results:
            for series in result.get("series", []):
                yield Series(
                    measurement=series["name"],
                    tags=series.get("tags", {}),
                    fields=series["columns"][1:],
                    rows=series.get("values", []),
                )
        return any(result.get("partial", False) for result in results)

    def write_points(self, place: tuple[str, str], lines: bytes) -> None:
        """Write points in line protocol; doing it again changes nothing.

        Raises: BackupFailed, when the server did not take each of them; EngineUnavailable, PrivilegeMissing
        """
        database, policy = place
        with self._told(), self._until(time.monotonic() + SILENCE_SECONDS):
            self._driver.request(
                "write",
                "POST",
                params={"db": database, "rp": policy, "precision": "ns"},
                data=lines,
                expected_response_code=204,
            )

    def check(self) -> None:
        """Raises: Stopped, when nobody waits any more."""
        if self._stop.is_set():
            raise Stopped

    @contextmanager
    def going_on(self) -> Generator[None]:
        """Let what is inside be done although nobody waits any more."""
        stop, self._stop = self._stop, threading.Event()
        try:
            yield
        finally:
            self._stop = stop

    @contextmanager
    def _told(self) -> Generator[None]:
        """Tell what fails in a backup's words."""
        self.check()
        try:
            yield
        except (errors.EngineUnavailable, errors.PrivilegeMissing, errors.BackupFailed):
            raise
        except errors.DeadlineExceeded as late:
            raise errors.EngineUnavailable(f"InfluxDB did not answer in time: {late.message}") from late
        except errors.EngineError as refused:
            raise errors.BackupFailed(refused.message) from refused


async def in_thread(address: Address, progress: Progress, work: Callable[[Connection], T]) -> T:
    """Let a thread do this with a connection. When the waiting task is cancelled the work ends first.

    Raises: what `work` raises
    """
    stop = threading.Event()
    loop = asyncio.get_running_loop()

    def tell(percent: float, words: str) -> None:
        loop.call_soon_threadsafe(progress, percent, words)

    def run() -> T:
        connection = Connection(address, stop, tell)
        try:
            return work(connection)
        finally:
            connection.close()

    done = asyncio.ensure_future(in_own_thread(run))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        stop.set()
        with suppress(Stopped):
            await done
        raise
