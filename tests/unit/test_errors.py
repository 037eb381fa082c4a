"""The causes: one class each, with a code that has a status, and a text by default."""

import inspect
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Query
from starlette.exceptions import HTTPException
from starlette.responses import Response

from agent import errors as agent_errors
from agent.api.edge import Edge
from agent.api.errors import STATUS, install
from agent.log import make_log
from engines import errors as engine_errors
from engines.errors import EngineError, InvalidParams, NotFound, PrivilegeMissing, default_message
from tests.contract.decoders import go_failure


def below(root: type[Any]) -> list[type[Any]]:
    return [each for child in root.__subclasses__() for each in (child, *below(child))]


CAUSES = [
    each
    for root in (agent_errors.AgentError, EngineError)
    for each in below(root)
    if each.__module__ in ("agent.errors", "engines.errors") and each is not agent_errors.SettingsError
]


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_has_a_code_with_a_status_and_a_text(cause: type[Any]):
    assert cause.code in STATUS
    assert default_message(cause) == (inspect.getdoc(cause) or "").splitlines()[0]
    assert default_message(cause).endswith(".")


@pytest.mark.parametrize("module", [agent_errors, engine_errors])
def test_the_tree_at_the_head_of_the_module_names_every_cause(module: Any):
    drawn = module.__doc__
    for name, value in vars(module).items():
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == module.__name__:
            assert name in drawn


@pytest.mark.parametrize("cause", [each for each in CAUSES if each not in (InvalidParams, agent_errors.RateLimited)])
def test_a_cause_says_its_text_or_another(cause: type[Any]):
    assert cause().message == str(cause()) == default_message(cause)
    assert cause("another").message == str(cause("another")) == "another"


def test_a_cause_without_a_docstring_says_its_name():
    class Undocumented(EngineError):
        pass

    Undocumented.__doc__ = ""
    assert default_message(Undocumented) == "Undocumented"


def test_what_is_not_found_has_a_name_for_people():
    for cause in (NotFound, *below(NotFound)):
        assert cause.resource


def test_invalid_params_are_told_by_field():
    refused = InvalidParams({"a": ["is required", "is odd"], "b": ("is not known",)})
    assert refused.errors == {"a": ["is required", "is odd"], "b": ["is not known"]}
    assert refused.message == "a: is required; a: is odd; b: is not known"
    assert InvalidParams({"a": ["x"]}, "another").message == "another"


def test_a_missing_privilege_may_be_named():
    assert PrivilegeMissing().privilege is None
    assert PrivilegeMissing("x", privilege="SUPER").privilege == "SUPER"


def test_a_mistake_in_the_settings_names_its_key():
    mistake = agent_errors.SettingsError("tokens.0", "is odd")
    assert (mistake.key, mistake.message) == ("tokens.0", "tokens.0: is odd")


# What FastAPI refuses by itself: no route of dbvalet lets it, a later one may.


async def asked(path: str, **more: Any) -> httpx.Response:
    app = FastAPI()
    install(app)

    @app.get("/typed")
    async def typed(number: Annotated[int, Query(ge=1)], other: int) -> Response:
        return Response(str(number + other))

    @app.get("/teapot")
    async def teapot() -> Response:
        raise HTTPException(418, "planted")

    class Never(Edge):
        def __init__(self) -> None:
            super().__init__(app, app.routes[0], make_log("error"))

    async with httpx.AsyncClient(transport=httpx.ASGITransport(Never()), base_url="http://dbvalet") as client:
        return await client.get(path, **more)


async def test_a_query_that_does_not_fit_its_type_is_422_by_field():
    response = await asked("/typed?number=planted")

    assert response.status_code == 422
    assert set(response.json()["errors"]) == {"number", "other"}
    assert response.json()["code"] == "invalid_params"
    assert "planted" not in response.text
    assert go_failure(response)


async def test_a_status_that_the_table_does_not_have_is_a_bug():
    response = await asked("/teapot")

    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "planted" not in response.text
