"""What was dumped comes back as it was, whatever became of it."""

import asyncio
import subprocess
import threading
from pathlib import Path

import pymysql
import pytest

from engines.errors import Conflict
from tests.live.mysql.backup.conftest import KEEPER, Fakes, Shop, let_back_up
from tests.live.mysql.backup.content import HISTORY
from tests.live.mysql.backup.programs import NAMES
from tests.live.mysql.conftest import PASSWORD, Root, connect, quote
from tests.live.servers import LiveServer


async def test_everything_comes_back_after_the_database_was_dropped(shop: Shop, dumped: Path) -> None:
    before = shop.content()
    await shop.backups.dump(dumped, shop.tell)
    shop.root.drop(shop.name)
    notes = await shop.backups.restore(dumped, shop.tell)
    assert shop.content() == before
    assert "made anew" in notes[0]
    assert shop.nothing_is_beside()


DAMAGE = (
    "SET foreign_key_checks = 0",
    "DROP TABLE parent",
    "TRUNCATE child",
    "CREATE TABLE later (a INT)",
    "CREATE VIEW later_view AS SELECT 1",
    "CREATE PROCEDURE later_procedure() SELECT 1",
    "CREATE EVENT later_event ON SCHEDULE EVERY 1 DAY STARTS '2036-01-01' DO SELECT 1",
    "CREATE TRIGGER later_trigger BEFORE INSERT ON hidden FOR EACH ROW SET NEW.a = 1",
    "DROP FUNCTION f1",
    "CREATE FUNCTION f1(x INT) RETURNS INT DETERMINISTIC RETURN 7",
    # What was a view is a table, and the other way round.
    "DROP VIEW m_second",
    "CREATE TABLE m_second (id INT)",
    "DROP TABLE log",
    "CREATE VIEW log AS SELECT 'x' AS txt",
    "ALTER EVENT never ENABLE",
    "ALTER TABLE hidden DROP COLUMN b",
    "ALTER DATABASE CHARACTER SET latin1",
    "SET foreign_key_checks = 1",
)


async def test_everything_comes_back_and_what_was_made_since_is_gone(shop: Shop, dumped: Path) -> None:
    before = shop.content()
    await shop.backups.dump(dumped, shop.tell)
    shop.run(*DAMAGE)
    await shop.backups.restore(dumped, shop.tell)
    assert shop.content() == before
    assert shop.nothing_is_beside()


async def test_a_restore_over_the_same_content_changes_nothing(shop: Shop, dumped: Path) -> None:
    await shop.backups.dump(dumped, shop.tell)
    before = shop.content()
    for _ in range(2):
        await shop.backups.restore(dumped, shop.tell)
        assert shop.content() == before
    assert shop.nothing_is_beside()


async def test_an_empty_database_comes_back_empty(empty_shop: Shop, dumped: Path) -> None:
    before = empty_shop.content()
    await empty_shop.backups.dump(dumped, empty_shop.tell)
    empty_shop.run("CREATE TABLE later (a INT)", "CREATE VIEW v AS SELECT 1")
    await empty_shop.backups.restore(dumped, empty_shop.tell)
    assert empty_shop.content() == before


@pytest.mark.parametrize("name", ['it\'s `%s`.a "b" -ü;#\\', "-" + "x" * 63], ids=["odd", "long"])
async def test_a_database_of_any_name(mysql: LiveServer, root: Root, keeper: str, dumped: Path, name: str) -> None:
    root.run(f"CREATE DATABASE {quote(name)} CHARACTER SET utf8mb4")
    let_back_up(root, name)
    server = connect(mysql.url(keeper, PASSWORD, database=name))
    shop = Shop(name, root, server)
    try:
        shop.run(
            "CREATE TABLE t (a INT)", "INSERT INTO t VALUES (1)", "CREATE VIEW v AS SELECT * FROM t",
            "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 7", "CREATE PROCEDURE p() SELECT * FROM t",
        )  # fmt: skip
        before = shop.content()
        await shop.backups.dump(dumped, shop.tell)
        shop.run("DROP VIEW v", "DELETE FROM t", "CREATE TABLE later (a INT)")
        await shop.backups.restore(dumped, shop.tell)
        assert shop.content() == before
        assert shop.nothing_is_beside()
    finally:
        await server.close()
        root.drop(name)


async def test_it_is_told_how_far_it_is(shop: Shop, dumped: Path) -> None:
    for work in (shop.backups.dump, shop.backups.restore):
        shop.told.clear()
        await work(dumped, shop.tell)
        percents = [percent for percent, _ in shop.told]
        assert percents == sorted(percents)
        assert (percents[0], percents[-1]) == (0, 100)
        assert all(words for _, words in shop.told)


async def test_the_manifest_says_what_it_is_and_what_it_lacks(shop: Shop, dumped: Path) -> None:
    shop.run("CREATE VIEW broken AS SELECT a FROM nothing_in_it", "DROP TABLE nothing_in_it")
    manifest = await shop.backups.dump(dumped, shop.tell)
    flavour = shop.root.live.flavour
    assert (manifest.engine, manifest.flavour, manifest.database) == ("mysql", flavour, shop.name)
    assert manifest.readable_version.startswith(shop.root.live.version)
    assert manifest.tool.startswith(
        ("mariadb-dump " if flavour == "mariadb" else "mysqldump ") + shop.root.live.version
    )
    assert manifest == await shop.backups.verify(dumped)
    notes = "\n".join(manifest.notes)
    assert "Accounts" in notes
    assert "no transactions: 'volatile', 'words'." in notes
    assert "FLOAT columns, which the server writes with 6 digits: more are lost: 'kinds'." in notes
    assert "Views that are left out, as they name what is no longer there: 'broken'." in notes
    assert "history" not in notes


async def test_a_broken_view_is_left_out_and_does_no_harm(shop: Shop, dumped: Path) -> None:
    shop.run("CREATE VIEW broken AS SELECT a FROM nothing_in_it", "DROP TABLE nothing_in_it")
    await shop.backups.dump(dumped, shop.tell)
    shop.root.drop(shop.name)
    notes = await shop.backups.restore(dumped, shop.tell)
    assert "The view 'broken' was broken when the backup was made, and is not made again." in notes
    assert ("VIEW", "a_third") in shop.content()
    assert ("VIEW", "broken") not in shop.content()


async def test_an_event_whose_time_has_passed_is_told(empty_shop: Shop, dumped: Path) -> None:
    shop, root = empty_shop, empty_shop.root
    scheduler = root.value("SELECT @@GLOBAL.event_scheduler")
    root.run("SET GLOBAL event_scheduler = OFF")  # else they might be gone before they are dumped
    try:
        shop.run(
            # Each keeps the time zone that it was made in.
            "SET time_zone = '+05:00'",
            "CREATE EVENT once ON SCHEDULE AT NOW() + INTERVAL 1 SECOND DO SELECT 1",
            "CREATE EVENT kept ON SCHEDULE AT NOW() + INTERVAL 1 SECOND ON COMPLETION PRESERVE DO SELECT 1",
            "CREATE EVENT off ON SCHEDULE AT NOW() + INTERVAL 1 SECOND ON COMPLETION PRESERVE DISABLE DO SELECT 1",
            "CREATE EVENT ended ON SCHEDULE EVERY 1 DAY ENDS NOW() + INTERVAL 1 SECOND DO SELECT 1",
            "CREATE EVENT soon ON SCHEDULE EVERY 1 DAY STARTS '2036-01-01' DO SELECT 1",
            "SET time_zone = DEFAULT",
        )
        await shop.backups.dump(dumped, shop.tell)
        shop.run("DROP EVENT once", "DROP EVENT kept", "DROP EVENT ended", "DO SLEEP(2.1)")
        notes = await shop.backups.restore(dumped, shop.tell)
        assert {row[1] for row in root.rows(f"SHOW EVENTS FROM {shop.name}")} == {"kept", "off", "soon"}
    finally:
        root.rows("SET GLOBAL event_scheduler = %s", scheduler)
    assert sorted(notes[1:]) == [
        "The event 'ended' is not there, as its time has passed: make it again with another.",
        "The event 'kept' is disabled, as its time has passed.",
        "The event 'once' is not there, as its time has passed: make it again with another.",
    ]


async def test_a_dump_is_of_one_moment_while_rows_are_written(empty_shop: Shop, dumped: Path) -> None:
    shop = empty_shop
    shop.run(
        "CREATE TABLE a_taken (n INT) ENGINE=InnoDB", "INSERT INTO a_taken VALUES (0)",
        "CREATE TABLE between_them (t LONGTEXT)", "INSERT INTO between_them VALUES (REPEAT('x', 10000000))",
        "CREATE TABLE z_given (n INT) ENGINE=InnoDB", "INSERT INTO z_given VALUES (0)",
    )  # fmt: skip
    ended = threading.Event()

    def move() -> int:
        moved = 0
        with shop.root.another() as other:
            other.run(f"USE {shop.name}")
            while not ended.is_set():
                other.run("BEGIN", "UPDATE a_taken SET n = n - 1", "UPDATE z_given SET n = n + 1", "COMMIT")
                moved += 1
        return moved

    moving = asyncio.create_task(asyncio.to_thread(move))
    try:
        await shop.backups.dump(dumped, shop.tell)
    finally:
        ended.set()
    assert await moving > 10
    await shop.backups.restore(dumped, shop.tell)
    taken, given = shop.root.rows(f"SELECT a.n, z.n FROM {shop.name}.a_taken a, {shop.name}.z_given z")[0]
    assert taken + given == 0


async def test_privileges_on_a_routine_stay_when_it_is_the_same(shop: Shop, dumped: Path) -> None:
    root = shop.root
    root.run(f"GRANT EXECUTE ON FUNCTION {shop.name}.f1 TO 'somebody'@'%'")
    await shop.backups.dump(dumped, shop.tell)
    shop.run("DROP TABLE log")
    await shop.backups.restore(dumped, shop.tell)
    assert any("EXECUTE ON FUNCTION" in row[0] for row in root.rows("SHOW GRANTS FOR 'somebody'@'%'"))


async def test_foreign_keys_of_another_database_refer_to_the_restored_tables(
    shop: Shop, other: str, dumped: Path
) -> None:
    root = shop.root
    root.run(
        f"CREATE TABLE {other}.guest (p INT, CONSTRAINT stays FOREIGN KEY (p) REFERENCES {shop.name}.parent (id))",
        f"INSERT INTO {other}.guest VALUES (1)",
    )
    await shop.backups.dump(dumped, shop.tell)
    before, guest = shop.content(), root.rows(f"SHOW CREATE TABLE {other}.guest")
    shop.run("INSERT INTO parent VALUES (3, 'later')")
    if root.live.version == "10.5":
        # Its RENAME TABLE is not atomic.
        with pytest.raises(Conflict, match="Drop that foreign key first"):
            await shop.backups.restore(dumped, shop.tell)
        return
    await shop.backups.restore(dumped, shop.tell)
    assert shop.content() == before
    assert root.rows(f"SHOW CREATE TABLE {other}.guest") == guest
    root.run(f"INSERT INTO {other}.guest VALUES (2)")
    with pytest.raises(pymysql.IntegrityError):
        root.run(f"INSERT INTO {other}.guest VALUES (3)")
    root.run(f"DROP TABLE {other}.guest")


async def test_foreign_keys_into_another_database_come_back(empty_shop: Shop, other: str, dumped: Path) -> None:
    shop = empty_shop
    shop.root.run(f"GRANT REFERENCES ON {other}.* TO {KEEPER}")
    shop.run(f"CREATE TABLE guest (k INT, CONSTRAINT out_there FOREIGN KEY (k) REFERENCES {other}.kept (id))")
    shop.run("INSERT INTO guest VALUES (1)")
    await shop.backups.dump(dumped, shop.tell)
    before = shop.content()
    shop.run("DROP TABLE guest")
    await shop.backups.restore(dumped, shop.tell)
    assert shop.content() == before
    with pytest.raises(pymysql.IntegrityError):
        shop.run("INSERT INTO guest VALUES (5)")


def load_by_hand(programs: Path, live: LiveServer, database: str, script: Path) -> None:
    client = [programs / NAMES[live.flavour][1], "--no-defaults", f"-h{live.host}", f"-P{live.port}", "-uroot"]
    with script.open("rb") as statements:
        ran = subprocess.run(
            [*client, "--binary-mode", "--comments", database],
            stdin=statements,
            env={"MYSQL_PWD": live.password},
            capture_output=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr


async def test_the_files_can_be_loaded_by_hand(shop: Shop, programs: Path, dumped: Path) -> None:
    before = shop.content()
    await shop.backups.dump(dumped, shop.tell)
    root = shop.root
    root.drop(shop.name)
    root.run(f"CREATE DATABASE {shop.name}")
    live = root.live
    for name in ("tables.sql", "program.sql"):
        load_by_hand(programs, live, shop.name, dumped / name)
    assert shop.content() == before


async def test_the_password_is_only_in_a_file_that_others_cannot_read(
    shop: Shop, dumped: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = fakes.folder / "seen"
    for name in NAMES[shop.root.live.flavour]:
        fakes.put_before(
            name,
            f'{{ printf "%s\\n" "$@"; env; }} >>{seen}',
            'file=$(printf "%s" "$1" | cut -d= -f2)',
            f'stat -c "mode %a" "$file" >>{seen}; cp "$file" {fakes.folder}/{name}.cnf',
            'exec $real "$@"',
        )
    monkeypatch.setenv("DBVALET_TOKEN", "a secret of dbvalet's own")
    await shop.backups.dump(dumped, shop.tell)
    await shop.backups.restore(dumped, shop.tell)
    check_secrets(seen.read_text(), [fakes.folder / f"{name}.cnf" for name in NAMES[shop.root.live.flavour]])


def check_secrets(seen: str, option_files: list[Path]) -> None:
    assert PASSWORD not in seen
    assert "secret of dbvalet" not in seen
    assert seen.count("mode 600") == len(option_files)
    assert all("password=" in file.read_text() for file in option_files)
    named = [line.partition("=")[2] for line in seen.splitlines() if line.startswith("--defaults-file=")]
    assert len(named) == len(option_files)
    assert not any(Path(name).parent.exists() for name in named)


@pytest.mark.one_mariadb
async def test_lost_history_is_told(shop: Shop, dumped: Path) -> None:
    shop.run(*HISTORY)
    manifest = await shop.backups.dump(dumped, shop.tell)
    assert "Without their history, which mariadb-dump keeps since 10.11: 'past'." in manifest.notes
    await shop.backups.restore(dumped, shop.tell)
    assert shop.root.rows(f"SELECT * FROM {shop.name}.past") == [(1, 5), (3, 3)]
