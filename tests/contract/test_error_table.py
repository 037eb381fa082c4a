"""The error table, row by row, over every route. The rows are compared with the app's own route table and with what the
OpenAPI document promises: a new route, or a new way to fail, without a row here fails."""

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import jsonschema
import orjson
import pytest
from sqlalchemy import Connection, update

from agent import once
from agent.api import edge, lists
from agent.api.errors import STATUS
from agent.asked import Asked
from agent.backups import storage as storage_module
from agent.errors import NotSupported
from agent.state.tables import idempotency_keys as keys
from engines import errors
from engines.action import Effect
from tests.contract.decoders import go_failure, javascript_failure
from tests.contract.routes import SOCKET, entries_of
from tests.fakes import BARE
from tests.fakes.driver import Gate
from tests.fakes.kinds import FakeKind
from tests.fakes.service import TOKENS, Valet, running
from tests.planted import IDS, REFUSED, plant

Provoke = Callable[[Valet], Awaitable[httpx.Response]]

ACTION = ("POST", "/api/databases/{database_id}/action")
ONE = IDS
BODIES = {
    ACTION: b'{"action_name":"list-things"}',
    ("PATCH", "/api/databases/{database_id}"): b'{"database":{}}',
    ("PUT", "/api/databases/{database_id}"): b'{"database":{}}',
    ("POST", "/api/databases/{database_id}/features"): b'{"feature":{"name":"force-ssl"}}',
    ("POST", "/api/databases/{database_id}/users"): b'{"database_user":{"name":"somebody"}}',
    ("PATCH", "/api/databases/{database_id}/users/{user_name}"): orjson.dumps(
        {"database_user": {"password": "p" * 24, "password_confirmation": "p" * 24}}
    ),
    ("POST", "/api/databases/{database_id}/pitr/restore"): b'{"restore_time":"2026-01-31T09:00:00Z"}',
}
"""What a route takes without complaint."""
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]


def body(content: bytes) -> Provoke:
    return lambda valet: valet.ask("POST", "/api/databases/ad-one/action", content=content)


def act(name: str, params: Any, **more: Any) -> Provoke:
    return lambda valet: valet.act(name, params, **more)


def engine_raises(problem: BaseException) -> Provoke:
    async def provoke(valet: Valet) -> httpx.Response:
        valet.server().problem = problem
        return await valet.act("list-things")

    return provoke


async def engine_hangs(valet: Valet) -> httpx.Response:
    valet.server().gate = Gate()
    return await valet.act("read-clock")


async def version_too_old(valet: Valet) -> httpx.Response:
    await valet.database().look()
    return await valet.act("use-novelty")


def as_nobody(method: str, path: str) -> Provoke:
    return lambda valet: valet.ask(method, path.format(**ONE), None)


def of_unknown_database(method: str, path: str) -> Provoke:
    return lambda valet: valet.ask(method, path.format(**{**IDS, "database_id": "ad-none"}))


def over_the_rate(method: str, path: str) -> Provoke:
    async def provoke(_: Valet) -> httpx.Response:
        rate = "1/hour"
        async with running(limits={"read": rate, "write": rate, "destructive": rate}) as valet:
            await plant(valet)
            content = BODIES.get((method, path))
            if path.endswith("/cancel"):
                assert (await valet.ask(method, path.format(**ONE))).status_code == 409
                return await valet.ask(method, path.format(**ONE))
            first = await valet.ask(method, path.format(**ONE), content=content)
            refused = path in REFUSED or "not_supported" in ROWS[method, path.partition("?")[0]]
            assert first.is_success or (refused and first.status_code in (400, 404))
            return await valet.ask(method, path.format(**ONE), content=content)

    return provoke


def while_crowded(method: str, path: str, effect: Effect, content: bytes | None = None) -> Provoke:
    """Ask while as many requests as may are at work on the database."""

    async def provoke(_: Valet) -> httpx.Response:
        async with running(limits={"concurrent": 1}) as valet:
            await plant(valet)
            await valet.database().look()
            with valet.database().admitted(effect):
                return await valet.ask(method, path.format(**ONE), content=content or BODIES.get((method, path)))

    return provoke


def a_bug(method: str, path: str) -> Provoke:
    async def bug(*_: object) -> None:
        raise RuntimeError("planted-bug")

    async def provoke(valet: Valet) -> httpx.Response:
        route: Any = next(
            each
            for each in valet.app.routes
            if getattr(each, "path", None) == path and method in getattr(each, "methods", ())
        )
        route.app = bug
        return await valet.ask(method, path.format(**ONE))

    return provoke


async def before_the_start_is_over(valet: Valet) -> httpx.Response:
    valet.service.ready = False
    return await valet.ask("GET", "/readyz", None)


def with_a_token(method: str, path: str) -> dict[str, list[Provoke]]:
    return {
        "unauthenticated": [as_nobody(method, path)],
        "rate_limited": [over_the_rate(method, path)],
        "internal": [a_bug(method, path)],
    }


TABLE = {
    "malformed": 400,
    "not_supported": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "protected": 403,
    "privilege_missing": 403,
    "not_found": 404,
    "unknown_action": 404,
    "method_not_allowed": 405,
    "already_exists": 409,
    "precondition": 409,
    "conflict": 409,
    "in_progress": 409,
    "answer_unknown": 409,
    "too_large": 413,
    "range_not_satisfiable": 416,
    "invalid_params": 422,
    "rate_limited": 429,
    "head_too_large": 431,
    "internal": 500,
    "engine_unavailable": 503,
    "overloaded": 503,
    "state_unavailable": 503,
    "not_ready": 503,
    "deadline_exceeded": 504,
}
"""The documented statuses, written down here once more: clients depend on them."""


def change(content: Any, method: str = "PATCH", **more: Any) -> Provoke:
    return lambda valet: valet.ask(method, "/api/databases/ad-one", json=content, **more)


def changes_a_database(method: str) -> dict[str, list[Provoke]]:
    path = "/api/databases/{database_id}"

    def sent(content: bytes) -> Provoke:
        return lambda valet: valet.ask(method, "/api/databases/ad-one", content=content)

    async def state_is_lost(_: Valet) -> httpx.Response:
        async with running(state="sqlite:////proc/nowhere/state.db", audit="none") as valet:
            return await change({"database": {"periodic_backups_enabled": True}}, method)(valet)

    return {
        **with_a_token(method, path),
        "malformed": [sent(b""), sent(b"["), sent(b"[]")],
        "forbidden": [
            change({"database": {}}, method, token="reader"),
            change({"database": {}}, method, token="picky"),
        ],
        "not_found": [of_unknown_database(method, path), change({"database": {}}, method, token="of-two")],
        "state_unavailable": [state_is_lost],
        "too_large": [sent(b" " * (1024 * 1024 + 1))],
        "invalid_params": [
            change(content, method)
            for content in (
                {},
                {"database": None},
                {"database": []},
                {"database": {}, "more": 1},
                {"database": {"plan": "free"}},
                {"database": {"unknown": 1}},
                {"database": {"periodic_backups_scheduled_at": 24}},
                {"database": {"periodic_backups_scheduled_at": []}},
                {"database": {"maintenance_window": {"weekday_utc": 7}}},
            )
        ],
    }


OPERATIONS = "/api/databases/{database_id}/operations"
OPERATION = f"{OPERATIONS}/{{operation_id}}"


async def state_is_spoilt(valet: Valet) -> None:
    """Let the state be unreadable from now on."""
    await plant(valet)
    await valet.service.state.run(lambda connection: connection.exec_driver_sql("DROP TABLE backups"))
    await valet.service.state.run(lambda connection: connection.exec_driver_sql("DROP TABLE memory"))
    await valet.service.state.run(lambda connection: connection.exec_driver_sql("DROP TABLE timelines"))
    await valet.service.state.run(lambda connection: connection.exec_driver_sql("DROP TABLE operations"))


def without_a_state(method: str, path: str, **more: Any) -> Provoke:
    async def provoke(valet: Valet) -> httpx.Response:
        await state_is_spoilt(valet)
        return await valet.ask(method, path.format(**ONE), **more)

    return provoke


def reads_the_state(path: str) -> dict[str, list[Provoke]]:
    return {
        **with_a_token("GET", path),
        "not_found": [
            of_unknown_database("GET", path),
            lambda valet: valet.ask("GET", path.format(**ONE), "of-two"),
            *([] if path.count("{") == 1 else [lambda valet: valet.ask("GET", path.format(**ONE))]),
        ],
        "state_unavailable": [without_a_state("GET", path)],
    }


async def cancel_of_what_takes_more(valet: Valet) -> httpx.Response:
    await plant(valet)
    restoration = OPERATION.format(database_id="ad-one", operation_id=IDS["restoration_id"])
    return await valet.ask("POST", f"{restoration}/cancel", "operator")


async def cancel_of_what_has_ended(valet: Valet) -> httpx.Response:
    await plant(valet)
    return await valet.ask("POST", f"{OPERATION}/cancel".format(**ONE))


BACKUPS = "/api/databases/{database_id}/backups"
BACKUP = f"{BACKUPS}/{{backup_id}}"
DOWNLOAD = "/api/backups/{backup_id}/download"


def planted(method: str, path: str, token: str = "admin", **more: Any) -> Provoke:
    async def provoke(valet: Valet) -> httpx.Response:
        await plant(valet)
        return await valet.ask(method, path.format(**ONE), token, **more)

    return provoke


def while_another_runs(method: str, path: str) -> Provoke:
    async def provoke(valet: Valet) -> httpx.Response:
        await plant(valet)
        kind = valet.service.operations.kinds["fake"] = FakeKind()
        kind.gate = Gate()
        params = {"backup_id": IDS["backup_id"]}
        await valet.service.operations.begin(valet.database(), "fake", params, "admin")
        return await valet.ask(method, path.format(**ONE), content=BODIES.get((method, path)))

    return provoke


def while_engine(method: str, path: str, *, missing: bool = False) -> Provoke:
    async def provoke(valet: Valet) -> httpx.Response:
        await plant(valet)
        valet.server().backups.missing = ["Install it."] if missing else []
        valet.server().backups.missing_problem = None if missing else errors.EngineUnavailable()
        return await valet.ask(method, path.format(**ONE))

    return provoke


async def archive_of_what_failed(valet: Valet) -> httpx.Response:
    await plant(valet)
    await valet.service.state.run(lambda connection: connection.exec_driver_sql("UPDATE backups SET sha256 = NULL"))
    return await valet.ask("GET", f"{BACKUP}/archive".format(**ONE))


def archive_is_lost(method: str, path: str) -> Provoke:
    async def provoke(valet: Valet) -> httpx.Response:
        await plant(valet)
        link = (await valet.ask("GET", f"{BACKUP}/archive".format(**ONE))).json()["download_url"]
        valet.service.backups.storage.remove(f"ad-one/{IDS['backup_id']}.tar.gz")
        return await valet.ask(method, link if path == DOWNLOAD else path.format(**ONE))

    return provoke


def storage_fails(method: str, path: str) -> Provoke:
    async def provoke(valet: Valet) -> httpx.Response:
        await plant(valet)

        def refuse(*_: object) -> None:
            raise RuntimeError("EndpointConnectionError")

        storage: Any = valet.service.backups.storage
        storage._at = refuse
        return await valet.ask(method, path.format(**ONE))

    return provoke


async def deletion_that_is_late(valet: Valet) -> httpx.Response:
    await plant(valet)
    end = threading.Event()
    storage: Any = valet.service.backups.storage
    storage.remove = lambda _: end.wait()
    with pytest.MonkeyPatch.context() as hasty:
        hasty.setattr(storage_module, "ANSWER_SECONDS", 0.05)
        try:
            return await valet.ask("DELETE", BACKUP.format(**ONE))
        finally:
            end.set()


async def link_without_a_state(valet: Valet) -> httpx.Response:
    await plant(valet)
    link = (await valet.ask("GET", f"{BACKUP}/archive".format(**ONE))).json()["download_url"]
    await valet.service.state.run(lambda connection: connection.exec_driver_sql("DROP TABLE memory"))
    return await valet.client.get(link)


def link_over_the_rate(path: str, field: str) -> Provoke:
    async def provoke(_: Valet) -> httpx.Response:
        async with running(limits={"read": "1/hour"}) as valet:
            await plant(valet)
            link = (await valet.ask("GET", path.format(**ONE))).json()[field]
            assert (await valet.client.get(link)).is_success
            return await valet.client.get(link)

    return provoke


async def link_while_crowded(_: Valet) -> httpx.Response:
    async with running(limits={"concurrent": 1}) as valet:
        link = (await valet.ask("GET", "/api/databases/ad-one/logs")).json()["url"]
        with valet.database().admitted(Effect.READ):
            return await valet.client.get(link)


async def follow_over_the_rate(_: Valet) -> httpx.Response:
    async with running(limits={"read": "1/hour"}) as valet:
        url: str = (await valet.ask("GET", "/api/databases/ad-one/logs")).json()["url"]
        assert (await valet.open_socket(url)).status_code == 101
        return await valet.open_socket(url)


def follow_while(**engine: Any) -> Provoke:
    """Follow a log while the engine is as told."""

    async def provoke(valet: Valet) -> httpx.Response:
        url: str = (await valet.ask("GET", "/api/databases/ad-one/logs")).json()["url"]
        for name, value in engine.items():
            setattr(valet.server(), name, value)
        return await valet.open_socket(url)

    return provoke


async def follow_while_crowded(_: Valet) -> httpx.Response:
    async with running(limits={"concurrent": 1}) as valet:
        url: str = (await valet.ask("GET", "/api/databases/ad-one/logs")).json()["url"]
        with valet.database().admitted(Effect.READ):
            return await valet.open_socket(url)


def too_long(path: str) -> Provoke:
    """Ask for a whole list that is larger than an answer may be."""

    async def provoke(valet: Valet) -> httpx.Response:
        await plant(valet)
        with pytest.MonkeyPatch.context() as changed:
            changed.setattr(lists, "LARGEST_RESULT", 100)
            return await valet.ask("GET", path.format(**ONE))

    return provoke


def out_of_pages(path: str) -> list[Provoke]:
    return [
        lambda valet, query=f"{field}={value}": valet.ask("GET", f"{path.format(**ONE)}?{query}")
        for field in ("page", "per_page")
        for value in ("0", "-1", "1.0", "x", "100001", "9999999", "\u0661")
    ]


async def range_behind_the_end(valet: Valet) -> httpx.Response:
    await plant(valet)
    link = (await valet.ask("GET", f"{BACKUP}/archive".format(**ONE))).json()["download_url"]
    return await valet.client.get(link, headers={"Range": "bytes=99-"})


def begins_work(path: str) -> dict[str, list[Provoke]]:
    role = {BACKUPS: "reader"}.get(path, "operator")
    several = path.count("{") > 1
    return {
        **with_a_token("POST", path),
        "malformed": [planted("POST", path, content=b"[")],
        "too_large": [planted("POST", path, content=b" " * (1024 * 1024 + 1))],
        "invalid_params": [planted("POST", path, json={"name": "mine"})],
        "forbidden": [planted("POST", path, role), planted("POST", path, "picky")],
        "not_found": [
            of_unknown_database("POST", path),
            *([lambda valet: valet.ask("POST", path.format(**ONE)), archive_is_lost("POST", path)] if several else []),
        ],
        "conflict": [while_another_runs("POST", path)],
        "precondition": [while_engine("POST", path, missing=True)],
        "state_unavailable": [without_a_state("POST", path)],
        "engine_unavailable": [while_engine("POST", path)],
        "overloaded": [while_crowded("POST", path, Effect.WRITE)],
    }


def without_the_audit(method: str, path: str) -> Provoke:
    """Nothing can be written down any more: nothing is done either."""

    async def provoke(valet: Valet) -> httpx.Response:
        await plant(valet)
        await valet.service.state.run(lambda connection: connection.exec_driver_sql("DROP TABLE audit"))
        body = {"action_name": "add-thing", "params": {"name": "second"}} if (method, path) == ACTION else None
        response = await valet.ask(method, path.format(**ONE), json=body)
        assert valet.server().performed == []
        return response

    return provoke


KEY = {"Idempotency-Key": "key-1"}


def changing(method: str, path: str) -> bytes | None:
    return b'{"action_name":"add-thing","params":{"name":"second"}}' if (method, path) == ACTION else None


def while_the_first_runs(method: str, path: str) -> Provoke:
    async def provoke(valet: Valet) -> httpx.Response:
        await plant(valet)
        valet.service.once._running.add(("admin", "key-1"))
        content = changing(method, path) or BODIES.get((method, path))
        response = await valet.ask(method, path.format(**ONE), content=content, headers=KEY)
        assert response.headers["Retry-After"] == "1"
        assert valet.server().performed == []
        return response

    return provoke


def taken_over_meanwhile(method: str, path: str) -> Provoke:
    async def provoke(valet: Valet) -> httpx.Response:
        keep = once.Once.keep

        def lose(self: once.Once, asked: Asked, answer: once.Answer, connection: Connection) -> None:
            connection.execute(keys.update().values(owner="another"))
            keep(self, asked, answer, connection)

        await plant(valet)
        content = changing(method, path) or BODIES.get((method, path))
        ids = dict(ONE)
        if path.endswith("/cancel"):
            valet.server().backups.gates["dump"] = Gate()
            ids["operation_id"] = (await valet.service.backups.begin(valet.database(), "admin")).operation_id
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(once.Once, "keep", lose)
            query = "?feature=force-ssl" if (method, path) == ("DELETE", f"{OF_ONE}/features") else ""
            return await valet.ask(method, path.format(**ids) + query, content=content, headers=KEY)

    return provoke


def with_a_key(method: str, path: str) -> dict[str, Provoke]:
    async def too_large(valet: Valet) -> httpx.Response:
        await plant(valet)
        content = b" " * (1024 * 1024 + 1)
        return await valet.ask(method, path.format(**ONE), content=content, headers=KEY)

    async def never_there(valet: Valet) -> httpx.Response:
        async def slowly() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.sleep(10)

        await plant(valet)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(edge, "BODY_SECONDS", 0.05)
            return await valet.ask(method, path.format(**ONE), content=slowly(), headers=KEY)

    async def no_key(valet: Valet) -> httpx.Response:
        await plant(valet)
        content = changing(method, path) or BODIES.get((method, path))
        return await valet.ask(method, path.format(**ONE), content=content, headers={"Idempotency-Key": "a b"})

    return {"too_large": too_large, "malformed": never_there, "invalid_params": no_key}


def tried_by_its_query(method: str, path: str) -> Provoke:
    async def provoke(valet: Valet) -> httpx.Response:
        await plant(valet)
        content = changing(method, path) or BODIES.get((method, path))
        return await valet.ask(method, f"{path.format(**ONE)}?dry_run=true", content=content)

    return provoke


async def after_a_lost_answer(valet: Valet) -> httpx.Response:
    content = b'{"action_name":"set-mode","params":"FAST"}'
    valet.server().problem = errors.ConnectionLost("It was cut.")
    assert (await valet.ask("POST", ACTION[1].format(**ONE), content=content, headers=KEY)).status_code == 503
    valet.server().problem = None
    response = await valet.ask("POST", ACTION[1].format(**ONE), content=content, headers=KEY)
    assert valet.server().performed == []
    return response


def after_an_answer_with_a_password(path: str) -> Provoke:
    async def provoke(valet: Valet) -> httpx.Response:
        await plant(valet)
        content = BODIES.get(("POST", path))
        assert (await valet.ask("POST", path.format(**ONE), content=content, headers=KEY)).is_success
        return await valet.ask("POST", path.format(**ONE), content=content, headers=KEY)

    return provoke


def after_an_end_that_nobody_saw(method: str, path: str, query: str = "", **lost: None) -> Provoke:
    async def provoke(valet: Valet) -> httpx.Response:
        await plant(valet)
        url, content = path.format(**ONE) + query, BODIES.get((method, path))
        assert (await valet.ask(method, url, content=content, headers=KEY)).is_success
        await valet.service.state.run(lambda connection: connection.execute(update(keys).values(answer=None, **lost)))
        return await valet.ask(method, url, content=content, headers=KEY)

    return provoke


def after_an_end_that_nothing_tells(method: str, path: str, query: str = "") -> Provoke:
    """What was there before is not known either: a power cut has taken it."""
    return after_an_end_that_nobody_saw(method, path, query, before=None)


ROWS: dict[tuple[str, str], dict[str, list[Provoke]]] = {
    ACTION: {
        **with_a_token(*ACTION),
        "malformed": [body(b"{"), body(b"[]"), body(b"\xff\xfe{\x00}\x00"), body(b"")],
        "forbidden": [
            act("drop-thing", {"name": "second"}, token="operator"),
            act("add-thing", {"name": "second"}, token="reader"),
            act("drop-thing", {"name": "second"}, token="picky"),
            act("read-clock", None, token="picky"),
            act("set-mode", "FAST", database="ad-two"),
        ],
        "protected": [act("drop-thing", {"name": "first"})],
        "privilege_missing": [engine_raises(errors.PrivilegeMissing())],
        "not_found": [
            act("list-things", None, database="ad-none"),
            act("list-things", None, token="of-two"),
            act("drop-thing", {"name": "none"}),
            engine_raises(errors.LogicalDatabaseNotFound()),
            engine_raises(errors.BackendNotFound()),
            engine_raises(errors.RetentionPolicyNotFound()),
        ],
        "unknown_action": [act("list-databases", None)],
        "already_exists": [act("add-thing", {"name": "first"})],
        "precondition": [version_too_old, engine_raises(errors.Precondition())],
        "conflict": [engine_raises(errors.Conflict()), engine_raises(errors.BackendReplaced())],
        "too_large": [body(b" " * (1024 * 1024 + 1))],
        "invalid_params": [
            act("add-thing", None),
            act("add-thing", {"name": ""}),
            act("add-thing", {"name": "a", "unknown": 1}),
            act("add-thing", "a"),
            act("set-mode", 5),
            act("list-things", {"unknown": 1}),
            body(b"{}"),
            body(b'{"action_name": 5}'),
            body(b'{"action_name": "list-things", "unknown": 1}'),
            *(
                body(b'{"action_name": "list-things", "%s": %s}' % (field, value))
                for field in (b"page", b"per_page")
                for value in (b"0", b"-1", b"1.0", b'"1"', b"true", b"null", b"100001")
            ),
            body(b'{"action_name": "read-clock", "page": 1}'),
            body(b'{"action_name": "drop-thing", "params": {"name": "second"}, "page": 1}'),
        ],
        "internal": [a_bug(*ACTION), engine_raises(RuntimeError("planted-bug"))],
        "engine_unavailable": [engine_raises(errors.EngineUnavailable()), engine_raises(errors.ConnectionLost())],
        "overloaded": [
            while_crowded(*ACTION, Effect.READ),
            while_crowded(*ACTION, Effect.READ, b'{"action_name":"add-thing","params":{"name":"a"},"dry_run":true}'),
            while_crowded(*ACTION, Effect.WRITE, b'{"action_name":"add-thing","params":{"name":"a"}}'),
            while_crowded(*ACTION, Effect.WRITE, b'{"action_name":"drop-thing","params":{"name":"second"}}'),
        ],
        "deadline_exceeded": [engine_hangs, engine_raises(errors.StillRunning())],
    },
    ("GET", "/api/databases"): with_a_token("GET", "/api/databases"),
    ("GET", "/api/databases/{database_id}"): {
        **with_a_token("GET", "/api/databases/{database_id}"),
        "not_found": [
            of_unknown_database("GET", "/api/databases/{database_id}"),
            lambda valet: valet.ask("GET", "/api/databases/ad-one", "of-two"),
        ],
    },
    ("PATCH", "/api/databases/{database_id}"): changes_a_database("PATCH"),
    ("PUT", "/api/databases/{database_id}"): changes_a_database("PUT"),
    ("GET", "/api/databases/{database_id}/actions"): {
        **with_a_token("GET", "/api/databases/{database_id}/actions"),
        "not_found": [
            of_unknown_database("GET", "/api/databases/{database_id}/actions"),
            lambda valet: valet.ask("GET", "/api/databases/ad-one/actions", "of-two"),
        ],
        "overloaded": [while_crowded("GET", "/api/databases/{database_id}/actions", Effect.READ)],
    },
    ("GET", OPERATIONS): {
        **reads_the_state(OPERATIONS),
        "invalid_params": out_of_pages(OPERATIONS),
        "too_large": [too_long(OPERATIONS)],
    },
    ("GET", OPERATION): reads_the_state(OPERATION),
    ("POST", f"{OPERATION}/cancel"): {
        **with_a_token("POST", f"{OPERATION}/cancel"),
        "forbidden": [
            lambda valet: valet.ask("POST", f"{OPERATION}/cancel".format(**ONE), "reader"),
            cancel_of_what_takes_more,
        ],
        "not_found": [
            of_unknown_database("POST", f"{OPERATION}/cancel"),
            lambda valet: valet.ask("POST", f"{OPERATION}/cancel".format(**ONE)),
        ],
        "conflict": [cancel_of_what_has_ended],
        "state_unavailable": [without_a_state("POST", f"{OPERATION}/cancel")],
    },
    ("GET", BACKUPS): {
        **reads_the_state(BACKUPS),
        "invalid_params": out_of_pages(BACKUPS),
        "too_large": [too_long(BACKUPS)],
    },
    ("POST", BACKUPS): begins_work(BACKUPS),
    ("GET", BACKUP): reads_the_state(BACKUP),
    ("DELETE", BACKUP): {
        **with_a_token("DELETE", BACKUP),
        "forbidden": [planted("DELETE", BACKUP, "operator"), planted("DELETE", BACKUP, "picky")],
        "not_found": [
            of_unknown_database("DELETE", BACKUP),
            lambda valet: valet.ask("DELETE", BACKUP.format(**ONE)),
        ],
        "conflict": [while_another_runs("DELETE", BACKUP)],
        "precondition": [storage_fails("DELETE", BACKUP)],
        "deadline_exceeded": [deletion_that_is_late],
        "state_unavailable": [without_a_state("DELETE", BACKUP)],
    },
    ("GET", f"{BACKUP}/archive"): {
        **reads_the_state(f"{BACKUP}/archive"),
        "not_found": [
            *reads_the_state(f"{BACKUP}/archive")["not_found"],
            archive_is_lost("GET", f"{BACKUP}/archive"),
        ],
        "forbidden": [planted("GET", f"{BACKUP}/archive", "reader"), planted("GET", f"{BACKUP}/archive", "picky")],
        "precondition": [storage_fails("GET", f"{BACKUP}/archive")],
        "conflict": [archive_of_what_failed],
    },
    ("POST", f"{BACKUP}/restore"): begins_work(f"{BACKUP}/restore"),
    ("GET", "/api/backups/{backup_id}"): {
        **reads_the_state("/api/backups/{backup_id}"),
        "not_found": [
            lambda valet: valet.ask("GET", "/api/backups/none"),
            planted("GET", "/api/backups/{backup_id}", "of-two"),
        ],
    },
    ("GET", DOWNLOAD): {
        "internal": [a_bug("GET", DOWNLOAD)],
        "forbidden": [lambda valet: valet.client.get(DOWNLOAD.format(**ONE))],
        "not_found": [archive_is_lost("GET", DOWNLOAD)],
        "range_not_satisfiable": [range_behind_the_end],
        "state_unavailable": [link_without_a_state],
        "rate_limited": [link_over_the_rate(f"{BACKUP}/archive", "download_url")],
    },
    ("GET", "/api/databases/{database_id}/backup_restorations/{restoration_id}"): reads_the_state(
        "/api/databases/{database_id}/backup_restorations/{restoration_id}"
    ),
    ("GET", "/livez"): {"internal": [a_bug("GET", "/livez")]},
    ("GET", "/readyz"): {"internal": [a_bug("GET", "/readyz")], "not_ready": [before_the_start_is_over]},
    ("GET", "/metrics"): {
        **with_a_token("GET", "/metrics"),
        "forbidden": [lambda valet: valet.ask("GET", "/metrics", "of-two")],
    },
    ("GET", "/openapi.json"): {"internal": [a_bug("GET", "/openapi.json")]},
    ("GET", "/docs"): {"internal": [a_bug("GET", "/docs")]},
}

OF_ONE = "/api/databases/{database_id}"


def sent(method: str, path: str, problem: Exception | None = None, token: str = "admin") -> Provoke:
    """Ask with what the route takes, while the engine raises a problem."""

    async def provoke(valet: Valet) -> httpx.Response:
        valet.server().problem = problem
        content = BODIES.get((method, path.partition("?")[0]))
        return await valet.ask(method, path.format(**ONE), token, content=content)

    return provoke


def through_the_engine(method: str, path: str, *causes: Exception) -> dict[str, list[Provoke]]:
    rows = {getattr(cause, "code", ""): [sent(method, path, cause)] for cause in causes}
    return {**with_a_token(method, path), "not_found": [of_unknown_database(method, path)], **rows}


def refuses(method: str, path: str, **more: list[Provoke]) -> dict[str, list[Provoke]]:
    """Rows of a route that always refuses."""
    return {
        **with_a_token(method, path),
        "not_supported": [sent(method, path)],
        **({"not_found": [of_unknown_database(method, path)]} if "{database_id}" in path else {}),
        **more,
    }


def takes_more_than_a_reader(method: str, path: str) -> list[Provoke]:
    return [sent(method, path, token="reader")]


MEASURING = (
    NotSupported(),
    errors.PrivilegeMissing(),
    errors.EngineUnavailable(),
    errors.DeadlineExceeded(),
)
for where in ("metrics", "lag"):
    ROWS["GET", f"{OF_ONE}/{where}"] = {
        **through_the_engine("GET", f"{OF_ONE}/{where}", *MEASURING),
        "overloaded": [while_crowded("GET", f"{OF_ONE}/{where}", Effect.READ)],
    }
for where in (f"{OF_ONE}/metrics/{{kind}}", f"{OF_ONE}/instances/{{instance_id}}/metrics/{{kind}}"):
    ROWS["GET", where] = {
        **through_the_engine("GET", where, *MEASURING),
        "invalid_params": [
            sent("GET", f"{where}?{query}")
            for query in ("since=x", "since=0", "since=2026-01-31T08:00:00", "last=0", "last=-1", "last=yes")
        ],
        "overloaded": [while_crowded("GET", where, Effect.READ)],
    }
for how, where in (("POST", f"{OF_ONE}/features"), ("DELETE", f"{OF_ONE}/features")):
    asked = where if how == "POST" else f"{where}?feature=force-ssl"
    ROWS[how, where] = {
        **through_the_engine(how, asked, *MEASURING, errors.Precondition()),
        "overloaded": [while_crowded(how, asked, Effect.WRITE)],
        "internal": [a_bug(how, where)],
        "forbidden": takes_more_than_a_reader(how, where),
        "invalid_params": [lambda valet, how=how, where=where: valet.ask(how, where.format(**ONE), content=b"{}")],
    }
ROWS["POST", f"{OF_ONE}/features"] |= {
    "malformed": [lambda valet: valet.ask("POST", f"{OF_ONE}/features".format(**ONE), content=b"[")],
    "too_large": [
        lambda valet: valet.ask("POST", f"{OF_ONE}/features".format(**ONE), content=b" " * (1024 * 1024 + 1))
    ],
}
ROWS["GET", f"{OF_ONE}/logs"] = {
    **through_the_engine("GET", f"{OF_ONE}/logs", *MEASURING, errors.Precondition()),
    "forbidden": takes_more_than_a_reader("GET", f"{OF_ONE}/logs"),
    "overloaded": [while_crowded("GET", f"{OF_ONE}/logs", Effect.READ)],
    "state_unavailable": [without_a_state("GET", f"{OF_ONE}/logs")],
}
MANAGING = (NotSupported(), errors.PrivilegeMissing(), errors.EngineUnavailable(), errors.DeadlineExceeded())
ODD_NAMES = ("short", "x" * 33, "some'body", 'some"body', "some body", "some@body", "s\u043emebody", "pg_body")
USERS, A_USER = f"{OF_ONE}/users", f"{OF_ONE}/users/{{user_name}}"


def no_user(method: str, path: str) -> Provoke:
    content = BODIES.get((method, path))
    return lambda valet: valet.ask(method, path.format(**{**ONE, "user_name": "none"}), content=content)


def own_user(method: str, path: str) -> Provoke:
    content = BODIES.get((method, path))
    return lambda valet: valet.ask(method, path.format(**{**ONE, "user_name": "valet"}), content=content)


def body_of_a_user(method: str, path: str, content: bytes) -> Provoke:
    return lambda valet: valet.ask(method, path.format(**ONE), content=content)


def a_new_user(**fields: Any) -> Provoke:
    return lambda valet: valet.ask("POST", USERS.format(**ONE), json={"database_user": fields})


ROWS["GET", USERS] = {
    **through_the_engine("GET", USERS, *MANAGING),
    "invalid_params": out_of_pages(USERS),
    "too_large": [too_long(USERS)],
}
ROWS["POST", USERS] = {
    **through_the_engine("POST", USERS, *MANAGING, errors.Precondition(), errors.Conflict()),
    "forbidden": takes_more_than_a_reader("POST", USERS),
    "malformed": [body_of_a_user("POST", USERS, b"[")],
    "too_large": [body_of_a_user("POST", USERS, b" " * (1024 * 1024 + 1))],
    "already_exists": [a_new_user(name="self-hosted"), a_new_user(name="Self-Hosted")],
    "invalid_params": [
        body_of_a_user("POST", USERS, b"{}"),
        a_new_user(),
        a_new_user(name=7),
        a_new_user(name="somebody", more=1),
        a_new_user(name="somebody", read_only="yes"),
        *(a_new_user(name=name) for name in ODD_NAMES),
        a_new_user(name="somebody", password="p" * 24),
        a_new_user(name="somebody", password="p" * 24, password_confirmation="q" * 24),
        a_new_user(name="somebody", password=1, password_confirmation=1),
        *(
            a_new_user(name="somebody", password=password, password_confirmation=password)
            for password in ("p" * 23, "p" * 65, "p" * 24 + "\n", "\u043e" * 24)
        ),
    ],
}
ROWS["PATCH", A_USER] = {
    **through_the_engine("PATCH", A_USER, *MANAGING, errors.Conflict()),
    "malformed": [body_of_a_user("PATCH", A_USER, b"[")],
    "too_large": [body_of_a_user("PATCH", A_USER, b" " * (1024 * 1024 + 1))],
    "invalid_params": [body_of_a_user("PATCH", A_USER, content) for content in (b"{}", b'{"database_user":{}}')],
}
ROWS["POST", f"{A_USER}/reset_password"] = through_the_engine(
    "POST", f"{A_USER}/reset_password", *MANAGING, errors.Conflict()
)
ROWS["DELETE", A_USER] = through_the_engine("DELETE", A_USER, *MANAGING, errors.Conflict())
for how, where in (("PATCH", A_USER), ("POST", f"{A_USER}/reset_password"), ("DELETE", A_USER)):
    ROWS[how, where]["forbidden"] = takes_more_than_a_reader(how, where)
    ROWS[how, where]["not_found"].append(no_user(how, where))
    ROWS[how, where]["protected"] = [own_user(how, where)]
for how, where in (("GET", USERS), ("POST", USERS), ("PATCH", A_USER), ("DELETE", A_USER)):
    ROWS[how, where]["overloaded"] = [while_crowded(how, where, Effect.READ if how == "GET" else Effect.WRITE)]
ROWS["POST", f"{A_USER}/reset_password"]["overloaded"] = [
    while_crowded("POST", f"{A_USER}/reset_password", Effect.WRITE)
]
ROWS["GET", f"{OF_ONE}/logs_archives"] = refuses(
    "GET", f"{OF_ONE}/logs_archives", forbidden=takes_more_than_a_reader("GET", f"{OF_ONE}/logs_archives")
)
ROWS["GET", "/api/logs/{log_id}"] = {
    "forbidden": [
        lambda valet: valet.client.get("/api/logs/ad-one"),
        lambda valet: valet.client.get("/api/logs/ad-one?token=0&timestamp=1"),
        lambda valet: valet.client.get("/api/logs/ad-none?token=0&timestamp=1"),
    ],
    "rate_limited": [link_over_the_rate(f"{OF_ONE}/logs", "url")],
    "overloaded": [link_while_crowded],
}
ROWS[SOCKET, "/api/logs/{log_id}"] = {
    "forbidden": [
        lambda valet: valet.open_socket("/api/logs/ad-one"),
        lambda valet: valet.open_socket("/api/logs/ad-one?token=0&timestamp=1"),
        lambda valet: valet.open_socket("/api/logs/ad-none?token=0&timestamp=1"),
    ],
    "precondition": [follow_while(problem=errors.Precondition())],
    "privilege_missing": [follow_while(problem=errors.PrivilegeMissing())],
    "rate_limited": [follow_over_the_rate],
    "engine_unavailable": [follow_while(problem=errors.EngineUnavailable())],
    "overloaded": [follow_while_crowded],
    "deadline_exceeded": [follow_while(problem=errors.DeadlineExceeded())],
}
for how, where in (
    ("POST", f"{OF_ONE}/firewall_rules"),
    ("PATCH", f"{OF_ONE}/firewall_rules/{{rule_id}}"),
    ("DELETE", f"{OF_ONE}/firewall_rules/{{rule_id}}"),
    ("POST", f"{OF_ONE}/upgrade"),
):
    ROWS[how, where] = refuses(how, where, forbidden=takes_more_than_a_reader(how, where))
for where in (f"{OF_ONE}/firewall_rules", f"{OF_ONE}/health", "/api/firewall/managed_ranges"):
    ROWS["GET", where] = refuses("GET", where)
for where in (f"{OF_ONE}/instances_status", f"{OF_ONE}/plan"):
    ROWS["GET", where] = through_the_engine("GET", where)
ROWS["GET", f"{OF_ONE}/instances_status"]["overloaded"] = [
    while_crowded("GET", f"{OF_ONE}/instances_status", Effect.READ)
]
ROWS["GET", "/api/plans/{name}"] = {
    **with_a_token("GET", "/api/plans/{name}"),
    "not_found": [
        lambda valet: valet.ask("GET", "/api/plans/none"),
        lambda valet: valet.ask("GET", "/api/plans/self-hosted?type=another"),
    ],
}
ROWS["GET", f"{OF_ONE}/maintenance/{{maintenance_id}}"] = through_the_engine(
    "GET", f"{OF_ONE}/maintenance/{{maintenance_id}}"
)
ROWS["GET", f"{OF_ONE}/maintenance"] = {
    **through_the_engine("GET", f"{OF_ONE}/maintenance"),
    "invalid_params": [sent("GET", f"{OF_ONE}/maintenance?page=0"), sent("GET", f"{OF_ONE}/maintenance?per_page=x")],
}


WINDOW = f"{OF_ONE}/pitr/recovery_window"
TO_INSTANT = f"{OF_ONE}/pitr/restore"


def of_an_engine_without(method: str, path: str) -> Provoke:
    """Ask for what this engine has not got."""

    async def provoke(_: Valet) -> httpx.Response:
        databases = [{"id": each, "url": "bare://db.example/app"} for each in ("ad-one", "ad-two")]
        async with running(engines={"bare": BARE}, databases=databases) as valet:
            return await valet.ask(method, path.format(**ONE), content=BODIES.get((method, path)))

    return provoke


def while_cluster(method: str, path: str, **changes: Any) -> Provoke:
    """Ask while the cluster is as told."""

    async def provoke(valet: Valet) -> httpx.Response:
        for name, value in changes.items():
            # Problems are used up, and this may be asked again.
            planned = {step: list(each) for step, each in value.items()} if name == "problems" else value
            setattr(valet.server().recovery, name, planned)
        return await valet.ask(method, path.format(**ONE), content=BODIES.get((method, path)))

    return provoke


def to_instant(value: Any) -> Provoke:
    return lambda valet: valet.ask("POST", TO_INSTANT.format(**ONE), json=value)


DOWN = {"standing": [errors.EngineUnavailable()]}
ROWS["GET", WINDOW] = {
    **with_a_token("GET", WINDOW),
    "not_found": [of_unknown_database("GET", WINDOW)],
    "not_supported": [of_an_engine_without("GET", WINDOW)],
    "precondition": [
        lambda valet: valet.ask("GET", WINDOW.format(database_id="ad-two")),
        while_cluster("GET", WINDOW, problems={"window": [errors.BackupDamaged()]}),
    ],
    "state_unavailable": [without_a_state("GET", WINDOW)],
    "engine_unavailable": [while_cluster("GET", WINDOW, problems={"window": [errors.EngineUnavailable()]})],
    "overloaded": [while_crowded("GET", WINDOW, Effect.READ)],
}
ROWS["POST", TO_INSTANT] = {
    **with_a_token("POST", TO_INSTANT),
    "malformed": [lambda valet: valet.ask("POST", TO_INSTANT.format(**ONE), content=b"[")],
    "too_large": [lambda valet: valet.ask("POST", TO_INSTANT.format(**ONE), content=b" " * (1024 * 1024 + 1))],
    "not_found": [of_unknown_database("POST", TO_INSTANT)],
    "not_supported": [of_an_engine_without("POST", TO_INSTANT)],
    "forbidden": [sent("POST", TO_INSTANT, token="operator"), sent("POST", TO_INSTANT, token="picky")],
    "precondition": [
        while_cluster("POST", TO_INSTANT, missing=["Set archive_mode."]),
        lambda valet: valet.ask("POST", TO_INSTANT.format(database_id="ad-two"), json={}),
    ],
    "conflict": [while_another_runs("POST", TO_INSTANT)],
    "invalid_params": [
        to_instant({}),
        to_instant({"restore_time": None}),
        to_instant({"restore_time": 5}),
        to_instant({"restore_time": "yesterday"}),
        to_instant({"restore_time": "2026-01-31T09:00:00"}),
        to_instant({"restore_time": "2026-01-31T07:00:00Z"}),
        to_instant({"restore_time": "2999-01-31T07:00:00Z"}),
        to_instant({"restore_time": "2026-01-31T09:00:00Z", "timeline": 2}),
    ],
    "engine_unavailable": [while_cluster("POST", TO_INSTANT, problems=DOWN)],
    "overloaded": [while_crowded("POST", TO_INSTANT, Effect.WRITE)],
}


def ping_while(problem: Exception) -> Provoke:
    async def provoke(valet: Valet) -> httpx.Response:
        valet.server().description = problem
        return await valet.ask("POST", "/api/databases/ad-one/ping")

    return provoke


ROWS["POST", f"{OF_ONE}/ping"] = {
    **through_the_engine("POST", f"{OF_ONE}/ping"),
    "engine_unavailable": [ping_while(errors.EngineUnavailable())],
    "overloaded": [while_crowded("POST", f"{OF_ONE}/ping", Effect.READ)],
    "deadline_exceeded": [ping_while(errors.DeadlineExceeded())],
}
ROWS["GET", "/api/database_types"] = with_a_token("GET", "/api/database_types")
for where in ("/api/database_types/{type_id}", "/api/database_type_versions/{version_id}"):
    ROWS["GET", where] = {
        **with_a_token("GET", where),
        "not_found": [lambda valet, where=where: valet.ask("GET", where.partition("{")[0] + "none")],
    }
ROWS["GET", "/api/ca_certificate"] = {
    "internal": [a_bug("GET", "/api/ca_certificate")],
    "not_found": [lambda valet: valet.client.get("/api/ca_certificate")],
}

ADDON = "/v1/apps/{app}/addons/{addon}"


def of_others(method: str, path: str) -> list[Provoke]:
    """Ask for what is not there, and for what another token sees."""
    ids = {**IDS, "app": "none", "addon": "ad-none", "provider": "none"}
    unknown = [lambda valet: valet.ask(method, path.format(**ids))]
    if "{addon}" in path:
        unknown.append(lambda valet: valet.ask(method, path.format(**{**IDS, "addon": "ad-none"})))
        unknown.append(lambda valet: valet.ask(method, path.format(**IDS), "of-two"))
    return unknown


def basic(token: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f':{token}'.encode()).decode()}"}


async def exchange_over_the_rate(_: Valet) -> httpx.Response:
    async with running(limits={"read": "1/hour"}) as valet:
        headers = basic(TOKENS["admin"])
        assert (await valet.client.post("/v1/tokens/exchange", headers=headers)).status_code == 200
        return await valet.client.post("/v1/tokens/exchange", headers=headers)


def without_keys(path: str, headers: dict[str, str] | None = None) -> Provoke:
    async def provoke(_: Valet) -> httpx.Response:
        async with running(state="sqlite:////proc/nowhere/state.db", audit="none") as valet:
            return await valet.ask("POST", path.format(**IDS), None if headers else "admin", headers=headers or {})

    return provoke


EXCHANGE = "/v1/tokens/exchange"
ROWS["POST", EXCHANGE] = {
    "unauthenticated": [
        lambda valet: valet.client.post(EXCHANGE),
        lambda valet: valet.client.post(EXCHANGE, headers=basic("another-token-0123456789")),
        lambda valet: valet.client.post(EXCHANGE, headers={b"Authorization": b"Basic \xa7"}),
        lambda valet: valet.ask("POST", EXCHANGE),
    ],
    "rate_limited": [exchange_over_the_rate],
    "internal": [a_bug("POST", EXCHANGE)],
    "state_unavailable": [without_keys(EXCHANGE, basic(TOKENS["admin"]))],
}
for where in ("/v1/regions", "/v1/addon_providers"):
    ROWS["GET", where] = {"internal": [a_bug("GET", where)]}
for where in ("/v1/users/self", "/v1/databases"):
    ROWS["GET", where] = with_a_token("GET", where)
for where in (
    "/v1/addon_providers/{provider}/plans",
    "/v1/apps/{app}",
    "/v1/apps/{app}/variables",
    "/v1/apps/{app}/addons",
    ADDON,
):
    ROWS["GET", where] = {**with_a_token("GET", where), "not_found": of_others("GET", where)}
ROWS["POST", f"{ADDON}/token"] = {
    **with_a_token("POST", f"{ADDON}/token"),
    "not_found": of_others("POST", f"{ADDON}/token"),
    "state_unavailable": [without_keys(f"{ADDON}/token")],
}
for how, where in (
    ("POST", "/v1/apps/{app}/run"),
    ("POST", "/v1/apps/{app}/addons"),
    ("PATCH", ADDON),
    ("PUT", ADDON),
    ("DELETE", ADDON),
):
    ROWS[how, where] = refuses(how, where, not_found=of_others(how, where))
ROWS["POST", "/v1/databases"] = refuses("POST", "/v1/databases")
ROWS["POST", "/v1/tokens"] = {
    "not_supported": [
        sent("POST", "/v1/tokens"),
        lambda valet: valet.client.post("/v1/tokens", auth=("somebody", "password")),
    ],
    "internal": [a_bug("POST", "/v1/tokens")],
}

ROWS["GET", "/api/audit"] = {
    **with_a_token("GET", "/api/audit"),
    "forbidden": [
        lambda valet: valet.ask("GET", "/api/audit", "operator"),
        lambda valet: valet.ask("GET", "/api/audit", "picky"),
    ],
    "not_found": [
        lambda valet: valet.ask("GET", "/api/audit?database=ad-none"),
        lambda valet: valet.ask("GET", "/api/audit?database=ad-one", "of-two"),
    ],
    "state_unavailable": [without_the_audit("GET", "/api/audit")],
    "invalid_params": [
        lambda valet, query=query: valet.ask("GET", f"/api/audit?{query}")
        for query in ("after=-1", "after=x", "after=" + "9" * 19, "limit=0", "limit=1001", "limit=")
    ],
}
for (method, where), rows in ROWS.items():
    if method not in ("GET", SOCKET) and "forbidden" in rows:
        rows.setdefault("state_unavailable", []).append(without_the_audit(method, where))
        rows["in_progress"] = [while_the_first_runs(method, where)]
        if where not in REFUSED:
            rows["answer_unknown"] = [taken_over_meanwhile(method, where)]
        if where not in REFUSED:
            rows.setdefault("invalid_params", []).append(tried_by_its_query(method, where))
        for cause, provoke in with_a_key(method, where).items():
            rows.setdefault(cause, []).append(provoke)
        if (method, where) not in BODIES and where not in REFUSED:
            # No body is needed, and one that says something is refused.
            rows["invalid_params"].append(planted(method, where, content=b'{"dry_run":true}'))
            rows["malformed"].append(planted(method, where, content=b"["))
ROWS[ACTION]["not_supported"] = [
    body(b'{"action_name":"list-things","dry_run":true}'),
    body(b'{"action_name":"set-mode","params":"FAST","dry_run":true}'),
]
ROWS[ACTION]["invalid_params"] += [
    body(b'{"action_name":"add-thing","params":{"name":"second"},"dry_run":' + each + b"}")
    for each in (b"1", b"0", b'"true"', b"null", b"{}")
]
for code, action_tried in (
    ("already_exists", b'{"action_name":"add-thing","params":{"name":"first"},"dry_run":true}'),
    ("protected", b'{"action_name":"drop-thing","params":{"name":"first"},"dry_run":true}'),
    ("not_found", b'{"action_name":"drop-thing","params":{"name":"none"},"dry_run":true}'),
):
    ROWS[ACTION][code].append(body(action_tried))
ROWS[ACTION]["answer_unknown"].append(after_a_lost_answer)
for where in ("/api/databases/{database_id}/users", "/api/databases/{database_id}/users/{user_name}/reset_password"):
    ROWS["POST", where]["answer_unknown"] += [
        after_an_answer_with_a_password(where),
        after_an_end_that_nobody_saw("POST", where),
    ]
ROWS["PATCH", A_USER]["answer_unknown"].append(after_an_end_that_nobody_saw("PATCH", A_USER))
for how, where in (
    ("PATCH", OF_ONE),
    ("PUT", OF_ONE),
    ("POST", f"{OF_ONE}/features"),
    ("DELETE", f"{OF_ONE}/features"),
    ("DELETE", A_USER),
):
    query = "?feature=force-ssl" if (how, where) == ("DELETE", f"{OF_ONE}/features") else ""
    ROWS[how, where]["answer_unknown"].append(after_an_end_that_nothing_tells(how, where, query))

CASES = [
    pytest.param(route, code, provoke, id=f"{route[0]} {route[1]} {code} {number}")
    for route, rows in ROWS.items()
    for code, provocations in rows.items()
    for number, provoke in enumerate(provocations)
]


@pytest.fixture(scope="module")
async def document() -> dict[str, Any]:
    async with running() as valet:
        return (await valet.ask("GET", "/openapi.json", None)).json()


def promised(document: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """Give the operations of the OpenAPI document."""
    return {
        (method.upper(), path): operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }


async def test_every_route_has_its_rows(valet: Valet):
    assert set(entries_of(valet.app)) == set(ROWS)


def test_every_failure_that_the_document_promises_has_a_row_and_no_other(document: dict[str, Any]):
    for route, operation in promised(document).items():
        codes: set[str] = set()
        for status, answer in operation["responses"].items():
            if not status.startswith("2"):
                response = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
                codes |= set(response["content"]["application/json"]["examples"])
        assert codes == set(ROWS[route]), route


def test_every_code_has_its_documented_status_and_a_row():
    rows = {code for rows in ROWS.values() for code in rows}
    # What a head is too large for comes to no route: tests/contract/test_sockets.py has it.
    assert rows | {"method_not_allowed", "head_too_large"} == set(STATUS)
    assert STATUS == TABLE


@pytest.mark.parametrize(("route", "code", "provoke"), CASES)
async def test_row_of_the_error_table(
    valet: Valet, document: dict[str, Any], route: tuple[str, str], code: str, provoke: Provoke
):
    response = await provoke(valet)

    assert response.status_code == TABLE[code], response.text
    failed = response.json()
    assert failed["code"] == code
    assert go_failure(response)
    assert javascript_failure(response) == failed["error"]
    assert failed.get("ok") == (0 if route == ACTION else None)
    assert set(failed) == {
        "error",
        "code",
        *({"ok"} if route == ACTION else set[str]()),
        *({"errors"} if code == "invalid_params" else set[str]()),
        *({"resource"} if TABLE[code] == 404 else set[str]()),
    }
    assert response.headers["X-Request-Id"]
    assert ("Retry-After" in response.headers) == (TABLE[code] in (429, 503) or code == "in_progress")
    assert response.headers.get("WWW-Authenticate") == ("Bearer" if code == "unauthenticated" else None)
    assert "planted" not in response.text
    if route in promised(document):
        follows_the_document(document, route, response)


def follows_the_document(document: dict[str, Any], route: tuple[str, str], response: httpx.Response) -> None:
    """Check an answer against what the OpenAPI document says of it."""
    answer = promised(document)[route]["responses"][str(response.status_code)]
    component = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    schema = component["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(response.json())
    for header, expected in component["headers"].items():
        if expected.get("required", True):
            assert header in response.headers


@pytest.mark.parametrize("path", dict.fromkeys(path for _, path in ROWS))
@pytest.mark.parametrize("other", METHODS)
async def test_another_method_is_405_and_says_which_are_possible(valet: Valet, path: str, other: str):
    possible = {method for method, each in ROWS if each == path and method != SOCKET}
    if other in possible:
        return
    response = await valet.ask(other, path.format(**ONE))

    assert response.status_code == 405
    assert response.headers["Allow"] == ", ".join(sorted(possible | ({"HEAD"} if "GET" in possible else set())))
    assert response.json()["code"] == "method_not_allowed"
    assert response.json()["error"] == f"This method is not possible here, only {response.headers['Allow']}."


@pytest.mark.parametrize(("method", "path"), ROWS)
async def test_a_trailing_slash_is_404_with_a_body_and_no_redirect(valet: Valet, method: str, path: str):
    response = await valet.ask(method, path.format(**ONE) + "/")

    assert response.status_code == 404
    assert response.json()["resource"] == "path"
    assert javascript_failure(response)


@pytest.mark.parametrize("path", ["/", "/api", "/api/", "/nothing", "/api/databases/ad-one/nothing", "//livez"])
async def test_what_is_not_there_is_404_with_a_body(valet: Valet, path: str):
    response = await valet.client.get("http://dbvalet" + path)

    assert response.status_code == 404
    assert go_failure(response) == "The path was not found"


@pytest.mark.parametrize(("method", "path"), [route for route in ROWS if route[0] == "GET" and route[1] not in REFUSED])
async def test_head_answers_as_get_without_a_body(valet: Valet, method: str, path: str):
    await plant(valet)
    where = path.format(**ONE)
    if path == DOWNLOAD:
        where = (await valet.ask("GET", f"{BACKUP}/archive".format(**ONE))).json()["download_url"]
    got = await valet.ask(method, where)
    head = await valet.ask("HEAD", where)

    assert (head.status_code, head.content) == (200, b"")
    if path != "/metrics" and not path.endswith(
        ("/metrics", "/metrics/{kind}")
    ):  # which counts what has just been done
        assert head.headers["content-length"] == got.headers["content-length"]


async def test_head_of_what_takes_only_post_is_405(valet: Valet):
    assert (await valet.ask("HEAD", "/api/databases/ad-one/action")).status_code == 405


async def test_an_unknown_database_and_one_outside_the_scope_look_the_same(valet: Valet):
    for path in ("/api/databases/{}", "/api/databases/{}/actions"):
        unknown = await valet.ask("GET", path.format("ad-none"), "of-two")
        outside = await valet.ask("GET", path.format("ad-one"), "of-two")
        assert (unknown.status_code, unknown.content) == (outside.status_code, outside.content)
    unknown = await valet.act("list-things", database="ad-none", token="of-two")
    outside = await valet.act("list-things", database="ad-one", token="of-two")
    assert (unknown.status_code, unknown.content) == (outside.status_code, outside.content)


async def test_a_bug_is_logged_whole_and_told_by_its_request_id_only(valet: Valet):
    valet.server().problem = RuntimeError("planted-bug")
    response = await valet.act("list-things")

    request_id = response.headers["X-Request-Id"]
    assert response.json()["error"] == f"This is a bug of dbvalet. Its log has the details under {request_id}."
    (line,) = valet.lines("bug")
    assert line["request_id"] == request_id
    assert "RuntimeError: planted-bug" in line["exception"]
