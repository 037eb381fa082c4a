"""A network in which something happens at the very moment a statement passes; it runs in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Trap:
    """What happens at the next request that holds a piece of text."""

    statement: bytes
    after: int = 0
    """How many requests later it happens: PostgreSQL's statements are prepared first, and executed by name."""
    before: Callable[[], object] | None = None
    """Done before the request is passed on."""
    then: Callable[[], object] | None = None
    """Done once it is passed on; the answer is lost."""
    loses_answer: bool = False
    """Whether the connection is cut when the server answers."""
    sprung: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Stands before a server at 127.0.0.1 and a port of its own, and passes everything on."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._trap: Trap | None = None
        self.abandoned = 0
        """Connections that the client has left and the server has not: it may still be at work for them."""
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._listener = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result(10)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def set(self, trap: Trap) -> Trap:
        """Lay a trap. Connections that are open are cut, so that nothing is prepared on any."""
        self.cut_all()
        self._trap = trap
        return trap

    def forget(self) -> None:
        """Take away a trap that nothing has met."""
        self._trap = None

    def cut_all(self) -> None:
        """Cut every connection."""

        async def cut() -> None:
            for client in self._clients:
                client.transport.abort()

        asyncio.run_coroutine_threadsafe(cut(), self._loop).result(10)

    async def _close(self) -> None:
        assert self._listener is not None
        self._listener.close()
        for end in self._ends:
            end.transport.abort()
        work = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*work, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(*self._server)
        except OSError:
            writer.close()
            return
        self._clients.add(writer)
        self._ends |= {writer, to_server}
        wire = _Wire(reader, writer, from_server, to_server)
        answers = asyncio.create_task(wire.pass_answers_on())
        requests = asyncio.create_task(self._pass_requests_on(wire))
        try:
            await asyncio.wait((answers, requests), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._clients.discard(writer)
            answers.cancel()
        await asyncio.gather(answers, return_exceptions=True)
        if wire.is_lost:
            writer.transport.abort()
        else:
            writer.close()
        await requests
        self.abandoned += 1
        try:
            with suppress(OSError):
                to_server.write_eof()
                # The server has read and done everything before it meets the end.
                while await from_server.read(65_536):
                    pass
        finally:
            self.abandoned -= 1
            self._ends -= {writer, to_server}
            to_server.close()

    async def _pass_requests_on(self, wire: "_Wire") -> None:
        countdown: int | None = None
        with suppress(OSError):
            while data := await wire.reader.read(65_536):
                trap = self._trap
                if trap is not None:
                    if countdown is not None:
                        countdown -= 1
                    elif trap.statement in data:
                        countdown = trap.after
                    if countdown == 0:
                        self._trap = countdown = None
                        await self._spring(trap, wire, data)
                        continue
                wire.to_server.write(data)
                await wire.to_server.drain()

    async def _spring(self, trap: Trap, wire: "_Wire", data: bytes) -> None:
        if trap.before is not None:
            await asyncio.to_thread(trap.before)
        wire.is_lost = trap.loses_answer or trap.then is not None
        if trap.then is not None:
            wire.may_answer.clear()
        wire.to_server.write(data)
        await wire.to_server.drain()
        if trap.then is not None:
            await asyncio.to_thread(trap.then)
        trap.sprung.set()
        wire.may_answer.set()


class _Wire:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        self.reader, self.writer = reader, writer
        self.from_server, self.to_server = from_server, to_server
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_lost = False

    async def pass_answers_on(self) -> None:
        with suppress(OSError):
            while data := await self.from_server.read(65_536):
                await self.may_answer.wait()
                if self.is_lost:
                    return
                self.writer.write(data)
                await self.writer.drain()
