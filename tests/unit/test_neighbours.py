"""Who shares a server with whom, and what is refused because of it; tests/live/test_neighbours.py has it on servers."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest

from agent.neighbours import may_share
from engines.address import parse_address
from engines.engine import Description, perform, preview
from engines.errors import Precondition, Protected
from engines.mongodb import ENGINE as MONGODB
from engines.mongodb.server import MongoServer, instance_of
from engines.mysql import ENGINE as MYSQL
from engines.mysql.facts import Facts
from engines.mysql.server import MySQLServer
from tests.fakes.driver import STARTED, FakeServer
from tests.fakes.service import URL, Valet, running, until
from tests.unit.test_backups import ONE

FACTS = Facts(
    flavour="mysql",
    version=(9, 7),
    readable_version="9.7",
    started_at=STARTED,
    folds_case=False,
    account="'valet'@'%'",
    grants=(),
)


def wait_until_up(client: httpx.Client, token: str, *databases: str) -> None:
    """Poll until a served dbvalet has seen its servers."""
    ends_at, headers = time.monotonic() + 30, {"Authorization": f"Bearer {token}"}
    for each in databases:
        while client.get(f"/api/databases/{each}", headers=headers).json()["database"]["status"] != "running":
            assert time.monotonic() < ends_at, each
            time.sleep(0.05)


async def shared(valet: Valet) -> bool:
    await until(lambda: valet.database().up is not None and valet.database("ad-two").up is not None)
    return may_share(valet.database(), valet.database("ad-two"))


def described(valet: Valet, **instances: str | None) -> None:
    for each, instance in instances.items():
        database = valet.database(f"ad-{each}")
        database.description = replace(cast(Description, valet.server().description), instance=instance)


ELSEWHERE = [{"id": "ad-one", "url": URL}, {"id": "ad-two", "url": URL.replace("db.example", "other.example")}]


async def test_one_address_is_one_server_whatever_it_says_of_itself() -> None:
    port = [{"id": "ad-one", "url": URL}, {"id": "ad-two", "url": URL.replace("db.example", "DB.example")}]
    async with running(databases=port) as valet:
        assert await shared(valet)
        described(valet, one="a", two="b")
        assert await shared(valet)


async def test_two_addresses_are_one_server_unless_it_says_otherwise() -> None:
    async with running(databases=ELSEWHERE) as valet:
        assert await shared(valet)
        for one, two, same in (("a", "b", False), ("a", "a", True), (None, "a", True), ("a", None, True)):
            described(valet, one=one, two=two)
            assert await shared(valet) is same
        described(valet, one="a", two="b")
        valet.database("ad-two").up = False
        assert await shared(valet)


async def test_servers_of_two_engines_are_two() -> None:
    from tests.fakes import BARE, ENGINE

    databases = [{"id": "ad-one", "url": URL}, {"id": "ad-two", "url": URL.replace("fake", "bare")}]
    async with running(databases=databases, engines={"fake": ENGINE, "bare": BARE}) as valet:
        assert not await shared(valet)


def mysql_server(url: str = "mysql://valet:x@db.example/shop", *others: str) -> MySQLServer:
    server = MYSQL.connect(parse_address(url, 3306))
    assert isinstance(server, MySQLServer)
    server.others = lambda: others
    return server


def learn(server: MySQLServer, *, folds_case: bool) -> None:
    cast(Any, server)._learned(replace(FACTS, folds_case=folds_case))


def test_names_of_mysql_that_differ_in_case_are_one_where_the_server_says_so() -> None:
    server = mysql_server("mysql://valet:x@db.example/shop", "Payroll")

    def of_others() -> list[str]:
        return sorted(server.of_others(["shop", "SHOP", "Payroll", "payroll", "other"]))

    assert of_others() == ["Payroll", "payroll"]  # nobody knows yet
    learn(server, folds_case=False)
    assert of_others() == ["Payroll"]
    learn(server, folds_case=True)
    assert of_others() == ["Payroll", "payroll"]
    server.others = lambda: {"SHOP"}  # two deployments of one logical database
    assert of_others() == []


def test_names_of_mongodb_never_differ_in_case_alone() -> None:
    server = MONGODB.connect(parse_address("mongodb://valet:x@db.example/shop", 27017))
    assert isinstance(server, MongoServer)
    server.others = lambda: {"Payroll", "shop"}
    assert server.of_others(["shop", "payroll", "Payroll", "other"]) == {"payroll", "Payroll"}


@pytest.mark.parametrize("run", [perform, preview])
@pytest.mark.parametrize("name", ["delete-database", "reset-database"])
async def test_what_is_of_others_is_refused_before_the_engine_is_asked(run: Callable[..., Any], name: str) -> None:
    server = mysql_server("mysql://valet:x@127.0.0.1:1/shop", "payroll")
    action = MYSQL.actions[name]
    with pytest.raises(Protected, match="another deployment"):
        await run(server, action, action.validate({"database_name": "payroll"}))


@pytest.mark.parametrize(
    ("hello", "instance"),
    [
        ({"topologyVersion": {"processId": "6543"}}, "6543"),
        ({}, None),
        ({"setName": "rs0", "hosts": ["b:1", "a:1"], "topologyVersion": {"processId": "6543"}}, "rs0 ['a:1', 'b:1']"),
        ({"setName": "rs0", "topologyVersion": {"processId": "6543"}}, None),
        ({"msg": "isdbgrid", "topologyVersion": {"processId": "6543"}}, None),
    ],
)
def test_a_mongodb_is_known_by_its_replica_set_or_its_process(hello: dict[str, Any], instance: str | None) -> None:
    assert instance_of(hello) == instance


async def test_a_backup_of_what_is_of_others_by_now_is_not_restored() -> None:
    async with running() as valet:
        database = valet.database()
        backup = await valet.service.backups.begin(database, "admin", "payroll")
        await valet.service.operations.wait(backup.operation_id, 10)
        server = cast(Any, database.server)
        server.others, server.of_others = lambda: {"payroll"}, lambda names: {*names} & {"payroll"}
        refused = await valet.ask("POST", f"{ONE}/backups/{backup.id}/restore", json={})
        assert (refused.status_code, refused.json()["code"]) == (403, "protected")


async def test_what_has_no_preview_is_not_tried() -> None:
    from tests.fakes import ENGINE

    server = FakeServer(parse_address(URL, 1), cast(Any, None))
    with pytest.raises(Precondition, match="set-mode cannot be tried"):
        await preview(server, ENGINE.actions["set-mode"], "FAST")
