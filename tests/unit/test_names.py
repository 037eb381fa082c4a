"""The rule for names of new logical databases."""

import pytest
from pydantic import ValidationError

from engines.names import ExistingLogicalDatabase, NewLogicalDatabase


@pytest.mark.parametrize("name", ["a", "A", "_", "a1", "custom-db", "custom_db", "a" * 64, "x--y", "a-"])
def test_a_new_name_may_be(name: str):
    assert NewLogicalDatabase(database_name=name).database_name == name


@pytest.mark.parametrize(
    "name",
    ["", "1a", "-a", "a b", " a", "a ", "a.b", "a/b", "a'b", 'a"b', "a`b", "a$b", "a\\b", "a\0b", "a\n", "\na",
     "a" * 65, "é", "\u0430", "\uff41", "a\u200b", "ß", "İ", "a;b", "a%b", "../a", "💥"],
)  # fmt: skip
def test_a_new_name_may_not_be(name: str):
    with pytest.raises(ValidationError):
        NewLogicalDatabase(database_name=name)


@pytest.mark.parametrize("name", ["a", " ", "a.b", "'; --", "\0", "💥" * 100, "a" * 1000])
def test_an_existing_one_may_be_named_however_odd(name: str):
    assert ExistingLogicalDatabase(database_name=name).database_name == name


def test_an_existing_one_has_a_name():
    with pytest.raises(ValidationError):
        ExistingLogicalDatabase(database_name="")
