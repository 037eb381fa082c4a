"""A network that cuts a connection in the middle of what is being done, as a failing switch does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class CuttingProxy:
    """Stands before a server and passes everything on, until a request holds one of the pieces of text to cut at."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._lost_requests: list[bytes] = []
        self._lost_answers: list[bytes] = []
        self._once: Callable[[], bool] = lambda: True
        self.port = 0

    def lose_request(self, piece: bytes) -> None:
        """Cut the connection at the next request that holds this, and do not pass it on."""
        self._lost_requests.append(piece)

    def lose_answer(self, piece: bytes, *, once: Callable[[], bool] = lambda: True) -> None:
        """Pass on the next request that holds this, and cut the connection when the server answers.

        once: what must hold by then, as a server may begin to answer before it has done what was asked
        """
        self._lost_answers.append(piece)
        self._once = once

    @property
    def is_done(self) -> bool:
        """Whether everything that was to be lost is."""
        return not self._lost_requests and not self._lost_answers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._server)
        cut_answer = asyncio.Event()

        async def pass_requests_on() -> None:
            while data := await reader.read(65_536):
                if _take(self._lost_requests, data):
                    return
                if _take(self._lost_answers, data):
                    cut_answer.set()
                upstream_writer.write(data)
                await upstream_writer.drain()

        async def pass_answers_on() -> None:
            while data := await upstream_reader.read(65_536):
                if cut_answer.is_set():
                    async with asyncio.timeout(20):
                        while not self._once():  # noqa: ASYNC110 - a server has no event
                            await asyncio.sleep(0.01)
                    return
                writer.write(data)
                await writer.drain()

        ways = [asyncio.create_task(pass_requests_on()), asyncio.create_task(pass_answers_on())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, upstream_writer):
                end.close()


def _take(pieces: list[bytes], data: bytes) -> bool:
    for piece in pieces:
        if piece in data:
            pieces.remove(piece)
            return True
    return False


@asynccontextmanager
async def cutting_proxy(host: str, port: int) -> AsyncIterator[CuttingProxy]:
    """Run a proxy before a server, at 127.0.0.1 and its own port."""
    proxy = CuttingProxy(host, port)
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield proxy
