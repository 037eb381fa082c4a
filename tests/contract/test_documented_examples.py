"""Every documented example, sent as it stands to the real records of the actions.

Only their functions are stood in for: what they do to live servers is proven in `tests/live`.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import wraps
from typing import Any

import jsonschema
import pytest

from engines.action import Action
from engines.engine import Engine, installed_engines
from tests.contract.decoders import go_database, javascript_action
from tests.contract.documented import DATABASE, EXAMPLES, HEADERS, Example
from tests.fakes.driver import STAND_INS
from tests.fakes.service import Valet, running

ENGINES = {name: engine for name, engine in installed_engines().items() if engine.package.startswith("engines.")}


class Standing:
    """The four engines with functions that keep their params and give the documented result."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Any]] = []
        self.engines = {name: self._stand_in(engine) for name, engine in ENGINES.items()}

    def _stand_in(self, engine: Engine) -> Engine:
        copy = replace(engine, server="tests.fakes.driver:FakeServer")
        vars(copy)["actions"] = {name: self._quiet(copy.name, action) for name, action in engine.actions.items()}
        return copy

    def _quiet(self, engine: str, action: Action) -> Action:
        result = next(e.answer["result"] for e in EXAMPLES if (e.engine, e.about) == (engine, action.name))

        @wraps(action.function)  # which takes the annotations along: params and result models stay the real ones
        async def function(_server: Any, params: Any = None) -> Any:
            self.received.append((action.name, params))
            return result

        return replace(action, function=function)


@pytest.fixture
async def standing() -> Standing:
    return Standing()


@pytest.fixture
async def four(standing: Standing) -> AsyncIterator[Valet]:
    STAND_INS.update({scheme: engine for engine in standing.engines.values() for scheme in engine.schemes})
    databases = [{"id": f"ad-{name}", "url": f"{engine.schemes[0]}://valet:secret@db.example/app"}
                 for name, engine in standing.engines.items()]  # fmt: skip
    try:
        tokens = [{"name": "admin", "token": "token-of-the-admin-0123456789", "role": "admin", "databases": ["*"]}]
        async with running(engines=standing.engines, databases=databases, tokens=tokens) as valet:
            yield valet
    finally:
        for engine in standing.engines.values():
            for scheme in engine.schemes:
                STAND_INS.pop(scheme)


def named(example: Example) -> str:
    return f"{example.engine} {example.about}"


def test_every_documented_pair_is_an_action_and_there_is_no_other():
    documented = {(example.engine, example.about) for example in EXAMPLES}
    assert len(documented) == 20
    assert documented == {(engine.name, name) for engine in ENGINES.values() for name in engine.actions}


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
async def test_a_documented_request_is_carried_out_as_it_stands(four: Valet, standing: Standing, example: Example):
    response = await four.ask(
        "POST", f"/api/databases/ad-{example.engine}/action", json=example.request, headers=HEADERS
    )

    assert response.status_code == 200
    assert javascript_action(response) == example.answer["result"]
    assert response.json() == example.answer
    ((name, params),) = standing.received
    assert name == example.action
    sent = example.request.get("params")
    if isinstance(sent, dict):
        assert params.model_dump(include=set(sent)) == sent
    else:
        assert params == sent


@pytest.mark.parametrize("engine", ["mysql", "mongodb"])
async def test_reset_database_is_reached_by_its_own_name(four: Valet, standing: Standing, engine: str):
    response = await four.act("reset-database", {"database_name": "custom-db"}, database=f"ad-{engine}")

    assert javascript_action(response) is None
    assert [name for name, _ in standing.received] == ["reset-database"]


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
async def test_as_the_javascript_client_sends_it_absent_params_are_an_empty_object(four: Valet, example: Example):
    params = example.request.get("params") or {}
    response = await four.act(example.action, params, database=f"ad-{example.engine}")
    assert response.status_code == 200


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_a_documented_result_has_only_fields_that_the_action_gives(example: Example):
    schema = ENGINES[example.engine].actions[example.about].result.json_schema(mode="serialization")
    result = example.answer["result"]
    rows, row_schema = (result, schema["items"]) if isinstance(result, list) else ([result], schema)
    if "$ref" in row_schema:
        row_schema = schema["$defs"][row_schema["$ref"].rpartition("/")[2]]
    for row in rows:
        if not isinstance(row, dict):
            jsonschema.validate(row, schema)
            continue
        for field, value in row.items():
            jsonschema.validate(value, {**row_schema["properties"][field], "$defs": schema.get("$defs", {})})


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_the_example_of_an_action_record_has_every_documented_field(example: Example):
    action = ENGINES[example.engine].actions[example.about]
    ours, documented = action.example_result, example.answer["result"]
    jsonschema.validate(ours, action.result.json_schema(mode="serialization"))
    if isinstance(documented, list):
        ours, documented = ours[0], documented[0]
    if isinstance(documented, dict):
        assert set(documented) <= set(ours)
        for field, value in documented.items():
            assert isinstance(ours[field], type(value)), field


def same_form(documented: Any, answered: Any, where: str) -> None:
    if isinstance(documented, dict):
        assert set(documented) <= set(answered), where
        for field, value in documented.items():
            same_form(value, answered[field], f"{where}.{field}")
    elif isinstance(documented, list):
        assert isinstance(answered, list), where
        for value in answered:
            same_form(documented[0], value, f"{where}[]")
    else:
        assert isinstance(answered, type(documented)), where


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_database_has_every_documented_field_in_its_documented_form(four: Valet, engine: str):
    response = await four.ask("GET", f"/api/databases/ad-{engine}", headers=HEADERS)

    same_form(DATABASE, go_database(response), "database")


async def test_a_failure_has_the_documented_form(four: Valet):
    response = await four.act("pg-cancel-query", database="ad-postgresql")

    assert response.json()["ok"] == 0
    assert isinstance(response.json()["error"], str)
