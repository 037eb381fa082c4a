"""The fault table in docs/reliability.md is that of the catalogue, and nothing in it is left out in silence."""

from pathlib import Path

import pytest

from engines.action import Effect
from engines.engine import installed_engines
from tests.live.faults.kinds import SHORT, Fault, Pair, is_short, pairs, scenarios, why_not
from tests.live.faults.places import PLACES
from tests.live.faults.report import BEGIN, END, PASSED, TOTALS, Result, cell, is_whole, keep, kept, table, totals
from tests.live.images import ENGINES, Engine

EVERY = [Result(str(each.pair), str(each.fault), PASSED) for engine in ENGINES for each in scenarios(engine)]


def test_there_are_at_least_a_hundred_scenarios_and_some_for_each_action() -> None:
    assert len(EVERY) >= 100
    assert {each.pair for each in EVERY} == {str(pair) for pair in pairs()}
    assert len(pairs()) == 20


@pytest.mark.parametrize("engine", ENGINES)
def test_every_action_of_the_catalogue_can_be_set_up_and_found_on_its_way(engine: Engine) -> None:
    actions = installed_engines()[engine].actions
    place = PLACES[engine]
    assert place.cases.keys() == actions.keys()
    assert place.statements.keys() == actions.keys()


def test_what_changes_something_meets_every_fault_that_its_engine_has() -> None:
    left_out = {
        (pair.engine, fault)
        for pair in pairs()
        for fault in Fault
        if pair.effect is not Effect.READ and why_not(pair, fault)
    }
    assert left_out == {("influxdb", Fault.READ_ONLY)}


def test_the_short_share_is_of_scenarios_that_there_are() -> None:
    found = [each for engine in ENGINES for each in scenarios(engine) if is_short(each)]
    assert len(found) == len(SHORT)


def test_the_table_that_is_kept_is_one_of_a_whole_run() -> None:
    """A new action or fault has no cell in it until `scripts/test --faults --write-table` has run."""
    assert kept() == table(EVERY)


def test_a_run_that_is_not_whole_is_not_taken_for_one() -> None:
    assert is_whole(EVERY)
    assert not is_whole(EVERY[1:])
    failed = Result(EVERY[0].pair, EVERY[0].fault, "lost")
    assert not is_whole([failed, *EVERY[1:]])
    assert "lost: 1" in totals([failed, *EVERY[1:]])
    assert table([failed, *EVERY[1:]]) != table(EVERY)


def test_a_cell_says_what_became_of_its_scenario() -> None:
    pair = Pair("mysql", "create-database", Effect.WRITE)
    seen = {("mysql create-database", "down"): PASSED, ("mysql create-database", "cut"): "done twice"}
    assert [cell(pair, each, seen) for each in (Fault.DOWN, Fault.CUT, Fault.KILLED)] == ["1", "done twice", "not run"]
    assert cell(Pair("mysql", "list-databases", Effect.READ), Fault.DISK_FULL, {}).startswith("– ")


def test_what_must_never_be_is_counted_even_when_it_was_not() -> None:
    assert totals(EVERY) == f"{len(EVERY)} scenarios passed, " + ", ".join(f"{kind}: 0" for kind in TOTALS) + "."


def test_keeping_a_table_leaves_the_rest_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    keep("new", page)
    assert kept(page) == "new"
    assert page.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
