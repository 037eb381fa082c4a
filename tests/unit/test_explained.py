"""A route that the engine refuses names the privilege and its GRANT."""

from typing import Any, cast

import pytest

from engines.errors import DeadlineExceeded, EngineError, EngineUnavailable, PrivilegeMissing
from engines.health import Health, Lack, explained
from engines.preview import MOST_OBJECTS, Affected, Change, preview_of

LACKS = [Lack(name="MONITOR", remedy="GRANT MONITOR TO valet."), Lack(name="READ", remedy="GRANT READ TO valet.")]


class Telling:
    """A Health that knows what is lacking, or cannot tell."""

    def __init__(self, lacks: dict[str, list[Lack]], problem: EngineError | None = None) -> None:
        self._lacks, self._problem = lacks, problem

    async def lacking(self) -> dict[str, list[Lack]]:
        if self._problem is not None:
            raise self._problem
        return self._lacks


async def work(outcome: Any) -> Any:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def refused(health: Telling, problem: EngineError) -> EngineError:
    with pytest.raises(type(problem)) as raised:
        await explained(cast(Health, health), "metrics", work(problem))
    return raised.value


async def test_what_is_not_refused_is_given_as_it_is():
    assert await explained(cast(Health, Telling({}, EngineUnavailable())), "metrics", work(7)) == 7
    cut = EngineUnavailable("cut")
    assert await refused(Telling({"metrics": LACKS}), cut) is cut


async def test_everything_that_the_route_lacks_is_named_with_its_remedy():
    told = await refused(Telling({"metrics": LACKS, "logs": []}), PrivilegeMissing("the driver's words"))
    assert isinstance(told, PrivilegeMissing)
    assert told.privilege == "MONITOR, READ"
    assert told.message == (
        "Missing: MONITOR. Remedy: GRANT MONITOR TO valet. Missing: READ. Remedy: GRANT READ TO valet."
    )


async def test_what_is_named_already_or_cannot_be_told_stays_as_it_was_said():
    named, bare = PrivilegeMissing("It lacks X.", privilege="X"), PrivilegeMissing("the driver's words")
    assert await refused(Telling({"metrics": LACKS}), named) is named
    for health in (
        Telling({}),
        Telling({"metrics": [], "logs": LACKS}),
        Telling({}, EngineUnavailable("gone")),
        Telling({}, DeadlineExceeded("late")),
    ):
        assert await refused(health, bare) is bare


def test_a_preview_names_a_hundred_objects_and_counts_them_all():
    def of(count: int) -> list[Affected]:
        return [Affected(change=Change.REMOVE, kind="table", name=str(each)) for each in range(count)]

    bare = preview_of("Nothing.")
    assert (bare.objects, bare.total, bare.truncated, bare.sessions) == ([], 0, False, 0)
    assert (bare.keeps, bare.warnings, bare.before, bare.after) == ([], [], None, None)
    full = preview_of("Drop all.", iter(of(100)), sessions=3, keeps=["a"], warnings=["b"], before="c", after="d")
    assert MOST_OBJECTS == 100
    assert (full.objects, full.total, full.truncated, full.sessions) == (of(100), 100, False, 3)
    assert (full.would, full.keeps, full.warnings, full.before, full.after) == ("Drop all.", ["a"], ["b"], "c", "d")
    more = preview_of("Drop all.", of(101))
    assert (more.objects, more.total, more.truncated) == (of(100), 101, True)
