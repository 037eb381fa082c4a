"""MySQL: its actions, as root sees what they do."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pymysql

from engines.engine import GrantsFor
from engines.mysql import ENGINE
from engines.mysql.identifiers import SYSTEM_SCHEMAS
from engines.mysql.pool import LIMIT
from tests.live.faults.case import MADE_ANEW, Case, Look
from tests.live.faults.place import PASSWORD, Made, Place
from tests.live.mysql.conftest import run_script


class MysqlPlace(Place):
    """A logical database of a MySQL; `other` is the name of one that actions are aimed at."""

    most_sessions = LIMIT
    options: ClassVar = {"ssl-mode": "DISABLED"}  # else nobody on the way sees a statement
    statements: ClassVar = {
        "create-database": b"CREATE DATABASE",
        "delete-database": b"DROP DATABASE",
        "get-sqlmode": b"SELECT @@GLOBAL.sql_mode",
        "list-databases": b"SHOW DATABASES",
        "reset-database": b"DROP TABLE",
        "set-sqlmode": b"SET PERSIST sql_mode",
    }

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as root."""
        live = self.live
        with (
            pymysql.connect(
                host=live.host, port=live.port, user=live.admin, password=live.password, autocommit=True
            ) as connection,
            connection.cursor() as cursor,
        ):
            for each in statements:
                cursor.execute(each)
            return list(cursor.fetchall())

    def names(self) -> list[str]:
        return [row[0] for row in self.run("SHOW DATABASES") if row[0] not in SYSTEM_SCHEMAS]

    def tables(self) -> list[str]:
        return [row[0] for row in self.run(f"SHOW TABLES FROM {self.other}")] if self.other in self.names() else []

    def kept_mode(self) -> str:
        """Read the file that the server takes its mode from when it starts: what it shows may be in memory only."""
        written = self.live.container.exec(["cat", "/var/lib/mysql/mysqld-auto.cnf"]).output
        return str(json.loads(written)["mysql_dynamic_variables"]["sql_mode"]["Value"])

    def make(self) -> None:
        for each in (self.database, self.neighbour):
            self.run(
                f"CREATE DATABASE {each}",
                f"CREATE TABLE {each}.kept (n INT PRIMARY KEY)",
                f"INSERT INTO {each}.kept VALUES (1), (2), (3)",
            )
        self.grant()

    def grant(self) -> None:
        live = self.live
        wanted = GrantsFor(user=self.account, password=PASSWORD, flavour=live.flavour, version=live.version_tuple)
        run_script(live, ENGINE.grants(wanted))

    def take_away(self) -> None:
        for each in (self.database, self.neighbour, self.other):
            self.run(f"DROP DATABASE IF EXISTS {each}")
        self.run(f"DROP USER '{self.account}'")

    def sessions(self) -> int:
        return self._count("TRUE")

    def at_work(self) -> int:
        return self._count("COMMAND <> 'Sleep'")

    def _count(self, which: str) -> int:
        processes = "performance_schema.processlist"
        [(number,)] = self.run(f"SELECT COUNT(*) FROM {processes} WHERE USER = '{self.account}' AND {which}")
        return int(number)

    def kept(self) -> Any:
        rows = [self.run(f"SELECT COUNT(*), SUM(n) FROM {each}.kept") for each in (self.database, self.neighbour)]
        return [each for each in self.names() if each != self.other], rows

    @contextmanager
    def read_only(self) -> Iterator[None]:
        self.run("SET GLOBAL super_read_only = 1")
        try:
            yield
        finally:
            self.run("SET GLOBAL read_only = 0")

    @contextmanager
    def revoked(self, action: str) -> Iterator[None]:
        self.run(
            f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM '{self.account}'",
            f"GRANT SELECT ON {self.database}.* TO '{self.account}'",  # else it could not log in
        )
        # Global privileges count from the login on.
        for (number,) in self.run(f"SELECT ID FROM performance_schema.processlist WHERE USER = '{self.account}'"):
            self.run(f"KILL {number}")
        try:
            yield
        finally:
            self.grant()


@contextmanager
def create(place: MysqlPlace) -> Iterator[Case]:
    drop = f"DROP DATABASE IF EXISTS {place.other}"
    yield Case(
        "create-database",
        {"database_name": place.other},
        is_done=lambda: place.other in place.names(),
        prepare=lambda: place.run(drop),
    )
    place.run(drop)


def filled(place: MysqlPlace, table: str) -> Callable[[], object]:
    return lambda: place.run(
        f"CREATE DATABASE IF NOT EXISTS {place.other}", f"CREATE TABLE IF NOT EXISTS {place.other}.{table} (a INT)"
    )


@contextmanager
def delete(place: MysqlPlace) -> Iterator[Case]:
    filled(place, "earlier")()
    yield Case(
        "delete-database",
        {"database_name": place.other},
        is_done=lambda: place.other not in place.names(),
        prepare=filled(place, "earlier"),
        meanwhile=filled(place, "since"),
        is_left_alone=lambda: place.tables() == ["since"],
        others_changed_it=MADE_ANEW,
        take_back=lambda: place.run(f"DROP DATABASE {place.other}"),
    )
    place.run(f"DROP DATABASE IF EXISTS {place.other}")


@contextmanager
def reset(place: MysqlPlace) -> Iterator[Case]:
    filled(place, "earlier")()
    yield Case(
        "reset-database",
        {"database_name": place.other},
        is_done=lambda: place.other in place.names() and place.tables() == [],
        prepare=filled(place, "earlier"),
        meanwhile=filled(place, "since"),
        is_left_alone=lambda: place.tables() == ["since"],
        others_changed_it=MADE_ANEW,
        take_back=lambda: place.run(f"DROP TABLE {place.other}.since"),
    )
    place.run(f"DROP DATABASE {place.other}")


@contextmanager
def set_mode(place: MysqlPlace) -> Iterator[Case]:
    [(mode,)] = place.run("SELECT @@GLOBAL.sql_mode")

    def mode_is(wanted: str) -> bool:
        [(now,)] = place.run("SELECT @@GLOBAL.sql_mode")
        assert now == place.kept_mode(), "it is set, and will be another when the server is restarted"
        return now == wanted

    place.run("SET PERSIST sql_mode = ''")
    yield Case(
        "set-sqlmode",
        "ANSI_QUOTES",
        is_done=lambda: mode_is("ANSI_QUOTES"),
        prepare=lambda: place.run("SET PERSIST sql_mode = ''"),
        meanwhile=lambda: place.run("SET PERSIST sql_mode = 'NO_ZERO_DATE'"),
        is_left_alone=lambda: mode_is("NO_ZERO_DATE"),
        others_changed_it="Others have set another mode since: nothing says which ones there were before it.",
        take_back=lambda: place.run("SET PERSIST sql_mode = 'ANSI_QUOTES'"),
    )
    place.run("RESET PERSIST sql_mode", f"SET GLOBAL sql_mode = '{mode}'")


@contextmanager
def list_databases(place: MysqlPlace) -> Iterator[Look]:
    def shows(result: Any) -> bool:
        own = place.database
        return result == [{"name": each, "protected": each == own} for each in sorted(place.names())]

    yield Look("list-databases", shows)


@contextmanager
def get_mode(place: MysqlPlace) -> Iterator[Look]:
    yield Look("get-sqlmode", lambda result: place.run("SELECT @@GLOBAL.sql_mode") == [(result,)])


CASES: dict[str, Callable[[MysqlPlace], Made]] = {
    "create-database": create,
    "delete-database": delete,
    "get-sqlmode": get_mode,
    "list-databases": list_databases,
    "reset-database": reset,
    "set-sqlmode": set_mode,
}
MysqlPlace.cases = CASES
