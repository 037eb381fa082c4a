"""The live servers that tests of any folder may ask for: `postgresql`, `mysql`, `mongodb`, `influxdb`.

A test that asks for one runs once for each version that the options below choose.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.live.images import ENGINES, Engine, EngineImage, choose

if TYPE_CHECKING:
    from tests.live.servers import LiveServer


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("engines", "the real database servers of the live tests")
    group.addoption(
        "--all-versions", action="store_true", help="every version; else the oldest and the newest of each engine"
    )
    group.addoption(
        "--engine", action="append", default=[], choices=ENGINES, help="leave out live tests of other engines; repeatable"
    )
    group.addoption("--versions", default="", help="these versions only, as in postgresql:18,mariadb:10.11")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "live: talks to a real database server in a container")
    for engine in ENGINES:
        try:
            chosen_images(config, engine)
        except LookupError as unknown:
            raise pytest.UsageError(f"--versions: {unknown}") from unknown


def chosen_images(config: pytest.Config, engine: Engine) -> tuple[EngineImage, ...]:
    keys = [key for key in config.getoption("versions").split(",") if key]
    return choose(engine, every=config.getoption("all_versions"), keys=keys)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for engine in ENGINES:
        if engine in metafunc.fixturenames:
            # A test of an engine that is left out still needs a parameter, to be deselected by it below.
            images = chosen_images(metafunc.config, engine) or choose(engine, every=False, keys=())
            # The scope makes pytest put the tests of one server together.
            metafunc.parametrize(engine, images, ids=[image.id for image in images], indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted: list[str] = config.getoption("engine") or list(ENGINES)
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        images = [image for engine in ENGINES if isinstance(image := parameters.get(engine), EngineImage)]
        if images:
            item.add_marker("live")
        if all(image.engine in wanted and image in chosen_images(config, image.engine) for image in images):
            kept.append(item)
        else:
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.fixture(scope="session")
def _no_abandoned_servers() -> None:
    from tests.live.servers import remove_abandoned

    remove_abandoned()


def _server(image: EngineImage) -> "Iterator[LiveServer]":
    # The drivers and testcontainers are imported only when a test needs a server.
    from tests.live.servers import spawn

    with spawn(image.flavour, image.version) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql(request: pytest.FixtureRequest, _no_abandoned_servers: None) -> "Iterator[LiveServer]":
    """A PostgreSQL that preloads pg_stat_statements."""
    yield from _server(request.param)


@pytest.fixture(scope="session")
def mysql(request: pytest.FixtureRequest, _no_abandoned_servers: None) -> "Iterator[LiveServer]":
    """A MySQL or a MariaDB."""
    yield from _server(request.param)


@pytest.fixture(scope="session")
def mongodb(request: pytest.FixtureRequest, _no_abandoned_servers: None) -> "Iterator[LiveServer]":
    """A standalone MongoDB with authentication."""
    yield from _server(request.param)


@pytest.fixture(scope="session")
def influxdb(request: pytest.FixtureRequest, _no_abandoned_servers: None) -> "Iterator[LiveServer]":
    """An InfluxDB 1.x with authentication."""
    yield from _server(request.param)
