"""The audit: a line for each change before its answer leaves, and a chain that shows whatever was done to it."""

import asyncio
import hashlib
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from agent.audit.line import BEFORE_THE_FIRST, Change, Check, redacted, write
from agent.backups.storage import Storage
from agent.commands.root import app
from agent.state.state import State
from engines.action import Effect, Params, action
from engines.errors import DeadlineExceeded
from tests.fakes import ENGINE
from tests.fakes.driver import STAND_INS, FakeServer, Gate
from tests.fakes.service import PASSWORD, TOKENS, Valet, configuration, running, until
from tests.fakes.users import FakeUsers
from tests.unit.running import command, environment

ONE = "/api/databases/ad-one"


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with running() as valet:
        yield valet


async def audit_of(valet: Valet, token: str = "admin", query: str = "") -> list[dict[str, Any]]:
    response = await valet.ask("GET", f"/api/audit{query}", token)
    assert response.status_code == 200, response.text
    return response.json()["audit"]


async def told(valet: Valet) -> list[tuple[Any, ...]]:
    return [(line["action"], line["status"], line["code"]) for line in await audit_of(valet)]


async def test_a_write_has_one_line_that_says_all_of_it(valet: Valet):
    response = await valet.act("add-thing", {"name": "second"}, token="operator")
    (line,) = await audit_of(valet)

    assert line["request_id"] == response.headers["X-Request-Id"]
    assert {key: line[key] for key in ("who", "address", "method", "path", "action", "effect", "database")} == {
        "who": "operator",
        "address": "127.0.0.1",
        "method": "POST",
        "path": f"{ONE}/action",
        "action": "add-thing",
        "effect": "write",
        "database": "ad-one",
    }
    assert (line["params"], line["status"], line["code"]) == ({"name": "second"}, 200, "ok")
    assert (line["sequence"], line["previous"]) == (1, "")
    assert valet.lines("audited")[0]["line"] == f"1:{line['digest']}"


async def test_what_destroys_has_a_line_before_it_is_done_and_one_after(valet: Valet):
    valet.server().things["second"] = "red"
    gate = valet.server().gate = Gate()
    asked = asyncio.create_task(valet.act("drop-thing", {"name": "second"}))
    await until(lambda: gate.waiting)
    assert await told(valet) == [("drop-thing", None, "begun")]
    gate.open.set()
    await asked

    assert await told(valet) == [("drop-thing", None, "begun"), ("drop-thing", 200, "ok")]


async def test_reads_are_not_in_it(valet: Valet):
    await valet.act("list-things")
    await valet.ask("GET", ONE)
    await valet.ask("POST", f"{ONE}/ping")
    assert await audit_of(valet) == []


async def test_what_was_refused_and_what_failed_is_in_it(valet: Valet):
    await valet.act("add-thing", {"name": "x"}, token="reader")
    await valet.act("add-thing", {"name": "first"})
    await valet.act("add-thing", {"name": ""})
    valet.server().problem = DeadlineExceeded()
    await valet.act("add-thing", {"name": "x"})
    valet.server().problem = RuntimeError("planted-bug")
    await valet.act("add-thing", {"name": "x"})
    await valet.act("use-novelty")

    assert [each[1:] for each in await told(valet)] == [
        (403, "forbidden"),
        (409, "already_exists"),
        (422, "invalid_params"),
        (504, "deadline_exceeded"),
        (500, "internal"),
    ]


async def test_who_has_no_token_and_who_asks_too_often_fill_no_disk():
    async with running(limits={"write": "1/hour"}) as valet:
        await valet.ask("POST", f"{ONE}/action", None, json={"action_name": "set-mode", "params": "FAST"})
        await valet.ask("PATCH", ONE, None, json={"database": {}})
        for _ in range(3):
            await valet.act("set-mode", "FAST")
            await valet.ask("PATCH", ONE, json={"database": {}})
        assert await told(valet) == [("set-mode", 200, "ok")]


async def test_a_client_that_leaves_is_in_it(valet: Valet):
    gate = valet.server().gate = Gate()
    asked = asyncio.create_task(valet.act("set-mode", "FAST"))
    await until(lambda: gate.waiting)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert await told(valet) == [("set-mode", None, "client_left")]


async def test_the_other_routes_that_change_something_are_in_it(valet: Valet):
    hours = {"database": {"maintenance_window": {"weekday_utc": 1, "starting_hour_utc": 2}}}
    assert (await valet.ask("PATCH", ONE, json=hours)).status_code == 200
    await valet.ask("PATCH", ONE, "reader", json=hours)
    await valet.ask("PUT", ONE, content=b"[")
    await valet.ask("DELETE", f"{ONE}/backups/none")

    assert await told(valet) == [
        ("update-database", 200, "ok"),
        ("update-database", 403, "forbidden"),
        ("update-database", 400, "malformed"),
        ("delete-backup", 404, "not_found"),
    ]
    first, _, third, _ = await audit_of(valet)
    assert (first["method"], first["path"], first["params"]) == ("PATCH", ONE, hours)
    assert third["params"] is None


async def test_a_route_that_destroys_has_a_line_before_it_does(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    seen: list[list[tuple[Any, ...]]] = []

    async def deletes(*_: object) -> None:
        seen.append(await told(valet))

    backup = (await valet.ask("POST", f"{ONE}/backups")).json()["database_backup"]
    await until(lambda: valet.lines("operation_ended"))
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(FakeUsers, "delete", deletes)
    monkeypatch.setattr(Storage, "remove", lambda *_: asyncio.run_coroutine_threadsafe(deletes(), loop).result())
    for path, task, status, end in (
        ("users/self-hosted", "delete-user", 409, "conflict"),
        (f"backups/{backup['id']}", "delete-backup", 204, "ok"),
    ):
        before = await told(valet)
        assert (await valet.ask("DELETE", f"{ONE}/{path}")).status_code == status
        assert seen.pop() == [*before, (task, None, "begun")]
        assert await told(valet) == [*before, (task, None, "begun"), (task, status, end)]


async def test_a_client_of_a_route_that_leaves_is_in_it(valet: Valet):
    gate = valet.server().gate = Gate()
    asked = asyncio.create_task(valet.ask("DELETE", f"{ONE}/users/self-hosted"))
    await until(lambda: gate.waiting)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert await told(valet) == [("delete-user", None, "client_left")]


async def test_a_client_of_a_route_that_leaves_within_its_body_is_in_it_and_is_no_bug(valet: Valet):
    messages = [
        {"type": "http.request", "body": b'{"database":', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(_: object) -> None:
        return None

    headers = [(b"authorization", b"Bearer " + TOKENS["admin"].encode())]
    await valet.app(
        {
            "type": "http",
            "http_version": "1.1",
            "method": "PATCH",
            "scheme": "http",
            "path": ONE,
            "raw_path": ONE.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("192.0.2.1", 1),
            "server": ("dbvalet", 80),
        },
        receive,
        send,
    )
    assert await told(valet) == [("update-database", None, "client_left")]
    assert valet.lines("bug") == []


async def test_a_bug_of_a_route_is_in_it(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    async def bug(*_: object) -> None:
        raise RuntimeError("planted-bug")

    monkeypatch.setattr(valet.service.choices, "change", bug)
    assert (await valet.ask("PATCH", ONE, json={"database": {}})).status_code == 500
    assert await told(valet) == [("update-database", 500, "internal")]


async def test_secrets_are_in_none_of_its_lines(valet: Valet):
    await valet.act("add-thing", {"name": "x", "password": "hunter-two", "more": [{"api_token": "t0"}, PASSWORD]})
    await valet.act("set-mode", f"see {TOKENS['reader']}")
    lines = json.dumps(await audit_of(valet))

    for secret in ("hunter-two", "t0", PASSWORD, TOKENS["reader"]):
        assert secret not in lines
    assert lines.count("[secret]") == 4


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "one"}])
async def test_a_secret_that_a_client_puts_in_the_path_or_the_request_id_is_in_none_of_its_lines(
    valet: Valet, headers: dict[str, str]
):
    secret = TOKENS["operator"]
    headers = {"X-Request-Id": f"of-{secret}", **headers}
    valet.server().things["second"] = "red"
    for path in (f"users/{secret}", f"users/{secret}", f"users/{'x' * 950}{secret}", f"backups/{secret}"):
        answer = await valet.ask("DELETE", f"{ONE}/{path}", headers=headers)
        assert answer.headers["X-Request-Id"] == f"of-{secret}"  # it is the client's own
    for name, params in (("add-thing", {"name": "x"}), ("drop-thing", {"name": "second"})):
        body = {"action_name": name, "params": params}
        more = {**headers, "Idempotency-Key": name} if len(headers) > 1 else headers
        assert (await valet.ask("POST", f"{ONE}/action", json=body, headers=more)).status_code == 200
    lines = await audit_of(valet)

    assert {line["request_id"] for line in lines} == {"of-[secret]"}
    assert {f"{ONE}/users/[secret]", f"{ONE}/backups/[secret]"} < {line["path"] for line in lines}
    assert secret not in json.dumps(lines)
    assert secret[:8] not in json.dumps(lines)
    assert secret not in json.dumps(valet.lines("audited"))


def test_params_are_cut_to_what_a_person_can_read():
    deep: Any = "end"
    for _ in range(300):
        deep = [deep]
    assert len(json.dumps(redacted(deep))) < 50
    assert redacted("x" * 5000) == "x" * 1000 + "…"
    assert redacted(list(range(5000))) == [*range(100), "…"]
    assert redacted({str(each): each for each in range(101)})["…"] == "…"
    assert redacted({"password": None, "a": 1.5, "b": True}) == {"password": None, "a": 1.5, "b": True}


@pytest.mark.parametrize(
    "params",
    [
        {f"key {number}": {"x" * 500: ["y" * 500] * 20} for number in range(50)},
        ["x" * 1000] * 100,
        [[[[["x"] * 9] * 9] * 9] * 9] * 9,
        {"\0" * 900 + str(number): "\0" * 900 for number in range(100)},
        {"€" * 30 + str(number): [{"€" * 30: "€" * 30}] * 10 for number in range(10)},
    ],
)
def test_the_params_of_a_line_are_cut_as_a_whole(params: Any):
    cut = redacted(params)
    assert 100 < len(orjson.dumps(cut)) <= 8192
    assert type(cut) is type(params)
    assert "…" in orjson.dumps(cut).decode()


def test_of_large_params_every_field_is_still_there():
    params = {"much": ["x" * 1000] * 100, "password": "hunter-two", "more": {"api_token": "t0"}, "name": "prod"}
    cut = redacted(params, ["x" * 999])
    assert (cut["password"], cut["more"], cut["name"]) == ("[secret]", {"api_token": "[secret]"}, "prod")
    assert set(cut["much"]) == {"[secret]x"}
    assert len(redacted(params)["much"]) < 100


class Colours(Params):
    """A colour for each of many."""

    colours: dict[str, list[str]]


@action("paint", effect=Effect.WRITE)
async def paint(server: FakeServer, params: Colours) -> int:
    """Paint many at once."""
    await server.perform("paint")
    return sum(len(each) for each in params.colours.values())


async def test_large_params_are_carried_out_whole_and_their_line_says_that_it_is_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(STAND_INS, "fake", replace(ENGINE, added={"paint": paint}))
    async with running() as valet:
        colours = {f"thing {number}": ["blue" * 50] * 20 for number in range(200)}
        response = await valet.act("paint", {"colours": colours})
        assert response.json() == {"ok": 1, "result": 4000}
        (line,) = await audit_of(valet)
        assert len(json.dumps(line)) < 10_000
        assert line["params"]["colours"]["thing 0"]
        assert line["params"]["colours"]["…"] == "…"
        assert (await valet.ask("DELETE", f"{ONE}/users/{'x' * 30_000}", "reader")).status_code == 403
        _, line = await audit_of(valet)
        assert line["path"] == f"{ONE}/users/".ljust(1000, "x") + "…"


async def test_pages_follow_each_other_and_json_lines_are_for_who_accepts_them(valet: Valet):
    for number in range(5):
        await valet.act("add-thing", {"name": f"thing {number}"})
    first = (await valet.ask("GET", "/api/audit?limit=3")).json()
    second = (await valet.ask("GET", f"/api/audit?limit=3&after={first['next_after']}")).json()
    assert [line["sequence"] for line in first["audit"] + second["audit"]] == [1, 2, 3, 4, 5]
    assert second["next_after"] is None

    response = await valet.ask("GET", "/api/audit", headers={"Accept": "application/x-ndjson"})
    assert response.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in response.text.splitlines()] == first["audit"] + second["audit"]


async def test_a_token_sees_the_lines_of_its_databases_only(valet: Valet):
    await valet.act("add-thing", {"name": "x"})
    await valet.act("add-thing", {"name": "x"}, database="ad-two")

    assert [line["database"] for line in await audit_of(valet)] == ["ad-one", "ad-two"]
    assert [line["database"] for line in await audit_of(valet, "of-two")] == ["ad-two"]
    assert [line["database"] for line in await audit_of(valet, query="?database=ad-one")] == ["ad-one"]


async def test_lines_of_a_database_where_it_is_switched_off_are_shown_to_nobody():
    one, two = configuration()["databases"]
    databases = [one, {**two, "disabled_actions": ["read-audit"]}]
    async with running(databases=databases) as valet:
        await valet.act("add-thing", {"name": "x"}, database="ad-two")
        await valet.act("add-thing", {"name": "x"})
        change = Change(
            request_id="1",
            who="root on this machine",
            address=None,
            method="COMMAND",
            path="dbvalet token create",
            action="create-token",
            effect=Effect.WRITE,
            database=None,
        )
        await valet.service.journal.end(change, 200, "ok")

        assert [line["database"] for line in await audit_of(valet)] == ["ad-one", None]
        assert await audit_of(valet, "of-two") == []
        refused = await valet.ask("GET", "/api/audit?database=ad-two")
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert refused.json()["error"] == "read-audit is switched off for this database."


async def test_where_it_is_switched_off_nothing_is_written_and_nothing_refused():
    async with running(audit="none", state="sqlite:////proc/nowhere/state.db") as valet:
        assert (await valet.act("add-thing", {"name": "x"})).status_code == 200
        assert (await valet.act("add-thing", {"name": "x"})).status_code == 409


async def test_a_state_that_cannot_be_written_refuses_before_the_engine_is_touched(tmp_path: Path):
    async with running(state="sqlite:////proc/nowhere/state.db") as valet:
        for name, params in (("add-thing", {"name": "x"}), ("drop-thing", {"name": "first"})):
            refused = await valet.act(name, params)
            assert (refused.status_code, refused.json()["code"]) == (503, "state_unavailable")
            assert refused.json()["error"].startswith("Nothing was done, since it cannot be written down. ")
            assert refused.headers["Retry-After"] == "5"
        assert valet.server().performed == []
        assert (await valet.act("list-things")).status_code == 200


async def test_a_route_too_changes_nothing_that_cannot_be_written_down(valet: Valet):
    await valet.service.choices.of("ad-one")
    await valet.act("set-mode", "FAST")
    await valet.service.state.run(lambda connection: connection.exec_driver_sql("DROP TABLE audit"))
    hours = {"database": {"periodic_backups_enabled": True}}

    assert (await valet.ask("PATCH", ONE, json=hours)).json()["code"] == "state_unavailable"
    assert not (await valet.service.choices.of("ad-one")).periodic_backups_enabled


async def test_an_answer_whose_line_is_lost_says_what_was_done(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    gate = valet.server().gate = Gate()
    asked = asyncio.create_task(valet.act("add-thing", {"name": "x"}))
    await until(lambda: gate.waiting)
    await valet.service.state.run(lambda connection: connection.exec_driver_sql("DROP TABLE audit"))
    gate.open.set()
    response = await asked

    assert (response.status_code, response.json()["code"]) == (503, "state_unavailable")
    assert response.json()["error"].startswith(
        "It was done, but that cannot be written down; look before trying again."
    )
    assert valet.lines("not_audited")[0]["outcome"] == "ok"


async def test_many_writers_on_one_state_make_one_chain(tmp_path: Path):
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as first, running(state=state) as second:
        asked = [each.act("set-mode", f"MODE {number}") for number in range(15) for each in (first, second)]
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
    result = await asyncio.to_thread(verified, tmp_path)
    assert result.output.startswith("The audit is whole: lines: 30, head: 30:")


def invoke(folder: Path, *arguments: str) -> Result:
    config = folder / "dbvalet.yaml"
    token = {"name": "tests", "token": "a-token-of-the-tests", "role": "admin", "databases": ["*"]}
    url = "influxdb://a:b@127.0.0.1/app"
    config.write_text(
        json.dumps(
            {
                "state": f"sqlite:///{folder}/state.db",
                "tokens": [token],
                "databases": [{"id": "ad-one", "url": url}],
            }
        )
    )
    return CliRunner().invoke(app, ["audit", *arguments, "--config", str(config)])


def verified(folder: Path, *arguments: str) -> Result:
    return invoke(folder, "verify", *arguments)


async def of_five_lines(folder: Path) -> None:
    async with running(state=f"sqlite:///{folder}/state.db") as valet:
        for number in range(5):
            await valet.act("add-thing", {"name": f"thing {number}"}, database="ad-two" if number % 2 else "ad-one")


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "state.db", isolation_level=None)) as connection:
        connection.create_function("sha256", 1, lambda text: hashlib.sha256(text.encode()).hexdigest())
        for statement in statements:
            connection.execute(statement)


def changed(folder: Path, *statements: str) -> Result:
    change(folder, *statements)
    return verified(folder)


LAST_BY_ANOTHER = (
    "UPDATE audit SET line = replace(line, 'admin', 'other') WHERE sequence = 5",
    "UPDATE audit SET digest = sha256(line) WHERE sequence = 5",
)

MADE_ANEW = (
    "UPDATE audit SET line = replace(line, 'admin', 'other')",
    "UPDATE audit SET digest = sha256(line) WHERE sequence = 1",
    *(
        statement
        for each in range(2, 6)
        for statement in (
            "UPDATE audit SET line = json_set(line, '$.previous',"
            f" (SELECT digest FROM audit WHERE sequence = {each - 1})) WHERE sequence = {each}",
            f"UPDATE audit SET digest = sha256(line) WHERE sequence = {each}",
        )
    ),
)
"""A chain in which each line follows the one before, by somebody else."""

ONE_MORE = (
    "INSERT INTO audit SELECT 6, database_id, json_set(line, '$.sequence', 6, '$.previous', digest), 'none' FROM audit"
    " WHERE sequence = 5",
    "UPDATE audit SET digest = sha256(line) WHERE sequence = 6",
)


WITHOUT_CONSTRAINTS = (
    "ALTER TABLE audit RENAME TO old",
    "CREATE TABLE audit (sequence BIGINT, database_id TEXT, line TEXT, digest TEXT)",
    "INSERT INTO audit SELECT * FROM old",
    "DROP TABLE old",
)


def anew(number: int, line: str) -> list[str]:
    """Write a line of one's own, an expression of SQL, with the digest that fits."""
    return [
        f"UPDATE audit SET line = {line} WHERE sequence = {number}",
        f"UPDATE audit SET digest = sha256(line) WHERE sequence = {number}",
    ]


@pytest.fixture
def five(tmp_path: Path) -> Path:
    asyncio.run(of_five_lines(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("statements", "text"),
    [
        (["UPDATE audit SET line = replace(line, 'admin', 'other') WHERE sequence = 3"], "Line 3 was changed."),
        (["UPDATE audit SET digest = 'x' WHERE sequence = 5"], "Line 5 was changed."),
        (["UPDATE audit SET database_id = 'ad-two' WHERE sequence = 1"], "Line 1 is kept under another database."),
        (["DELETE FROM audit WHERE sequence = 1"], "Line 1 is not where it was: line 2 follows 0."),
        (["DELETE FROM audit WHERE sequence = 3"], "Line 3 is not where it was: line 4 follows 2."),
        (["DELETE FROM audit WHERE sequence > 3"], "The lines from 4 to 5 are missing."),
        (["DELETE FROM audit"], "The lines from 1 to 5 are missing."),
        (LAST_BY_ANOTHER, "Line 5 is not the one that the state has as its last."),
        (MADE_ANEW, "Line 5 is not the one that the state has as its last."),
        (ONE_MORE, "Line 6 is not one of dbvalet's: the state has line 5 as its last."),
        (["UPDATE audit_head SET digest = 'x'"], "Line 5 is not the one that the state has as its last."),
        (["UPDATE audit_head SET sequence = 3"], "Line 4 is not one of dbvalet's: the state has line 3 as its last."),
        (["UPDATE audit SET line = 'x', digest = sha256('x') WHERE sequence = 2"], "Line 2 was changed."),
        (["UPDATE audit SET line = '{}', digest = sha256('{}') WHERE sequence = 2"], "Line 2 was changed."),
        (["UPDATE audit SET line = '[]', digest = sha256('[]') WHERE sequence = 2"], "Line 2 was changed."),
        (
            [f"UPDATE audit SET sequence = {new} WHERE sequence = {old}" for old, new in ((2, 9), (3, 2), (9, 3))],
            "Line 2 does not follow the one before it.",
        ),
        (["UPDATE audit SET line = CAST(line AS BLOB) WHERE sequence = 2"], "Line 2 was changed."),
        (["UPDATE audit SET line = CAST(x'ff' AS TEXT) WHERE sequence = 2"], "Line 2 was changed."),
        (["UPDATE audit SET digest = CAST(digest AS BLOB) WHERE sequence = 5"], "Line 5 was changed."),
        (["UPDATE audit SET digest = CAST(x'ff' AS TEXT) WHERE sequence = 1"], "Line 1 was changed."),
        ([*WITHOUT_CONSTRAINTS, "UPDATE audit SET line = NULL, digest = NULL"], "Line 1 was changed."),
        (["UPDATE audit SET database_id = x'6164' WHERE sequence = 1"], "Line 1 is kept under another database."),
        (
            ["UPDATE audit SET database_id = CAST(x'ff' AS TEXT) WHERE sequence = 4"],
            "Line 4 is kept under another database.",
        ),
        (anew(1, "json_set(line, '$.sequence', '1')"), "Line 1 was changed."),
        (anew(1, "json_set(line, '$.sequence', json('true'))"), "Line 1 was changed."),
        (anew(1, "json_set(line, '$.sequence', 1.0)"), "Line 1 was changed."),
        (anew(1, "json_remove(line, '$.previous')"), "Line 1 was changed."),
        (anew(1, "json_set(line, '$.previous', NULL)"), "Line 1 does not follow the one before it."),
        (anew(1, "json_set(line, '$.database', json('{}'))"), "Line 1 is kept under another database."),
        (anew(1, "replace(line, 'admin', '\\ud800')"), "Line 1 was changed."),
        (anew(3, "replace(hex(zeroblob(100000)), '0', '[')"), "Line 3 was changed."),
        (anew(3, "line || replace(hex(zeroblob(2000000)), '0', ' ')"), "Line 4 does not follow the one before it."),
        (
            ["UPDATE audit SET sequence = 2.5 WHERE sequence = 2"],
            "Line 2 is not where it was: a line without a number follows 1.",
        ),
        (
            ["INSERT INTO audit SELECT 'six', NULL, line, digest FROM audit WHERE sequence = 5"],
            "Line 6 is not where it was: a line without a number follows 5.",
        ),
        (
            ["INSERT INTO audit SELECT CAST(x'ff' AS TEXT), NULL, line, digest FROM audit WHERE sequence = 5"],
            "Line 6 is not where it was: a line without a number follows 5.",
        ),
        (
            ["INSERT INTO audit SELECT -5, NULL, line, digest FROM audit WHERE sequence = 1"],
            "Line 1 is not where it was: line -5 follows 0.",
        ),
        (
            ["INSERT INTO audit SELECT 0, NULL, line, digest FROM audit WHERE sequence = 1"],
            "Line 1 is not where it was: line 0 follows 0.",
        ),
        (
            [*WITHOUT_CONSTRAINTS, "UPDATE audit SET sequence = NULL WHERE sequence = 4"],
            "Line 1 is not where it was: a line without a number follows 0.",
        ),
        (["DELETE FROM audit_head"], "The state has to have one line as its last, and has none."),
        (
            ["INSERT INTO audit_head SELECT 2, sequence, digest FROM audit_head"],
            "The state has to have one line as its last, and has 2.",
        ),
        (["UPDATE audit_head SET digest = CAST(digest AS BLOB)"], "What the state has as its last line is none."),
        (["UPDATE audit_head SET digest = CAST(x'ff' AS TEXT)"], "What the state has as its last line is none."),
        (["UPDATE audit_head SET sequence = 'five'"], "What the state has as its last line is none."),
        (
            ["DELETE FROM audit_head", "DELETE FROM audit WHERE sequence = 3"],
            "Line 3 is not where it was: line 4 follows 2.",
        ),
    ],
)
@pytest.mark.parametrize("size", [1000, 5])
def test_whatever_was_done_to_a_line_is_found(
    five: Path, statements: Sequence[str], text: str, size: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agent.commands.audit.PAGE", size)
    assert verified(five).exit_code == 0
    result = changed(five, *statements)
    assert (result.exit_code, result.stderr) == (1, f"dbvalet: {text}\n")


@pytest.mark.parametrize("character", ["a", "ü", "…"])
def test_a_long_line_is_checked_in_as_many_steps_as_a_short_one(character: str):
    def steps(text: str) -> int:
        change = Change(
            request_id="x",
            who="x",
            address=None,
            method="x",
            path="x",
            action="x",
            effect="x",
            database=None,
            params=text,
        )
        row = write(change, datetime.now(UTC), BEFORE_THE_FIRST, 200, "ok")
        counted = Counter[str]()
        before = sys.getprofile()
        sys.setprofile(lambda _, event, __: counted.update([event]))
        try:
            Check().follow([row])
        finally:
            sys.setprofile(before)
        return counted.total()

    steps(character)  # what is done once only
    assert steps(character * 5000) == steps(character)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1000, "Line 6 is not where it was: line 5 follows 5."),
        (5, "The state has 6 lines: not all are of the chain, which has 5."),
    ],
)
def test_a_line_that_stands_there_twice_is_found_where_a_page_ends_too(
    five: Path, size: int, text: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agent.commands.audit.PAGE", size)
    result = changed(five, *WITHOUT_CONSTRAINTS, "INSERT INTO audit SELECT * FROM audit WHERE sequence = 5")
    assert (result.exit_code, result.stderr) == (1, f"dbvalet: {text}\n")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET line = 'x' WHERE sequence = 3",
        "UPDATE audit SET line = CAST(x'ff' AS TEXT) WHERE sequence = 3",
        "UPDATE audit SET digest = CAST(digest AS BLOB) WHERE sequence = 3",
    ],
)
async def test_what_is_no_line_is_neither_exported_nor_shown(tmp_path: Path, statement: str):
    await of_five_lines(tmp_path)
    change(tmp_path, statement)
    exported = await asyncio.to_thread(invoke, tmp_path, "export")
    assert (exported.exit_code, exported.stderr) == (1, "dbvalet: Line 3 was changed. The export ends before it.\n")
    assert len(exported.stdout.splitlines()) == 2
    async with running(state=f"sqlite:///{tmp_path}/state.db") as valet:
        refused = await valet.ask("GET", "/api/audit")
        assert (refused.status_code, refused.json()["code"]) == (503, "state_unavailable")
        assert refused.json()["error"] == (
            "The audit cannot be shown: Line 3 was changed. `dbvalet audit verify` tells more."
        )
        assert valet.lines("bug") == []


@pytest.mark.parametrize("statement", ["DELETE FROM audit_head", "UPDATE audit_head SET digest = CAST(digest AS BLOB)"])
async def test_without_a_last_line_nothing_is_done_and_the_lines_are_exported(tmp_path: Path, statement: str):
    await of_five_lines(tmp_path)
    change(tmp_path, statement)
    assert len((await asyncio.to_thread(invoke, tmp_path, "export")).stdout.splitlines()) == 5
    async with running(state=f"sqlite:///{tmp_path}/state.db") as valet:
        refused = await valet.act("add-thing", {"name": "x"})
        assert (refused.status_code, refused.json()["code"]) == (503, "state_unavailable")
        assert refused.json()["error"].startswith("Nothing was done, since it cannot be written down. ")
        assert refused.json()["error"].endswith(" `dbvalet audit verify` tells more.")
        assert valet.server().performed == []
        assert valet.lines("bug") == []


async def test_who_verifies_while_lines_are_written_is_told_of_no_tampering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agent.commands.audit.PAGE", 3)
    await of_five_lines(tmp_path)
    async with running(state=f"sqlite:///{tmp_path}/state.db") as valet:
        often = asyncio.get_running_loop().run_in_executor(None, lambda: [verified(tmp_path) for _ in range(2)])
        written = 0
        while not often.done():
            assert (await valet.act("set-mode", "FAST")).status_code == 200
            written += 1
        assert written
        assert {result.exit_code for result in await often} == {0}


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "one"}])
@pytest.mark.parametrize("asked", [("add-thing", {"name": "x"}), ("drop-thing", {"name": "first"})])
async def test_after_a_line_that_somebody_has_added_nothing_is_done(
    tmp_path: Path, asked: tuple[str, Any], headers: dict[str, str]
):
    await of_five_lines(tmp_path)
    change(tmp_path, *ONE_MORE)
    name, params = asked
    async with running(state=f"sqlite:///{tmp_path}/state.db") as valet:
        body = {"action_name": name, "params": params}
        refused = await valet.ask("POST", f"{ONE}/action", json=body, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (503, "state_unavailable")
        assert refused.json()["error"] == (
            "Nothing was done, since it cannot be written down. "
            "The audit has a line 6 that is not dbvalet's: `dbvalet audit verify` tells more."
        )
        assert valet.server().performed == []
        assert (await valet.ask("PATCH", ONE, json={"database": {}}, headers=headers)).status_code == 503
        assert valet.lines("bug") == []


async def test_a_line_that_somebody_adds_meanwhile_is_told_with_what_was_done(valet: Valet):
    gate = valet.server().gate = Gate()
    asked = asyncio.create_task(valet.act("add-thing", {"name": "x"}))
    await until(lambda: gate.waiting)
    await valet.service.state.run(
        lambda connection: connection.exec_driver_sql("INSERT INTO audit VALUES (1, 'ad-one', '{}', 'x')")
    )
    gate.open.set()
    response = await asked

    assert (response.status_code, response.json()["code"]) == (503, "state_unavailable")
    assert response.json()["error"].startswith("It was done, but that cannot be written down;")
    assert "`dbvalet audit verify`" in response.json()["error"]


def test_a_head_that_was_noted_down_shows_a_chain_that_was_made_anew(five: Path, tmp_path: Path):
    noted = verified(five).output.split()[-1]
    assert verified(five, "--head", noted).exit_code == 0
    assert (
        verified(five, "--head", noted.replace(":", ":0")).stderr
        == "dbvalet: Line 5 is not the one that was noted down.\n"
    )
    fourth = "(SELECT digest FROM audit WHERE sequence = 4)"
    change(five, "DELETE FROM audit WHERE sequence = 5", f"UPDATE audit_head SET sequence = 4, digest = {fourth}")
    assert verified(five).exit_code == 0
    assert verified(five, "--head", noted).stderr == "dbvalet: The lines from 5 to 5 are missing.\n"


def test_what_was_exported_can_be_checked(five: Path):
    exported = five / "audit.jsonl"
    exported.write_text(invoke(five, "export").output)
    assert [json.loads(line)["sequence"] for line in exported.read_text().splitlines()] == [1, 2, 3, 4, 5]
    assert verified(five, "--file", str(exported)).exit_code == 0

    lines = exported.read_text().splitlines()
    tampering: list[Callable[[list[str]], list[str]]] = [
        lambda lines: [lines[0].replace("thing 0", "thing 9"), *lines[1:]],
        lambda lines: [*lines[:2], *lines[3:]],
        lambda lines: [lines[1], lines[0], *lines[2:]],
    ]
    for tamper in tampering:
        exported.write_text("".join(f"{line}\n" for line in tamper(lines)))
        assert verified(five, "--file", str(exported)).exit_code == 1
    exported.write_text("no JSON")
    assert verified(five, "--file", str(exported)).exit_code == 2


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(lambda line: line.replace('"who":', '"who":"nobody","who":'), id="a field twice"),
        pytest.param(lambda line: line.replace('"digest":', '"digest":"0","digest":'), id="the digest twice"),
        pytest.param(lambda line: line.replace('"thing 2"', '"other","name":"thing 2"'), id="a param twice"),
        pytest.param(lambda line: line.replace('"who":', '"who": '), id="a space"),
        pytest.param(lambda line: line.replace("admin", "\\u0061dmin"), id="an escape"),
        pytest.param(lambda line: json.dumps(json.loads(line), sort_keys=True, separators=(",", ":")), id="an order"),
        pytest.param(lambda line: f"{line}\r", id="another end"),
        pytest.param(lambda line: f" {line}", id="a space before"),
    ],
)
def test_a_line_of_an_export_is_what_export_wrote_byte_for_byte(five: Path, tamper: Callable[[str], str]):
    exported = five / "audit.jsonl"
    lines = invoke(five, "export").output.splitlines()
    changed = tamper(lines[2])
    assert changed != lines[2]
    exported.write_bytes("".join(f"{line}\n" for line in [*lines[:2], changed, *lines[3:]]).encode())
    result = verified(five, "--file", str(exported))
    assert (result.exit_code, result.stderr) == (
        1,
        "dbvalet: Line 3 is not written as `export` writes it: something has changed it.\n",
    )


async def of_one_that_destroys_what_is_backed_up(folder: Path) -> None:
    databases = [{**each, "backup_before_destroy": True} for each in configuration()["databases"]]
    async with running(state=f"sqlite:///{folder}/state.db", databases=databases) as valet:
        valet.server().things["second"] = "red"
        assert (await valet.act("drop-thing", {"name": "second"})).status_code == 200


def test_lines_that_name_backups_are_in_one_chain_with_those_of_before(five: Path):
    asyncio.run(of_one_that_destroys_what_is_backed_up(five))
    exported = five / "audit.jsonl"
    exported.write_text(invoke(five, "export").output)
    lines = [json.loads(line) for line in exported.read_text().splitlines()]
    assert ["backups" in line for line in lines] == [False] * 5 + [True] * 2
    for result in (verified(five), verified(five, "--file", str(exported))):
        assert result.output == f"The audit is whole: lines: 7, head: 7:{lines[-1]['digest']}\n"
    changed = f"UPDATE audit SET line = replace(line, '{lines[-1]['backups'][0]}', 'none') WHERE sequence = 7"
    change(five, changed)
    assert verified(five).stderr == "dbvalet: Line 7 was changed.\n"


def resealed(line: str, **fields: Any) -> bytes:
    """Change fields of an exported line, and give it the digest that fits."""
    changed = {**json.loads(line), **fields}
    del changed["digest"]
    text = orjson.dumps(changed, option=orjson.OPT_SORT_KEYS)
    return orjson.dumps({**orjson.loads(text), "digest": hashlib.sha256(text).hexdigest()})


@pytest.mark.parametrize("value", ["1", True, 1.0, None, [1], -1])
def test_a_line_of_an_export_whose_number_is_none_is_found(five: Path, value: Any):
    exported = five / "audit.jsonl"
    first, *others = invoke(five, "export").output.splitlines()
    named = "line -1" if value == -1 else "a line without a number"
    for lines in ([], others):
        exported.write_bytes(b"\n".join([resealed(first, sequence=value), *map(str.encode, lines), b""]))
        result = verified(five, "--file", str(exported))
        text = f"dbvalet: Line 1 is not where it was: {named} follows 0.\n"
        assert (result.exit_code, result.stderr) == (1, text)


@pytest.mark.parametrize(
    "line",
    [b"no JSON", b"", b"[]", b"{}", b'{"digest":""}', b"\xff", b'{"who":"\\ud800"}', b"[" * 5000, b'{"sequence":3'],
)
def test_what_is_no_line_in_the_middle_of_an_export_is_found(five: Path, line: bytes):
    exported = five / "audit.jsonl"
    lines = invoke(five, "export").output.encode().splitlines()
    exported.write_bytes(b"\n".join([*lines[:2], line, *lines[3:], b""]))
    result = verified(five, "--file", str(exported))
    assert (result.exit_code, result.stderr) == (1, "dbvalet: What follows line 2 is no line.\n")


def test_export_goes_on_after_a_line(five: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agent.commands.audit.PAGE", 2)
    output = invoke(five, "export", "--after", "2").output
    assert [json.loads(line)["sequence"] for line in output.splitlines()] == [3, 4, 5]
    assert verified(five).output.startswith("The audit is whole: lines: 5")


def test_a_part_that_was_exported_is_checked_from_where_it_begins(five: Path):
    part = five / "part.jsonl"
    digests = [json.loads(line)["digest"] for line in invoke(five, "export").output.splitlines()]
    part.write_text(invoke(five, "export", "--after", "2").output)
    result = verified(five, "--file", str(part))
    assert (result.exit_code, result.output) == (
        0,
        f"The audit is whole: from line 3, which follows 2:{digests[1]}; what was before is not in it: "
        f"lines: 3, head: 5:{digests[4]}\n",
    )
    for noted, said in (
        (f"2:{digests[1]}", None),
        (f"4:{digests[3]}", None),
        ("2:0", "Line 3 does not follow the one that was noted down."),
        (f"1:{digests[0]}", "Line 1 is not there: the lines begin with 3."),
        ("6:0", "The lines from 6 to 6 are missing."),
    ):
        checked = verified(five, "--file", str(part), "--head", noted)
        assert (checked.exit_code, checked.stderr) == ((0, "") if said is None else (1, f"dbvalet: {said}\n"))
    lines = part.read_text().splitlines()
    part.write_text(f"{lines[0]}\n{lines[2]}\n")
    assert verified(five, "--file", str(part)).stderr.startswith("dbvalet: Line 4 is not where it was")


def test_an_export_to_a_full_disk_says_so_in_one_line(five: Path):
    invoke(five, "export")  # which writes the configuration
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command("audit", "export", "--config", str(five / "dbvalet.yaml")),
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (
        1,
        "dbvalet: Standard output cannot be written: No space left on device. The export ends before line 1.\n",
    )


@pytest.mark.parametrize("head", ["", "5", "x:y", ":y"])
def test_a_head_that_is_none_is_a_mistake(five: Path, head: str):
    assert verified(five, "--head", head).exit_code == 2


def test_verify_makes_no_state(tmp_path: Path):
    result = verified(tmp_path)
    assert (result.exit_code, result.stderr) == (3, f"dbvalet: There is no state at {tmp_path}/state.db.\n")
    assert not (tmp_path / "state.db").exists()


def test_a_state_that_is_locked_or_damaged_is_not_taken_for_one_that_was_changed(five: Path):
    with closing(sqlite3.connect(five / "state.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        locked = verified(five)
    assert (locked.exit_code, "database is locked" in locked.stderr) == (3, True)
    (five / "state.db").write_bytes(b"no database" * 1000)
    damaged = verified(five)
    assert (damaged.exit_code, damaged.stderr.startswith("dbvalet: state: ")) == (3, True)


def test_what_cannot_be_looked_at_is_not_taken_for_what_was_changed(five: Path, monkeypatch: pytest.MonkeyPatch):
    def locked(_: State) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(State, "_opened", locked)
    for result in (verified(five), invoke(five, "export")):
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr.startswith("dbvalet: The state cannot be used: database is locked.")
