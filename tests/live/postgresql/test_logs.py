"""The log of PostgreSQL, as the account of the grants script may read it."""

import asyncio
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from engines import deadline
from engines.address import parse_address
from engines.engine import GrantsFor
from engines.errors import Precondition, PrivilegeMissing
from engines.health import LogLine
from engines.log_text import masked
from engines.postgresql import ENGINE
from tests.live.servers import LiveServer, spawn

PASSWORD = "of-the-account"
PLANTED = "planted-in-a-statement"
VERSIONS = [pytest.param(version, marks=pytest.mark.engine_images(f"postgresql:{version}")) for version in ("12", "18")]
COLLECTING = (
    *("-c", "logging_collector=on", "-c", "log_statement=all", "-c", "log_filename=all-%H%M%S.log"),
    *("-c", "log_timezone=Europe/Berlin", "-c", "log_line_prefix=%m [%p] "),
)


@pytest.fixture(scope="module", params=VERSIONS)
def collecting(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with spawn("postgresql", request.param, options=COLLECTING) as live:
        yield live


def run(live: LiveServer, *statements: str) -> None:
    with psycopg.connect(live.url(), autocommit=True) as session:
        for each in statements:
            session.execute(each.encode())


def make_account(live: LiveServer, *, logs: bool) -> None:
    script = ENGINE.grants(GrantsFor(user="valet", password=PASSWORD, database="app"))
    if logs:
        script = script.replace("'dbvalet.logs', 'no'", "'dbvalet.logs', 'yes'")
        assert "'dbvalet.logs', 'yes'" in script
    run(live, script)


async def log_of(live: LiveServer, lines: int = 1000) -> list[LogLine]:
    server = ENGINE.connect(parse_address(live.url("valet", PASSWORD), 5432))
    try:
        health = ENGINE.health_of(server)
        assert health is not None
        with deadline.within(20):
            return await health.log(lines)
    finally:
        await server.close()


async def until(live: LiveServer, condition: Callable[[list[LogLine]], bool]) -> list[LogLine]:
    """The collector writes a moment later than the server answers."""
    ends_at = time.monotonic() + 20
    while not condition(found := await log_of(live)):
        assert time.monotonic() < ends_at, found[-5:]
    return found


async def test_without_the_optional_part_the_missing_right_is_named_and_what_it_says_helps(
    collecting: LiveServer,
) -> None:
    make_account(collecting, logs=False)
    with pytest.raises(PrivilegeMissing) as refused:
        await log_of(collecting)
    assert refused.value.privilege is not None
    assert "pg_read_binary_file" in refused.value.privilege
    statement = refused.value.message[refused.value.message.index("GRANT EXECUTE") :].partition(";")[0]
    run(collecting, statement)
    assert await log_of(collecting)
    run(collecting, statement.replace("GRANT", "REVOKE").replace(' TO "', ' FROM "'))
    with pytest.raises(PrivilegeMissing):
        await log_of(collecting)


async def test_the_optional_part_suffices_and_an_entry_has_its_moment_and_no_password(collecting: LiveServer) -> None:
    make_account(collecting, logs=True)
    run(collecting, f"CREATE ROLE somebody PASSWORD\n'{PLANTED}'", "DROP ROLE somebody", "SELECT 'the last'")
    found = await until(collecting, lambda found: any("the last" in each.text for each in found))
    entry = next(each for each in found if "CREATE ROLE somebody" in each.text)
    # Written in the time of Berlin, with an abbreviation.
    assert abs(entry.at.timestamp() - time.time()) < 120
    assert entry.text.startswith("[")
    assert PLANTED in entry.text
    assert PLANTED not in masked(entry.text)
    assert "CREATE ROLE somebody PASSWORD" in masked(entry.text)
    assert len(await log_of(collecting, 3)) == 3


async def test_what_was_written_before_and_after_a_rotation_is_there(collecting: LiveServer) -> None:
    make_account(collecting, logs=True)
    run(collecting, "SELECT 'before the rotation'")
    await until(collecting, lambda found: any("before the rotation" in each.text for each in found))
    await asyncio.sleep(1.1)  # the name of the next file is that of its second
    run(collecting, "SELECT pg_rotate_logfile()", "SELECT 'after the rotation'")
    found = await until(collecting, lambda found: any("after the rotation" in each.text for each in found))
    places = [
        next(number for number, each in enumerate(found) if f"SELECT '{when} the rotation'" in each.text)
        for when in ("before", "after")
    ]
    assert places == sorted(places)


async def test_without_a_collector_both_ways_out_are_said(postgresql: LiveServer) -> None:
    make_account(postgresql, logs=False)
    with pytest.raises(Precondition, match=r"logging_collector = on.*`log_file`"):
        await log_of(postgresql)
