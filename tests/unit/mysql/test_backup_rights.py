"""What an account needs for backups, and the names of a restore's logical databases."""

import pytest

from engines.engine import GrantsFor
from engines.mysql.backup_rights import pattern, set_definer
from engines.mysql.facts import Flavour
from engines.mysql.grants import backup_grants, grants
from engines.mysql.journal import places_beside


@pytest.mark.parametrize(
    ("flavour", "version", "privilege"),
    [
        ("mysql", (9, 7, 0), "SET_ANY_DEFINER"),
        ("mysql", (8, 0, 40), "SET_USER_ID"),
        ("mysql", (5, 7, 44), "SUPER"),
        ("mariadb", (11, 8, 1), "SET USER"),
        ("mariadb", (10, 5, 1), "SUPER"),
    ],
)
def test_each_version_has_its_privilege_for_other_definers(
    flavour: Flavour, version: tuple[int, ...], privilege: str
) -> None:
    assert set_definer(flavour, version) == privilege
    written = backup_grants(GrantsFor(flavour=flavour, version=version))
    assert any(privilege in statement for statement in written)


def test_a_grant_is_for_this_database_and_none_whose_name_is_like_it() -> None:
    assert pattern("a_b%c\\d`e") == "`a\\_b\\%c\\\\d``e`"


def test_a_grant_is_given_on_the_three_databases() -> None:
    written = backup_grants(GrantsFor(database="my_app"))
    for name in ("`my\\_app`", "`my\\_app\\_dbvalet\\_restore`", "`my\\_app\\_dbvalet\\_before`"):
        assert any(f" ON {name}.* TO " in statement for statement in written)


@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
def test_the_optional_part_of_the_script_does_nothing_unless_somebody_wants_it(flavour: str) -> None:
    whom = GrantsFor(flavour=flavour, database="a\nDROP DATABASE app;", user="u\nDROP DATABASE app;")
    script = grants(GrantsFor(flavour=flavour, database="a\nDROP DATABASE app;"))
    for line in script.splitlines():
        assert not line.startswith("DROP")
    commented = "\n".join(line.removeprefix("-- ") for line in grants(whom).splitlines())
    assert all(statement in commented for statement in backup_grants(whom))


def test_the_names_beside_a_database_are_short_enough_and_its_own() -> None:
    places = places_beside("app")
    assert (places.fresh, places.before) == ("app_dbvalet_restore", "app_dbvalet_before")
    for filling in "x_%":
        long, longer = places_beside(filling * 63 + "a"), places_beside(filling * 63 + "b")
        names = {long.fresh, long.before, longer.fresh, longer.before}
        assert len(names) == 4
        assert all(len(pattern(name).strip("`")) <= 64 for name in names)
