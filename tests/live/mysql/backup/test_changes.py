"""What is made, changed or renamed while a dump is made does not get into it by half."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.errors import BackupFailed, Conflict
from tests.live.mysql.backup.conftest import KEEPER, Fakes, Shop, is_empty
from tests.live.mysql.backup.programs import NAMES

AFTER_THE_TABLES = "Reading views"
"""What is told when the tables are dumped, and the program objects are not read."""


def when_told(shop: Shop, words: str, *statements: str, again: bool = False) -> Callable[[float, str], None]:
    """Run statements when these words are told, once or each time."""
    done: list[bool] = []

    def tell(percent: float, told: str) -> None:
        shop.tell(percent, told)
        if words in told and (again or not done):
            done.append(True)
            shop.run(*(each.format(len(done)) for each in statements))

    return tell


class Stop:
    """Holds the dump program in the middle of the first table."""

    def __init__(self, shop: Shop, fakes: Fakes) -> None:
        self._shop = shop
        self.at, self.go, self.failed, self.seen = (fakes.folder / each for each in ("at", "go", "failed", "seen"))
        fakes.put_before(
            NAMES[shop.root.live.flavour][0],
            # It cannot go on while its output is not read.
            f'{{ $real "$@" || echo $? >{self.failed}; }} '
            f"| {{ head -c 100000; echo >{self.at}; until [ -e {self.go} ]; do sleep 0.1; done; cat; }}",
            f"if [ -e {self.failed} ]; then mv {self.failed} {self.seen}; exit 2; fi",
        )
        shop.run("CREATE TABLE a_first (t LONGTEXT)", *["INSERT INTO a_first VALUES (REPEAT('x', 1000000))"] * 10)

    def meanwhile(self, *statements: str) -> Callable[[float, str], None]:
        """Run statements while it is held."""

        def tell(percent: float, words: str) -> None:
            self._shop.tell(percent, words)
            if self.at.exists() and not self.go.exists():
                self._shop.run(*statements)
                self.go.touch()

        return tell


async def comes_back(shop: Shop, dumped: Path) -> bool:
    """Tell whether what was dumped comes back and is what there is now."""
    before = shop.content()
    shop.root.drop(shop.name)
    await shop.backups.restore(dumped, shop.tell)
    return shop.content() == before


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE zz (a INT)", "CREATE TRIGGER late BEFORE INSERT ON zz FOR EACH ROW SET NEW.a = 1"),
        ("CREATE TABLE zz (a INT)", "CREATE VIEW late AS SELECT a FROM zz"),
        ("ALTER TABLE t ADD COLUMN b INT", "CREATE OR REPLACE VIEW v AS SELECT a, b FROM t"),
        ("DROP VIEW v", "DROP TABLE t"),
    ],
    ids=["trigger", "view", "column", "gone"],
)
async def test_what_names_something_that_came_too_late_lets_the_dump_begin_again(
    empty_shop: Shop, dumped: Path, statements: tuple[str, ...]
) -> None:
    shop = empty_shop
    shop.run("CREATE TABLE t (a INT)", "INSERT INTO t VALUES (1)", "CREATE VIEW v AS SELECT a FROM t")
    await shop.backups.dump(dumped, when_told(shop, AFTER_THE_TABLES, *statements))
    assert await comes_back(shop, dumped)


async def test_a_structure_that_changes_all_the_time_is_a_conflict_and_leaves_no_file(
    empty_shop: Shop, dumped: Path
) -> None:
    shop = empty_shop
    shop.run("CREATE TABLE t (a INT)", "INSERT INTO t VALUES (1)")
    tell = when_told(shop, AFTER_THE_TABLES, "CREATE OR REPLACE VIEW v AS SELECT a + {} FROM t", again=True)
    with pytest.raises(Conflict, match=r"changed each time while it was dumped: the view 'v' was changed\. No backup"):
        await shop.backups.dump(dumped, tell)
    assert is_empty(dumped)


EXCHANGES = {
    "by another": ("RENAME TABLE t TO _t_del, _t_gho TO t",),
    "and dropped": ("RENAME TABLE t TO _t_del, _t_gho TO t", "DROP TABLE _t_del"),
    "with another": ("RENAME TABLE t TO x, _t_gho TO t, x TO _t_gho",),
}


@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_a_table_that_is_exchanged_meanwhile_is_never_there_by_half(
    empty_shop: Shop, dumped: Path, fakes: Fakes, exchange: str
) -> None:
    shop = empty_shop
    stop = Stop(shop, fakes)
    shop.run("CREATE TABLE t (a INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3)")
    if exchange != "by another":
        shop.run("DO SLEEP(1.1)")  # the server knows the time of a table to the second
    shop.run("CREATE TABLE _t_gho LIKE t", "INSERT INTO _t_gho VALUES (1)")

    await shop.backups.dump(dumped, stop.meanwhile("INSERT INTO _t_gho VALUES (2), (3)", *EXCHANGES[exchange]))
    assert stop.go.exists()
    assert await comes_back(shop, dumped)


@pytest.mark.newest_mysql
@pytest.mark.parametrize("gho", ["_t_gho", "_t-gho.2"])
async def test_tables_of_one_second_that_change_places_are_told_apart_where_the_account_holds_process(
    empty_shop: Shop, dumped: Path, fakes: Fakes, gho: str
) -> None:
    shop, now = (
        empty_shop,
        "SELECT CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s",
    )
    stop = Stop(shop, fakes)
    while True:
        shop.run("CREATE TABLE t (a INT PRIMARY KEY)", f"CREATE TABLE `{gho}` LIKE t")
        if shop.root.value(now, shop.name, "t") == shop.root.value(now, shop.name, gho):
            break
        shop.run(f"DROP TABLE t, `{gho}`")
    shop.run("INSERT INTO t VALUES (1), (2), (3)", f"INSERT INTO `{gho}` VALUES (1)")
    shop.root.run(f"GRANT PROCESS ON *.* TO {KEEPER}")
    try:
        await shop.backups.dump(dumped, stop.meanwhile(f"RENAME TABLE t TO x, `{gho}` TO t, x TO `{gho}`"))
    finally:
        shop.root.run(f"REVOKE PROCESS ON *.* FROM {KEEPER}")
    assert stop.go.exists()
    assert sum(AFTER_THE_TABLES in words for _, words in shop.told) == 2
    assert await comes_back(shop, dumped)


UNDER_IT = {
    "dropped": "DROP TABLE t",
    "changed": "ALTER TABLE t ADD COLUMN b INT NOT NULL DEFAULT 1, ALGORITHM=COPY",
    "renamed": "RENAME TABLE t TO u",
    "emptied": "TRUNCATE t",
}


@pytest.mark.parametrize("change", UNDER_IT)
async def test_a_dump_whose_program_fails_as_a_table_is_no_longer_what_it_was_begins_again(
    empty_shop: Shop, dumped: Path, fakes: Fakes, change: str
) -> None:
    shop = empty_shop
    stop = Stop(shop, fakes)
    shop.run("CREATE TABLE t (a INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3)")
    await shop.backups.dump(dumped, stop.meanwhile(UNDER_IT[change]))
    assert stop.seen.exists()
    assert await comes_back(shop, dumped)


@pytest.mark.each_flavour
@pytest.mark.parametrize(("said", "times"), [("Error 1412: changed", 4), ("gone (1146)", 4), ("Error 2013: lost", 1)])
async def test_a_program_that_fails_for_what_nothing_else_shows_is_believed_in_the_end(
    empty_shop: Shop, dumped: Path, fakes: Fakes, said: str, times: int
) -> None:
    shop, calls = empty_shop, fakes.folder / "calls"
    fakes.put_before(NAMES[shop.root.live.flavour][0], f"echo >>{calls}", f"echo 'mysqldump: {said}' >&2", "exit 2")
    with pytest.raises(BackupFailed, match=re.escape(said)):
        await shop.backups.dump(dumped, shop.tell)
    assert len(calls.read_text().splitlines()) == times


async def test_what_comes_and_goes_meanwhile_does_not_matter(empty_shop: Shop, dumped: Path) -> None:
    shop = empty_shop
    shop.run("CREATE TABLE t (a INT AUTO_INCREMENT PRIMARY KEY)", "CREATE TABLE scratch (a INT)", "DO SLEEP(1.1)")
    tell = when_told(
        shop, AFTER_THE_TABLES,
        "CREATE TABLE zz (a INT)", "CREATE VIEW late AS SELECT a FROM zz", "DROP VIEW late", "DROP TABLE zz",
        "INSERT INTO t VALUES ()", "TRUNCATE scratch", "DO SLEEP(1.1)", "CREATE TABLE later_{} (a INT)",
        "CREATE EVENT later_{} ON SCHEDULE EVERY 1 DAY STARTS '2036-01-01' DO SELECT 1",
        again=True,
    )  # fmt: skip
    await shop.backups.dump(dumped, tell)
    assert sum(AFTER_THE_TABLES in words for _, words in shop.told) == 1
