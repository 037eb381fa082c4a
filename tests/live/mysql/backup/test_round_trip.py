"""What was dumped comes back as it was, whatever became of it."""

from pathlib import Path

import pytest

from tests.live.mysql.backup.conftest import Shop


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
