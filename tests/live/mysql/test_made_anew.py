"""A deletion whose answer was lost: what others have made of the same name since is not deleted by the retry."""

import asyncio
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from engines.aftermath import Goal, Verdict, judge
from engines.engine import look
from engines.mysql import ENGINE
from engines.mysql.server import MySQLServer
from tests.live.dying import AFTER
from tests.live.faults.case import Case
from tests.live.faults.killing import killed_and_asked_again
from tests.live.faults.mysql import MysqlPlace
from tests.live.mysql.conftest import Root
from tests.live.servers import LiveServer

pytestmark = pytest.mark.each_flavour

TABLE = "CREATE TABLE {}.t (id INT PRIMARY KEY)"
VIEW = "CREATE VIEW {}.v AS SELECT 1"
PROCEDURE = "CREATE PROCEDURE {}.p() SELECT 1"
EVENT = "CREATE EVENT {}.e ON SCHEDULE EVERY 1 DAY DO SELECT 1"


async def seen(server: MySQLServer, name: str, by: str = "delete-database") -> list[str] | None:
    action = ENGINE.actions[by]
    found = await look(server, action, action.validate({"database_name": name}))
    return None if found is None else list(found)


BEFORE = ((), (TABLE,), (VIEW,), (TABLE, VIEW, PROCEDURE, EVENT))
SINCE = ((), (TABLE,), (VIEW,), (PROCEDURE,), (EVENT,))


async def test_what_is_made_anew_is_not_taken_for_what_was_there(server: MySQLServer, root: Root, fresh: str) -> None:
    def make(name: str, inside: tuple[str, ...]) -> None:
        root.run(f"CREATE DATABASE {name}", *(each.format(name) for each in inside))

    pairs = {f"{fresh}_{number}": pair for number, pair in enumerate(product(BEFORE, SINCE))}
    was: dict[str, list[str] | None] = {}
    try:
        for name, (before, _) in pairs.items():
            make(name, before)
            was[name] = await seen(server, name)
            root.run(f"DROP DATABASE {name}")
            assert judge(Goal.GONE, was[name], await seen(server, name)) is Verdict.DONE
        # The server writes down the second in which something was made.
        await asyncio.sleep(1.05)
        for name, (before, since) in pairs.items():
            make(name, since)
            assert judge(Goal.GONE, was[name], await seen(server, name)) is Verdict.UNKNOWN, (before, since)
    finally:
        root.drop(*pairs)


async def test_a_view_that_is_made_anew_is_not_left_over_by_a_reset(
    server: MySQLServer, root: Root, filled: str
) -> None:
    root.run(VIEW.format(filled))
    was = await seen(server, filled, "reset-database")
    assert judge(Goal.GONE, was, await seen(server, filled, "reset-database")) is Verdict.NOT_DONE
    root.run(f"DROP VIEW {filled}.v")
    assert judge(Goal.GONE, was, await seen(server, filled, "reset-database")) is Verdict.NOT_DONE
    root.run(f"DROP TABLE {filled}.t")
    assert judge(Goal.GONE, was, await seen(server, filled, "reset-database")) is Verdict.DONE
    await asyncio.sleep(1.05)
    root.run(VIEW.format(filled))
    assert judge(Goal.GONE, was, await seen(server, filled, "reset-database")) is Verdict.UNKNOWN


@pytest.mark.parametrize("inside", [[TABLE], [PROCEDURE], [EVENT], [TABLE, VIEW, PROCEDURE, EVENT]])
async def test_what_nobody_has_touched_is_what_was_there(
    server: MySQLServer, root: Root, fresh: str, inside: list[str]
) -> None:
    root.run(f"CREATE DATABASE {fresh}", *(each.format(fresh) for each in inside))
    was = await seen(server, fresh)
    assert judge(Goal.GONE, was, await seen(server, fresh)) is Verdict.NOT_DONE


async def test_what_is_left_of_it_is_what_was_there_only_where_a_deletion_stops_half_way(
    server: MySQLServer, root: Root, filled: str
) -> None:
    root.run(PROCEDURE.format(filled), f"CREATE TABLE {filled}.later (id INT)")
    was = await seen(server, filled)
    root.run(f"DROP TABLE {filled}.later")
    half = Verdict.NOT_DONE if root.is_mariadb else Verdict.UNKNOWN
    assert judge(Goal.GONE, was, await seen(server, filled)) is half


@pytest.mark.parametrize("since", [[], [PROCEDURE]], ids=["empty", "with a procedure"])
def test_the_retry_leaves_it_alone(mysql: LiveServer, tmp_path: Path, since: list[str]) -> None:
    with MysqlPlace(mysql) as place, place.case("delete-database") as case:
        assert isinstance(case, Case)
        others = replace(
            case,
            meanwhile=lambda: place.run(
                f"CREATE DATABASE {place.other}", *(each.format(place.other) for each in since)
            ),
            is_left_alone=lambda: place.other in place.names(),
        )
        killed_and_asked_again(others, AFTER, place.url, tmp_path)
