"""What is refused, with what to do about it, and that nothing was changed then."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import orjson
import psycopg
import pytest

from engines.backup import MANIFEST, measure
from engines.engine import GrantsFor
from engines.errors import (
    BackupDamaged,
    BackupFailed,
    Conflict,
    EngineError,
    Precondition,
    PrivilegeMissing,
)
from engines.postgresql import ENGINE, backup, blockers, restore
from engines.postgresql.backup import DUMP, PostgresBackups
from engines.postgresql.contents import CONTENTS
from tests.leftovers import command_of
from tests.live.images import newest
from tests.live.postgresql.backing_up import (
    FOLDERS,
    PASSWORD,
    BackedUp,
    every_kind_of_object,
    ignore,
    programs_running,
    remedies,
)
from tests.live.postgresql.deployment import Deployment, maintenance, until
from tests.live.servers import LiveServer, spawn

# What dbvalet does around the engine's own tools does not differ between versions.
pytestmark = pytest.mark.newest_version

CANNOT_READ = """
CREATE TABLE public.closed (id serial, a integer);
ALTER TABLE public.closed OWNER TO @user@;
CREATE SCHEMA closed AUTHORIZATION @user@;
CREATE TABLE closed.inside (a integer);
ALTER TABLE closed.inside OWNER TO @user@;
"""


@pytest.fixture
async def plain(deployment: Deployment) -> BackedUp:
    """A database with nothing in it, and dbvalet's account as the grants script makes it."""
    return BackedUp(deployment, deployment.server, reader=deployment.user)


@pytest.fixture
async def of_a_superuser(postgresql: LiveServer) -> AsyncIterator[BackedUp]:
    async with every_kind_of_object(postgresql, superuser=True) as made:
        yield made


@pytest.fixture
async def of_the_account(postgresql: LiveServer) -> AsyncIterator[BackedUp]:
    async with every_kind_of_object(postgresql, superuser=False) as made:
        yield made


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def refused(backed_up: BackedUp, folder: Path, cause: type[EngineError]) -> str:
    """Restore in vain, and give the reason; the database is as it was."""
    before = await backed_up.content()
    with pytest.raises(cause) as refusal:
        await backed_up.backups.restore(folder, ignore)
    assert type(refusal.value) is cause
    assert await backed_up.content() == before
    return refusal.value.message


# What the account may not read


async def expect_no_dump_until_remedied(backed_up: BackedUp, folder: Path, *words: str) -> None:
    """Dump in vain and leave no file; do what the reason says, as a superuser; then nothing is missing."""
    missing = await backed_up.backups.missing()
    with pytest.raises(PrivilegeMissing) as refusal:
        await backed_up.backups.dump(folder, ignore)
    assert files_in(folder) == []
    for word in (*words, *missing):
        assert word in refusal.value.message
    await backed_up.run(remedies(missing))
    assert await backed_up.backups.missing() == []
    await backed_up.backups.dump(folder, ignore)


async def test_tables_and_sequences_that_the_account_may_not_read_are_named(plain: BackedUp, tmp_path: Path) -> None:
    assert await plain.backups.missing() == []
    await plain.run(CANNOT_READ)
    await expect_no_dump_until_remedied(
        plain, tmp_path, "Missing: SELECT on closed.inside, public.closed, public.closed_id_seq.", "Remedy: GRANT "
    )


async def test_rows_that_a_policy_hides_are_a_reason_and_not_missing_rows(plain: BackedUp, tmp_path: Path) -> None:
    await plain.run(
        "CREATE TABLE public.hidden (a integer); INSERT INTO public.hidden VALUES (1), (2);"
        "GRANT SELECT ON public.hidden TO @account@; ALTER TABLE public.hidden ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY one ON public.hidden USING (a = 1)"
    )
    await expect_no_dump_until_remedied(plain, tmp_path, "Missing: BYPASSRLS, to see all rows of public.hidden.")


async def test_large_objects_of_others_are_a_reason(plain: BackedUp, tmp_path: Path) -> None:
    await plain.run("SET ROLE @user@; SELECT lo_from_bytea(0, 'large'); RESET ROLE;")
    await expect_no_dump_until_remedied(plain, tmp_path, "Missing: SELECT on 1 large objects.")


async def test_passwords_in_user_mappings_are_a_reason_and_not_left_out(plain: BackedUp, tmp_path: Path) -> None:
    await plain.run(
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        "GRANT USAGE ON FOREIGN SERVER s TO @account@;"
        "CREATE USER MAPPING FOR @user@ SERVER s OPTIONS (password 'p')"
    )
    with pytest.raises(PrivilegeMissing, match="only a superuser may read"):
        await plain.backups.dump(tmp_path, ignore)
    assert files_in(tmp_path) == []


async def test_the_grants_script_gives_what_backups_and_restores_take_to_who_asks_for_it(
    plain: BackedUp, tmp_path: Path
) -> None:
    await plain.run(CANNOT_READ + "ALTER TABLE closed.inside ENABLE ROW LEVEL SECURITY")
    account = plain.deployment.account
    script = ENGINE.grants(GrantsFor(user=account, database=plain.deployment.database, password=PASSWORD))
    await plain.run(script)
    assert len(await plain.backups.missing()) == 2
    await plain.run(script.replace("'dbvalet.backups', 'no'", "'dbvalet.backups', 'yes'"))
    (note,) = (await plain.backups.dump(tmp_path, ignore)).notes
    assert "GRANT" in note
    before = await plain.content()
    await plain.run("DROP SCHEMA closed CASCADE; GRANT CREATE ON SCHEMA public TO @user@")
    await plain.run(script.replace("'dbvalet.restores', 'no'", "'dbvalet.restores', 'yes'"))
    await plain.backups.restore(tmp_path, ignore)
    assert (await plain.content()).rows == before.rows


# What the account may not make


async def test_a_restore_without_the_owners_roles_names_them(of_the_account: BackedUp, tmp_path: Path) -> None:
    manifest = await of_the_account.backups.dump(tmp_path, ignore)
    assert manifest.notes == []
    await of_the_account.run("REVOKE @user@ FROM @account@")
    message = await refused(of_the_account, tmp_path, PrivilegeMissing)
    user, account = of_the_account.deployment.user, of_the_account.deployment.account
    assert f'Remedy: GRANT "{user}" TO "{account}";' in message
    await of_the_account.run(remedies([message]))
    await of_the_account.backups.restore(tmp_path, ignore)


async def test_a_dump_says_what_its_restore_will_need(plain: BackedUp, tmp_path: Path) -> None:
    await plain.run(CANNOT_READ + "GRANT SELECT ON public.closed, public.closed_id_seq, closed.inside TO @account@;")
    await plain.run("GRANT USAGE ON SCHEMA closed TO @account@")
    manifest = await plain.backups.dump(tmp_path, ignore)
    (note,) = manifest.notes
    assert note.startswith("To restore this: Missing: the role ")
    assert f'GRANT "{plain.deployment.user}" TO' in note


async def test_what_only_a_superuser_can_make_is_named_before_anything_is_done(
    of_a_superuser: BackedUp, tmp_path: Path
) -> None:
    await of_a_superuser.backups.dump(tmp_path, ignore)
    of_a_superuser.server = of_a_superuser.deployment.server
    message = await refused(of_a_superuser, tmp_path, PrivilegeMissing)
    assert (
        "Only a superuser can make access methods, event triggers, foreign-data wrappers, operator classes" in message
    )
    assert "Missing: the role " in message


async def test_an_extension_that_is_gone_must_be_made_by_a_superuser(plain: BackedUp, tmp_path: Path) -> None:
    await plain.backups.dump(tmp_path, ignore)
    await plain.run("DROP EXTENSION pg_stat_statements")
    message = await refused(plain, tmp_path, PrivilegeMissing)
    assert "CREATE EXTENSION" in message
    await plain.run(remedies([message]).split(": ")[1])
    await plain.backups.restore(tmp_path, ignore)


# What the server is not ready for


async def test_roles_that_no_longer_exist_are_named(of_a_superuser: BackedUp, tmp_path: Path) -> None:
    await of_a_superuser.run("CREATE ROLE dbvalet_gone; GRANT SELECT ON books.book TO dbvalet_gone")
    before = await of_a_superuser.content()
    await of_a_superuser.backups.dump(tmp_path, ignore)
    await of_a_superuser.run("DROP OWNED BY dbvalet_gone; DROP ROLE dbvalet_gone")
    message = await refused(of_a_superuser, tmp_path, Precondition)
    assert "names roles that the server does not have: dbvalet_gone." in message
    await of_a_superuser.run(remedies([message]))
    try:
        await of_a_superuser.backups.restore(tmp_path, ignore)
        assert await of_a_superuser.content() == before
    finally:
        await of_a_superuser.run("DROP OWNED BY dbvalet_gone; DROP ROLE dbvalet_gone")


async def test_a_backup_of_a_newer_server_is_refused(of_a_superuser: BackedUp, tmp_path: Path) -> None:
    await of_a_superuser.backups.dump(tmp_path, ignore)
    rewrite(tmp_path / MANIFEST, readable_version="99.1")
    assert "the older" in await refused(of_a_superuser, tmp_path, BackupFailed)


@pytest.mark.long
async def test_replication_and_too_little_room_for_locks_are_refused(tmp_path: Path) -> None:
    image = newest("postgresql")
    with spawn(image.flavour, image.version, options=("-c", "wal_level=logical", "-c", "max_connections=20")) as live:
        async with maintenance(live) as admin:
            await admin.execute("ALTER SYSTEM SET max_locks_per_transaction = 10")
        live.restart()
        async with every_kind_of_object(live, superuser=True) as backed_up:
            await backed_up.backups.dump(tmp_path, ignore)
            await backed_up.run("SELECT pg_create_logical_replication_slot('follower', 'pgoutput')")
            assert "could not follow a restore: follower" in await refused(backed_up, tmp_path, Precondition)
            await backed_up.run("SELECT pg_drop_replication_slot('follower')")

            # The image built from packages does not say where the server's libpq is.
            live.container.exec(["ldconfig", "/usr/local/pgsql/lib"])
            await backed_up.run(
                "CREATE SUBSCRIPTION taking CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false);"
                "ALTER SUBSCRIPTION taking ENABLE"
            )
            message = await refused(backed_up, tmp_path, Precondition)
            assert "Subscriptions write into this database: taking." in message
            await backed_up.run(remedies([message]))
            notes = await backed_up.backups.restore(tmp_path, ignore)
            assert "Left as they are: the subscriptions taking." in notes
            await backed_up.run("ALTER SUBSCRIPTION taking SET (slot_name = NONE); DROP SUBSCRIPTION taking")

            for number in range(300):
                await backed_up.run(f"CREATE TABLE public.many_{number} (id serial PRIMARY KEY, a text)")
            other = tmp_path / "other"
            other.mkdir()
            manifest = await backed_up.backups.dump(other, ignore)
            assert "objects are locked at once, and the server promises room for" in manifest.notes[0]
            message = await refused(backed_up, other, Precondition)
            assert "Nothing was changed. Remedy: ALTER SYSTEM SET max_locks_per_transaction = " in message
            await backed_up.run(remedies([message]).split(" and restart")[0])
            live.restart()
            await backed_up.look_again()
            await backed_up.backups.restore(other, ignore)


# Damaged dumps


def rewrite(path: Path, **fields: object) -> None:
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), **fields}))


def flip(path: Path, place: float) -> None:
    """Flip a bit of a file, at this share of its length."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda folder: os.truncate(folder / DUMP, (folder / DUMP).stat().st_size - 1),
    "empty": lambda folder: os.truncate(folder / DUMP, 0),
    "a bit at the beginning": lambda folder: flip(folder / DUMP, 0.0),
    "a bit in the middle": lambda folder: flip(folder / DUMP, 0.5),
    "the last bit": lambda folder: flip(folder / DUMP, 1.0),
    "a bit beside it": lambda folder: flip(folder / CONTENTS, 0.3),
    "no dump": lambda folder: (folder / DUMP).unlink(),
    "no contents": lambda folder: (folder / CONTENTS).unlink(),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "half a manifest": lambda folder: os.truncate(folder / MANIFEST, 100),
    "of another engine": lambda folder: rewrite(folder / MANIFEST, engine="mysql"),
}


async def test_a_damaged_dump_is_refused_by_verify_and_by_restore(of_a_superuser: BackedUp, tmp_path: Path) -> None:
    await of_a_superuser.backups.dump(tmp_path, ignore)
    whole = {path: path.read_bytes() for path in files_in(tmp_path)}
    for damage, do in DAMAGES.items():
        do(tmp_path)
        with pytest.raises(BackupDamaged):
            await of_a_superuser.backups.verify(tmp_path)
        assert await refused(of_a_superuser, tmp_path, BackupDamaged), damage
        for path, content in whole.items():
            path.write_bytes(content)
    await of_a_superuser.backups.verify(tmp_path)


def hash_again(folder: Path) -> None:
    rewrite(folder / MANIFEST, files={name: measure(folder / name) for name in (DUMP, CONTENTS)})


async def test_a_dump_that_was_damaged_before_it_was_hashed_changes_nothing(
    of_a_superuser: BackedUp, tmp_path: Path
) -> None:
    await of_a_superuser.backups.dump(tmp_path, ignore)
    dump, whole = tmp_path / DUMP, (tmp_path / DUMP).read_bytes()
    before = await of_a_superuser.content()
    dump.write_bytes(whole[:5000])
    hash_again(tmp_path)
    await refused(of_a_superuser, tmp_path, BackupDamaged)
    dump.write_bytes(whole[:-20])
    hash_again(tmp_path)
    await refused(of_a_superuser, tmp_path, BackupFailed)
    # Not every bit of a dump can be missed: there are spare ones.
    refusals = 0
    for share in (0.3, 0.5, 0.7, 0.9):
        dump.write_bytes(whole)
        flip(dump, share)
        hash_again(tmp_path)
        try:
            await of_a_superuser.backups.restore(tmp_path, ignore)
        except BackupFailed:
            refusals += 1
            assert await of_a_superuser.content() == before
    assert refusals


async def test_a_dump_with_other_contents_than_were_counted_is_damaged(
    of_a_superuser: BackedUp, tmp_path: Path
) -> None:
    await of_a_superuser.backups.dump(tmp_path, ignore)
    rewrite(tmp_path / CONTENTS, entries=orjson.loads((tmp_path / CONTENTS).read_bytes())["entries"] + 1)
    hash_again(tmp_path)
    assert "entries" in await refused(of_a_superuser, tmp_path, BackupDamaged)


async def test_a_full_disk_is_a_clear_error_and_leaves_no_file(of_a_superuser: BackedUp, tmp_path: Path) -> None:
    # Whatever is written to this one meets a full disk.
    (tmp_path / DUMP).symlink_to("/dev/full")
    with pytest.raises(BackupFailed, match="No space left on device"):
        await of_a_superuser.backups.dump(tmp_path, ignore)
    assert files_in(tmp_path) == []


# Those who are in the way


async def test_a_dump_that_waits_for_a_lock_gives_up_and_names_who_has_it(
    plain: BackedUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "LOCK_SECONDS", 1)
    await plain.run("CREATE TABLE public.migrating (a integer); GRANT SELECT ON public.migrating TO @account@")
    holder = await plain.deployment.session(plain.deployment.live.admin, application_name="a migration")
    await holder.execute("BEGIN; LOCK TABLE public.migrating")
    with pytest.raises(Conflict, match=rf"pid {holder.info.backend_pid} \(user postgres, a migration, idle in trans"):
        await plain.backups.dump(tmp_path, ignore)
    assert files_in(tmp_path) == []


async def test_who_was_in_the_way_is_known_after_the_wait_was_given_up_and_until_work_goes_on(
    plain: BackedUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockers, "LOOK_SECONDS", 0.02)
    deployment = plain.deployment
    await plain.run("CREATE TABLE public.migrating (a integer); GRANT SELECT ON public.migrating TO @account@")
    holder = await deployment.session(deployment.live.admin)
    await holder.execute("BEGIN; LOCK TABLE public.migrating")
    waiting = await deployment.session(deployment.account, application_name="waiting")
    async with blockers.watching(plain.server, "waiting") as found:
        await waiting.execute("BEGIN; SET LOCAL lock_timeout = '1s'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await waiting.execute("SELECT FROM public.migrating")
        await asyncio.sleep(0.5)
        assert [row["pid"] for row in found.rows] == [holder.info.backend_pid]
        await waiting.execute("ROLLBACK")
        await waiting.execute("SELECT pg_sleep(0.5)")
        assert found.rows == []


async def test_no_secret_stands_on_a_command_line_and_no_file_of_it_stays(plain: BackedUp, tmp_path: Path) -> None:
    await plain.run("CREATE TABLE public.migrating (a integer); GRANT SELECT ON public.migrating TO @account@")
    holder = await plain.deployment.session(plain.deployment.live.admin)
    await holder.execute("BEGIN; LOCK TABLE public.migrating")
    server = plain.deployment.connect_valet(plain.deployment.url(sslmode="prefer"))
    dumping = asyncio.create_task(PostgresBackups(server, FOLDERS).dump(tmp_path, ignore))

    async def is_waiting() -> bool:
        waiting = "SELECT FROM pg_stat_activity WHERE application_name = 'dbvalet backup' AND wait_event_type = 'Lock'"
        return bool(await plain.deployment.rows(waiting))

    await until(is_waiting)
    (pid,) = programs_running("pg_dump")
    folder = private_folder_of(pid)
    await holder.execute("ROLLBACK")
    assert PASSWORD not in str(await dumping)
    assert not await asyncio.to_thread(folder.exists)
    await server.close()


def private_folder_of(pid: int) -> Path:
    """Check what another user could see of a pg_dump, and give the folder of what it was told."""
    assert PASSWORD not in command_of(pid)
    environment = dict(pair.split("=", 1) for pair in Path(f"/proc/{pid}/environ").read_text().split("\0") if pair)
    service = Path(environment["PGSERVICEFILE"])
    assert stat.S_IMODE(service.stat().st_mode) == 0o600
    assert stat.S_IMODE(service.parent.stat().st_mode) == 0o700
    assert "sslmode=prefer" in service.read_text()
    assert PASSWORD not in service.read_text()
    return service.parent


async def test_a_restore_gives_up_on_tables_in_use_and_names_who_uses_them(
    of_a_superuser: BackedUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "LOCK_SECONDS", 1.5)
    await of_a_superuser.backups.dump(tmp_path, ignore)
    holder = await of_a_superuser.deployment.session(of_a_superuser.deployment.live.admin, application_name="the shop")
    await holder.execute("BEGIN; SELECT count(*) FROM books.book")
    message = await refused(of_a_superuser, tmp_path, Conflict)
    assert (
        f"by pid {holder.info.backend_pid} (user postgres, the shop, idle in transaction, in a transaction for"
        in message
    )
    await holder.execute("COMMIT")
    await of_a_superuser.backups.restore(tmp_path, ignore)


async def test_a_restore_gets_through_an_application_that_never_rests(plain: BackedUp, tmp_path: Path) -> None:
    """Writers take locks in opposite orders, which now and then is a deadlock; they go on with what was restored."""
    plain.server = plain.deployment.connect_superuser()
    await plain.run("CREATE TABLE one (a text); CREATE TABLE two (a text); INSERT INTO one VALUES ('of the backup')")
    await plain.backups.dump(tmp_path, ignore)
    await plain.run("UPDATE one SET a = 'of later'")
    ended, seen = asyncio.Event(), set[str]()

    async def write(first: str, second: str) -> int:
        session = await plain.deployment.session(plain.deployment.live.admin)
        rounds = 0
        while not ended.is_set():
            with suppress(psycopg.errors.DeadlockDetected):
                async with session.transaction():
                    await session.execute(f"INSERT INTO {first} SELECT 'x' WHERE false".encode())
                    await session.execute(f"INSERT INTO {second} SELECT 'x' WHERE false".encode())
                    cursor = await session.execute("SELECT a FROM one")
                    seen.update(row[0] for row in await cursor.fetchall())
                rounds += 1
        return rounds

    async def have_seen(what: str) -> bool:
        return what in seen

    writers = [asyncio.create_task(write(*tables)) for tables in (("one", "two"), ("two", "one"), ("one", "two"))]
    await until(lambda: have_seen("of later"))
    await plain.backups.restore(tmp_path, ignore)
    await until(lambda: have_seen("of the backup"))
    ended.set()
    assert all(rounds > 2 for rounds in await asyncio.gather(*writers))
    assert seen == {"of the backup", "of later"}
    await plain.server.close()
