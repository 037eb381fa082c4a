"""The live servers that tests of any folder may ask for: `postgresql`, `mysql`, `mongodb`, `influxdb`.

A test that asks for one runs once for each version that the options below choose.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.live.admins import guard_connections
from tests.live.images import ENGINES, Engine, EngineImage, choose, find_image

if TYPE_CHECKING:
    from tests.live.servers import LiveServer

MARKERS = (
    "live: talks to a real database server in a container (added to every test that asks for one)",
    "long: a proof that takes minutes; only with --long",
    "faults(engine, short): a fault that an action meets; all only with --faults, and nothing else; short ones always",
    "newest_version: on the last of the chosen versions alone, as they do not differ in it",
    "engine_images(*keys): needs Docker, and these images beside those of its fixtures, as in postgresql:18",
)
UNIT = Path(__file__).parent / "unit"
LIVE = Path(__file__).parent / "live"
# The tests whose body was run, be it to a failure.
RUN_TESTS: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("engines", "the real database servers of the live tests")
    group.addoption(
        "--all-versions", action="store_true", help="every version; else the oldest and the newest of each engine"
    )
    group.addoption(
        "--engine", action="append", default=[], choices=ENGINES, help="no live tests of other engines; repeatable"
    )
    group.addoption("--versions", default="", help="these versions only, as in postgresql:18,mariadb:10.11")
    group.addoption("--long", action="store_true", help="also the proofs that take minutes")
    group.addoption("--faults", action="store_true", help="the fault table, and nothing else")
    group.addoption("--write-table", action="store_true", help="with --faults: keep the table in docs/reliability.md")
    group.addoption(
        "--write-needed-images",
        type=Path,
        metavar="FILE",
        help="run nothing: write which images the collected tests need, one a line, and `docker` for no certain one",
    )


# On a machine that others use too, how long an example takes says nothing.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])


def pytest_configure(config: pytest.Config) -> None:
    guard_connections()
    settings.load_profile("tests")
    # Of whoever runs the tests, or of a worker of pytest-xdist: what is printed is compared.
    os.environ.pop("COLUMNS", None)
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if config.getoption("write_needed_images"):
        config.option.collectonly = True
    for engine in ENGINES:
        try:
            chosen_images(config, engine)
        except LookupError as unknown:
            raise pytest.UsageError(f"--versions: {unknown}") from unknown


def chosen_images(config: pytest.Config, engine: Engine) -> tuple[EngineImage, ...]:
    keys = [key for key in str(config.getoption("versions")).split(",") if key]
    return choose(engine, every=bool(config.getoption("all_versions")), keys=keys)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for engine in ENGINES:
        if engine in metafunc.fixturenames:
            # A test of an engine that is left out still needs a parameter, to be deselected by it below.
            images = chosen_images(metafunc.config, engine) or choose(engine, every=False, keys=())
            # The scope makes pytest put the tests of one server together.
            metafunc.parametrize(engine, images, ids=[image.id for image in images], indirect=True, scope="session")


def images_of_fixtures(item: pytest.Item) -> list[EngineImage]:
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return [image for engine in ENGINES if isinstance(image := parameters.get(engine), EngineImage)]


# Before pytest-xdist reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted: list[str] = config.getoption("engine") or list(ENGINES)
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        images = images_of_fixtures(item)
        if images:
            item.add_marker("live")
        item.add_marker(pytest.mark.xdist_group(group_of(item, images)))
        in_time = config.getoption("long") or item.get_closest_marker("long") is None
        fault = item.get_closest_marker("faults")
        if fault is not None:
            item.add_marker("live")
            in_time = fault.args[0] in wanted and (config.getoption("faults") or fault.kwargs["short"])
        elif config.getoption("faults"):
            in_time = False
        if item.get_closest_marker("newest_version"):
            in_time = in_time and all(chosen_images(config, image.engine)[-1:] == (image,) for image in images)
        if in_time and all(image.engine in wanted and image in chosen_images(config, image.engine) for image in images):
            kept.append(item)
        else:
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def group_of(item: pytest.Item, images: list[EngineImage]) -> str:
    """Name what one worker runs whole: the tests of one server, which is started once, or those of a file."""
    if fault := item.get_closest_marker("faults"):
        return f"faults of {fault.args[0]}"
    if images:
        return "+".join(image.key for image in images)
    return item.path.name if LIVE in item.path.parents else item.nodeid


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    file: Path | None = session.config.getoption("write_needed_images")
    if file is not None:
        needed = sorted({need for item in session.items for need in needs_of(item)})
        file.write_text("".join(f"{need}\n" for need in needed))


def needs_of(item: pytest.Item) -> Iterator[str]:
    for image in images_of_fixtures(item):
        yield image.key
    for marker in item.iter_markers("engine_images"):
        yield "docker"
        for key in marker.args:
            yield find_image(*key.split(":", 1)).key
    if item.get_closest_marker("faults"):
        return
    # Tests with servers of their own say which only while they run. Beside tests/unit, any may have some.
    if UNIT not in item.path.parents and not item.config.getoption("versions"):
        for engine in item.config.getoption("engine") or ENGINES:
            for image in chosen_images(item.config, engine):
                yield image.key


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and not report.skipped:
        RUN_TESTS.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run in which every test was skipped has shown nothing."""
    if exitstatus == pytest.ExitCode.OK and not session.config.option.collectonly and not RUN_TESTS:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    # Here and not beside the tests: who shares them out among workers collects none itself.
    if config.getoption("faults") and not config.option.collectonly:
        from tests.live.faults.report import summarise

        summarise(terminalreporter, write=bool(config.getoption("write_table")))


@pytest.fixture(scope="session")
def _no_abandoned_servers() -> None:
    from tests.live.servers import remove_abandoned

    remove_abandoned()


def _server(image: EngineImage) -> "Iterator[LiveServer]":
    # The drivers and testcontainers are imported only when a test needs a server.
    from tests.live.servers import attach, spawn

    # A run of few tests, one of many (tests/mutants), takes the servers of whoever begins them all.
    running: dict[str, Any] = json.loads(os.environ.get("TEST_SERVERS", "{}"))
    if image.key in running:
        yield attach(image, **running[image.key])
        return
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
