"""dbvalet is killed before, while and after it changes something, and the request is sent again with its key."""

from pathlib import Path

import pytest

from engines.action import Effect
from tests.live.dying import AFTER, BEFORE, DURING
from tests.live.faults.case import Case
from tests.live.faults.killing import killed_and_asked_again
from tests.live.faults.kinds import pairs
from tests.live.faults.places import PLACES
from tests.live.images import Engine
from tests.live.servers import LiveServer

# What became of a request that was killed on the way is left to chance, and to the long run.
MOMENTS = pytest.mark.parametrize(
    "at", [pytest.param(BEFORE, marks=pytest.mark.long), pytest.param(DURING, marks=pytest.mark.long), AFTER]
)
pytestmark = pytest.mark.newest_version


def changes(engine: Engine) -> pytest.MarkDecorator:
    names = [pair.action for pair in pairs() if pair.engine == engine and pair.effect is not Effect.READ]
    return pytest.mark.parametrize("action", names)


def done_once(live: LiveServer, action: str, at: str, folder: Path) -> None:
    with PLACES[live.engine](live) as place, place.case(action) as case:
        assert isinstance(case, Case)
        killed_and_asked_again(case, at, place.url, folder)


@MOMENTS
@changes("postgresql")
def test_postgresql_changes_once(postgresql: LiveServer, tmp_path: Path, at: str, action: str) -> None:
    done_once(postgresql, action, at, tmp_path)


@MOMENTS
@changes("mysql")
@pytest.mark.long
def test_mysql_changes_once(mysql: LiveServer, tmp_path: Path, at: str, action: str) -> None:
    done_once(mysql, action, at, tmp_path)


@MOMENTS
@changes("mongodb")
@pytest.mark.long
def test_mongodb_changes_once(mongodb: LiveServer, tmp_path: Path, at: str, action: str) -> None:
    done_once(mongodb, action, at, tmp_path)


@MOMENTS
@changes("influxdb")
def test_influxdb_changes_once(influxdb: LiveServer, tmp_path: Path, at: str, action: str) -> None:
    done_once(influxdb, action, at, tmp_path)
