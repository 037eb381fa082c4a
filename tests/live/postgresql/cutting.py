"""A wire to PostgreSQL that breaks once, at the worst moment: the server got the statement, nobody gets its answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.live.servers import LiveServer


class CuttingWire:
    """Passes everything on, but for one answer: that to what is sent after the statement that holds `marker`.

    A statement is prepared first, so what comes next is the order to execute it.
    """

    def __init__(self, live: LiveServer, marker: bytes) -> None:
        self._live = live
        self._marker = marker
        self._prepared = False
        self._executed = False
        self.cuts = 0
        self.port = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(self._live.host, self._live.port)
        answers = asyncio.create_task(self._answer(from_server, writer))
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                self._executed = self._prepared and not self.cuts
                self._prepared = self._prepared or self._marker in data
                to_server.write(data)
        to_server.close()
        await answers

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if self._executed and not self.cuts:
                    self.cuts += 1
                    break
                writer.write(data)
        writer.transport.abort()


@asynccontextmanager
async def cutting_wire(live: LiveServer, marker: bytes) -> AsyncIterator[CuttingWire]:
    """Listen on a port of this machine as if it were PostgreSQL."""
    wire = CuttingWire(live, marker)
    listener = await asyncio.start_server(wire.carry, "127.0.0.1", 0)
    wire.port = listener.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        listener.close()
