"""What every action of the catalogue owes: words, examples, requirements, a section of the reference, live tests."""

import ast
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agent.api.errors import STATUS
from agent.codes import causes, meaning
from agent.roles import needed_for
from engines import deadline, errors
from engines.action import Action, Effect
from engines.engine import Engine, installed_engines

ROOT = Path(__file__).parents[2]
DOCUMENTED: list[dict[str, Any]] = json.loads(Path(__file__).with_name("documented_actions.json").read_text())
REFERENCE = (ROOT / "docs" / "reference.md").read_text()

ENGINES = installed_engines()
ACTIONS = [
    pytest.param(engine, action, id=f"{engine.name}-{action.name}")
    for engine in ENGINES.values()
    for action in engine.actions.values()
]
each_action = pytest.mark.parametrize(("engine", "action"), ACTIONS)
each_documented = pytest.mark.parametrize(
    "documented", DOCUMENTED, ids=[f"{each['engine']}-{each['name']}" for each in DOCUMENTED]
)


def test_the_list_of_the_documented_api_has_its_twenty_pairs() -> None:
    assert len({(each["engine"], each["name"]) for each in DOCUMENTED}) == len(DOCUMENTED) == 20


@each_documented
def test_a_documented_action_is_there_and_takes_the_documented_params(documented: dict[str, Any]) -> None:
    action = ENGINES[documented["engine"]].actions[documented["name"]]
    action.validate(documented.get("params"))
    if "params" in documented and documented["params"] is not None:
        assert action.takes_params


@each_documented
def test_a_documented_action_answers_with_at_least_the_documented_fields(documented: dict[str, Any]) -> None:
    action = ENGINES[documented["engine"]].actions[documented["name"]]
    schema = action.result.json_schema(mode="serialization")
    for row in documented["result"] if isinstance(documented["result"], list) else [documented["result"]]:
        if not isinstance(row, dict):
            jsonschema.validate(row, schema)
            continue
        one = schema.get("items", schema)
        one = schema["$defs"][one["$ref"].rpartition("/")[2]] if "$ref" in one else one
        assert set(row) <= set(one["properties"])
        jsonschema.validate(row, {**one, "required": [], "$defs": schema.get("$defs", {})})


@each_action
def test_the_function_has_a_summary_of_one_line_and_no_more_than_the_table_holds(
    engine: Engine, action: Action
) -> None:
    assert action.summary != action.name, "it has no docstring"
    assert action.summary.endswith(".")
    assert len(action.summary) <= 120


@each_action
def test_each_of_its_params_says_what_it_is(engine: Engine, action: Action) -> None:
    schema = action.params.json_schema()
    if schema.get("type") != "object":
        assert schema["description"]
    for name, each in schema.get("properties", {}).items():
        assert each.get("description"), f"{name} has no description"


@each_action
def test_an_unknown_param_is_refused_by_name(engine: Engine, action: Action) -> None:
    if action.params.json_schema().get("type") != "object":
        return
    example = action.example_params or {}
    with pytest.raises(errors.InvalidParams) as refused:
        action.validate({**example, "colour": "blue"})
    assert refused.value.errors == {"colour": ["is not known"]}


@each_action
def test_its_example_of_params_is_valid_by_model_and_by_schema(engine: Engine, action: Action) -> None:
    if action.takes_params:
        assert action.example_params is not None
        action.validate(action.example_params)
        jsonschema.validate(action.example_params, action.params.json_schema())
    else:
        assert action.example_params is None


@each_action
def test_its_example_of_a_result_is_valid_by_schema_and_says_something(engine: Engine, action: Action) -> None:
    schema = action.result.json_schema(mode="serialization")
    jsonschema.validate(action.example_result, schema)
    if schema.get("type") != "null":
        assert action.example_result


@each_action
def test_what_it_raises_are_causes_with_a_status_of_their_own(engine: Engine, action: Action) -> None:
    for cause in action.raises:
        assert issubclass(cause, errors.EngineError)
        assert cause.code in STATUS
        assert cause not in (errors.EngineError, errors.EngineUnavailable, errors.InvalidParams), "any action can"


@each_action
def test_its_effect_has_a_role_and_its_deadline_is_within_the_longest(engine: Engine, action: Action) -> None:
    assert isinstance(action.effect, Effect)
    assert needed_for(action.effect)
    assert 0 < action.deadline <= deadline.LONGEST


def test_what_destroys_is_what_the_roles_say() -> None:
    destructive = {
        name for engine in ENGINES.values() for name, each in engine.actions.items() if each.effect == "destructive"
    }
    assert {"delete-database", "reset-database", "del-retention-policy"} <= destructive


@each_action
def test_what_it_requires_is_known_to_its_engine(engine: Engine, action: Action) -> None:
    for name in action.privileges + action.settings:
        assert engine.requirements[name].name == name


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_every_requirement_of_an_engine_is_one_of_an_action(engine: Engine) -> None:
    used = {name for action in engine.actions.values() for name in action.privileges + action.settings}
    assert set(engine.requirements) == used


@each_action
def test_it_has_one_section_of_the_reference(engine: Engine, action: Action) -> None:
    assert REFERENCE.count(f'<a id="{engine.name}-{action.name}"></a>\n\n#### `{action.name}` ({engine.title})\n') == 1


def test_no_name_of_an_action_is_written_in_the_service() -> None:
    names = {name for engine in ENGINES.values() for name in engine.actions}
    for source in (ROOT / "agent").rglob("*.py"):
        # Examples of help texts may name some; the demo's tour performs them.
        if source.is_relative_to(ROOT / "agent" / "demo") or source.is_relative_to(ROOT / "agent" / "commands"):
            continue
        found = {each.value for each in ast.walk(ast.parse(source.read_text())) if isinstance(each, ast.Constant)}
        assert not found & names, source


# Live tests are judged by their source: this says nothing of what they prove, only that somebody thought of it.


@cache
def sources_of(engine: str, kind: str = "live") -> list[tuple[str, frozenset[str], frozenset[str], bool]]:
    """Give the name of each test of an engine, the texts in it, the names in it, and whether it expects a refusal.

    Texts of a module's constants count for the tests that use them, and so does what a function of the same module does
    that a test calls.
    """
    found: list[tuple[str, frozenset[str], frozenset[str], bool]] = []
    for file in sorted((ROOT / "tests" / kind / engine).glob("test_*.py")):
        module = ast.parse(file.read_text())
        parts = {name: node for node in module.body for name in bound_by(node)}
        for node in module.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
                continue
            nodes = [node, *used_by(node, parts)]
            inside = [each for one in nodes for each in ast.walk(one)]
            names = frozenset(each.id for each in inside if isinstance(each, ast.Name))
            texts = frozenset(
                each.value for each in inside if isinstance(each, ast.Constant) and isinstance(each.value, str)
            )
            refusal = any(isinstance(each, ast.Attribute) and each.attr == "raises" for each in inside)
            found.append((node.name, texts, names, refusal))
    return found


def bound_by(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [] if node.name.startswith("test_") else [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def used_by(node: ast.AST, parts: dict[str, ast.stmt]) -> list[ast.stmt]:
    return [parts[each.id] for each in ast.walk(node) if isinstance(each, ast.Name) and each.id in parts]


@each_action
def test_it_is_performed_by_name_in_a_live_test_of_its_engine(engine: Engine, action: Action) -> None:
    assert any(action.name in texts for _, texts, _, refusal in sources_of(engine.name) if not refusal)


@each_action
def test_a_refusal_of_it_is_tested_live(engine: Engine, action: Action) -> None:
    assert any(action.name in texts for _, texts, _, refusal in sources_of(engine.name) if refusal)


@each_action
def test_each_cause_that_it_names_is_met_in_a_test(engine: Engine, action: Action) -> None:
    # Not every one can be brought about on a live engine: some are the luck of two writers at once.
    for cause in action.raises:
        assert any(
            action.name in texts and cause.__name__ in names and refusal
            for kind in ("live", "unit")
            for _, texts, names, refusal in sources_of(engine.name, kind)
        ), f"no test of {action.name} expects {cause.__name__}"


# The error table.


def test_every_cause_has_a_status_and_every_code_a_meaning() -> None:
    assert set(causes()) <= set(STATUS)
    for code in STATUS:
        assert meaning(code).endswith("."), code


def test_a_cause_without_a_code_of_its_own_is_not_what_internal_means() -> None:
    assert "internal" not in causes()
    assert meaning("internal").startswith("A bug of dbvalet.")


def test_a_code_that_is_not_known_means_nothing() -> None:
    assert meaning("\x1b[2J") == ""
