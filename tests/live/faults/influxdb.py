"""InfluxDB: its actions, as an admin sees what they do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import influxdb as bare

from engines.engine import GrantsFor
from engines.influxdb import ENGINE
from tests.live.faults.case import MADE_ANEW, Case, Look
from tests.live.faults.place import PASSWORD, Made, Place


class InfluxPlace(Place):
    """A logical database of an InfluxDB."""

    most_sessions = 0  # connections are of HTTP: what counts is the requests that the server holds
    statements: ClassVar = {
        "add-retention-policy": b"q=CREATE",
        "del-retention-policy": b"q=DROP",
        "list-retention-policies": b"q=SHOW",
    }

    @contextmanager
    def client(self) -> Iterator[bare.InfluxDBClient]:
        """Log in as the admin."""
        live = self.live
        client = bare.InfluxDBClient(
            live.host, live.port, live.admin, live.password, retries=1, headers={"Accept": "application/json"}
        )
        try:
            yield client
        finally:
            client.close()

    def run(self, *statements: str) -> list[dict[str, Any]]:
        """Run statements as the admin."""
        with self.client() as client:
            results = [client.query(each, method="POST", database=self.database) for each in statements]
        return list(results[-1].get_points())

    def policies(self) -> list[str]:
        return [each["name"] for each in self.run(f'SHOW RETENTION POLICIES ON "{self.database}"')]

    def add(self) -> None:
        self.run(f'CREATE RETENTION POLICY month ON "{self.database}" DURATION 30d REPLICATION 1')

    def add_with_a_point(self) -> None:
        """A policy has nothing of its own but the shards of its points."""
        self.add()
        with self.client() as client:
            client.write_points(
                [{"measurement": "of_month", "fields": {"value": 1}}], database=self.database, retention_policy="month"
            )

    def drop(self) -> None:
        self.run(f'DROP RETENTION POLICY month ON "{self.database}"')

    def make(self) -> None:
        with self.client() as client:
            for each in (self.database, self.neighbour):
                client.create_database(each)
                client.request(
                    "write", "POST", {"db": each}, "kept value=1 1\nkept value=2 2", expected_response_code=204
                )
            script = ENGINE.grants(GrantsFor(user=self.account, password=PASSWORD, database=self.database))
            client.query(script, method="POST")

    def take_away(self) -> None:
        self.run(f'DROP DATABASE "{self.database}"', f'DROP DATABASE "{self.neighbour}"', f'DROP USER "{self.account}"')

    def sessions(self) -> int:
        return self.at_work()

    def at_work(self) -> int:
        """Count requests that the server holds, without this one."""
        with self.client() as client:
            (row,) = client.query("SHOW STATS FOR 'httpd'").get_points()
        return int(row["reqActive"]) - 1

    def kept(self) -> Any:
        # `_internal` is the server's own, made some seconds after its start.
        names = [each["name"] for each in self.run("SHOW DATABASES") if each["name"] != "_internal"]
        with self.client() as client:
            rows = [
                [*client.query("SELECT * FROM kept", database=each).get_points()]
                for each in (self.database, self.neighbour)
            ]
        return names, rows, [each for each in self.policies() if each != "month"]

    def read_only(self) -> Any:
        raise NotImplementedError

    @contextmanager
    def revoked(self, action: str) -> Iterator[None]:
        self.run(
            f'REVOKE ALL PRIVILEGES FROM "{self.account}"', f'REVOKE ALL ON "{self.database}" FROM "{self.account}"'
        )
        try:
            yield
        finally:
            self.run(f'GRANT ALL PRIVILEGES TO "{self.account}"', f'GRANT ALL ON "{self.database}" TO "{self.account}"')


@contextmanager
def add(place: InfluxPlace) -> Iterator[Case]:
    yield Case(
        "add-retention-policy",
        {"name": "month", "duration": "30d"},
        is_done=lambda: "month" in place.policies(),
        prepare=place.drop,
    )
    place.drop()


@contextmanager
def delete(place: InfluxPlace) -> Iterator[Case]:
    place.add_with_a_point()
    yield Case(
        "del-retention-policy",
        {"name": "month"},
        is_done=lambda: "month" not in place.policies(),
        prepare=place.add_with_a_point,
        meanwhile=place.add_with_a_point,
        is_left_alone=lambda: "month" in place.policies(),
        others_changed_it=MADE_ANEW,
        take_back=place.drop,
    )
    place.drop()


@contextmanager
def list_policies(place: InfluxPlace) -> Iterator[Look]:
    def shows(result: Any) -> bool:
        return [each["name"] for each in result] == place.policies()

    yield Look("list-retention-policies", shows)


CASES: dict[str, Callable[[InfluxPlace], Made]] = {
    "add-retention-policy": add,
    "del-retention-policy": delete,
    "list-retention-policies": list_policies,
}
InfluxPlace.cases = CASES
