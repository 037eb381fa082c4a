"""The OpenAPI document: valid, true, and made from the catalogue alone."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Annotated, Any

import jsonschema
import pytest
from pydantic import Field
from typing_extensions import TypedDict

from agent.api.audit import JSON_LINES
from agent.api.errors import STATUS
from agent.api.openapi import ACTION_PATH
from engines.action import Action, Effect, Params, action
from engines.engine import Engine, installed_engines
from engines.errors import InvalidParams
from tests.fakes import ENGINE
from tests.fakes.service import Valet, running
from tests.planted import IDS, REFUSED, plant

REAL = {name: engine for name, engine in installed_engines().items() if engine.package.startswith("engines.")}
ACTIONS = [(engine, each) for engine in (*REAL.values(), ENGINE) for each in engine.actions.values()]
MEDIA_TYPES = {
    ("/metrics", "200"): ["text/plain"],
    ("/api/audit", "200"): ["application/json", JSON_LINES],
}
"""Of the answers that are not JSON, or not only."""
NAMES = [f"{engine.name}.{each.name}" for engine, each in ACTIONS]


async def document_of(engines: dict[str, Engine], **changes: Any) -> dict[str, Any]:
    async with running(engines=engines, **changes) as valet:
        response = await valet.ask("GET", "/openapi.json", None)
        assert response.headers["Content-Type"] == "application/json"
        return response.json()


@pytest.fixture(scope="module")
async def document() -> dict[str, Any]:
    return await document_of({**REAL, "fake": ENGINE})


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with running() as valet:
        yield valet


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def validator(document: dict[str, Any], schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """Make a validator of a schema that refers to the document's components."""
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]})


def conforms(document: dict[str, Any], name: str, instance: Any) -> bool:
    return validator(document, {"$ref": f"#/components/schemas/{name}"}).is_valid(instance)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref" and isinstance(inner, str):
                yield inner
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_it_is_openapi_3_1_and_its_names_are_allowed(document: dict[str, Any]):
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["title"] == "dbvalet"
    for kind in document["components"].values():
        for name in kind:
            assert re.fullmatch(r"[a-zA-Z0-9._-]+", name)


def test_every_reference_leads_somewhere_and_every_component_is_referred_to(document: dict[str, Any]):
    used = set(references(document))
    for reference in used:
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    defined = {
        f"#/components/{kind}/{name}"
        for kind, components in document["components"].items()
        for name in components
        if kind != "securitySchemes"
    }
    assert defined == used


def test_every_schema_is_a_json_schema(document: dict[str, Any]):
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_operation_has_an_id_a_tag_and_a_text(document: dict[str, Any]):
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for _, _, operation in operations(document):
        assert operation["summary"]
        assert operation["description"]
        assert len(operation["tags"]) == 1
        assert not [key for key in operation if key.startswith("x-")]


def test_every_answer_carries_a_request_id_and_json_with_a_schema(document: dict[str, Any]):
    for path, _, operation in operations(document):
        for status, answer_or_reference in operation["responses"].items():
            name = answer_or_reference.get("$ref", "").rpartition("/")[2]
            answer = document["components"]["responses"][name] if name else answer_or_reference
            assert "X-Request-Id" in answer["headers"]
            if status == "204":
                assert "content" not in answer
                continue
            assert ("Retry-After" in answer["headers"]) == (status in ("409", "429", "503"))
            assert list(answer["content"]) == MEDIA_TYPES.get((path, status), ["application/json"])
            assert all(each["schema"] for each in answer["content"].values())


def test_examples_of_failures_fit_their_schemas(document: dict[str, Any]):
    seen: set[str] = set()
    for response in document["components"]["responses"].values():
        content = response["content"]["application/json"]
        for code, example in content["examples"].items():
            validator(document, content["schema"]).validate(example["value"])
            assert example["value"]["code"] == code
            seen.add(code)
    assert seen == set(STATUS) - {"method_not_allowed", "range_not_satisfiable", "head_too_large"}


async def test_what_takes_a_token_says_so_and_nothing_else_does(document: dict[str, Any], valet: Valet):
    for path, method, operation in operations(document):
        response = await valet.ask(method.upper(), path.format(**IDS), None)
        assert (response.status_code == 401) == (operation["security"] == [{"token": []}]), path
        assert ("401" in operation["responses"]) == (response.status_code == 401)


async def test_metrics_that_are_public_take_no_token_in_the_document_either():
    document = await document_of({"fake": ENGINE}, metrics="public")
    operation = document["paths"]["/metrics"]["get"]
    assert operation["security"] == []
    assert set(operation["responses"]) == {"200", "500"}


async def test_successes_fit_the_schemas_that_the_document_promises(document: dict[str, Any], valet: Valet):
    await plant(valet)
    for path, method, operation in operations(document):
        if method == "get" and path != "/metrics" and path not in REFUSED:
            response = await valet.ask("GET", path.format(**IDS))
            assert response.status_code == 200
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            validator(document, schema).validate(response.json())


@pytest.mark.parametrize(("engine", "each"), ACTIONS, ids=NAMES)
def test_every_action_has_a_named_request_example_that_fits(document: dict[str, Any], engine: Engine, each: Action):
    name = f"{engine.name}.{each.name}"
    content = document["paths"][ACTION_PATH]["post"]["requestBody"]["content"]["application/json"]
    example = content["examples"][name]

    assert example["summary"] == f"{engine.title}: {each.summary}"
    assert example["value"]["action_name"] == each.name
    each.validate(example["value"].get("params"))
    assert conforms(document, f"{name}.request", example["value"])
    assert {"$ref": f"#/components/schemas/{name}.request"} in content["schema"]["anyOf"]


@pytest.mark.parametrize(("engine", "each"), ACTIONS, ids=NAMES)
def test_every_action_has_a_response_model_that_its_example_fits(
    document: dict[str, Any], engine: Engine, each: Action
):
    name = f"{engine.name}.{each.name}"
    content = document["paths"][ACTION_PATH]["post"]["responses"]["200"]["content"]["application/json"]

    assert content["examples"][name]["value"] == {"ok": 1, "result": each.example_result}
    assert conforms(document, f"{name}.response", content["examples"][name]["value"])
    assert not conforms(document, f"{name}.response", {"ok": 0, "result": each.example_result})
    assert not conforms(document, f"{name}.response", {"ok": 1})
    assert {"$ref": f"#/components/schemas/{name}.response"} in content["schema"]["anyOf"]


@pytest.mark.parametrize(("engine", "each"), ACTIONS, ids=NAMES)
def test_a_request_schema_allows_what_the_action_allows(document: dict[str, Any], engine: Engine, each: Action):
    name = f"{engine.name}.{each.name}.request"

    def allowed(params: Any) -> bool:
        try:
            each.validate(params)
        except InvalidParams:
            return False
        return True

    assert conforms(document, name, {"action_name": each.name}) == allowed(None)
    for params in (None, {}, [], 5, "", "x", {"unknown": 1}, {"database_name": "a"}, {"name": "a"}, {"pid": 1}):
        assert conforms(document, name, {"action_name": each.name, "params": params}) == allowed(params), params
    assert not conforms(document, name, {"action_name": "another"})
    assert not conforms(document, name, {"action_name": each.name, "extra": 1})


def test_failures_of_actions_are_the_whole_error_table(document: dict[str, Any]):
    responses = document["paths"][ACTION_PATH]["post"]["responses"]
    assert set(responses) == {"200"} | {str(status) for status in STATUS.values()} - {"405", "416", "431"}


class Thing(TypedDict):
    """Another thing of the same name."""

    weight: int


class NewThing(Params):
    """Other params of the same name."""

    weight: Annotated[int, Field(ge=1)]


@action("weigh", effect=Effect.READ, example_params={"weight": 1}, example_result={"weight": 1})
async def weigh(server: Any, params: NewThing) -> Thing:
    """Weigh a thing."""
    return {"weight": params.weight}


async def test_an_action_of_another_package_appears_by_itself_and_nothing_collides():
    other = replace(ENGINE, name="other", title="Other", schemes=("other",), added={"weigh": weigh})
    document = await document_of({"fake": ENGINE, "other": other})

    assert conforms(document, "other.weigh.request", {"action_name": "weigh", "params": {"weight": 1}})
    assert not conforms(document, "other.weigh.request", {"action_name": "weigh", "params": {"weight": 0}})
    assert conforms(document, "other.weigh.response", {"ok": 1, "result": {"weight": 1}})
    assert conforms(document, "fake.add-thing.request", {"action_name": "add-thing", "params": {"name": "x"}})
    assert not conforms(document, "fake.add-thing.request", {"action_name": "add-thing", "params": {"weight": 1}})
    assert conforms(document, "fake.list-things.response", {"ok": 1, "result": [{"name": "a", "colour": "b"}]})
    test_every_reference_leads_somewhere_and_every_component_is_referred_to(document)
    examples = document["paths"][ACTION_PATH]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert "Other: Weigh a thing." in [example["summary"] for example in examples.values()]


async def test_it_is_made_once(valet: Valet):
    first, second = await valet.ask("GET", "/openapi.json", None), await valet.ask("GET", "/openapi.json", None)
    assert first.content == second.content


async def test_a_dry_run_is_described_where_there_is_one(document: dict[str, Any], valet: Valet):
    request = {"action_name": "add-thing", "params": {"name": "second"}, "dry_run": True}
    assert conforms(document, "fake.add-thing.request", request)
    assert not conforms(document, "fake.add-thing.request", {**request, "dry_run": "yes"})
    for name in ("list-things", "set-mode"):
        without = {"action_name": name, "params": ENGINE.actions[name].example_params}
        assert conforms(document, f"fake.{name}.request", without)
        assert not conforms(document, f"fake.{name}.request", {**without, "dry_run": True})
    answer = (await valet.ask("POST", "/api/databases/ad-one/action", json=request)).json()
    assert conforms(document, "dry-run.response", answer)
    operation = document["paths"][ACTION_PATH]["post"]["responses"]["200"]["content"]["application/json"]
    assert conforms(document, "dry-run.response", operation["examples"]["dry-run"]["value"])


def test_answers_lead_on_to_what_they_name(document: dict[str, Any]) -> None:
    of_id = {each["operationId"]: (path, each) for path, _, each in operations(document)}
    links = {
        name: each["responses"]["201"].get("links", {})
        for name, (_, each) in of_id.items()
        if "201" in each["responses"]
    }
    assert links["create_backup"].keys() == {
        *("get_backup", "get_backup_alone", "get_backup_archive", "delete_backup", "restore_backup"),
        *("get_operation", "cancel_operation"),
    }
    assert links["restore_backup"].keys() >= {"get_backup_restoration", "get_operation"}
    assert links["create_user"].keys() == {"change_user", "delete_user", "reset_user_password"}
    for source, led in links.items():
        for link in led.values():
            path, _ = of_id[link["operationId"]]
            assert set(link["parameters"]) == set(re.findall(r"{(\w+)}", path))
            for place in link["parameters"].values():
                _, _, pointer = place.partition("#/")
                schema = of_id[source][1]["responses"]["201"]["content"]["application/json"]["schema"]
                for part in pointer.split("/") if pointer else ():
                    schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"][part]
                if not pointer:
                    assert f"{{{place.rpartition('.')[2]}}}" in of_id[source][0]


def fields_of(document: dict[str, Any], schema: Any, seen: tuple[str, ...] = ()) -> Iterator[str]:
    """Name every property of a schema, however deep."""
    if isinstance(schema, list):
        for each in schema:
            yield from fields_of(document, each, seen)
    elif isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            target = document["components"]["schemas"][reference.rpartition("/")[2]]
            yield from fields_of(document, target, (*seen, reference))
        for key, value in schema.items():
            if key == "properties":
                yield from value
            if key not in ("example", "examples"):
                yield from fields_of(document, value, seen)


def test_no_request_has_a_field_that_could_name_a_host(document: dict[str, Any]) -> None:
    asked = set[str]()
    for _, _, operation in operations(document):
        asked.update(fields_of(document, operation.get("requestBody")))
        asked.update(each["name"] for each in operation.get("parameters", []) if "name" in each)
    assert {"action_name", "database_id"} <= asked
    speaks_of_a_host = re.compile(
        r"(^|_)(host(name)?|ur[il]|link|address|port|server|endpoint|webhook|callback|target)(_|$)"
    )
    assert [name for name in sorted(asked) if speaks_of_a_host.search(name.lower())] == []
