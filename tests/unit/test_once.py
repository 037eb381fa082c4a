"""`Idempotency-Key`: once for all requests with a key, whatever becomes of the answer."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from errno import EIO
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from agent import dispatch, once
from agent.api import backups as backups_api
from agent.api import databases, features, users
from agent.api import operations as operations_api
from agent.asked import Asked, fingerprint_of
from agent.audit.line import Change
from agent.backups import backups
from agent.backups.backups import DatabaseBackups
from agent.backups.storage import Storage
from agent.choices import AllChoices
from agent.errors import AnswerUnknown, KeyInProgress, StateFailed, StateUnavailable
from agent.operations import keeper
from agent.operations.runner import Operations
from agent.state.state import State
from engines.aftermath import AS_ASKED, Goal, Verdict, judge
from engines.errors import (
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    InvalidParams,
    Precondition,
    PrivilegeMissing,
    Protected,
)
from engines.users import User
from tests.fakes.driver import Gate
from tests.fakes.health import FakeHealth
from tests.fakes.service import Valet, configuration, running, until
from tests.fakes.users import FakeUsers
from tests.planted import IDS, plant

ONE = "/api/databases/ad-one"
A_BACKUP = f"{ONE}/backups/{IDS['backup_id']}"
SECOND = {"name": "second", "colour": "red"}


LATE = [("add-thing", SECOND, "already_exists"), ("drop-thing", {"name": "second"}, "not_found")]
"""What an engine refuses once it was done by an earlier try."""


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with running() as valet:
        yield valet


async def act(valet: Valet, name: str, params: Any, key: str = "key-1", token: str = "admin") -> httpx.Response:
    body = {"action_name": name, "params": params}
    return await valet.ask("POST", f"{ONE}/action", token, json=body, headers={"Idempotency-Key": key})


def code(response: httpx.Response) -> str:
    return "ok" if response.is_success else response.json()["code"]


async def retried_while_the_first_try_goes_on(
    valet: Valet, name: str, params: dict[str, str]
) -> tuple[asyncio.Task[httpx.Response], Callable[[], object]]:
    """Give a retry that has looked and is to begin, and what ends the first try in the engine."""
    server = valet.server()
    if name == "drop-thing":
        server.things["second"] = "red"
    server.problem = ConnectionLost("It was cut.")
    assert code(await act(valet, name, params)) == "engine_unavailable"
    server.problem, server.gate = None, Gate()
    gate, retry = server.gate, asyncio.create_task(act(valet, name, params))
    await until(lambda: gate.waiting)

    def end() -> None:
        if name == "drop-thing":
            del server.things["second"]
        else:
            server.things["second"] = "red"
        server.gate = None
        gate.open.set()

    return retry, end


def state_of(valet: Valet) -> list[tuple[Any, ...]]:
    file = valet.service.state._file
    assert file is not None
    if not file.path.exists():
        return []
    with closing(sqlite3.connect(file.path)) as connection:
        return connection.execute("SELECT key, before, answer IS NOT NULL FROM idempotency_keys").fetchall()


async def test_a_retry_gets_the_first_answer_and_nothing_is_done_again(valet: Valet):
    first = await act(valet, "add-thing", SECOND)
    del valet.server().things["second"]  # whatever has become of it since
    again = await act(valet, "add-thing", SECOND)
    assert (again.status_code, again.content) == (first.status_code, first.content) == (200, first.content)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert valet.server().performed == ["add-thing second"]
    lines = (await valet.ask("GET", "/api/audit")).json()["audit"]
    assert [(line["code"], line["replayed"]) for line in lines] == [("ok", False), ("ok", True)]


async def test_a_retry_of_a_route_beside_the_actions_has_its_line_and_is_counted():
    async with running(limits={"write": "2/hour"}) as valet:
        body = {"database_user": {"name": "somebody", "password": "p" * 24, "password_confirmation": "p" * 24}}
        answers = [
            await valet.ask("POST", f"{ONE}/users", json=body, headers={"Idempotency-Key": "key-1"}) for _ in range(3)
        ]
        assert [answer.status_code for answer in answers] == [201, 201, 429]
        lines = (await valet.ask("GET", "/api/audit")).json()["audit"]

    assert [line.pop("replayed") for line in lines] == [False, True]
    assert lines[0]["params"]["database_user"] == {
        "name": "somebody", "password": "[secret]", "password_confirmation": "[secret]"
    }  # fmt: skip
    for line in lines:
        for own in ("sequence", "previous", "at", "request_id", "digest"):
            del line[own]
    assert lines[0] == lines[1]


async def test_a_refusal_of_the_engine_is_an_answer_too(valet: Valet):
    first = await act(valet, "add-thing", {"name": "first"})
    del valet.server().things["first"]
    again = await act(valet, "add-thing", {"name": "first"})
    assert code(first) == code(again) == "already_exists"
    assert first.content == again.content
    assert len(valet.server().performed) == 1


@pytest.mark.parametrize(
    "refusal",
    [PrivilegeMissing("GRANT it."), Protected(), InvalidParams({"params": ["odd"]})],
    ids=lambda each: each.code,
)
@pytest.mark.parametrize("name", ["add-thing", "drop-thing"])
async def test_what_the_engine_refused_before_it_began_may_be_asked_again_with_its_key(
    valet: Valet, name: str, refusal: EngineError
):
    params = {"name": "second"}
    if name == "drop-thing":
        valet.server().things["second"] = "red"
    valet.server().problem = refusal
    for _ in range(2):
        refused = await act(valet, name, params)
        assert (code(refused), "Idempotent-Replayed" in refused.headers) == (refusal.code, False)
        assert state_of(valet) == []
    valet.server().problem = None  # it was put right
    assert code(await act(valet, name, params)) == "ok"
    assert (await act(valet, name, params)).headers["Idempotent-Replayed"] == "true"
    assert valet.server().performed == [f"{name} second"]


async def test_what_an_earlier_request_has_begun_stays_in_doubt_when_a_later_one_is_refused(valet: Valet):
    server = valet.server()
    server.problem = ConnectionLost("It was cut.")
    assert code(await act(valet, "add-thing", SECOND)) == "engine_unavailable"
    server.problem = PrivilegeMissing("GRANT it.")
    assert code(await act(valet, "add-thing", SECOND)) == "privilege_missing"
    assert state_of(valet) == [("key-1", "[]", 0)]
    server.problem = None
    server.things["second"] = "red"  # the first one came through after all
    assert (await act(valet, "add-thing", SECOND)).json() == {"ok": 1, "result": SECOND}
    assert server.performed == []


async def test_a_failure_of_the_state_is_no_answer_of_a_route_that_is_kept(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
):
    def locked(_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    def ask() -> Awaitable[httpx.Response]:
        return valet.ask("POST", f"{ONE}/backups", headers={"Idempotency-Key": "key-1"})

    in_transaction = State._in_transaction

    def fail_once_begun(self: State, work: Any, **how: Any) -> Any:
        if "agent.operations" in work.__module__:
            return in_transaction(self, locked, **how)
        return in_transaction(self, work, **how)

    with monkeypatch.context() as failing:
        failing.setattr(State, "_in_transaction", fail_once_begun)
        first = await ask()
    assert (first.status_code, code(first)) == (503, "state_unavailable")
    assert "database is locked" in first.json()["error"]
    again = await ask()
    assert again.status_code == 201
    assert "Idempotent-Replayed" not in again.headers


async def test_a_commit_whose_acknowledgement_was_lost_is_not_told_as_refused(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
):
    in_transaction, lost = State._in_transaction, list[object]()

    def loses_the_first(self: State, work: Any, **how: Any) -> Any:
        done = in_transaction(self, work, **how)
        if "agent.operations" in work.__module__ and not lost:
            lost.append(done)
            raise StateFailed("The state cannot be used: the connection was lost.")
        return done

    monkeypatch.setattr(State, "_in_transaction", loses_the_first)
    first, again = [await valet.ask("POST", f"{ONE}/backups", headers={"Idempotency-Key": "key-1"}) for _ in range(2)]
    assert (first.status_code, code(first)) == (503, "state_unavailable")
    assert len(lost) == 1
    assert (again.status_code, "Idempotent-Replayed" in again.headers) == (201, False)
    made = (await valet.ask("GET", f"{ONE}/backups")).json()["database_backups"]
    assert [each["id"] for each in made] == [again.json()["database_backup"]["id"]]


async def test_a_failure_of_the_state_is_no_answer_of_an_action_that_is_kept(valet: Valet):
    valet.server().problem = StateFailed("The state cannot be used: database is locked.")
    first = await act(valet, "add-thing", SECOND)
    assert (first.status_code, code(first)) == (503, "state_unavailable")
    valet.server().problem = None
    again = await act(valet, "add-thing", SECOND)
    assert (again.status_code, "Idempotent-Replayed" in again.headers) == (200, False)


@pytest.mark.parametrize(
    ("method", "path", "done"),
    [("POST", f"{A_BACKUP}/restore", 201), ("DELETE", A_BACKUP, 204)],
    ids=["POST", "DELETE"],
)
async def test_a_failure_of_the_storage_is_no_answer_that_is_kept(valet: Valet, method: str, path: str, done: int):
    def ask() -> Awaitable[httpx.Response]:
        return valet.ask(method, path, headers={"Idempotency-Key": "key-1"})

    def refuse_the_storage(*_: object) -> None:
        raise OSError(EIO, "the storage is away")

    await plant(valet)
    with pytest.MonkeyPatch.context() as failing:
        failing.setattr(Storage, "_at", refuse_the_storage)
        first = await ask()
        assert (first.status_code, code(first)) == (409, "precondition")
        assert "the storage is away" in first.json()["error"]
        assert state_of(valet) == []
    again = await ask()
    assert (again.status_code, "Idempotent-Replayed" in again.headers) == (done, False)
    assert (await ask()).headers["Idempotent-Replayed"] == "true"


async def test_a_failure_of_the_storage_leaves_in_doubt_what_an_earlier_request_has_begun(valet: Valet):
    def ask() -> Awaitable[httpx.Response]:
        return valet.ask("DELETE", A_BACKUP, headers={"Idempotency-Key": "key-1"})

    def refuse_the_storage(*_: object) -> None:
        raise OSError(EIO, "the storage is away")

    await plant(valet)
    with pytest.MonkeyPatch.context() as lost:
        lost.setattr(DatabaseBackups, "delete", refuse)
        assert (await ask()).status_code == 500
    with pytest.MonkeyPatch.context() as failing:
        failing.setattr(Storage, "_at", refuse_the_storage)
        assert code(await ask()) == "precondition"
        assert [each[2] for each in state_of(valet)] == [0]
    again = await ask()
    assert (again.status_code, "Idempotent-Replayed" in again.headers) == (204, False)


async def a_backup_under_way(valet: Valet) -> str:
    """Begin a backup that does not come to its end; give its id."""
    gate = valet.server().backups.gates["dump"] = Gate()
    made = (await valet.ask("POST", f"{ONE}/backups")).json()["database_backup"]
    await until(lambda: gate.waiting)
    return made["id"]


async def let_it_end(valet: Valet) -> None:
    valet.server().backups.gates.pop("dump").open.set()
    await until(lambda: not valet.service.operations._working)


NOT_YET = [
    ("POST", "/backups", "conflict", 201),
    ("POST", "/backups/{}/restore", "conflict", 201),
    ("POST", f"/backups/{IDS['backup_id']}/restore", "conflict", 201),
    ("DELETE", "/backups/{}", "conflict", 204),
]


@pytest.mark.parametrize(("method", "path", "refusal", "done"), NOT_YET)
async def test_what_was_refused_as_a_backup_was_under_way_may_be_asked_again_with_its_key(
    valet: Valet, method: str, path: str, refusal: str, done: int
):
    await plant(valet)
    path = ONE + path.format(await a_backup_under_way(valet))
    ask = partial(valet.ask, method, path, headers={"Idempotency-Key": "key-1"})
    for _ in range(2):
        refused = await ask()
        assert (code(refused), "Idempotent-Replayed" in refused.headers, state_of(valet)) == (refusal, False, [])
    await let_it_end(valet)
    for replayed in (False, True):
        again = await ask()
        assert (again.status_code, "Idempotent-Replayed" in again.headers) == (done, replayed)


async def test_what_is_not_set_up_for_a_backup_uses_up_no_key(valet: Valet):
    valet.server().backups.missing = ["Install the tool."]
    refused = await post(valet, "/backups")
    assert (code(refused), state_of(valet)) == ("precondition", [])
    valet.server().backups.missing = []
    again = await post(valet, "/backups")
    assert (again.status_code, "Idempotent-Replayed" in again.headers) == (201, False)


async def test_a_user_that_is_there_is_looked_for_again_with_the_same_key(valet: Valet):
    body = {"database_user": {"name": "self-hosted"}}
    refused = await post(valet, "/users", body)
    assert (code(refused), state_of(valet)) == ("already_exists", [])
    assert (await valet.ask("DELETE", f"{ONE}/users/self-hosted")).status_code == 204
    assert (await post(valet, "/users", body)).status_code == 201


async def test_what_is_refused_after_it_was_begun_is_an_answer_of_a_route_too(valet: Valet):
    valet.server().problems["delete-user self-hosted"] = Conflict("It owns something.")
    for replayed in (False, True):
        refused = await valet.ask("DELETE", f"{ONE}/users/self-hosted", headers={"Idempotency-Key": "key-1"})
        assert (code(refused), "Idempotent-Replayed" in refused.headers) == ("conflict", replayed)


async def test_what_was_begun_once_stays_in_doubt_while_another_operation_runs(valet: Valet):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Operations, "begin", refuse)
        assert (await post(valet, "/backups")).status_code == 500
    await a_backup_under_way(valet)
    for _ in range(2):
        refused = await post(valet, "/backups")
        assert (code(refused), "Idempotent-Replayed" in refused.headers) == ("conflict", False)
        assert [each[2] for each in state_of(valet)] == [0]
    await let_it_end(valet)
    again = await post(valet, "/backups")
    assert (again.status_code, "Idempotent-Replayed" in again.headers) == (201, False)


async def test_the_order_of_fields_is_nothing_and_another_body_is_refused(valet: Valet):
    assert code(await act(valet, "add-thing", SECOND)) == "ok"
    assert code(await act(valet, "add-thing", dict(reversed(SECOND.items())))) == "ok"
    other = await act(valet, "add-thing", {**SECOND, "colour": "blue"})
    assert (other.status_code, list(other.json()["errors"])) == (422, ["Idempotency-Key"])
    assert code(await act(valet, "drop-thing", {"name": "second"})) == "invalid_params"
    assert valet.server().performed == ["add-thing second"]


async def test_keys_of_several_tokens_do_not_meet(valet: Valet):
    assert code(await act(valet, "add-thing", SECOND)) == "ok"
    assert code(await act(valet, "add-thing", SECOND, token="operator")) == "already_exists"


async def test_while_the_first_runs_the_others_are_told_to_wait(valet: Valet):
    gate = valet.server().gate = Gate()
    first = asyncio.create_task(act(valet, "add-thing", SECOND))
    await until(lambda: gate.waiting)
    assert state_of(valet) == [("key-1", "[]", 0)]  # on disk before the engine is touched
    others = await asyncio.gather(*(act(valet, "add-thing", SECOND) for _ in range(20)))
    assert {(code(each), each.headers["Retry-After"]) for each in others} == {("in_progress", "1")}
    gate.open.set()
    assert code(await first) == "ok"
    assert code(await act(valet, "add-thing", SECOND)) == "ok"
    assert valet.server().performed == ["add-thing second"]


@pytest.mark.parametrize("lost", [ConnectionLost("It was cut."), DeadlineExceeded("Too late.")])
async def test_what_was_done_though_its_answer_was_lost_is_not_done_again(valet: Valet, lost: Exception):
    valet.server().problem_after = lost
    assert (await act(valet, "add-thing", SECOND)).status_code in (503, 504)
    valet.server().problem_after = None
    again = await act(valet, "add-thing", SECOND)
    assert again.json() == {"ok": 1, "result": SECOND}
    assert valet.server().performed == ["add-thing second"]
    assert (await act(valet, "add-thing", SECOND)).headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(("name", "params", "refused"), LATE)
async def test_what_the_first_try_did_while_the_retry_began_is_answered_as_done(
    valet: Valet, name: str, params: dict[str, str], refused: str
):
    server = valet.server()
    retry, end = await retried_while_the_first_try_goes_on(valet, name, params)
    end()
    answer = await retry
    assert answer.json() == {"ok": 1, "result": params if name == "add-thing" else None}, refused
    again = await act(valet, name, params)
    assert (again.content, again.headers["Idempotent-Replayed"]) == (answer.content, "true")
    lines = (await valet.ask("GET", "/api/audit")).json()["audit"]
    assert [line["code"] for line in lines if line["code"] != "begun"] == ["engine_unavailable", "ok", "ok"]
    assert server.performed == [f"{name} second"]


@pytest.mark.parametrize(("name", "params", "refused"), LATE)
async def test_a_refusal_on_the_second_try_is_kept_only_once_it_is_seen_that_nothing_was_done(
    valet: Valet, monkeypatch: pytest.MonkeyPatch, name: str, params: dict[str, str], refused: str
):
    retry, end = await retried_while_the_first_try_goes_on(valet, name, params)
    end()

    async def late(*_: object) -> None:
        raise DeadlineExceeded("It cannot be seen what there is.")

    with monkeypatch.context() as frozen:
        frozen.setattr(dispatch, "look", late)
        answer = await retry
    assert (code(answer), answer.json()["error"]) == ("deadline_exceeded", "It cannot be seen what there is."), refused
    assert code(await act(valet, name, params)) == "ok"


async def test_a_refusal_on_the_second_try_is_an_answer_where_nothing_was_done(valet: Valet):
    valet.server().problem = ConnectionLost("It was cut.")
    assert code(await act(valet, "add-thing", SECOND)) == "engine_unavailable"
    valet.server().problem = Conflict("Not now.")
    assert code(await act(valet, "add-thing", SECOND)) == "conflict"
    valet.server().problem = None
    again = await act(valet, "add-thing", SECOND)
    assert (code(again), again.headers["Idempotent-Replayed"]) == ("conflict", "true")


async def test_a_user_that_the_first_try_made_while_the_retry_began_is_not_refused_as_taken(valet: Valet):
    body = {"database_user": {"name": "somebody"}}
    server = valet.server()
    server.problems["create-user somebody"] = ConnectionLost("It was cut.")
    assert code(await post(valet, "/users", body)) == "engine_unavailable"
    server.problems.clear()
    listed = server.perform

    async def made_after_the_first_look(what: str) -> None:
        if server.performed.count("list-users") == seen + 1:
            server.users["somebody"] = User(name="somebody", read_only=False, protected=False)
        await listed(what)

    seen = server.performed.count("list-users")
    server.perform = made_after_the_first_look
    again = await post(valet, "/users", body)
    assert (again.status_code, again.json()["error"]) == (409, users.MADE)
    assert "create-user somebody" not in server.performed


async def test_what_was_not_done_is_done_by_the_retry(valet: Valet):
    valet.server().problem = ConnectionLost("It was cut.")
    assert code(await act(valet, "add-thing", SECOND)) == "engine_unavailable"
    valet.server().problem = None
    assert code(await act(valet, "add-thing", SECOND)) == "ok"
    assert valet.server().performed == ["add-thing second"]
    assert valet.server().things["second"] == "red"


async def test_what_somebody_has_made_anew_is_not_destroyed_by_a_retry(valet: Valet):
    server = valet.server()
    server.things["second"] = "red"
    server.problem_after = ConnectionLost("It was cut.")
    assert code(await act(valet, "drop-thing", {"name": "second"})) == "engine_unavailable"
    server.problem_after = None
    server.things["second"] = "green"
    for _ in range(2):
        again = await act(valet, "drop-thing", {"name": "second"})
        assert (again.status_code, code(again)) == (409, "answer_unknown")
        assert "not done again" in again.json()["error"]
    assert (server.things["second"], len(server.performed)) == ("green", 1)
    assert code(await act(valet, "drop-thing", {"name": "second"}, "key-2")) == "ok"


async def test_an_action_that_cannot_tell_is_not_done_again(valet: Valet):
    valet.server().problem = ConnectionLost("It was cut.")
    assert code(await act(valet, "set-mode", "FAST")) == "engine_unavailable"
    valet.server().problem = None
    assert code(await act(valet, "set-mode", "FAST")) == "answer_unknown"
    assert valet.server().performed == []


async def test_a_refusal_before_anything_was_begun_leaves_the_key_as_it_was(valet: Valet):
    assert code(await act(valet, "add-thing", {"name": ""})) == "invalid_params"
    assert code(await act(valet, "add-thing", SECOND, token="reader")) == "forbidden"
    assert state_of(valet) == []
    assert code(await act(valet, "add-thing", SECOND)) == "ok"


@pytest.mark.parametrize("key", ["", "with space", "x" * 256, "ä"], ids=["empty", "a space", "too long", "no ASCII"])
async def test_a_key_that_is_none_is_refused(valet: Valet, key: str):
    headers = {b"Idempotency-Key": key.encode()}
    for path, body in ((f"{ONE}/action", {"action_name": "add-thing", "params": SECOND}), (f"{ONE}/backups", {})):
        refused = await valet.ask("POST", path, json=body, headers=headers)
        assert (refused.status_code, list(refused.json()["errors"])) == (422, ["Idempotency-Key"])
    assert valet.server().performed == []


async def test_a_read_needs_no_key_and_takes_one(valet: Valet):
    for _ in range(2):
        read = await act(valet, "list-things", None)
        assert (code(read), "Idempotent-Replayed" in read.headers) == ("ok", False)
    assert state_of(valet) == []


async def test_a_key_is_forgotten_after_a_day(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    assert code(await act(valet, "add-thing", SECOND)) == "ok"
    monkeypatch.setattr(once, "KEPT", timedelta(seconds=-1))
    assert code(await act(valet, "add-thing", SECOND)) == "already_exists"
    assert len(state_of(valet)) == 1


async def test_without_a_state_nothing_is_begun(tmp_path: Path):
    (tmp_path / "file").touch()
    async with running(state=f"sqlite:///{tmp_path}/file/state.db", audit="none") as valet:
        assert code(await act(valet, "add-thing", SECOND)) == "state_unavailable"
        assert code(await valet.act("add-thing", SECOND)) == "ok"  # without a key and an audit it needs none
        assert valet.server().performed == ["add-thing second"]


async def test_keys_work_without_the_audit():
    async with running(audit="none") as valet:
        for _ in range(2):
            assert code(await act(valet, "add-thing", SECOND)) == "ok"
        assert valet.server().performed == ["add-thing second"]


async def test_an_answer_that_could_not_be_kept_is_found_in_the_engine(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setattr(once.Once, "keep", refuse)
        assert (await act(valet, "add-thing", SECOND)).status_code == 500
    assert code(await act(valet, "add-thing", SECOND)) == "ok"
    assert valet.server().performed == ["add-thing second"]


def refuse(*_: Any) -> None:
    raise RuntimeError("no room")


async def test_a_dbvalet_that_died_is_told_from_one_that_works(tmp_path: Path):
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as first, running(state=state) as other:
        gate = first.server().gate = Gate()
        asked = asyncio.create_task(act(first, "add-thing", SECOND))
        await until(lambda: gate.waiting)
        assert code(await act(other, "add-thing", SECOND)) == "in_progress"
        asked.cancel()
        first.service.state.presence.forget(first.service.operations.owner)  # type: ignore[union-attr]
        other.server().things["second"] = "red"  # it had done it
        assert (await act(other, "add-thing", SECOND)).json() == {"ok": 1, "result": SECOND}
        assert other.server().performed == []
        gate.open.set()


async def test_a_restart_keeps_the_answers(tmp_path: Path):
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as valet:
        assert code(await act(valet, "add-thing", SECOND)) == "ok"
    async with running(state=state) as valet:
        assert (await act(valet, "add-thing", SECOND)).headers["Idempotent-Replayed"] == "true"
        assert valet.server().performed == []


async def test_of_two_that_begin_or_take_over_at_once_one_does(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    service = valet.service.once
    asked = Asked(who="admin", key="key-1", fingerprint="f")
    change = Change(
        request_id="x", who="admin", address=None, method="POST", path=ONE, action="", effect="write", database=None
    )
    await service.begin(asked, change)
    with pytest.raises(KeyInProgress):
        await service.begin(asked, change)

    def lives(*_: Any) -> bool:
        # Between the look and the taking over, another one takes it over, or finds that it has to wait.
        with closing(sqlite3.connect(path_of(valet), timeout=0)) as connection, connection:
            connection.execute("UPDATE idempotency_keys SET owner = 'another'")
        return False

    others = once.Once(valet.service.state, valet.service.journal, "third", lambda: None)
    with monkeypatch.context() as patched:
        patched.setattr(once.Once, "_lives", lives)
        with pytest.raises((KeyInProgress, StateUnavailable)):
            await others.find(asked)


def path_of(valet: Valet) -> Path:
    file = valet.service.state._file
    assert file is not None
    return file.path


async def test_where_no_lock_tells_who_lives_time_does(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    asked = Asked(who="admin", key="key-1", fingerprint="f")
    first, second = (once.Once(valet.service.state, valet.service.journal, each, lambda: None) for each in "ab")
    change = Change(
        request_id="x", who="admin", address=None, method="POST", path=ONE, action="", effect="write", database=None
    )
    await first.begin(asked, change, ["before"])
    monkeypatch.setattr(valet.service.state, "presence", None)
    with pytest.raises(KeyInProgress):
        await second.find(asked)
    monkeypatch.setattr(once, "SILENT", timedelta(seconds=-1))
    assert await second.find(asked) == once.Doubt(before=["before"])


async def taken_over(first: Valet, other: Valet, monkeypatch: pytest.MonkeyPatch, asked: Any) -> tuple[Any, Any]:
    """Give the answers of two dbvalets that carry out one request, of which the first is late."""
    gate = first.server().gate = Gate()
    late = asyncio.create_task(asked(first))
    await until(lambda: gate.waiting)
    with monkeypatch.context() as patched:
        patched.setattr(once, "SILENT", timedelta(seconds=-1))
        answer = await asked(other)
    gate.open.set()
    return await late, answer


async def lines_of(valet: Valet) -> list[str]:
    return [line["code"] for line in (await valet.ask("GET", "/api/audit")).json()["audit"]]


@pytest.fixture
async def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Valet, Valet]]:
    """Two dbvalets of which none can see whether the other lives, as on several hosts."""
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as first, running(state=state) as other:
        for each in (first, other):
            monkeypatch.setattr(each.service.state, "presence", None)
        yield first, other


async def test_one_that_is_late_does_not_replace_the_answer_of_who_took_over(
    two: tuple[Valet, Valet], monkeypatch: pytest.MonkeyPatch
):
    first, other = two
    late, answer = await taken_over(first, other, monkeypatch, lambda valet: act(valet, "add-thing", SECOND))
    assert (code(answer), late.status_code, code(late)) == ("ok", 409, "answer_unknown")
    assert late.json()["error"] == once.TAKEN_OVER
    assert first.server().performed == ["add-thing second"]  # it says that this is not undone
    assert await lines_of(other) == ["ok", "answer_unknown"]
    for each in two:
        again = await act(each, "add-thing", SECOND)
        assert (again.content, again.headers["Idempotent-Replayed"]) == (answer.content, "true")


async def test_one_that_is_late_and_refused_does_not_replace_it_either(
    two: tuple[Valet, Valet], monkeypatch: pytest.MonkeyPatch
):
    first, other = two
    first.server().things["second"] = "red"
    late, answer = await taken_over(first, other, monkeypatch, lambda valet: act(valet, "add-thing", SECOND))
    assert (code(answer), code(late)) == ("ok", "answer_unknown")
    assert await lines_of(other) == ["ok", "answer_unknown"]
    assert (await act(first, "add-thing", SECOND)).content == answer.content


async def test_one_that_is_late_forgets_nothing_of_who_took_over(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    asked = Asked(who="admin", key="key-1", fingerprint="f")
    answer = once.Answer(status=200, code="ok", body=b"{}")
    state, journal = valet.service.state, valet.service.journal
    first, second = (once.Once(state, journal, each, lambda: None) for each in "ab")
    change = Change(
        request_id="x", who="admin", address=None, method="POST", path=ONE, action="", effect="write", database=None
    )
    monkeypatch.setattr(state, "presence", None)
    await first.begin(asked, change)
    with monkeypatch.context() as patched:
        patched.setattr(once, "SILENT", timedelta(seconds=-1))
        assert await second.find(asked) == once.Doubt(before=None)
    await first.write(partial(first.forget, asked))
    with pytest.raises(KeyInProgress):
        await first.find(asked)
    await second.write(partial(second.keep, asked, answer))
    for each in (first, second):
        await each.write(partial(each.forget, asked))
        with pytest.raises(AnswerUnknown):
            await each.write(partial(each.keep, asked, answer))
    assert await first.find(asked) == replace(answer, replayed=True)


async def test_a_route_that_is_late_does_not_replace_it_either(
    two: tuple[Valet, Valet], monkeypatch: pytest.MonkeyPatch
):
    first, other = two
    body = {"database_user": {"name": "somebody", "read_only": True}}
    late, answer = await taken_over(first, other, monkeypatch, lambda valet: post(valet, "/users", body))
    assert (code(answer), answer.json()["error"]) == ("answer_unknown", users.MADE)
    assert code(late) == "in_progress"  # it was not begun yet, and is not
    assert "create-user somebody" not in first.server().performed
    again = await post(other, "/users", body)
    assert (again.content, again.headers["Idempotent-Replayed"]) == (answer.content, "true")
    assert await lines_of(other) == ["answer_unknown", "in_progress", "answer_unknown"]


async def test_one_that_is_late_begins_no_operation_that_who_took_over_has_begun(
    two: tuple[Valet, Valet], monkeypatch: pytest.MonkeyPatch
):
    first, other = two
    gate, ready = Gate(), backups.require_ready_at

    async def stands_still(*asked: Any) -> None:
        if not gate.waiting:
            await gate.passed()
        await ready(*asked)

    monkeypatch.setattr(backups, "require_ready_at", stands_still)
    late = asyncio.create_task(post(first, "/backups", {}))
    await until(lambda: gate.waiting)
    with monkeypatch.context() as patched:
        patched.setattr(once, "SILENT", timedelta(seconds=-1))
        answer = await post(other, "/backups", {})
    assert answer.status_code == 201
    await until(lambda: other.lines("operation_ended"))
    gate.open.set()
    refused = await late
    assert (refused.status_code, code(refused)) == (409, "answer_unknown")
    assert len(await other.service.operations.newest("ad-one")) == 1
    assert (await post(first, "/backups", {})).content == answer.content


async def test_an_answer_that_cannot_be_kept_is_told(valet: Valet):
    valet.service.state._threads.submit(lambda: None)
    service = valet.service.once
    path_of(valet).parent.mkdir(exist_ok=True)
    path_of(valet).mkdir()
    with pytest.raises(StateUnavailable, match="cannot be kept"):
        await service.write(lambda _: None)


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 300 + b"]" * 300])
def test_what_is_no_json_has_a_fingerprint_too(body: bytes):
    assert fingerprint_of("POST", ONE, body) != fingerprint_of("POST", ONE, b"")


async def post(valet: Valet, path: str, body: Any = None, key: str = "key-1", token: str = "admin") -> httpx.Response:
    return await valet.ask("POST", f"{ONE}{path}", token, json=body or {}, headers={"Idempotency-Key": key})


async def test_a_backup_is_made_once_a_key(valet: Valet):
    first = await post(valet, "/backups")
    assert first.status_code == 201
    again = await post(valet, "/backups")
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    await until(lambda: valet.server().backups.done)
    assert len((await valet.ask("GET", f"{ONE}/backups")).json()["database_backups"]) == 1
    assert code(await valet.ask("DELETE", f"{ONE}/backups/x", headers={"Idempotency-Key": "key-1"})) == "invalid_params"


async def test_a_backup_whose_answer_was_lost_is_found_again(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setattr(once.Once, "keep", refuse)
        assert (await post(valet, "/backups")).status_code == 500
    (made,) = (await valet.ask("GET", f"{ONE}/backups")).json()["database_backups"]
    again = await post(valet, "/backups")
    assert (again.status_code, again.json()["database_backup"]["id"]) == (201, made["id"])
    assert len((await valet.ask("GET", f"{ONE}/backups")).json()["database_backups"]) == 1


async def test_a_backup_whose_answer_was_lost_and_that_is_gone_by_now_is_not_made_again(valet: Valet):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(once.Once, "keep", refuse)
        assert (await post(valet, "/backups")).status_code == 500
    await until(lambda: valet.lines("operation_ended"))
    (made,) = (await valet.ask("GET", f"{ONE}/backups")).json()["database_backups"]
    assert (await valet.ask("DELETE", f"{ONE}/backups/{made['id']}")).status_code == 204
    again = await post(valet, "/backups")
    assert (again.status_code, code(again)) == (409, "answer_unknown")
    assert "The backup that it made is gone" in again.json()["error"]
    assert (await post(valet, "/backups")).headers["Idempotent-Replayed"] == "true"


async def test_a_restore_whose_answer_was_lost_is_found_again_though_its_backup_is_gone(valet: Valet):
    await post(valet, "/backups", key="key-0")
    await until(lambda: valet.lines("operation_ended"))
    (made,) = (await valet.ask("GET", f"{ONE}/backups")).json()["database_backups"]
    path = f"/backups/{made['id']}/restore"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(once.Once, "keep", refuse)
        assert (await post(valet, path)).status_code == 500
    await until(lambda: len(valet.lines("operation_ended")) == 2)
    assert (await valet.ask("DELETE", f"{ONE}/backups/{made['id']}")).status_code == 204
    again = await post(valet, path)
    assert (again.status_code, again.json()["status"], again.json()["source_backup_id"]) == (201, "done", made["id"])
    assert (await post(valet, path)).headers["Idempotent-Replayed"] == "true"


async def test_a_password_is_told_once_and_not_kept(valet: Valet):
    body = {"database_user": {"name": "somebody", "read_only": True}}
    first = await post(valet, "/users", body)
    password = first.json()["database_user"]["password"]
    again = await post(valet, "/users", body)
    assert (again.status_code, code(again)) == (409, "answer_unknown")
    assert "reset_password" in again.json()["error"]
    file = valet.service.state._file
    assert file is not None
    for each in file.path.parent.glob("state.db*"):
        assert password.encode() not in each.read_bytes(), each.name
    assert code(await post(valet, "/users/somebody/reset_password", key="key-2")) == "ok"
    assert code(await post(valet, "/users/somebody/reset_password", key="key-2")) == "answer_unknown"


async def test_a_route_refused_before_anything_was_begun_leaves_the_key_as_it_was(valet: Valet):
    assert code(await post(valet, "/users", {"database_user": {"name": "x"}})) == "invalid_params"
    assert code(await post(valet, "/backups", token="reader")) == "forbidden"
    assert state_of(valet) == []
    assert (await post(valet, "/users", {"database_user": {"name": "somebody"}})).status_code == 201


async def test_an_answer_is_not_for_a_token_that_does_not_see_the_database_any_more(tmp_path: Path):
    state = f"sqlite:///{tmp_path}/state.db"
    of_two = next(each for each in configuration()["tokens"] if each["name"] == "of-two")
    async with running(state=state, tokens=[{**of_two, "databases": ["*"]}]) as valet:
        assert (await post(valet, "/backups", token="of-two")).status_code == 201
        assert code(await act(valet, "add-thing", SECOND, "key-2", token="of-two")) == "ok"
    async with running(state=state, tokens=[of_two]) as valet:
        assert code(await post(valet, "/backups", token="of-two")) == "not_found"
        assert code(await act(valet, "add-thing", SECOND, "key-2", token="of-two")) == "not_found"


@pytest.mark.parametrize(
    "less",
    [{"role": "reader"}, {"deny": ["create-user", "add-thing"]}, {"allow": ["list-things"]}, {}],
    ids=["a lower role", "denied", "not allowed", "switched off"],
)
async def test_an_answer_is_not_for_a_token_that_may_not_do_it_any_more(tmp_path: Path, less: dict[str, Any]):
    state = f"sqlite:///{tmp_path}/state.db"
    password = "p" * 24
    body = {"database_user": {"name": "somebody", "password": password, "password_confirmation": password}}
    operator = next(each for each in configuration()["tokens"] if each["name"] == "operator")
    ops = [*configuration()["databases"]]
    if not less:
        ops[0] = {**ops[0], "disabled_actions": ["create-user", "add-thing"]}
    async with running(state=state, tokens=[operator]) as valet:
        assert code(await post(valet, "/users", body, token="operator")) == "ok"
        assert code(await act(valet, "add-thing", SECOND, "key-2", token="operator")) == "ok"
    async with running(state=state, tokens=[{**operator, **less}], databases=ops) as valet:
        for path, asked, key in (("/users", body, "key-1"), ("/users", body, "key-3")):
            refused = await post(valet, path, asked, key, token="operator")
            assert (code(refused), "Idempotent-Replayed" in refused.headers) == ("forbidden", False)
        assert code(await act(valet, "add-thing", SECOND, "key-2", token="operator")) == "forbidden"
    async with running(state=state, tokens=[{**operator, "role": "admin"}]) as valet:
        again = await post(valet, "/users", body, token="operator")
        assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
        lines = (await valet.ask("GET", "/api/audit", "operator")).json()["audit"]
    assert [(line["action"], line["code"], line["replayed"]) for line in lines] == [
        ("create-user", "ok", False),
        ("add-thing", "ok", False),
        ("create-user", "forbidden", False),
        ("create-user", "forbidden", False),
        ("add-thing", "forbidden", False),
        ("create-user", "ok", True),
    ]


@pytest.mark.parametrize("less", [{"role": "operator"}, {"deny": ["restore-backup"]}], ids=["a lower role", "denied"])
async def test_a_cancellation_is_not_told_again_to_a_token_that_may_not_do_any_more_what_it_cancelled(
    tmp_path: Path, less: dict[str, Any]
):
    state = f"sqlite:///{tmp_path}/state.db"
    admin = next(each for each in configuration()["tokens"] if each["name"] == "admin")
    async with running(state=state, tokens=[admin]) as valet:
        made = (await valet.ask("POST", f"{ONE}/backups")).json()["database_backup"]
        await until(lambda: not valet.service.operations._working)
        gate = valet.server().backups.gates["swap"] = Gate()
        begun = (await valet.ask("POST", f"{ONE}/backups/{made['id']}/restore")).json()
        await until(lambda: gate.waiting)
        path = f"/operations/{begun['operation_id']}/cancel"
        first = await post(valet, path)
        assert first.status_code == 200
        await until(lambda: not valet.service.operations._working)
    async with running(state=state, tokens=[{**admin, **less}]) as valet:
        refused = await post(valet, path)
        assert (code(refused), "Idempotent-Replayed" in refused.headers) == ("forbidden", False)
    async with running(state=state, tokens=[admin]) as valet:
        again = await post(valet, path)
        assert (again.content, again.headers["Idempotent-Replayed"]) == (first.content, "true")


async def test_whether_a_token_may_cancel_cannot_be_told_without_a_state(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    async def fails(*_: object) -> None:
        raise StateFailed("The state cannot be used: database is locked.")

    monkeypatch.setattr(Operations, "find", fails)
    refused = await post(valet, f"/operations/{IDS['operation_id']}/cancel")
    assert (refused.status_code, code(refused)) == (503, "state_unavailable")
    assert refused.json()["error"].startswith("Nothing was done")
    assert state_of(valet) == []


@pytest.mark.parametrize(
    ("goal", "before", "now", "verdict"),
    [
        (Goal.GONE, ["a 1", "b 1"], [], Verdict.DONE),
        (Goal.GONE, ["a 1", "b 1"], ["a 1", "b 1"], Verdict.NOT_DONE),
        (Goal.GONE, ["a 1", "b 1"], ["b 1"], Verdict.NOT_DONE),
        (Goal.GONE, ["a 1"], ["a 2"], Verdict.UNKNOWN),
        (Goal.GONE, ["a 1", "b 1"], ["b 1", "c 1"], Verdict.UNKNOWN),
        (Goal.GONE, [], [], Verdict.NOT_DONE),
        (Goal.GONE, [], ["a 1"], Verdict.UNKNOWN),
        (Goal.ENDED, ["query 1"], ["query 2"], Verdict.DONE),
        (Goal.ENDED, ["query 1"], [], Verdict.DONE),
        (Goal.ENDED, ["query 1"], ["query 1"], Verdict.NOT_DONE),
        (Goal.ENDED, [], ["query 2"], Verdict.UNKNOWN),
        (Goal.THERE, [], [AS_ASKED], Verdict.DONE),
        (Goal.THERE, ["other"], [AS_ASKED], Verdict.DONE),
        (Goal.THERE, [], [], Verdict.NOT_DONE),
        (Goal.THERE, [AS_ASKED], [AS_ASKED], Verdict.NOT_DONE),
        (Goal.THERE, ["other"], ["third"], Verdict.UNKNOWN),
        (Goal.CHANGED, ["then"], ["now"], Verdict.DONE),
        (Goal.CHANGED, ["then"], ["then"], Verdict.NOT_DONE),
        *((goal, *pair, Verdict.UNKNOWN) for goal in Goal for pair in ((None, []), ([], None), (None, None))),
    ],
)
def test_what_became_of_an_action(goal: Goal, before: list[str] | None, now: list[str] | None, verdict: Verdict):
    assert judge(goal, before, now) is verdict


async def test_what_others_have_made_since_is_not_touched_by_a_retry_in_doubt(valet: Valet):
    there, server = valet.server().users, valet.server()
    for method, path, body, name in (
        ("DELETE", "/users/self-hosted", None, "self-hosted"),
        ("PATCH", "/users/other-one", {"database_user": {"password": "p" * 24, "password_confirmation": "p" * 24}}, ""),
        ("POST", "/users/other-one/reset_password", None, ""),
        ("POST", "/users", {"database_user": {"name": "third-one"}}, "third-one"),
    ):
        there["other-one"] = User("other-one", False, protected=False)
        headers = {"Idempotency-Key": f"of {method} {path}".replace(" ", "-")}
        server.problem_after = DeadlineExceeded()
        first = await valet.ask(method, f"{ONE}{path}", json=body, headers=headers)
        assert code(first) == "deadline_exceeded", path
        server.problem_after = None
        if name:
            there[name] = User(name, True, protected=False)  # by somebody else
        done = list(server.performed)
        for _ in range(2):
            again = await valet.ask(method, f"{ONE}{path}", json=body, headers=headers)
            assert (again.status_code, code(again)) == (409, "answer_unknown"), path
            assert "What the engine shows" not in again.json()["error"], path
        assert [each for each in server.performed if each != "list-users"] == [
            each for each in done if each != "list-users"
        ]
        if name:
            assert there[name].read_only


HOURS = {"database": {"periodic_backups_enabled": True, "periodic_backups_scheduled_at": [3]}}
LOST = {
    "the user": ("DELETE", "/users/self-hosted", None, 204),
    "the feature on": ("POST", "/features", {"feature": {"name": "force-ssl"}}, 200),
    "the feature off": ("DELETE", "/features?feature=force-ssl", None, 200),
    "the hours": ("PATCH", "", HOURS, 200),
    "the window": ("PUT", "", {"database": {"maintenance_window": {"weekday_utc": 2}}}, 200),
}


async def with_a_lost_answer(valet: Valet, which: str) -> Callable[[], Awaitable[httpx.Response]]:
    """Let something be done whose answer is lost; give how it is asked again."""
    method, path, body, _ = LOST[which]

    async def ask() -> httpx.Response:
        return await valet.ask(method, f"{ONE}{path}", json=body, headers={"Idempotency-Key": "key-1"})

    if which == "the feature off":
        assert code(await post(valet, "/features", {"feature": {"name": "force-ssl"}}, "key-0")) == "ok"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(once.Once, "keep", refuse)
        assert (await ask()).status_code == 500
    return ask


async def what_was_done(valet: Valet) -> list[Any]:
    server = valet.server()
    done = [each for each in server.performed if each != "list-users"]
    return [done, await valet.service.choices.of("ad-one")]


@pytest.mark.parametrize("which", LOST)
async def test_a_route_looks_what_became_of_it_and_says_that_it_was_done(valet: Valet, which: str):
    ask = await with_a_lost_answer(valet, which)
    done = await what_was_done(valet)
    again = await ask()
    assert (again.status_code, await what_was_done(valet)) == (LOST[which][3], done)
    for field, value in (HOURS["database"] if which == "the hours" else {}).items():
        assert again.json()["database"][field] == value
    if "feature" in which:
        assert (again.json()["name"], again.json()["status"]) == (
            "force-ssl", "ACTIVATED" if which == "the feature on" else "REMOVED"
        )  # fmt: skip
    replayed = await ask()
    assert (replayed.content, replayed.headers["Idempotent-Replayed"]) == (again.content, "true")


@pytest.mark.parametrize(
    ("path", "body", "done"),
    [
        ("/users", {"database_user": {"name": "somebody"}}, "create-user somebody"),
        ("/features", {"feature": {"name": "force-ssl"}}, "force-ssl True"),
    ],
)
async def test_a_route_does_what_was_begun_and_not_done(
    valet: Valet, monkeypatch: pytest.MonkeyPatch, path: str, body: Any, done: str
):
    async def cut(*_: Any, **__: Any) -> None:
        raise ConnectionLost("It was cut.")

    with monkeypatch.context() as patched:
        patched.setattr(FakeUsers, "create", cut)
        patched.setattr(FakeHealth, "force_ssl", cut)
        assert code(await post(valet, path, body)) == "engine_unavailable"
    assert (await post(valet, path, body)).is_success
    assert valet.server().performed.count(done) == 1


async def test_the_hours_that_were_not_changed_are_changed_by_the_retry(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    async def cut(*_: Any) -> None:
        raise RuntimeError("cut")

    headers = {"Idempotency-Key": "key-1"}
    with monkeypatch.context() as patched:
        patched.setattr(AllChoices, "change", cut)
        assert (await valet.ask("PATCH", ONE, json=HOURS, headers=headers)).status_code == 500
    again = await valet.ask("PATCH", ONE, json=HOURS, headers=headers)
    assert (again.status_code, again.json()["database"]["periodic_backups_scheduled_at"]) == (200, [3])


@pytest.mark.parametrize("which", ["the hours", "the feature on"])
async def test_what_others_have_changed_since_is_not_changed_again(valet: Valet, which: str):
    if which == "the feature on":
        assert code(await post(valet, "/features", {"feature": {"name": "force-ssl"}}, "key-0")) == "ok"
    ask = await with_a_lost_answer(valet, which)
    if which == "the hours":
        assert code(await valet.ask("PATCH", ONE, json={"database": {"periodic_backups_scheduled_at": 7}})) == "ok"
    else:
        assert code(await valet.ask("DELETE", f"{ONE}/features?feature=force-ssl")) == "ok"
    done = await what_was_done(valet)
    again = await ask()
    assert (again.status_code, code(again), await what_was_done(valet)) == (409, "answer_unknown", done)
    assert again.json()["error"] == (databases.UNTOLD if which == "the hours" else once.NOT_AGAIN)


async def cancelled_without_an_answer(valet: Valet, goes_wrong: Callable[[pytest.MonkeyPatch], None]) -> str:
    """Let a backup be made and its cancellation, with a key, go wrong; give the path of that."""
    gate = valet.server().backups.gates["dump"] = Gate()
    made = (await valet.ask("POST", f"{ONE}/backups")).json()["database_backup"]
    await until(lambda: gate.waiting)
    path = f"/operations/{made['operation_id']}/cancel"
    with pytest.MonkeyPatch.context() as patched:
        goes_wrong(patched)
        assert (await post(valet, path)).status_code == 500
    return path


def the_answer_is_lost(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(once.Once, "keep", refuse)


def it_ends_before_it_begins(patched: pytest.MonkeyPatch) -> None:
    for module in (backups_api, operations_api):
        patched.setattr(module, "begin_change", refuse)


async def delete_a_backup(valet: Valet) -> httpx.Response:
    return await valet.ask("DELETE", A_BACKUP, headers={"Idempotency-Key": "key-1"})


async def test_a_backup_that_was_deleted_is_told_as_deleted_though_the_answer_was_lost(valet: Valet):
    await plant(valet)
    with pytest.MonkeyPatch.context() as patched:
        the_answer_is_lost(patched)
        assert (await delete_a_backup(valet)).status_code == 500
    for replayed in (False, True):
        again = await delete_a_backup(valet)
        assert (again.status_code, "Idempotent-Replayed" in again.headers) == (204, replayed)
    assert await lines_of(valet) == ["begun", "ok", "ok"]


async def test_a_backup_whose_deletion_was_not_begun_is_deleted_by_the_retry(valet: Valet):
    await plant(valet)
    with pytest.MonkeyPatch.context() as patched:
        it_ends_before_it_begins(patched)
        assert (await delete_a_backup(valet)).status_code == 500
    assert (await valet.ask("GET", A_BACKUP)).status_code == 200
    assert (await delete_a_backup(valet)).status_code == 204
    assert (await valet.ask("GET", A_BACKUP)).status_code == 404


async def test_a_backup_that_others_deleted_before_is_not_told_as_deleted_by_the_retry(valet: Valet):
    await plant(valet)
    with pytest.MonkeyPatch.context() as patched:
        it_ends_before_it_begins(patched)
        assert (await delete_a_backup(valet)).status_code == 500
    assert (await valet.ask("DELETE", A_BACKUP)).status_code == 204
    assert code(await delete_a_backup(valet)) == "not_found"


@pytest.mark.parametrize("ended", [True, False], ids=["cancelled", "cancelling"])
async def test_what_was_cancelled_is_told_as_cancelled_though_the_answer_was_lost(
    valet: Valet, monkeypatch: pytest.MonkeyPatch, ended: bool
):
    if not ended:
        monkeypatch.setattr(keeper, "BEAT_SECONDS", 60)
    path = await cancelled_without_an_answer(valet, the_answer_is_lost)
    if ended:
        await until(lambda: valet.lines("operation_ended"))
    again = await post(valet, path)
    assert (again.status_code, "Idempotent-Replayed" in again.headers) == (200, False)
    assert again.json()["operation"]["status"] == ("cancelled" if ended else "cancelling")
    replayed = await post(valet, path)
    assert (replayed.content, replayed.headers["Idempotent-Replayed"]) == (again.content, "true")


async def test_a_cancellation_that_was_not_begun_is_done_by_the_retry(valet: Valet):
    path = await cancelled_without_an_answer(valet, it_ends_before_it_begins)
    assert (await valet.ask("GET", ONE + path.removesuffix("/cancel"))).json()["operation"]["status"] == "running"
    assert (await post(valet, path)).json()["operation"]["status"] == "cancelling"
    await until(lambda: valet.lines("operation_ended"))


async def test_what_others_cancelled_before_is_not_told_as_cancelled_by_the_retry(valet: Valet):
    path = await cancelled_without_an_answer(valet, it_ends_before_it_begins)
    assert (await valet.ask("POST", ONE + path)).status_code == 200
    await until(lambda: valet.lines("operation_ended"))
    refused = await post(valet, path)
    assert (refused.status_code, code(refused)) == (409, "conflict")


async def test_what_cannot_be_written_down_before_is_not_begun(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    write = valet.service.state.run_soon_durable
    problems = [Precondition("The state is full.")]

    async def full_at_first(work: Any) -> Any:
        if problems:
            raise problems.pop()
        return await write(work)

    body = {"database_user": {"name": "somebody"}}
    monkeypatch.setattr(valet.service.state, "run_soon_durable", full_at_first)
    refused = await post(valet, "/users", body)
    assert (refused.status_code, code(refused)) == (503, "state_unavailable")
    assert "Nothing was done" in refused.json()["error"]
    assert "create-user somebody" not in valet.server().performed
    assert (await post(valet, "/users", body)).status_code == 201


async def test_a_route_that_does_not_look_is_not_let_through_in_doubt(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    async def not_looked(*_: Any) -> None:
        return None

    ask = await with_a_lost_answer(valet, "the hours")
    done = await what_was_done(valet)
    monkeypatch.setattr(databases, "became_of", not_looked)
    assert code(await ask()) == "answer_unknown"
    assert await what_was_done(valet) == done


async def test_of_a_user_that_is_there_nothing_tells_who_made_it(valet: Valet):
    body = {"database_user": {"name": "somebody", "read_only": True}}
    valet.server().problem_after = ConnectionLost("It was cut.")
    assert code(await post(valet, "/users", body)) == "engine_unavailable"
    valet.server().problem_after = None
    again = await post(valet, "/users", body)
    assert (again.status_code, again.json()["error"]) == (409, users.MADE)
    assert valet.server().performed.count("create-user somebody") == 1


async def test_what_was_never_begun_may_be_asked_again_with_its_key(valet: Valet):
    headers = {"Idempotency-Key": "key-1"}
    valet.server().problem = EngineUnavailable()
    for method, path in (("DELETE", "/users/self-hosted"), ("DELETE", "/users/self-hosted")):
        assert code(await valet.ask(method, f"{ONE}{path}", headers=headers)) == "engine_unavailable"
    valet.server().problem = None
    assert (await valet.ask("DELETE", f"{ONE}/users/self-hosted", headers=headers)).status_code == 204
    again = await valet.ask("DELETE", f"{ONE}/users/self-hosted", headers=headers)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (204, "true")


@pytest.mark.parametrize("module", [users, features])
@pytest.mark.parametrize("awaited", ["the state", "the engine"])
async def test_what_is_not_done_in_time_is_told_with_what_did_not_answer(
    valet: Valet, monkeypatch: pytest.MonkeyPatch, awaited: str, module: ModuleType
):
    async def begin_slowly(*_: Any) -> None:
        if awaited == "the engine":
            await asyncio.sleep(60)
        monkeypatch.setattr(State, "_in_transaction", lambda *_: time.sleep(2))
        await valet.service.state.run(lambda _: None)

    monkeypatch.setattr(module, "SECONDS", 0)
    monkeypatch.setattr(module, "begin_change", begin_slowly)
    path = {users: "users/self-hosted", features: "features?feature=force-ssl"}[module]
    late = await valet.ask("DELETE", f"{ONE}/{path}")
    assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
    assert late.json()["error"] == f"Whether it was done is not known: {awaited} does not answer."
    assert {*valet.server().performed} <= {"list-users"}
