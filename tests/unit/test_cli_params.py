"""PARAMS of `dbvalet call`."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.commands.params import NOT_GIVEN, NotParams, read_params

NAMED = {"type": "object", "properties": {"database_name": {"type": "string"}}}
BACKEND = {
    "type": "object",
    "properties": {
        "pid": {"type": "integer"},
        "backend_start": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
        "share": {"type": "number"},
        "force": {"type": "boolean"},
        "tags": {"type": "array"},
        "level": {"$ref": "#/$defs/Level"},
        "kind": {"const": 7},
    },
    "$defs": {"Level": {"enum": [1, "all"]}},
}
TEXT = {"type": "string"}


def test_no_words_are_no_params() -> None:
    assert read_params([], [NAMED]) is NOT_GIVEN


@pytest.mark.parametrize(
    ("word", "read"),
    [('{"pid": 2000}', {"pid": 2000}), ("[1]", [1]), ('"ANSI"', "ANSI"), ("null", None), (' {"a": 1}', {"a": 1})],
)
def test_json_is_taken_as_it_is_whatever_the_action(word: str, read: Any) -> None:
    assert read_params([word], [TEXT]) == read
    assert read_params([word], []) == read


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("pid=2000", {"pid": 2000}),
        ("pid=many", {"pid": "many"}),
        ("share=1", {"share": 1}),
        ("share=true", {"share": "true"}),
        ("share=NaN", {"share": "NaN"}),
        ("force=true", {"force": True}),
        ("force=1", {"force": "1"}),
        ("backend_start=null", {"backend_start": None}),
        ("backend_start=2026-01-31T08:00:00Z", {"backend_start": "2026-01-31T08:00:00Z"}),
        ('tags=["a"]', {"tags": ["a"]}),
        ("level=1", {"level": 1}),
        ("level=all", {"level": "all"}),
        ("kind=7", {"kind": 7}),
        ("pid=", {"pid": ""}),
        ("backend_start=a=b", {"backend_start": "a=b"}),
    ],
)
def test_a_pair_has_the_type_that_the_schema_gives_its_key(word: str, read: Any) -> None:
    found = read_params([word], [BACKEND])
    assert found == read
    assert repr(found) == repr(read)  # 1 == True in Python


def test_a_text_that_looks_like_a_number_stays_a_text() -> None:
    assert read_params(["database_name=2000"], [NAMED]) == {"database_name": "2000"}
    assert read_params(["database_name=null"], [NAMED]) == {"database_name": "null"}
    assert read_params(['database_name="x"'], [NAMED]) == {"database_name": '"x"'}


def test_a_key_that_is_not_known_here_is_json_where_it_can_be() -> None:
    words = ["limit=5", "name=five", "on=true", 'text="5"']
    assert read_params(words, []) == {"limit": 5, "name": "five", "on": True, "text": '"5"'}


def test_a_bare_word_goes_to_an_action_that_takes_a_text() -> None:
    assert read_params(["ANSI,TRADITIONAL"], [TEXT]) == "ANSI,TRADITIONAL"
    assert read_params(["a=b"], [TEXT]) == "a=b"
    assert read_params([""], [TEXT]) == ""
    assert read_params(["5"], [TEXT]) == "5"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["custom"], "'custom' is neither JSON nor KEY=VALUE"),
        (["=x"], "'=x' is neither JSON nor KEY=VALUE"),
        (["5"], "'5' is neither JSON nor KEY=VALUE"),
        (["a=1", "a=2"], "a stands there twice"),
        (['{"a": 1'], "not JSON: Expecting ',' delimiter"),
        (['{"a": NaN}'], "not JSON: NaN is no JSON value"),
        (["a=1", '{"a": 1}'], "is neither JSON nor KEY=VALUE"),
    ],
)
def test_what_is_neither_is_refused(words: list[str], text: str) -> None:
    with pytest.raises(NotParams, match=text):
        read_params(words, [NAMED])


@given(st.text())
def test_any_text_can_be_given_to_a_key_that_takes_texts(text: str) -> None:
    assert read_params([f"database_name={text}"], [NAMED]) == {"database_name": text}
