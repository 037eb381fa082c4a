"""Every pair of engine and action meets every fault that makes sense for it: `scripts/test --faults`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.faults.disk import new_disk
from tests.live.faults.kinds import Scenario, is_short, scenarios
from tests.live.faults.ordeal import Ordeal
from tests.live.faults.places import PLACES
from tests.live.faults.service import Broken, new_service
from tests.live.images import ENGINES, Engine, newest
from tests.live.servers import spawn

SIZES: dict[Engine, str] = {"postgresql": "300m", "mysql": "1g", "mongodb": "600m", "influxdb": "100m"}
"""Of the disk with the server's data."""


class Ordeals:
    """One server and one dbvalet at a time, for all scenarios of an engine that go well one after another."""

    def __init__(self, new_folder: Callable[[str], Path]) -> None:
        self._new_folder = new_folder
        self._stack = ExitStack()
        self._current: tuple[Engine, Ordeal] | None = None

    def of(self, engine: Engine) -> Ordeal:
        if self._current is None or self._current[0] != engine:
            self.end()
            self._current = engine, self._begin(engine)
        return self._current[1]

    def _begin(self, engine: Engine) -> Ordeal:
        folder = self._new_folder(engine)
        enter = self._stack.enter_context
        disk = enter(new_disk(folder / "data", SIZES[engine]))
        image = newest(engine)
        live = enter(spawn(image.flavour, image.version, folder=folder / "data"))
        place = enter(PLACES[engine](live))
        service = enter(new_service(folder, place.url, place.url_through))
        return Ordeal(place, service, disk, folder)

    def end(self) -> None:
        self._current = None
        self._stack.close()


@pytest.fixture(scope="session")
def ordeals(_no_abandoned_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ordeals]:
    made = Ordeals(tmp_path_factory.mktemp)
    yield made
    made.end()


def params() -> Iterator[object]:
    for engine in ENGINES:
        for scenario in scenarios(engine):
            marks = [
                pytest.mark.faults(engine, short=is_short(scenario)),
                pytest.mark.engine_images(newest(engine).key),
            ]
            yield pytest.param(scenario, marks=marks, id=f"{engine}-{scenario}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", list(params()))
def test_a_fault_is_met(ordeals: Ordeals, scenario: Scenario, record_property: Callable[[str, object], None]) -> None:
    record_property("scenario", [str(scenario.pair), str(scenario.fault)])
    ordeal = ordeals.of(scenario.pair.engine)
    try:
        ordeal.undergo(scenario)
    except BaseException as failure:
        record_property("broken", failure.kind if isinstance(failure, Broken) else "other")
        # What this one left behind is no concern of the next.
        ordeals.end()
        raise
