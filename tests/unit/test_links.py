"""Links that carry no token: good as long as the token that asked for them is, and no longer."""

import hashlib
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agent import kept_tokens
from agent import links as links_module
from agent.admission import Admission
from agent.api import logs
from agent.kept_tokens import KeptToken, KeptTokens, Value
from agent.limits import Limits
from agent.log import make_log
from agent.roles import Role
from agent.settings_tokens import LimitSettings
from engines.action import Effect
from tests.fakes.service import TOKENS, URL, Valet, listening, running, until
from tests.planted import IDS, plant

MANY_TIMES = 0.01
SECRET = "token-of-a-temporary-one-0123456789"
BY_IT, BY_ADMIN = ({"Authorization": f"Bearer {token}"} for token in (SECRET, TOKENS["admin"]))
LOGS, ARCHIVE = "/api/databases/ad-one/logs", f"/api/databases/ad-one/backups/{IDS['backup_id']}/archive"


@pytest.fixture
async def valet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Valet]:
    monkeypatch.setattr(kept_tokens, "LOOK_SECONDS", MANY_TIMES)
    monkeypatch.setattr(logs, "LOOK_SECONDS", MANY_TIMES)
    file = tmp_path / "engine.log"
    file.write_text("2026-01-31 08:00:00 UTC LOG:  before\n")
    databases = [{"id": "ad-one", "url": URL, "log_file": str(file)}, {"id": "ad-two", "url": URL}]
    async with running(databases=databases, state=f"sqlite:///{tmp_path}/state.db") as valet:
        await plant(valet)
        yield valet


def tokens_of(valet: Valet) -> KeptTokens:
    return KeptTokens(valet.service.state, make_log(stream=io.BytesIO()))


async def made(valet: Valet, expires_at: int | None = None, **changes: Any) -> None:
    """Make a token, or make it anew with other rights."""
    value = Value(sha256=hashlib.sha256(SECRET.encode()).hexdigest(), made_at=0, expires_at=expires_at)
    token = {"role": Role.OPERATOR, "databases": ("*",), "allow": None, "deny": (), **changes}
    if any(each.name == "temporary" for each in (await tokens_of(valet).all()).tokens):
        await tokens_of(valet).revoke("temporary")
    await tokens_of(valet).add(KeptToken(name="temporary", values=(value,), **token))
    await until(lambda: valet.service.tokens._by_fingerprint.get(fingerprint()))


def fingerprint() -> str:
    return hashlib.sha256(b"fingerprint" + hashlib.sha256(SECRET.encode()).digest()).hexdigest()[:16]


async def links(valet: Valet, headers: dict[str, str] = BY_IT) -> list[str]:
    log, archive = [await valet.client.get(path, headers=headers) for path in (LOGS, ARCHIVE)]
    return [log.json()["url"], archive.json()["download_url"]]


async def becomes(status: int, valet: Valet, urls: list[str]) -> None:
    async def all_are() -> bool:
        return [(await valet.client.get(each)).status_code for each in urls] == [status] * len(urls)

    ends_at = time.monotonic() + 10
    while not await all_are():
        assert time.monotonic() < ends_at


Taking = Callable[[Valet], Awaitable[None]]


@pytest.mark.parametrize(
    "taken_away",
    [
        lambda valet: tokens_of(valet).revoke("temporary"),
        lambda valet: made(valet, role=Role.READER),
        lambda valet: made(valet, databases=("ad-two",)),
        lambda valet: made(valet, deny=("read-logs", "download-backup")),
    ],
    ids=["revoked", "role", "scope", "denied"],
)
async def test_links_end_with_the_right_of_the_token_that_asked_for_them(valet: Valet, taken_away: Taking) -> None:
    await made(valet)
    short = (await valet.client.post("/v1/tokens/exchange", auth=("", SECRET))).json()["token"]
    urls = [*await links(valet), *await links(valet, {"Authorization": f"Bearer {short}"})]
    await becomes(200, valet, urls)
    of_admin = [(await valet.ask("GET", LOGS)).json()["url"]]
    await taken_away(valet)
    await becomes(403, valet, urls)
    refused = await valet.client.get(urls[0])
    assert refused.json()["code"] == "forbidden"
    await becomes(200, valet, of_admin)


async def test_links_end_with_the_time_of_the_token_that_asked_for_them(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = int(time.time()) + 600
    await made(valet, ends)
    urls = await links(valet)
    assert f"token={ends}." in urls[0]
    assert f"expires={ends}&" in urls[1]
    for now, status in ((ends - 1, 200), (ends, 403)):
        monkeypatch.setattr(links_module, "time", SimpleNamespace(time=lambda now=now: now))
        await becomes(status, valet, urls)


async def test_what_is_switched_off_for_a_database_is_not_to_be_had_by_an_old_link(valet: Valet) -> None:
    urls = [(await valet.ask("GET", LOGS)).json()["url"]]
    await becomes(200, valet, urls)
    valet.database().disabled_actions = frozenset({"read-logs"})
    await becomes(403, valet, urls)


async def test_who_follows_a_log_is_let_go_when_the_token_is_revoked(valet: Valet) -> None:
    await made(valet)
    async with listening(valet) as port:
        (url, _) = await links(valet)
        async with connect(url.replace("http://dbvalet", f"ws://127.0.0.1:{port}")) as socket:
            await tokens_of(valet).revoke("temporary")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
    assert closed.value.rcvd is not None
    told = (closed.value.rcvd.code, closed.value.rcvd.reason)
    assert told == (1008, "the token of the link does not allow it any more")
    await until(lambda: valet.service.followers.count() == 0)


@pytest.mark.parametrize("which", [0, 1])
async def test_what_a_link_is_used_for_is_counted_as_a_read_of_its_token(valet: Valet, which: int) -> None:
    await made(valet)
    url, of_admin = (await links(valet))[which], (await links(valet, BY_ADMIN))[which]
    valet.service.limits = Limits(LimitSettings(read="2/hour"))
    assert [(await valet.client.get(url)).status_code for _ in range(4)] == [200, 200, 429, 429]
    assert (await valet.client.get("/api/databases", headers=BY_IT)).status_code == 429
    if which == 0:
        async with listening(valet) as port:
            with pytest.raises(InvalidStatus) as refused:
                async with connect(url.replace("http://dbvalet", f"ws://127.0.0.1:{port}")):
                    pass
        assert refused.value.response.status_code == 429
        assert "Retry-After" in refused.value.response.headers
    assert (await valet.client.get(of_admin)).status_code == 200


async def test_a_log_is_read_by_no_more_than_may_be_at_work_on_its_database(valet: Valet) -> None:
    (url, _) = await links(valet, BY_ADMIN)
    valet.database()._reads = Admission(1, lambda: False)
    with valet.database().admitted(Effect.READ):
        shed = await valet.client.get(url)
    assert (shed.status_code, shed.json()["code"]) == (503, "overloaded")
    assert (await valet.client.get(url)).status_code == 200


async def test_a_link_is_not_good_for_another_task_or_token(valet: Valet) -> None:
    await made(valet)
    _, archive = await links(valet)
    of_admin = (await valet.ask("GET", ARCHIVE)).json()["download_url"]
    by_it, by_admin = (each.rpartition("signature=")[2] for each in (archive, of_admin))
    mixed = archive.replace(by_it, f"{by_admin.partition('.')[0]}.{by_it.partition('.')[2]}")
    assert mixed != archive
    expires = archive.partition("expires=")[2].partition("&")[0]
    as_log = f"/api/logs/ad-one?token={expires}.{by_it}&timestamp=0"
    await becomes(403, valet, [mixed, as_log])
