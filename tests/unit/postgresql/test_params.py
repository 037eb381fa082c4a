"""What a caller may write to name a backend."""

from datetime import UTC, datetime

import pytest

from engines.errors import InvalidParams
from engines.postgresql import ENGINE

SIGNALS = ("pg-cancel-query", "pg-terminate-query")
WITHOUT_PARAMS = sorted(set(ENGINE.actions) - set(SIGNALS))


@pytest.mark.parametrize("action", SIGNALS)
@pytest.mark.parametrize(
    ("params", "field"),
    [
        (None, "pid"),
        ({}, "pid"),
        ({"pid": None}, "pid"),
        ({"pid": 0}, "pid"),
        ({"pid": -1}, "pid"),
        ({"pid": 2**31}, "pid"),
        ({"pid": 10**30}, "pid"),
        ({"pid": True}, "pid"),
        ({"pid": 1.0}, "pid"),
        ({"pid": "1"}, "pid"),
        ({"pid": [1]}, "pid"),
        ({"pid": 1, "PID": 1}, "PID"),
        ({"pid": 1, "backend_start": ""}, "backend_start"),
        ({"pid": 1, "backend_start": 0}, "backend_start"),
        ({"pid": 1, "backend_start": "2026-01-01"}, "backend_start"),
        ({"pid": 1, "backend_start": "2026-01-01T00:00:00"}, "backend_start"),
        ({"pid": 1, "backend_start": "2026-02-30T00:00:00Z"}, "backend_start"),
        ({"pid": 1, "backend_start": "2026-01-01T00:00:60Z"}, "backend_start"),
        ({"pid": 1, "backend_start": "0000-01-01T00:00:00Z"}, "backend_start"),
        ({"pid": 1, "backend_start": "2026-01-01T00:00:00.1234567Z"}, "backend_start"),
        ({"pid": 1, "backend_start": "2026-01-01T00:00:00+25:00"}, "backend_start"),
        ({"pid": 1, "backend_start": "2026-01-01T00:00:00Z\n"}, "backend_start"),
        ({"pid": 1, "backend_start": "٢026-01-01T00:00:00Z"}, "backend_start"),
        ([1], "params"),
        (1, "params"),
        ("1", "params"),
    ],
)
def test_wrong_params_are_refused_by_field(action: str, params: object, field: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        ENGINE.actions[action].validate(params)
    assert set(refused.value.errors) == {field}
    assert "٢026" not in refused.value.message


@pytest.mark.parametrize("action", WITHOUT_PARAMS)
@pytest.mark.parametrize("params", [{"pid": 1}, [], "", 0, False])
def test_an_action_without_params_takes_none(action: str, params: object) -> None:
    with pytest.raises(InvalidParams):
        ENGINE.actions[action].validate(params)


@pytest.mark.parametrize("action", WITHOUT_PARAMS)
def test_absent_null_and_empty_params_are_one_case(action: str) -> None:
    assert ENGINE.actions[action].validate(None) == ENGINE.actions[action].validate({})


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-02T03:04:05.000006Z",
        "2026-01-02t03:04:05.000006z",
        "2026-01-02 03:04:05.000006+00:00",
        "2026-01-02T03:04:05.000006000-00:00",
        "2026-01-01T21:34:05.000006-05:30",
    ],
)
def test_an_instant_is_read_in_every_form_of_rfc_3339(text: str) -> None:
    params = ENGINE.actions["pg-cancel-query"].validate({"pid": 1, "backend_start": text})
    assert params.backend_start == datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-01-02T03:04:05.5Z", "2026-01-02T03:04:05.500000000Z"])
def test_a_short_and_a_padded_fraction_mean_the_same(text: str) -> None:
    params = ENGINE.actions["pg-cancel-query"].validate({"pid": 1, "backend_start": text})
    assert params.backend_start.microsecond == 500_000


def test_backend_start_may_be_null() -> None:
    assert ENGINE.actions["pg-cancel-query"].validate({"pid": 1, "backend_start": None}).backend_start is None


@pytest.mark.parametrize("action", SIGNALS)
def test_the_schema_says_what_is_accepted(action: str) -> None:
    schema = ENGINE.actions[action].params.json_schema()
    assert schema["required"] == ["pid"]
    assert schema["additionalProperties"] is False
    assert (schema["properties"]["pid"]["type"], schema["properties"]["pid"]["maximum"]) == ("integer", 2147483647)
    assert {"type": "string", "format": "date-time"} in schema["properties"]["backend_start"]["anyOf"]


@pytest.mark.parametrize("name", sorted(ENGINE.actions))
def test_the_documented_examples_fit_the_models(name: str) -> None:
    action = ENGINE.actions[name]
    action.validate(action.example_params)
    if action.example_result is not None:
        assert action.example_result[0].keys() >= set(action.result.json_schema()["$defs"].popitem()[1]["required"])
