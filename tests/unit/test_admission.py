"""How many requests may be at work on one database."""

import asyncio

import pytest

from agent.admission import FEW, Admission
from agent.errors import Overloaded
from agent.state.tables import idempotency_keys
from engines.action import Effect
from engines.errors import EngineUnavailable
from tests.fakes.driver import Gate
from tests.fakes.service import Valet, running, until


def test_one_more_than_may_be_at_work_is_told_when_to_return() -> None:
    admission = Admission(2, lambda: False)
    with admission.admitted(), admission.admitted():
        with (
            pytest.raises(Overloaded, match="Nothing was begun: 2 requests are at work") as refused,
            admission.admitted(),
        ):
            pass
        assert refused.value.retry_after == 1


def test_a_place_is_free_again_whether_it_went_well_or_not() -> None:
    admission = Admission(1, lambda: False)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), admission.admitted():
            raise ZeroDivisionError
        with pytest.raises(Overloaded), admission.admitted(), admission.admitted():
            pass
    assert admission.at_work == 0


@pytest.mark.parametrize("most", [FEW - 1, FEW, FEW + 100])
def test_while_the_engine_does_not_answer_few_are_let_in(most: int) -> None:
    admission = Admission(most, lambda: True)
    admission.at_work = min(most, FEW) - 1
    with admission.admitted(), pytest.raises(Overloaded, match="does not answer") as refused, admission.admitted():
        pass
    assert refused.value.retry_after == 5


async def hang(valet: Valet, reads: int) -> "tuple[list[asyncio.Task[int]], Gate]":
    """Let so many different reads hang in the engine of `ad-one`."""
    gate = valet.server().gate = Gate()
    tasks = [asyncio.create_task(status(valet, "find-things", {"colour": str(each)})) for each in range(reads)]
    await until(lambda: gate.waiting == reads)
    return tasks, gate


async def status(valet: Valet, name: str, params: object, database: str = "ad-one") -> int:
    return (await valet.act(name, params, database=database)).status_code


async def test_reads_that_hang_keep_out_neither_a_change_nor_another_database() -> None:
    async with running(limits={"concurrent": 3}) as valet:
        tasks, gate = await hang(valet, 3)
        assert await status(valet, "list-things", None) == 503
        valet.server().gate = None
        assert await status(valet, "add-thing", {"name": "second"}) == 200
        assert await status(valet, "list-things", None, "ad-two") == 200
        gate.open.set()
        assert await asyncio.gather(*tasks) == [200] * 3
        assert await status(valet, "list-things", None) == 200


async def test_a_database_may_have_a_bound_of_its_own() -> None:
    databases = [
        {"id": "ad-one", "url": "fake://db.example/app", "concurrent": 1},
        {"id": "ad-two", "url": "fake://db.example/app"},
    ]
    async with running(limits={"concurrent": 2}, databases=databases) as valet:
        for each, most in (("ad-one", 1), ("ad-two", 2)):
            tasks = [valet.database(each).admitted(Effect.READ) for _ in range(most)]
            for task in tasks:
                task.__enter__()
            with pytest.raises(Overloaded), valet.database(each).admitted(Effect.READ):
                pass


async def test_a_change_that_is_shed_costs_no_line_and_leaves_its_key_free() -> None:
    async with running(limits={"concurrent": 1}) as valet:
        body = {"action_name": "add-thing", "params": {"name": "second"}}
        ask = {"json": body, "headers": {"Idempotency-Key": "k"}}
        with valet.database().admitted(Effect.WRITE):
            refused = await valet.ask("POST", "/api/databases/ad-one/action", **ask)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert valet.server().performed == []
        done = await valet.ask("POST", "/api/databases/ad-one/action", **ask)
        assert done.status_code == 200
        lines = (await valet.ask("GET", "/api/audit")).json()["audit"]
        assert sorted(line["code"] for line in lines) == ["ok"]


async def test_a_user_that_is_made_once_its_place_is_free_is_made_once() -> None:
    async with running(limits={"concurrent": 1}) as valet:
        ask = {"json": {"database_user": {"name": "somebody"}}, "headers": {"Idempotency-Key": "k"}}
        with valet.database().admitted(Effect.WRITE):
            assert (await valet.ask("POST", "/api/databases/ad-one/users", **ask)).status_code == 503
        assert (await valet.ask("POST", "/api/databases/ad-one/users", **ask)).status_code == 201
        assert (await valet.ask("POST", "/api/databases/ad-one/users", **ask)).json()["code"] == "answer_unknown"


async def test_whether_an_engine_is_silent_is_seen_by_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.databases.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("agent.databases.SILENT_SECONDS", 0.02)
    async with running() as valet:
        database = valet.database()
        await until(lambda: database.up)
        assert not database.silent
        valet.server().describe_gate = gate = Gate()
        database.forget()
        await database.look()
        assert database.silent
        gate.open.set()
        database.forget()
        await database.look()
        assert not database.silent


async def test_what_was_begun_under_a_key_stays_in_doubt_when_asking_again_is_shed() -> None:
    async with running(limits={"concurrent": 1}) as valet:
        body = {"action_name": "add-thing", "params": {"name": "second"}}
        ask = {"json": body, "headers": {"Idempotency-Key": "k"}}
        valet.server().problem = EngineUnavailable()
        assert (await valet.ask("POST", "/api/databases/ad-one/action", **ask)).json()["code"] == "engine_unavailable"
        with valet.database().admitted(Effect.WRITE):
            assert (await valet.ask("POST", "/api/databases/ad-one/action", **ask)).json()["code"] == "overloaded"
        kept = await valet.service.state.run(lambda connection: connection.execute(idempotency_keys.select()).all())
        assert [row.key for row in kept] == ["k"]


@pytest.mark.parametrize(
    ("path", "gate"),
    [
        ("/metrics", "gate"),
        ("/metrics/cpu", "gate"),
        ("/lag", "gate"),
        ("/instances_status", "gate"),
        ("/actions", "check_gate"),
    ],
)
async def test_what_hangs_in_the_engine_beside_the_actions_is_shed_too(path: str, gate: str) -> None:
    async with running(limits={"concurrent": 2}) as valet:
        await valet.database().look()
        hanging = Gate()
        setattr(valet.server(), gate, hanging)
        asking = [asyncio.create_task(valet.ask("GET", f"/api/databases/ad-one{path}")) for _ in range(30)]
        await until(lambda: sum(each.done() for each in asking) >= 28)
        shed, waiting = ([each for each in asking if each.done() is done] for done in (True, False))
        assert [each.result().status_code for each in shed] == [503] * 28
        assert len(waiting) == 2
        assert {each.result().json()["code"] for each in shed} == {"overloaded"}
        hanging.open.set()
        assert [(await each).status_code for each in waiting] == [200, 200]
        assert (await valet.ask("GET", f"/api/databases/ad-one{path}")).status_code == 200


@pytest.mark.parametrize("path", ["", "/instances_status", "/actions"])
async def test_what_is_told_of_an_engine_that_is_down_is_told_while_all_places_are_taken(path: str) -> None:
    async with running(limits={"concurrent": 1}) as valet:
        valet.server().description = EngineUnavailable()
        valet.database().forget()
        await valet.database().look()
        with valet.database().admitted(Effect.READ):
            assert (await valet.ask("GET", f"/api/databases/ad-one{path}")).status_code == 200


async def test_what_is_sampled_of_itself_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.sampler.EVERY_SECONDS", 0.01)
    async with running(limits={"concurrent": 1}) as valet:
        assert (await valet.ask("GET", "/api/databases/ad-one/metrics")).status_code == 200
        valet.server().gate = gate = Gate()
        await until(lambda: gate.waiting)
        with valet.database().admitted(Effect.READ):
            pass
