"""Everything that touches pymongo: the client, the deadline of each command, and what its errors mean.

Codes: https://github.com/mongodb/mongo/blob/v6.0/src/mongo/base/error_codes.yml
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from engines import deadline, errors
from engines.address import Address
from engines.engine import PoolUse
from engines.lean import without

# Without service_identity pymongo cannot use PyOpenSSL, and has read all about certificates when it finds that: 3 MiB.
_NOT_USED = () if find_spec("service_identity") else ("cryptography.x509",)
with without(*_NOT_USED):
    from pymongo import AsyncMongoClient
    from pymongo import errors as driver_errors
    from pymongo.monitoring import (
        ConnectionCheckedInEvent,
        ConnectionCheckedOutEvent,
        ConnectionCheckOutFailedEvent,
        ConnectionCheckOutStartedEvent,
        ConnectionClosedEvent,
        ConnectionCreatedEvent,
        ConnectionPoolListener,
        ConnectionReadyEvent,
        PoolClearedEvent,
        PoolClosedEvent,
        PoolCreatedEvent,
    )
    from pymongo.read_preferences import ReadPreference

CONNECT_SECONDS = 3.0

GRACE = deadline.GRACE / 3
"""Seconds that an answer may be later than maxTimeMS: the server looks at its clock between two steps of the work."""

UNKNOWN = "Whether it was done is not known; look before trying again."

CAUSES: dict[int, Callable[[str], errors.EngineError]] = {
    # UnknownError: what the storage below it failed with, such as a full disk.
    8: lambda text: errors.EngineUnavailable(f"MongoDB cannot do this just now: {text}"),
    11: lambda _: errors.UserNotFound(),
    13: lambda text: errors.PrivilegeMissing(f"MongoDB refused: {text}"),
    18: lambda _: errors.EngineUnavailable("MongoDB refuses the account: wrong user, password or authSource."),
    20: lambda text: IllegalOperation(f"MongoDB refused: {text}"),
    24: lambda _: errors.DeadlineExceeded("MongoDB waited for a lock until the time was up, and stopped."),
    26: lambda _: NamespaceNotFound(),
    48: lambda _: errors.AlreadyExists(),
    50: lambda _: errors.DeadlineExceeded("The time for this action is up; MongoDB stopped what it was doing."),
    73: lambda text: errors.InvalidParams({"database_name": [f"MongoDB does not take it: {text}"]}),
    112: lambda _: errors.Conflict("MongoDB met another change at the same time; try again."),
    117: lambda _: errors.Conflict("Another operation on this logical database is in progress."),
    215: lambda _: errors.Conflict("This logical database is being dropped just now."),
    262: lambda _: errors.DeadlineExceeded("The time for this action is up; MongoDB stopped what it was doing."),
    11601: lambda _: errors.Conflict("An administrator stopped the operation (killOp)."),
    12587: lambda _: errors.Conflict("An index is being built in this logical database; try again when it is done."),
    12586: lambda _: errors.Conflict("An index is being built in this logical database; try again when it is done."),
    14031: lambda text: errors.EngineUnavailable(f"MongoDB cannot do this just now: {text}"),  # OutOfDiskSpace
    13297: lambda _: errors.AlreadyExists("This name differs from an existing one only in case."),
    51003: lambda _: errors.AlreadyExists(),  # a user
}


class NoAnswer(errors.DeadlineExceeded):
    """The time for this action is up and MongoDB does not answer."""


class NoServer(errors.EngineUnavailable):
    """The time for this action is up and no server is known that would take it."""


class NotOnMost(errors.EngineUnavailable):
    """A write that the primary did, of which it did not hear in time that most members of its replica set have it.

    No ConnectionLost, as a look at the primary would show it as done.
    """


class NamespaceNotFound(errors.NotFound):
    """The collection or logical database is not there (any more)."""


class IllegalOperation(errors.Conflict):
    """MongoDB never does this to a collection of this kind."""


class Connections(ConnectionPoolListener):
    """Counts the connections of one client, monitoring ones left out, from what the driver tells."""

    def __init__(self) -> None:
        self.open = 0
        self.in_use = 0

    def connection_created(self, event: ConnectionCreatedEvent) -> None:
        self.open += 1

    def connection_closed(self, event: ConnectionClosedEvent) -> None:
        self.open -= 1

    def connection_checked_out(self, event: ConnectionCheckedOutEvent) -> None:
        self.in_use += 1

    def connection_checked_in(self, event: ConnectionCheckedInEvent) -> None:
        self.in_use -= 1

    def connection_ready(self, event: ConnectionReadyEvent) -> None:
        """Change nothing."""

    def connection_check_out_started(self, event: ConnectionCheckOutStartedEvent) -> None:
        """Change nothing."""

    def connection_check_out_failed(self, event: ConnectionCheckOutFailedEvent) -> None:
        """Change nothing."""

    def pool_created(self, event: PoolCreatedEvent) -> None:
        """Change nothing."""

    def pool_ready(self, event: Any) -> None:
        """Change nothing."""

    def pool_cleared(self, event: PoolClearedEvent) -> None:
        """Change nothing."""

    def pool_closed(self, event: PoolClosedEvent) -> None:
        """Change nothing."""


class Client:
    """One AsyncMongoClient with dbvalet's limits, whatever the URL says of them."""

    def __init__(self, address: Address, connections: int) -> None:
        """Read the URL; connects when the first command is sent.

        Raises: EngineUnavailable, when the driver cannot read the URL
        """
        self._address = address
        self._limit = connections
        self._connections = Connections()
        try:
            self._mongo = AsyncMongoClient[dict[str, Any]](
                address.url,
                appname="dbvalet",
                tz_aware=True,
                maxPoolSize=connections,
                minPoolSize=0,
                connectTimeoutMS=int(CONNECT_SECONDS * 1000),
                serverSelectionTimeoutMS=int(CONNECT_SECONDS * 1000),
                waitQueueTimeoutMS=int(CONNECT_SECONDS * 1000),
                # One connection for monitoring instead of two. A restart or a new primary is then noticed when a
                # command meets it, and a read that does is sent again.
                serverMonitoringMode="poll",
                event_listeners=[self._connections],
            )
        except (driver_errors.PyMongoError, ValueError, TypeError):
            # The driver's text may quote a piece of the URL, and so of the password.
            raise errors.EngineUnavailable(
                "The driver cannot read the URL of this database: user name and password must be %-encoded, and each "
                "option one of https://www.mongodb.com/docs/manual/reference/connection-string-options/."
            ) from None

    async def read(self, database: str, command: dict[str, Any]) -> dict[str, Any]:
        """Run a command that changes nothing; on a kept connection that was cut meanwhile, once more on a new one.

        Raises: EngineUnavailable, DeadlineExceeded, PrivilegeMissing and what stands in CAUSES
        """
        try:
            return await self._command(database, command)
        except errors.ConnectionLost:
            return await self._command(database, command)

    async def write(self, database: str, command: dict[str, Any]) -> dict[str, Any]:
        """Run a command that changes something, once.

        Raises: ConnectionLost, when it may or may not have been done; NotOnMost; and as `read`
        """
        # Without this a server that is killed within the next 100 ms forgets what it acknowledged. With it the answer
        # comes after the journal is on disk, and in a replica set after most members have it.
        durable = {"w": "majority", "wtimeout": max(int(deadline.remaining() * 1000), 1)}
        try:
            reply = await self._command(database, {**command, "writeConcern": durable})
        except NoAnswer as silent:
            raise errors.DeadlineExceeded(f"{silent.message} {UNKNOWN}") from silent
        except NoServer as gone:
            # The monitor may have given up a server that had the command already.
            raise errors.ConnectionLost(f"{gone.message} {UNKNOWN}") from gone
        # The driver raises none of these for a command, as the reply says `ok: 1`.
        for refused in reply.get("writeErrors", []):
            with self._named_causes():
                raise driver_errors.OperationFailure(refused["errmsg"], refused["code"], refused)
        refuse_late(reply)
        return reply

    async def _command(self, database: str, command: dict[str, Any]) -> dict[str, Any]:
        """Run one command on the primary, stopped by the server itself when the deadline has passed.

        maxTimeMS covers every command used here, waiting for locks included; killOp would set the same flag on the
        operation, so it could stop nothing more.
        """
        seconds = deadline.remaining()
        try:
            with self._named_causes():
                async with asyncio.timeout(seconds + GRACE):
                    return await self._mongo[database].command(
                        {**command, "maxTimeMS": max(int(seconds * 1000), 1)},
                        read_preference=ReadPreference.PRIMARY,
                        codec_options=self._mongo.codec_options,
                    )
        except TimeoutError:
            # With a deadline below that of the driver for finding a server, this one is the first to pass.
            if not self._mongo.topology_description.has_writable_server():
                raise NoServer(self._unreachable("no server was found")) from None
            raise NoAnswer() from None

    def pool_use(self) -> PoolUse:
        """Count connections without waiting."""
        return PoolUse(open=self._connections.open, in_use=self._connections.in_use, limit=self._limit)

    async def close(self) -> None:
        """Close every connection."""
        await self._mongo.close()

    @contextmanager
    def _named_causes(self) -> Generator[None]:
        """Turn the driver's errors into those of `engines.errors`."""
        try:
            yield
        except driver_errors.ServerSelectionTimeoutError as unreachable:
            raise errors.EngineUnavailable(
                self._unreachable(str(unreachable).partition(", Timeout:")[0])
            ) from unreachable
        except driver_errors.WaitQueueTimeoutError as busy:
            raise errors.EngineUnavailable(f"All {self._limit} connections to MongoDB are in use.") from busy
        except driver_errors.NotPrimaryError as moved:
            raise errors.ConnectionLost(
                "This member of the replica set is not its primary, or shuts down: whether it was done is not known."
            ) from moved
        except driver_errors.NetworkTimeout as frozen:
            # No socketTimeoutMS is set, so this is a connection being made.
            raise errors.EngineUnavailable(f"MongoDB at {self._place} does not answer.") from frozen
        except driver_errors.AutoReconnect as cut:
            raise errors.ConnectionLost() from cut
        except driver_errors.OperationFailure as refused:
            cause = CAUSES.get(refused.code or 0)
            if cause is None:
                raise
            raise cause(text_of(refused)) from refused
        except driver_errors.ConfigurationError as unusable:
            # Known only once the server was asked: its version is too old for the driver, or too new.
            raise errors.EngineUnavailable(f"MongoDB at {self._place} cannot be used: {unusable}.") from unusable

    @property
    def _place(self) -> str:
        return f"{self._address.host}:{self._address.port}"

    def _unreachable(self, text: str) -> str:
        """Say why no server could be selected: what the driver met last at one, or its own text."""
        for (host, port), server in self._mongo.topology_description.server_descriptions().items():
            if server.error is not None:
                return f"MongoDB at {host}:{port} cannot be reached: {reason(server.error)}."
        return f"MongoDB at {self._place} cannot be used: {text}."


def refuse_late(reply: Mapping[str, Any]) -> None:
    """Refuse to take a write for done that may be on the primary alone.

    Raises: NotOnMost
    """
    if late := reply.get("writeConcernError"):
        raise NotOnMost(
            "It was done on the primary, and is not known to be on most members of the replica set, so it is lost "
            f"if another becomes primary: {late.get('errmsg', 'no text')}. Look before trying again."
        )


def text_of(refused: driver_errors.OperationFailure) -> str:
    """Give the server's own text, without the reply that the driver appends to it."""
    details = refused.details or {}
    return str(details.get("errmsg", "no text"))


def reason(error: Exception) -> str:
    """Say in a few words why a connection could not be made. The driver keeps of the error below its own the text."""
    text = str(error).partition(" (configured timeouts")[0]
    number = re.search(r"\[Errno (-?[0-9]+)\]", text)
    if number is not None and int(number[1]) > 0:
        return os.strerror(int(number[1])).lower()
    if number is not None:
        # The numbers of getaddrinfo are negative.
        return "the host name cannot be resolved"
    if "SSL handshake failed" in text or "certificate verify failed" in text:
        detail = text.partition("] ")[2].partition(" (_ssl")[0]
        return f"TLS: {detail or 'the handshake failed'}"
    if isinstance(error, driver_errors.NetworkTimeout):
        return "no answer"
    return "the connection was closed"
