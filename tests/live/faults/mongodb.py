"""MongoDB: its actions, as root sees what they do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pymongo

from engines.engine import GrantsFor
from engines.mongodb import ENGINE
from engines.mongodb.databases import PLACEHOLDER, SYSTEM
from engines.mongodb.server import CONNECTIONS
from tests.live.faults.case import MADE_ANEW, Case, Look
from tests.live.faults.place import PASSWORD, Made, Place
from tests.live.mongodb.shell import run_script

Client = pymongo.MongoClient[dict[str, Any]]


class MongoPlace(Place):
    """A logical database of a MongoDB; `other` is the name of one that actions are aimed at."""

    most_sessions = CONNECTIONS
    statements: ClassVar = {
        "create-database": b"\x02create\0",
        "delete-database": b"dropDatabase",
        "list-databases": b"listDatabases",
        "reset-database": b"\x02drop\0",
    }

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Log in as root."""
        with Client(self.live.url()) as client:
            yield client

    def names(self) -> list[str]:
        with self.client() as client:
            return sorted({*client.list_database_names()} - SYSTEM)

    def collections(self) -> list[str]:
        with self.client() as client:
            names = client[self.other].list_collection_names()
        return sorted(each for each in names if not each.startswith(PLACEHOLDER))

    def fill(self) -> None:
        with self.client() as client:
            client[self.other]["earlier"].insert_one({})

    def drop_earlier(self) -> None:
        with self.client() as client:
            client[self.other].drop_collection("earlier")

    def drop(self) -> None:
        with self.client() as client:
            client.drop_database(self.other)

    def make(self) -> None:
        with self.client() as client:
            for each in (self.database, self.neighbour):
                client[each]["kept"].insert_many([{"_id": number} for number in range(10)])
            run_script(client, ENGINE.grants(GrantsFor(user=self.account, password=PASSWORD)))

    def take_away(self) -> None:
        with self.client() as client:
            for each in (self.database, self.neighbour, self.other):
                client.drop_database(each)
            client.admin.command("dropUser", self.account)

    def sessions(self) -> int:
        return self._count(idle=True)

    def at_work(self) -> int:
        return self._count(idle=False)

    def _count(self, *, idle: bool) -> int:
        with self.client() as client:
            operations = client.admin.aggregate([{"$currentOp": {"allUsers": True, "idleConnections": idle}}])
            return sum(
                any(user["user"] == self.account for user in each.get("effectiveUsers", ())) for each in operations
            )

    def kept(self) -> Any:
        with self.client() as client:
            rows = [[*client[each]["kept"].find(sort=[("_id", 1)])] for each in (self.database, self.neighbour)]
        return [each for each in self.names() if each != self.other], rows

    @contextmanager
    def read_only(self) -> Iterator[None]:
        with self.client() as client:
            client.admin.command("fsync", lock=True)
            try:
                yield
            finally:
                client.admin.command("fsyncUnlock")

    @contextmanager
    def revoked(self, action: str) -> Iterator[None]:
        with self.client() as client:
            (user,) = client.admin.command("usersInfo", self.account)["users"]
            client.admin.command("revokeRolesFromUser", self.account, roles=user["roles"])
            try:
                yield
            finally:
                client.admin.command("grantRolesToUser", self.account, roles=user["roles"])


@contextmanager
def create(place: MongoPlace) -> Iterator[Case]:
    yield Case(
        "create-database",
        {"database_name": place.other},
        is_done=lambda: place.other in place.names(),
        prepare=place.drop,
    )
    place.drop()


@contextmanager
def delete(place: MongoPlace) -> Iterator[Case]:
    place.fill()
    yield Case(
        "delete-database",
        {"database_name": place.other},
        is_done=lambda: place.other not in place.names(),
        prepare=place.fill,
        meanwhile=place.fill,
        is_left_alone=lambda: place.collections() == ["earlier"],
        others_changed_it=MADE_ANEW,
        take_back=place.drop,
    )
    place.drop()


@contextmanager
def reset(place: MongoPlace) -> Iterator[Case]:
    place.fill()
    yield Case(
        "reset-database",
        {"database_name": place.other},
        is_done=lambda: place.other in place.names() and place.collections() == [],
        prepare=place.fill,
        meanwhile=place.fill,
        is_left_alone=lambda: place.collections() == ["earlier"],
        others_changed_it=MADE_ANEW,
        take_back=place.drop_earlier,
    )
    place.drop()


@contextmanager
def list_databases(place: MongoPlace) -> Iterator[Look]:
    def shows(result: Any) -> bool:
        return result == [{"name": each, "protected": each == place.database} for each in place.names()]

    yield Look("list-databases", shows)


CASES: dict[str, Callable[[MongoPlace], Made]] = {
    "create-database": create,
    "delete-database": delete,
    "list-databases": list_databases,
    "reset-database": reset,
}
MongoPlace.cases = CASES
