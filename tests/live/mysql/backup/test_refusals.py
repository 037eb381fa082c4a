"""What cannot be done is refused with its reason, and leaves the data and the folder as they were."""

import asyncio
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pymysql
import pytest

from engines.backup import measure
from engines.engine import GrantsFor
from engines.errors import (
    BackupDamaged,
    BackupFailed,
    Conflict,
    LogicalDatabaseNotFound,
    Precondition,
    PrivilegeMissing,
)
from engines.mysql import connection
from engines.mysql.grants import backup_grants
from tests.leftovers import all_gone
from tests.live.mysql.backup.conftest import KEEPER, Fakes, Shop, backups_of, is_empty, let_back_up
from tests.live.mysql.backup.programs import NAMES
from tests.live.mysql.conftest import PASSWORD, Root, connect, make_account, until

STRANGER = "stranger"


@pytest.fixture
async def dump(shop: Shop, dumped: Path) -> Path:
    await shop.backups.dump(dumped, shop.tell)
    return dumped


@contextmanager
def nothing_changes(shop: Shop) -> Iterator[None]:
    shop.run("INSERT INTO log VALUES ('after the backup')")
    before = shop.content()
    yield
    assert shop.content() == before
    assert shop.nothing_is_beside()


def remake_manifest(dump: Path, **facts: object) -> None:
    path = dump / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def harm(path: Path, damage: str) -> None:
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        half = len(content) // 2
        path.write_bytes(content[:half] if damage == "cut off" else content[:half] + b"\0" + content[half + 1 :])


@pytest.mark.parametrize("name", ["tables.sql", "program.sql", "contents.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut off", "changed", "gone"])
async def test_a_damaged_backup(shop: Shop, dump: Path, name: str, damage: str) -> None:
    harm(dump / name, damage)
    with nothing_changes(shop):
        with pytest.raises(BackupDamaged):
            await shop.backups.verify(dump)
        with pytest.raises(BackupDamaged):
            await shop.backups.restore(dump, shop.tell)


@pytest.mark.parametrize("name", ["tables.sql", "program.sql"])
async def test_a_file_that_ended_too_early_whatever_the_manifest_says(shop: Shop, dump: Path, name: str) -> None:
    path = dump / name
    path.write_bytes(path.read_bytes()[:-100])
    written = json.loads((dump / "manifest.json").read_text())["files"]
    remake_manifest(dump, files=written | {name: asdict(measure(path))})
    with pytest.raises(BackupDamaged, match="end"):
        await shop.backups.verify(dump)


async def test_a_backup_of_something_else(shop: Shop, dump: Path) -> None:
    flavour = shop.root.live.flavour
    facts = json.loads((dump / "manifest.json").read_text())
    with nothing_changes(shop):
        for told, changed in (
            ("the server is", {"flavour": "mysql" if flavour == "mariadb" else "mariadb"}),
            ("the server is", {"engine": "postgresql"}),
            ("newer version 99.1.0", {"readable_version": "99.1.0"}),
            ("the logical database 'another'", {"database": "another"}),
        ):
            remake_manifest(dump, **facts | changed)
            with pytest.raises(BackupFailed, match=told):
                await shop.backups.restore(dump, shop.tell)


async def test_a_logical_database_of_the_name_that_a_restore_needs(shop: Shop, dump: Path) -> None:
    for name in shop.beside:
        shop.root.run(f"CREATE DATABASE {name}", f"CREATE TABLE {name}.mine (a INT)")
        before = shop.content()
        with pytest.raises(Conflict, match=f"'{name}' is in the way"):
            await shop.backups.restore(dump, shop.tell)
        await shop.backups.clean_up()
        assert shop.root.rows(f"SHOW TABLES FROM {name}") == [("mine",)]
        assert shop.content() == before
        shop.root.drop(name)


async def test_a_row_that_the_server_would_not_take(shop: Shop, dumped: Path) -> None:
    packet = shop.root.value("SELECT @@GLOBAL.max_allowed_packet")
    shop.run("CREATE TABLE large (b LONGBLOB)", "INSERT INTO large VALUES (REPEAT('x', 3000000))")
    await shop.backups.dump(dumped, shop.tell)
    shop.root.rows("SET GLOBAL max_allowed_packet = 4194304")
    try:
        with nothing_changes(shop), pytest.raises(Precondition, match=r"SET GLOBAL max_allowed_packet = \d+"):
            await shop.backups.restore(dumped, shop.tell)
    finally:
        shop.root.rows("SET GLOBAL max_allowed_packet = %s", packet)


async def test_tables_that_an_application_uses(shop: Shop, dump: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LOCK_SECONDS", 1)
    with shop.root.another() as application:
        number = application.value("SELECT CONNECTION_ID()")
        application.run(f"USE {shop.name}", "BEGIN", "SELECT * FROM child")
        with (
            nothing_changes(shop),
            pytest.raises(Conflict, match=rf"are in use. By connection {number} of root@.*Nothing was"),
        ):
            await shop.backups.restore(dump, shop.tell)
    await shop.backups.restore(dump, shop.tell)


@contextmanager
def holding(shop: Shop) -> Iterator[int]:
    """Hold the lock of a restore on another connection of the same account, and give its number."""
    live = shop.root.live
    connected = pymysql.connect(host=live.host, port=live.port, user=KEEPER, password=PASSWORD.encode())
    with connected, connected.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(%s, 0)", [connection.lock_name("restore", shop.name)])
        yield connected.thread_id()


async def test_another_restore_of_it(shop: Shop, dump: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "TURN_SECONDS", 0)
    with holding(shop), nothing_changes(shop):
        for work in (shop.backups.restore(dump, shop.tell), shop.backups.clean_up()):
            with pytest.raises(Conflict, match="under way"):
                await work


async def test_another_restore_of_it_that_is_dead_is_ended(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "TURN_SECONDS", 1)
    monkeypatch.setattr(connection, "STALE_SECONDS", 1)
    with holding(shop) as number:
        await shop.backups.clean_up()
        assert number not in {row[0] for row in shop.root.rows("SHOW PROCESSLIST")}


async def test_a_database_that_is_not_there_cannot_be_dumped(empty_shop: Shop, dumped: Path) -> None:
    empty_shop.root.drop(empty_shop.name)
    with pytest.raises(LogicalDatabaseNotFound):
        await empty_shop.backups.dump(dumped, empty_shop.tell)


def test_the_lock_of_a_name_is_short_enough() -> None:
    assert len(connection.lock_name("restore", "ü" * 64)) <= 64


# Programs.


async def test_there_are_none(shop: Shop, dump: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    package = "mariadb-client" if shop.root.is_mariadb else "mysql-client"
    dumper, client = NAMES[shop.root.live.flavour]
    missing = await shop.backups.missing()
    assert len(missing) == 2
    assert f"{dumper} is not on PATH." in missing[0]
    assert f"{client} is not on PATH." in missing[1]
    assert all(package in each for each in missing)
    with nothing_changes(shop), pytest.raises(Precondition, match="not on PATH"):
        await shop.backups.restore(dump, shop.tell)
    with pytest.raises(Precondition, match="not on PATH"):
        await shop.backups.dump(dump, shop.tell)


UNFIT = {
    "mariadb": [
        ("mysqldump  Ver 8.0.1 Distrib 8.0.1, for Linux (x86_64)", "MySQL's, and the server is MariaDB"),
        ("mysqldump  Ver 10.19 Distrib 10.4.1-MariaDB, for debian-linux-gnu (x86_64)", "10.4 is older than the server"),
    ],
    "mysql": [
        (
            "mysqldump from 11.8.9-MariaDB, client 10.20 for debian-linux-gnu (x86_64)",
            "MariaDB's, and the server is MySQL",
        ),
        ("mysqldump  Ver 8.0.40 for Linux on x86_64 (MySQL Community Server - GPL)", "8.0 is older than the server"),
    ],
}


@pytest.mark.parametrize("case", [0, 1], ids=["of another flavour", "too old"])
async def test_they_do_not_fit(shop: Shop, dumped: Path, fakes: Fakes, case: int) -> None:
    said, told = UNFIT[shop.root.live.flavour][case]
    fakes.put_alone("mysqldump", f'echo "{said}"')
    assert any(told in each for each in await shop.backups.missing())
    with pytest.raises(Precondition, match=told):
        await shop.backups.dump(dumped, shop.tell)
    assert is_empty(dumped)


async def test_one_that_fails_leaves_no_file(shop: Shop, dumped: Path, fakes: Fakes) -> None:
    for end, told in (("exit 3", "ended with 3"), ("exit 0", "has no end: it was cut off")):
        fakes.put_before(NAMES[shop.root.live.flavour][0], '$real "$@" | head -c 3000', end)
        with pytest.raises(BackupFailed, match=told):
            await shop.backups.dump(dumped, shop.tell)
        assert is_empty(dumped)


async def test_one_that_leaves_a_table_out_is_found_out(shop: Shop, dumped: Path, fakes: Fakes) -> None:
    fakes.put_before(
        NAMES[shop.root.live.flavour][0], "first=$1; shift", f'$real "$first" --ignore-table={shop.name}.kinds "$@"'
    )
    with pytest.raises(BackupFailed, match="left out 'kinds'"):
        await shop.backups.dump(dumped, shop.tell)


async def test_a_full_disk_is_said_to_be_full_and_leaves_no_file(shop: Shop, dumped: Path) -> None:
    shop.run("CREATE TABLE large (b LONGTEXT)", "INSERT INTO large VALUES (REPEAT('x', 3000000))")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            await shop.backups.dump(dumped, shop.tell)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert is_empty(dumped)


async def test_what_a_cancelled_dump_wrote_is_taken_away(shop: Shop, dumped: Path, fakes: Fakes) -> None:
    pid = fakes.folder / "pid"
    fakes.put_before(
        NAMES[shop.root.live.flavour][0],
        f"echo $$ >{pid}.new; mv {pid}.new {pid}; echo something; exec sleep 60",
    )
    dumping = asyncio.create_task(shop.backups.dump(dumped, shop.tell))
    await until(pid.exists)
    dumping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dumping
    assert all_gone({int(pid.read_text())})
    assert is_empty(dumped)


# Privileges.


@pytest.fixture
def stranger(root: Root) -> str:
    """An account that the grants script makes, and that may do nothing beyond it."""
    root.run(f"DROP USER IF EXISTS {STRANGER}")
    make_account(root.live, STRANGER)
    if root.is_mariadb:
        # Which contains the privilege to make views and routines in the name of others.
        root.run(f"REVOKE SUPER ON *.* FROM {STRANGER}")
    return STRANGER


async def test_an_account_of_the_ordinary_script_may_not_and_is_told_the_grants(
    shop: Shop, dump: Path, dumped: Path, stranger: str
) -> None:
    server = connect(shop.root.live.url(stranger, PASSWORD, database=shop.name))
    try:
        backups = backups_of(server)
        folder = dumped / "of the stranger"
        folder.mkdir()
        with pytest.raises(PrivilegeMissing, match="SELECT"):
            await backups.dump(folder, shop.tell)
        assert is_empty(folder)
        with nothing_changes(shop), pytest.raises(PrivilegeMissing, match="CREATE VIEW"):
            await backups.restore(dump, shop.tell)
        reasons = await backups.missing()
        assert reasons
        for reason in reasons:
            shop.root.run(reason.partition("Remedy: ")[2])
        assert await backups.missing() == []
        before = shop.content()
        await backups.dump(folder, shop.tell)
        if not shop.root.is_mariadb:
            shop.root.run(f"GRANT ALLOW_NONEXISTENT_DEFINER ON *.* TO {stranger}")
        await backups.restore(folder, shop.tell)
        assert shop.content() == before
    finally:
        await server.close()


async def test_each_privilege_without_which_the_server_hides_something_is_demanded(
    shop: Shop, dumped: Path, stranger: str
) -> None:
    root = shop.root
    let_back_up(root, shop.name, stranger)
    routines = ("SELECT", "mysql.proc") if root.is_mariadb else ("SHOW_ROUTINE", "*.*")
    server = connect(root.live.url(stranger, PASSWORD, database=shop.name))
    try:
        assert await backups_of(server).missing() == []
        for privilege, place in (
            *(
                (each, f"`{shop.name.replace('_', chr(92) + '_')}`.*")
                for each in ("SELECT", "SHOW VIEW", "TRIGGER", "EVENT")
            ),
            routines,
        ):
            everywhere = privilege == "EVENT"  # the script grants it
            root.run(
                f"REVOKE {privilege} ON {place} FROM {stranger}",
                *([f"REVOKE EVENT ON *.* FROM {stranger}"] if everywhere else []),
            )
            with pytest.raises(PrivilegeMissing, match=f"Missing: {privilege}"):
                await backups_of(server).dump(dumped, shop.tell)
            assert is_empty(dumped)
            root.run(f"GRANT {privilege} ON {place} TO {stranger}")
        await backups_of(server).dump(dumped, shop.tell)
    finally:
        await server.close()


async def test_what_the_optional_part_of_the_script_grants_is_enough(shop: Shop) -> None:
    assert await shop.backups.missing() == []


def test_the_optional_part_is_no_more_than_the_deployment_needs(root: Root) -> None:
    whom = GrantsFor(user="u", database="a_b", flavour=root.live.flavour, version=root.live.version_tuple)
    for statement in backup_grants(whom):
        everywhere = " ON *.* " in statement
        assert not everywhere or not {"SELECT", "INSERT", "ALL"} & set(statement.replace(",", " ").split())
