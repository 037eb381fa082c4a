"""A log that is followed: a web socket, opened in the way of the command-line client, on a service that listens."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agent import followers, links
from agent.api import logs
from agent.followers import MOST_FOLLOWERS, WINDOW, added
from agent.logs import ShownLine
from engines.errors import DeadlineExceeded
from tests.fakes.driver import Gate
from tests.fakes.service import URL, Valet, listening, running, until

ROOT = Path(__file__).parents[2]
NOW = datetime.fromisoformat("2026-01-31T08:00:00Z")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "EVERY_SECONDS", 0.02)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "engine.log"
    path.write_text("2026-01-31 08:00:00 UTC LOG:  before\n")
    return path


@pytest.fixture
async def valet(file: Path) -> AsyncIterator[Valet]:
    databases = [{"id": "ad-one", "url": URL, "log_file": str(file)}, {"id": "ad-two", "url": URL}]
    async with running(databases=databases) as valet:
        yield valet


def write(path: Path, *texts: str) -> None:
    with path.open("a") as log:
        log.writelines(f"2026-01-31 08:00:01 UTC LOG:  {each}\n" for each in texts)


def rotate(path: Path) -> None:
    path.rename(path.with_name("engine.log.1"))


async def link(valet: Valet, port: int) -> str:
    url: str = (await valet.ask("GET", "/api/databases/ad-one/logs")).json()["url"]
    return url.replace("http://dbvalet", f"ws://127.0.0.1:{port}") + "&stream=true"


async def frame(socket: ClientConnection) -> Any:
    async with asyncio.timeout(10):
        return json.loads(await socket.recv())


async def test_new_lines_come_as_frames_that_the_client_decodes(valet: Valet, file: Path) -> None:
    async with listening(valet) as port, connect(await link(valet, port)) as socket:
        write(file, "one", "CREATE ROLE x PASSWORD 'planted'")
        first, second = await frame(socket), await frame(socket)
        assert first == {
            "event": "log",
            "log": "2026-01-31 08:00:01.000000000 +0000 UTC [fake] LOG: one",
            "timestamp": "2026-01-31T08:00:01Z",
        }
        assert second["log"].endswith("CREATE ROLE x PASSWORD [secret]")


async def test_a_rotation_and_a_pause_lose_nothing_and_repeat_nothing(valet: Valet, file: Path) -> None:
    async with listening(valet) as port, connect(await link(valet, port)) as socket:
        write(file, "one")
        assert (await frame(socket))["log"].endswith("one")
        write(file, "two")
        rotate(file)
        write(file, "three")
        assert [(await frame(socket))["log"].rpartition(" ")[2] for _ in range(2)] == ["two", "three"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await socket.recv()


async def test_a_bug_while_reading_is_logged_and_the_following_goes_on(
    valet: Valet, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(valet) as port, connect(await link(valet, port)) as socket:
        with monkeypatch.context() as patched:
            patched.setattr(followers, "added", None)
            await until(lambda: valet.lines("bug"))
        write(file, "after")
        assert (await frame(socket))["log"].endswith("after")


async def test_no_more_lines_are_compared_than_the_window_has(
    valet: Valet, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []

    def counted(before: list[ShownLine], now: list[ShownLine]) -> list[ShownLine]:
        compared.extend([len(before), len(now)])
        return added(before, now)

    write(file, *["x"] * 3 * WINDOW)
    monkeypatch.setattr(followers, "added", counted)
    async with listening(valet) as port, connect(await link(valet, port)) as socket:
        write(file, "after")
        assert (await frame(socket))["log"].endswith("after")
    assert max(compared) == WINDOW


async def test_a_filter_is_for_the_lines_that_come_too(valet: Valet, file: Path) -> None:
    async with listening(valet) as port, connect(await link(valet, port) + "&filter=wanted") as socket:
        write(file, "other", "wanted")
        assert (await frame(socket))["log"].endswith("wanted")


async def test_a_changed_link_is_refused_before_anything_is_read(valet: Valet) -> None:
    async with listening(valet) as port:
        url = await link(valet, port)
        for changed in (url.replace("token=", "token=0"), url.replace("ad-one", "ad-two"), url.partition("?")[0]):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(changed):
                    pass
            assert refused.value.response.status_code == 403
            assert json.loads(refused.value.response.body)["code"] == "forbidden"
    assert valet.service.followers.count() == 0


async def test_a_log_that_cannot_be_read_is_told_to_who_would_follow_it(valet: Valet, file: Path) -> None:
    async with listening(valet) as port:
        url = await link(valet, port)
        rotate(file)
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url):
                pass
    assert refused.value.response.status_code == 409
    assert "`log_file`" in json.loads(refused.value.response.body)["error"]


async def test_it_ends_with_the_time_of_the_link(valet: Valet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "LINK_SECONDS", 3)
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0.02)
    async with listening(valet) as port:
        url = await link(valet, port)
        async with connect(url) as socket, asyncio.timeout(10):
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "the link has expired: ask for a new one")
        with pytest.raises(InvalidStatus):
            async with connect(url):
                pass


async def test_only_so_many_follow_one_log_and_it_is_read_once_for_all(valet: Valet, file: Path) -> None:
    async with listening(valet) as port:
        url = await link(valet, port)
        sockets = [await connect(url) for _ in range(MOST_FOLLOWERS)]
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url):
                pass
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["Retry-After"]
        assert valet.service.followers.count() == 1
        write(file, "for all")
        assert [(await frame(each))["log"][-7:] for each in sockets] == ["for all"] * MOST_FOLLOWERS
        await sockets.pop().close()
        async with asyncio.timeout(10):
            while True:
                try:
                    sockets.append(await connect(url))
                    break
                except InvalidStatus:
                    await asyncio.sleep(0.01)
        for each in sockets:
            await each.close()
        await until(lambda: valet.service.followers.count() == 0)


async def test_nothing_is_read_once_nobody_follows_any_more(
    valet: Valet, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(valet) as port:
        async with connect(await link(valet, port)) as socket:
            write(file, "one")
            await frame(socket)
        await until(lambda: valet.service.followers.count() == 0)
        await asyncio.sleep(0.05)  # what was under way then
        reads: list[Any] = []
        monkeypatch.setattr("agent.logs.end_of_file", lambda *given: reads.append(given))
        await asyncio.sleep(0.2)
        assert reads == []


async def test_who_would_follow_a_frozen_engine_keeps_nobody_from_another_log(valet: Valet, file: Path) -> None:
    following = valet.service.followers.following
    gate = valet.server("ad-two").gate = Gate()

    async def follow_the_frozen() -> None:
        async with following(valet.database("ad-two")):
            pass

    async with asyncio.TaskGroup() as frozen:
        for _ in range(2):
            frozen.create_task(follow_the_frozen())
        await until(lambda: gate.waiting)
        async with asyncio.timeout(2), following(valet.database("ad-one")) as follower:
            write(file, "one")
            assert (await follower.lines.get()).text.endswith("one")
        assert gate.waiting == 1  # of those who wait for one log, one reads it
        gate.open.set()
    assert valet.service.followers.count() == 0


async def test_of_many_who_would_follow_a_frozen_engine_none_waits_longer_than_the_first(
    valet: Valet, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "JOIN_SECONDS", 0.0)
    monkeypatch.setattr("agent.logs.SECONDS", 60)
    gate = valet.server("ad-two").gate = Gate()

    async def follow_the_frozen() -> None:
        with pytest.raises(DeadlineExceeded, match="The log was not read in time"):
            async with valet.service.followers.following(valet.database("ad-two")):
                pass

    async with asyncio.timeout(20):
        await asyncio.gather(*(follow_the_frozen() for _ in range(20)))
    assert gate.waiting == 0
    assert valet.service.followers.count() == 0
    gate.open.set()
    async with valet.service.followers.following(valet.database("ad-two")):
        assert valet.service.followers.count() == 1


async def test_one_who_takes_nothing_is_let_go_and_the_others_go_on(
    valet: Valet, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "MOST_WAITING", 1)
    async with listening(valet) as port, connect(await link(valet, port)) as socket:
        write(file, *(f"line {number}" for number in range(50)))
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(10):
                while True:
                    await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


async def test_elsewhere_there_is_no_web_socket(valet: Valet) -> None:
    async with listening(valet) as port:
        for path, status in (("/livez", 200), ("/api/databases/ad-one/logs", 401), ("/api/nothing", 404)):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(f"ws://127.0.0.1:{port}{path}"):
                    pass
            assert refused.value.response.status_code == status
    assert [line for line in valet.lines() if line["level"] == "error"] == []


async def test_what_a_follower_sends_is_not_looked_at(valet: Valet, file: Path) -> None:
    async with listening(valet) as port, connect(await link(valet, port)) as socket:
        await socket.send("anything")
        write(file, "one")
        assert (await frame(socket))["log"].endswith("one")
    assert [line for line in valet.lines() if line["level"] == "error"] == []


def lines(*texts: str) -> list[ShownLine]:
    return [ShownLine(at=NOW, text=each) for each in texts]


def test_what_is_new_is_what_stands_behind_the_last_that_was_seen() -> None:
    assert added(lines("a", "b"), lines("a", "b", "c", "d")) == lines("c", "d")
    assert added(lines("a", "b", "c"), lines("b", "c", "d")) == lines("d")
    assert added(lines("a", "x", "b", "x"), lines("b", "x", "c")) == lines("c")
    assert added(lines("a", "b"), lines("a", "b")) == []
    assert added(lines("a"), lines("c")) == lines("c")
    assert added([], lines("a")) == lines("a")


async def test_a_follower_that_goes_without_a_goodbye_is_no_error(valet: Valet, file: Path) -> None:
    async with listening(valet) as port:
        socket = await connect(await link(valet, port))
        write(file, "one")
        await frame(socket)
        socket.transport.abort()
        write(file, *(f"line {number}" for number in range(500)))
        await until(lambda: valet.service.followers.count() == 0)
    assert [line for line in valet.lines() if line["level"] in ("warning", "error")] == []
    assert [line["database"] for line in valet.lines("log_followed")] == ["ad-one"]


def test_the_library_of_web_sockets_is_not_imported_before_somebody_follows() -> None:
    code = "import sys, agent.app, agent.listen, agent.api.protocol; print('websockets' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout == "False\n"
