"""The catalogue over HTTP: what is possible on a database, and why not."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest

from agent.api import actions
from engines.errors import EngineUnavailable
from tests.fakes import ENGINE
from tests.fakes.driver import Gate
from tests.fakes.service import Valet, running, until


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with running() as valet:
        await until(lambda: valet.database().up and valet.database("ad-two").up)
        yield valet


async def listed(valet: Valet, database: str = "ad-one", token: str = "admin") -> dict[str, dict[str, Any]]:
    response = await valet.ask("GET", f"/api/databases/{database}/actions", token)
    assert response.status_code == 200
    assert list(response.json()) == ["actions"]
    return {each["name"]: each for each in response.json()["actions"]}


def reasons(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    for each in found.values():
        assert each["available"] == (each["unavailable_reason"] is None)
    return {name: each["unavailable_reason"] for name, each in found.items() if not each["available"]}


async def test_every_action_is_listed_with_its_effect_schemas_and_needs(valet: Valet):
    found = await listed(valet)

    assert list(found) == list(ENGINE.actions)
    assert {found[name]["effect"] for name in ("list-things", "add-thing", "drop-thing")} == {
        "read", "write", "destructive"
    }  # fmt: skip
    assert found["use-power"]["privileges"] == ["superpower"]
    assert found["use-power"]["settings"] == ["preload"]
    assert found["read-clock"]["deadline_seconds"] == 0.5
    assert found["drop-thing"]["summary"] == "Drop a thing."
    for name, each in found.items():
        action = ENGINE.actions[name]
        jsonschema.Draft202012Validator.check_schema(each["params_schema"])
        if action.example_params is not None:
            jsonschema.validate(action.example_params, each["params_schema"])
        jsonschema.validate(action.example_result, each["result_schema"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"nmae": "x"}, found["add-thing"]["params_schema"])


async def test_an_action_is_unavailable_for_want_of_a_version_a_privilege_or_a_setting(valet: Valet):
    assert reasons(await listed(valet)) == {"use-novelty": "Needs Fake 9.1 or later."}
    valet.server().unmet = {"superpower", "preload"}
    assert reasons(await listed(valet))["use-power"] == (
        "Missing: superpower. Remedy: GRANT it TO valet Missing: preload. Remedy: GRANT it TO valet"
    )


async def test_an_action_is_unavailable_to_a_token_that_may_not(valet: Valet):
    of_reader = reasons(await listed(valet, token="reader"))
    assert of_reader["add-thing"] == "add-thing needs the role operator; this token is reader."
    assert of_reader["drop-thing"] == "drop-thing needs the role admin; this token is reader."
    assert "list-things" not in of_reader
    assert (
        reasons(await listed(valet, token="picky"))["drop-thing"]
        == "drop-thing is not among the actions of this token."
    )


async def test_an_action_that_is_switched_off_says_so(valet: Valet):
    assert reasons(await listed(valet, "ad-two"))["set-mode"] == "Switched off for this database."
    assert "set-mode" not in reasons(await listed(valet, "ad-one"))


async def test_nothing_is_available_while_the_engine_is_down(valet: Valet):
    valet.server().description = EngineUnavailable("nobody there")
    valet.database()._seen_at -= 5
    found = reasons(await listed(valet))

    assert set(found) == set(ENGINE.actions)
    assert set(found.values()) == {"nobody there"}


async def test_what_is_refused_and_down_says_both(valet: Valet):
    valet.server().description = EngineUnavailable("nobody there")
    valet.database()._seen_at -= 5
    found = reasons(await listed(valet, token="reader"))
    assert found["add-thing"] == "add-thing needs the role operator; this token is reader. nobody there"


async def test_an_action_whose_needs_cannot_be_asked_for_says_why_and_the_others_are_unharmed(valet: Valet):
    valet.server().check_problem = EngineUnavailable("cut")
    found = reasons(await listed(valet))
    assert found["use-power"] == "cut"
    assert "list-things" not in found


async def test_an_engine_that_hangs_bounds_the_list(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(actions, "LOOK_SECONDS", 0.1)
    valet.server().check_gate = Gate()
    began = asyncio.get_running_loop().time()
    asked = asyncio.create_task(listed(valet))
    assert not reasons(await listed(valet, "ad-two")).get("use-power")
    found = reasons(await asked)

    assert set(found.values()) == {"The engine does not answer."}
    assert set(found) == set(ENGINE.actions)
    assert asyncio.get_running_loop().time() - began < 5


async def test_it_is_bounded_when_even_looking_hangs(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(actions, "LOOK_SECONDS", 0.1)
    valet.server().describe_gate = Gate()
    valet.database()._seen_at -= 5
    async with asyncio.timeout(5):
        assert set(reasons(await listed(valet)).values()) == {"The engine does not answer."}


async def test_it_takes_no_longer_than_a_client_would_wait():
    assert actions.LOOK_SECONDS <= 5
