"""A restore that is cut off at any moment leaves the old data exactly, and can be done again."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from engines.errors import BackupFailed, Conflict, EngineUnavailable
from engines.postgresql.backup import PostgresBackups
from engines.postgresql.programs import find_programs
from tests.leftovers import OtherProgram
from tests.live.admins import as_admin
from tests.live.cutting_proxy import cutting_proxy
from tests.live.images import newest
from tests.live.postgresql.backing_up import (
    FOLDERS,
    At,
    BackedUp,
    Content,
    every_kind_of_object,
    ignore,
    programs_running,
)
from tests.live.postgresql.deployment import until
from tests.live.servers import LiveServer, spawn

# What dbvalet does around the engine's own tools does not differ between versions.
pytestmark = pytest.mark.newest_version

MOMENTS = (
    "waiting for those",
    "dropping what is there",
    "making tables",
    "0.1 MB of rows",
    "making indexes",
    "filling",
    "making event triggers",
)
"""How the words of the progress begin."""

CHANGES = """
DROP TABLE books.author CASCADE;
UPDATE books.book SET price = 1;
CREATE TABLE public.since (a integer);
INSERT INTO public.since VALUES (1);
SELECT lo_unlink(70001);
"""

SLOW_INDEX = """
CREATE TABLE books.slow (a integer);
INSERT INTO books.slow VALUES (1);
CREATE FUNCTION books.take_time(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE INDEX slow_index ON books.slow (books.take_time(a));
CREATE OR REPLACE FUNCTION books.take_time(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN PERFORM pg_catalog.pg_sleep(60); RETURN $1; END';
"""

IN_THE_INDEX = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'dbvalet restore' AND query LIKE '%INDEX slow_index%'"
)

SESSIONS = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'dbvalet %' AND datname = current_database()"

TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dbvalet restore'"

DIES = """#!/bin/sh
case "$*" in
*--use-list=*)
    echo >>{folder}/calls
    if [ "$(wc -l <{folder}/calls)" = {call} ]; then
        {pg_restore} "$@" >{folder}/all
        head -c $(($(wc -c <{folder}/all) / 2)) {folder}/all
        kill -9 $$
    fi
esac
exec {pg_restore} "$@"
"""

OTHER_DBVALET = """
import asyncio, sys
from pathlib import Path
from engines.address import parse_address
from engines.postgresql import ENGINE
from engines.postgresql.backup import PostgresBackups

async def main(url, what, folder, *folders):
    backups = PostgresBackups(ENGINE.connect(parse_address(url, 5432)), [Path(each) for each in folders])
    print("begun", flush=True)
    await getattr(backups, what)(Path(folder), lambda percent, words: None)

asyncio.run(main(*sys.argv[1:]))
"""


def of_superuser(work: str, url: str, folder: Path) -> OtherProgram:
    with as_admin("what was backed up is a superuser's"):
        return OtherProgram(OTHER_DBVALET, url, work, str(folder), *map(str, FOLDERS))


@dataclass
class Both:
    """A database, its content of before and after a backup, and the backup."""

    backed_up: BackedUp
    folder: Path
    old: Content
    """What a restore replaces."""
    new: Content
    """What the backup holds."""

    async def expect_the_old(self) -> None:
        assert await self.backed_up.deployment.rows(SESSIONS) == []
        assert programs_running("pg_restore") == programs_running("pg_dump") == []
        assert await self.backed_up.content() == self.old

    async def restore_again(self) -> None:
        await self.backed_up.backups.clean_up()
        await self.backed_up.backups.restore(self.folder, ignore)
        assert await self.backed_up.content() == self.new

    async def cut_off(self, moment: str, do: Callable[[], object]) -> BaseException | None:
        """Restore, do something at a moment, and give what the restore ended with."""
        at = At(moment, do)
        restoring = asyncio.ensure_future(self.backed_up.backups.restore(self.folder, at))
        await asyncio.wait([restoring], timeout=60)
        assert at.done, at.told
        return asyncio.CancelledError() if restoring.cancelled() else restoring.exception()


async def make_both(backed_up: BackedUp, folder: Path, more: str = "") -> Both:
    await backed_up.run(more or "SELECT 1")
    new = await backed_up.content()
    await backed_up.backups.dump(folder, ignore)
    await backed_up.run(CHANGES)
    return Both(backed_up, folder, await backed_up.content(), new)


@pytest.fixture
async def backed_up(postgresql: LiveServer) -> AsyncIterator[BackedUp]:
    async with every_kind_of_object(postgresql, superuser=True) as made:
        yield made


@pytest.fixture(scope="module")
async def crashing() -> AsyncIterator[LiveServer]:
    """A server that writes to disk as it should, for tests that kill it."""
    image = newest("postgresql")
    with spawn(image.flavour, image.version, options=("-c", "fsync=on", "-c", "full_page_writes=on")) as server:
        yield server


async def test_a_cancelled_restore_leaves_the_old_data(backed_up: BackedUp, tmp_path: Path) -> None:
    both = await make_both(backed_up, tmp_path)
    for moment in MOMENTS:

        def cancel() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.get_loop().call_soon(task.cancel)

        assert isinstance(await both.cut_off(moment, cancel), asyncio.CancelledError), moment
        await both.expect_the_old()
    await both.restore_again()


async def test_a_restore_that_is_cancelled_while_it_commits_is_done_and_says_so(
    backed_up: BackedUp, tmp_path: Path
) -> None:
    both = await make_both(backed_up, tmp_path)
    tasks: list[asyncio.Task[list[str]]] = []
    at = At("committing", lambda: asyncio.get_running_loop().call_soon(tasks[0].cancel))
    tasks.append(asyncio.create_task(backed_up.backups.restore(tmp_path, at)))
    assert "Cancelled too late: it was committed already." in await tasks[0]
    assert await backed_up.content() == both.new


async def test_a_restore_whose_pg_restore_dies_leaves_the_old_data(backed_up: BackedUp, tmp_path: Path) -> None:
    both = await make_both(backed_up, tmp_path)
    real = await find_programs(backed_up.deployment.live.version_tuple[0], FOLDERS)
    deaths = 0
    while True:
        folder = tmp_path.with_name(f"{tmp_path.name}-programs-{deaths}")
        folder.mkdir()
        (folder / "pg_dump").symlink_to(real.pg_dump)
        (folder / "pg_restore").write_text(DIES.format(folder=folder, call=deaths + 1, pg_restore=real.pg_restore))
        (folder / "pg_restore").chmod(0o700)
        try:
            await PostgresBackups(backed_up.server, [folder]).restore(tmp_path, ignore)
        except BackupFailed as failed:
            assert "pg_restore ended with -9" in failed.message
            await both.expect_the_old()
            deaths += 1
        else:
            break
    assert deaths >= 8, "it died in every call but the last"
    assert await backed_up.content() == both.new


async def test_a_restore_whose_backend_is_terminated_leaves_the_old_data(backed_up: BackedUp, tmp_path: Path) -> None:
    both = await make_both(backed_up, tmp_path)
    with psycopg.connect(backed_up.deployment.live.url(), autocommit=True) as killer:
        for moment in MOMENTS:
            outcome = await both.cut_off(moment, lambda: killer.execute(TERMINATE))
            assert isinstance(outcome, EngineUnavailable), (moment, outcome)
            assert "the database holds the old data" in outcome.message
            await both.expect_the_old()
    await both.restore_again()


async def test_a_restore_is_not_committed_by_a_cancel_of_its_statement(backed_up: BackedUp, tmp_path: Path) -> None:
    both = await make_both(backed_up, tmp_path, SLOW_INDEX)
    restoring = asyncio.create_task(backed_up.backups.restore(tmp_path, ignore))
    await until(lambda: is_there(backed_up, IN_THE_INDEX))
    await backed_up.run(TERMINATE.replace("terminate", "cancel"))
    with pytest.raises(Conflict, match="canceling statement"):
        await restoring
    await both.expect_the_old()


async def test_a_cancelled_restore_does_not_leave_a_backend_that_goes_on_making_an_index(
    backed_up: BackedUp, tmp_path: Path
) -> None:
    both = await make_both(backed_up, tmp_path, SLOW_INDEX)
    restoring = asyncio.create_task(backed_up.backups.restore(tmp_path, ignore))
    await until(lambda: is_there(backed_up, IN_THE_INDEX))
    restoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(restoring, 5)
    await both.expect_the_old()


async def test_a_cancelled_restore_leaves_that_of_another_dbvalet_alone(backed_up: BackedUp, tmp_path: Path) -> None:
    await make_both(backed_up, tmp_path, SLOW_INDEX)
    live, database = backed_up.deployment.live, backed_up.deployment.database
    restoring = asyncio.create_task(backed_up.backups.restore(tmp_path, ignore))
    await until(lambda: is_there(backed_up, IN_THE_INDEX))
    with psycopg.connect(live.url(database=database), application_name="dbvalet restore", autocommit=True) as other:
        restoring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(restoring, 5)
        assert not await is_there(backed_up, IN_THE_INDEX)
        assert other.execute("SELECT 1").fetchone() == (1,)
    await backed_up.backups.clean_up()


async def test_what_a_killed_dbvalet_left_is_ended_by_the_next_one(backed_up: BackedUp, tmp_path: Path) -> None:
    both = await make_both(backed_up, tmp_path, SLOW_INDEX)
    live, database = backed_up.deployment.live, backed_up.deployment.database
    with of_superuser("restore", live.url(database=database), tmp_path) as other:
        assert other.line() == "begun"
        await until(lambda: is_there(backed_up, IN_THE_INDEX))
        other.end(signal.SIGKILL)
    assert await is_there(backed_up, IN_THE_INDEX), "its backend goes on"
    await backed_up.backups.clean_up()
    await both.expect_the_old()
    await backed_up.backups.clean_up()
    await backed_up.run("DROP TABLE IF EXISTS books.slow")


async def test_a_pg_dump_that_a_killed_dbvalet_left_is_ended_by_the_next_one(
    backed_up: BackedUp, tmp_path: Path
) -> None:
    live, database = backed_up.deployment.live, backed_up.deployment.database
    holder = await backed_up.deployment.session(live.admin)
    await holder.execute("BEGIN")
    await holder.execute("LOCK TABLE books.book IN ACCESS EXCLUSIVE MODE")
    with of_superuser("dump", live.url(database=database), tmp_path) as other:
        assert other.line() == "begun"
        await until(lambda: is_there(backed_up, f"{SESSIONS} AND wait_event_type = 'Lock'"))
        other.end(signal.SIGKILL)
    assert await is_there(backed_up, SESSIONS)
    await backed_up.backups.clean_up()
    assert not await is_there(backed_up, SESSIONS)


async def is_there(backed_up: BackedUp, query: str) -> bool:
    return bool(await backed_up.deployment.rows(query))


@pytest.mark.parametrize(
    "moments",
    [
        ["0.1 MB of rows", "committing"],
        pytest.param(["dropping what is there", "making indexes"], marks=pytest.mark.long),
    ],
)
async def test_a_restore_whose_server_is_killed_leaves_the_old_data(
    crashing: LiveServer, tmp_path: Path, moments: list[str]
) -> None:
    async with every_kind_of_object(crashing, superuser=True) as backed_up:
        # PostgreSQL itself may not start again when its first process is killed while an unlogged table is being made:
        # the backends undo it half, and "could not create file …: File exists" is the end of recovery (seen on 18.6).
        both = await make_both(backed_up, tmp_path, "DROP TABLE books.cache")

        def kill_and_start() -> None:
            crashing.kill()
            crashing.start()

        # The first crash moves the sequences on.
        kill_and_start()
        await backed_up.look_again()
        both.old = await backed_up.content()
        for moment in moments:
            outcome = await both.cut_off(moment, kill_and_start)
            assert isinstance(outcome, EngineUnavailable), (moment, outcome)
            assert "the database holds the old data" in outcome.message
            await backed_up.look_again()
            await both.expect_the_old()
        await both.restore_again()


@pytest.mark.parametrize("is_delivered", [True, False])
async def test_what_became_of_a_commit_whose_answer_is_lost_is_looked_up(
    backed_up: BackedUp, tmp_path: Path, is_delivered: bool
) -> None:
    both = await make_both(backed_up, tmp_path)
    live = backed_up.deployment.live
    async with cutting_proxy(live.host, live.port) as proxy:
        url = replace(live, host="127.0.0.1", port=proxy.port).url(database=backed_up.deployment.database)
        with as_admin("what was backed up is a superuser's"):
            server = backed_up.deployment.connect_valet(url)
        (proxy.lose_answer if is_delivered else proxy.lose_request)(b"COMMIT\0")
        try:
            notes = await PostgresBackups(server, FOLDERS).restore(tmp_path, ignore)
        except EngineUnavailable as lost:
            assert not is_delivered
            assert "the database holds the old data" in lost.message
            await both.expect_the_old()
        else:
            assert is_delivered
            assert "objects were replaced" in notes[0]
            assert await backed_up.content() == both.new
        finally:
            await server.close()
        assert proxy.is_done
