"""The action record: what is derived from a function and its decorator."""

from typing import Any

import pytest
from pydantic import Field

from engines.action import Effect, NoParams, Params, action
from engines.deadline import LONGEST
from engines.errors import AlreadyExists, InvalidParams, NotFound
from tests.fakes import ENGINE


class Named(Params):
    """A name, and perhaps a size."""

    name: str
    size: int = Field(default=1, ge=1)


@action("do-it", effect=Effect.WRITE, privileges=("power",), settings=("on",), minimum_version=(2, 1))
async def do_it(server: Any, params: Named) -> dict[str, int]:
    """Do it to something.

    With care, and
    over two lines.

    Raises: NotFound, AlreadyExists
    """
    return {"size": params.size}


@action("undocumented", effect=Effect.READ)
async def undocumented(server: Any) -> None:
    return None


@action("briefly", effect=Effect.READ)
async def briefly(server: Any) -> str:
    """Say it in one line."""
    return "said"


def test_a_record_holds_what_was_declared():
    assert (do_it.name, do_it.effect, do_it.privileges, do_it.settings) == ("do-it", Effect.WRITE, ("power",), ("on",))
    assert do_it.minimum_version == (2, 1)


def test_the_docstring_is_summary_description_and_raises():
    assert do_it.summary == "Do it to something."
    assert do_it.description == "With care, and\nover two lines."
    assert do_it.raises == (NotFound, AlreadyExists)
    assert (briefly.summary, briefly.description, briefly.raises) == ("Say it in one line.", "", ())


def test_without_a_docstring_the_name_is_the_summary():
    assert (undocumented.summary, undocumented.description, undocumented.raises) == ("undocumented", "", ())


@pytest.mark.parametrize(("effect", "seconds"), [(Effect.READ, 10), (Effect.WRITE, 20), (Effect.DESTRUCTIVE, 20)])
def test_the_deadline_is_that_of_the_effect_unless_declared(effect: Effect, seconds: float):
    assert action("a", effect=effect)(undocumented.function).deadline == seconds
    assert action("a", effect=effect, deadline=3.5)(undocumented.function).deadline == 3.5


@pytest.mark.parametrize("seconds", [0, -1, LONGEST + 0.1, 25])
def test_a_deadline_that_clients_would_not_wait_for_cannot_be_declared(seconds: float):
    with pytest.raises(ValueError, match=r"^a: a deadline lies between 0 and 24\.0 s$"):
        action("a", effect=Effect.READ, deadline=seconds)


def test_params_and_result_are_the_annotations():
    assert do_it.takes_params
    assert do_it.params.json_schema()["required"] == ["name"]
    assert do_it.result.json_schema() == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert not undocumented.takes_params
    assert undocumented.result.json_schema() == {"type": "null"}


def test_annotations_may_be_written_as_text_and_name_a_server_for_typing_only():
    # Every real engine's module does so: `from __future__ import annotations`.
    source = """
from __future__ import annotations
from engines.action import Effect, Params, action

class Size(Params):
    size: int

@action("measured", effect=Effect.READ)
async def measured(server: SomethingForTypingOnly, params: Size) -> list[int]:
    return [params.size]
"""
    import sys
    from types import ModuleType

    module = ModuleType("tests.annotations_as_text")
    sys.modules[module.__name__] = module
    try:
        exec(source, vars(module))
        assert module.measured.params.json_schema()["properties"]["size"]["type"] == "integer"
        assert module.measured.result.json_schema()["items"]["type"] == "integer"
    finally:
        del sys.modules[module.__name__]


async def test_calling_a_record_calls_the_function_with_what_it_takes():
    assert await do_it(None, Named(name="a", size=7)) == {"size": 7}
    assert await briefly(None) == "said"
    assert await briefly(None, NoParams()) == "said"


@pytest.mark.parametrize("params", [None, {}])
def test_no_params_are_null_or_empty(params: Any):
    assert briefly.validate(params) == NoParams()


@pytest.mark.parametrize(
    ("params", "errors"),
    [
        (None, {"name": ["is required"]}),
        ({"name": 5}, {"name": ["Input should be a valid string"]}),
        ({"name": "a", "size": "5"}, {"size": ["Input should be a valid integer"]}),
        ({"name": "a", "size": True}, {"size": ["Input should be a valid integer"]}),
        ({"name": "a", "size": 1.0}, {"size": ["Input should be a valid integer"]}),
        ({"name": "a", "size": 0}, {"size": ["Input should be greater than or equal to 1"]}),
        ({"name": "a", "colour": "planted"}, {"colour": ["is not known"]}),
        (["planted"], {"params": ["Input should be a valid dictionary or instance of Named"]}),
    ],
)
def test_params_that_do_not_fit_are_told_by_field_without_their_value(params: Any, errors: dict[str, list[str]]):
    with pytest.raises(InvalidParams) as refused:
        do_it.validate(params)
    assert refused.value.errors == errors
    assert "planted" not in refused.value.message


def test_params_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        do_it.validate({"name": "a"}).name = "b"


def test_a_bare_value_is_params_too():
    set_mode = ENGINE.actions["set-mode"]
    assert set_mode.validate("FAST") == "FAST"
    with pytest.raises(InvalidParams) as refused:
        set_mode.validate(None)
    assert refused.value.errors == {"params": ["Input should be a valid string"]}
