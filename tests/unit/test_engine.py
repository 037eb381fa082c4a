"""Engines, and the one way to run an action on a server."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any, cast

import pytest

import tests.fakes.actions
from engines import deadline, engine
from engines.action import Action
from engines.address import parse_address
from engines.aftermath import Aftermath, Goal
from engines.engine import (
    ForgetfulMemory,
    GrantsFor,
    Server,
    engine_for,
    installed_engines,
    lacking,
    look,
    perform,
    preview,
    require,
    unavailable,
    unseen,
)
from engines.errors import (
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    EngineUnavailable,
    Precondition,
    PrivilegeMissing,
)
from engines.preview import Preview, preview_of
from tests.fakes import ENGINE
from tests.fakes.driver import FakeServer, Gate

ADDRESS = parse_address("fake://valet:secret@db.example/app", 4321)


@pytest.fixture
def server() -> FakeServer:
    return cast(FakeServer, ENGINE.connect(ADDRESS))


def action(name: str) -> Action:
    return ENGINE.actions[name]


def test_the_actions_of_an_engine_are_what_its_modules_declare_sorted():
    declared = {value.name for value in vars(tests.fakes.actions).values() if isinstance(value, Action)}
    assert list(ENGINE.actions) == sorted(declared)


def test_an_engine_connects_with_a_memory_that_forgets_unless_it_gets_one():
    memory = ForgetfulMemory()
    assert cast(FakeServer, ENGINE.connect(ADDRESS, memory)).memory is memory
    assert isinstance(cast(FakeServer, ENGINE.connect(ADDRESS)).memory, ForgetfulMemory)


async def test_a_forgetful_memory_keeps_values_while_it_lives():
    memory = ForgetfulMemory()
    assert await memory.recall("key") is None
    await memory.remember("key", 1)
    assert await memory.recall("key") == 1


def test_an_engine_is_found_by_the_scheme_of_a_url():
    assert engine_for("fake+tls", {"fake": ENGINE}) is ENGINE
    assert engine_for("oracle", {"fake": ENGINE}) is None


def test_grants_are_written_for_somebody():
    assert ENGINE.grants(GrantsFor(user="somebody")) == "CREATE ACCOUNT somebody"


def test_installed_packages_add_engines_and_actions(monkeypatch: pytest.MonkeyPatch):
    own, tools = replace(ENGINE, name="own", added={}), ModuleType("tools")
    extra = replace(action("list-things"), name="acme-extra")
    tools.extra = extra  # pyright: ignore[reportAttributeAccessIssue] - a module made for this test
    loaded: dict[str, Any] = {"own": own, "own.acme-tools": tools}

    class Point(EntryPoint):
        def load(self) -> Any:
            return loaded[self.name]

    def points(group: str) -> list[Point]:
        return [Point(name, "anything", group) for name in ("own.acme-tools", "own") if group == "dbvalet.engines"]

    monkeypatch.setattr(engine, "entry_points", points)
    found = installed_engines()

    assert found == {"own": own}
    assert found["own"].actions["acme-extra"] is extra
    assert "list-things" in found["own"].actions


async def test_performing_gives_the_result(server: FakeServer):
    assert await perform(server, action("list-things")) == [{"name": "first", "colour": "blue"}]


async def test_an_action_knows_how_long_it_may_take(server: FakeServer):
    left: list[float] = []

    async def look(_: Any) -> None:
        left.append(deadline.remaining())

    await perform(server, replace(action("read-clock"), function=look, deadline=3.0))
    assert 2.9 < left[0] <= 3.0


@pytest.mark.parametrize(
    ("name", "params", "text"),
    [
        ("read-clock", None, "read-clock did not finish within 0.05 s: the engine does not answer."),
        (
            "set-mode",
            "FAST",
            "set-mode did not finish within 0.05 s: the engine does not answer. "
            "Whether it was done is not known; look before trying again.",
        ),
    ],
)
async def test_an_engine_that_hangs_ends_the_action_a_moment_after_its_deadline(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, name: str, params: Any, text: str
):
    monkeypatch.setattr(deadline, "GRACE", 0.05)
    gate = server.gate = Gate()
    began = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded) as late:
        await perform(server, replace(action(name), deadline=0.05), params)

    assert late.value.message == text
    assert 0.09 < asyncio.get_running_loop().time() - began < 1
    assert gate.waiting == 0


async def test_what_an_action_raises_comes_through(server: FakeServer):
    server.problem = EngineUnavailable("cut")
    with pytest.raises(EngineUnavailable, match="cut"):
        await perform(server, action("list-things"))


async def test_a_missing_privilege_is_found_out_and_named(server: FakeServer):
    server.problem, server.unmet = PrivilegeMissing("the driver's words"), {"superpower"}
    with pytest.raises(PrivilegeMissing) as refused:
        await perform(server, action("use-power"))

    assert refused.value.privilege == "superpower"
    assert refused.value.message == (
        "The engine account lacks a privilege for use-power. Missing: superpower. Remedy: GRANT it TO valet"
    )


async def test_a_missing_privilege_that_is_named_already_comes_through(server: FakeServer):
    server.problem, server.unmet = PrivilegeMissing("It lacks X.", privilege="X"), {"superpower"}
    with pytest.raises(PrivilegeMissing, match=r"^It lacks X\.$"):
        await perform(server, action("use-power"))


async def test_a_missing_privilege_that_none_of_the_declared_explains_keeps_the_drivers_words(server: FakeServer):
    server.problem = PrivilegeMissing("the driver's words")
    for name in ("use-power", "list-things"):
        with pytest.raises(PrivilegeMissing) as refused:
            await perform(server, action(name))
        assert refused.value.message == "the driver's words"
        assert refused.value.privilege == (", ".join(action(name).privileges) or None)


async def test_a_missing_privilege_is_told_even_if_the_engine_then_goes_or_hangs(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine, "EXPLAIN_SECONDS", 0.05)
    monkeypatch.setattr(deadline, "GRACE", 0.05)
    server.problem, server.check_problem = PrivilegeMissing("the driver's words"), EngineUnavailable()
    with pytest.raises(PrivilegeMissing, match="the driver's words"):
        await perform(server, action("use-power"))
    server.check_gate = Gate()
    async with asyncio.timeout(1):
        with pytest.raises(PrivilegeMissing, match="the driver's words"):
            await perform(server, action("use-power"))


async def test_what_is_lacking_is_told_with_its_remedy(server: FakeServer):
    assert await lacking(server, ("superpower", "preload")) == []
    server.unmet = {"preload"}
    assert await lacking(server, ("superpower", "preload")) == ["Missing: preload. Remedy: GRANT it TO valet"]


async def test_an_action_is_unavailable_for_its_version_first(server: FakeServer):
    server.unmet = {"superpower", "preload"}
    assert await unavailable(server, action("use-novelty"), (9, 0)) == ["Needs Fake 9.1 or later."]
    assert await unavailable(server, action("use-novelty"), (9, 1)) == []
    assert len(await unavailable(server, action("use-power"), (1,))) == 2


async def test_a_setting_that_is_required_is_a_precondition(server: FakeServer):
    await require(server, "preload")
    server.unmet = {"preload"}
    with pytest.raises(Precondition, match=r"^Missing: preload\. Remedy: GRANT it TO valet$"):
        await require(server, "preload")


def test_the_fake_is_a_server(server: FakeServer):
    checked: Server = server
    assert checked.engine is ENGINE
    assert str(checked.address) == "fake://valet@db.example:4321/app"


async def test_a_look_that_is_refused_tells_nothing_and_one_that_hangs_ends(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
):
    async def raising(problem: Exception | None) -> Sequence[str] | None:
        async def looks(_server: FakeServer, _params: Any) -> list[str]:
            if problem is not None:
                raise problem
            await asyncio.sleep(60)
            return []

        looking = replace(action("drop-thing"), aftermath=Aftermath(look=looks, goal=Goal.GONE))
        return await look(server, looking, None)

    for refused in (PrivilegeMissing(), Precondition("Not now.")):
        assert await raising(refused) is None
    with pytest.raises(ConnectionLost):
        await raising(ConnectionLost("It was cut."))
    monkeypatch.setattr(engine, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(deadline, "GRACE", 0.02)
    with pytest.raises(DeadlineExceeded, match="It cannot be seen what there is: the engine"):
        await raising(None)


async def test_an_action_that_cannot_be_told_is_not(server: FakeServer):
    assert await look(server, action("set-mode"), "FAST") is None


def test_what_an_engine_has_not_it_makes_not(server: FakeServer):
    bare = replace(ENGINE, backups=None, health=None, users=None, recovery=None)
    assert bare.backups_of(server) is bare.health_of(server) is bare.users_of(server) is None


async def test_without_params_a_look_and_a_preview_take_the_server_alone(server: FakeServer):
    async def looks(at: FakeServer) -> list[str]:
        return [at.address.host]

    async def tells(at: FakeServer) -> Preview:
        return preview_of(f"Use the power of {at.address.host}.")

    alone = replace(action("use-power"), aftermath=Aftermath(look=looks, goal=Goal.GONE), preview=tells)
    assert await look(server, alone, None) == ["db.example"]
    assert (await preview(server, alone)).would == "Use the power of db.example."


async def test_a_preview_that_lacks_a_privilege_tells_it_as_the_action_does(server: FakeServer):
    async def refuses(problem: PrivilegeMissing) -> str:
        async def tells(_: FakeServer) -> Preview:
            raise problem

        server.unmet.add("superpower")
        with pytest.raises(PrivilegeMissing) as refused:
            await preview(server, replace(action("use-power"), preview=tells))
        return refused.value.message

    named = PrivilegeMissing("It lacks POWER. Remedy: GRANT POWER.", privilege="POWER")
    assert await refuses(named) == named.message
    assert "superpower" in await refuses(PrivilegeMissing())
    with pytest.raises(Precondition, match="cannot be tried"):
        await preview(server, replace(action("use-power"), preview=None))


def test_a_change_that_cannot_be_seen_is_no_refusal(server: FakeServer):
    hidden = unseen(server, PrivilegeMissing("the driver's words"), "READ")
    assert isinstance(hidden, Conflict)
    assert hidden.message == "Fake said that it is done, but the account may not look whether it is. Missing: READ."
    cut = unseen(server, ConnectionLost("It was cut."), "READ")
    assert isinstance(cut, ConnectionLost)
    assert cut.message == "Fake said that it is done, but could not be asked again: It was cut."


async def test_a_state_that_does_not_answer_is_not_told_as_the_engine(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(deadline, "GRACE", 0.05)

    async def remember(*_: Any) -> None:
        with deadline.waiting_for("the state"):
            await asyncio.sleep(60)

    slow = replace(
        action("set-mode"),
        function=remember,
        deadline=0.05,
        preview=remember,
        aftermath=Aftermath(look=remember, goal=Goal.THERE),
    )
    monkeypatch.setattr("engines.engine.LOOK_SECONDS", 0.05)
    for work in (perform, preview, look):
        with pytest.raises(DeadlineExceeded, match="the state does not answer"):
            await work(server, slow, "FAST")
