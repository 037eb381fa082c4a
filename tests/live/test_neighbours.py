"""Two deployments whose logical databases are on one server: a token for one does nothing to that of the other."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pymysql
import pytest

from engines.engine import installed_engines
from engines.errors import Protected
from engines.users import change_password, delete_user
from tests.live.accounts import account_on
from tests.live.mysql.conftest import connect
from tests.live.servers import LiveServer
from tests.live.test_backup_routes import MADE
from tests.unit.running import configuration, serving
from tests.unit.test_neighbours import wait_until_up

TOKEN = "token-of-the-admin-of-the-shop"
IN_SHOP = "/api/databases/ad-shop/action"

DESTROYERS = ["delete-database", "reset-database"]

WAYS: list[dict[str, Any]] = [{"json": {}}, {"json": {"dry_run": True}}, {"key": "once"}]


@dataclass
class Two:
    client: httpx.Client
    shop: str
    payroll: str
    spare: str
    """A logical database that is declared by nobody."""
    contents: dict[str, Any]

    def act(self, name: str, database: str | None = None, **more: Any) -> httpx.Response:
        body = {"action_name": name, **more.get("json", {})}
        if database is not None:
            body["params"] = {"database_name": database}
        headers = {"Idempotency-Key": f"{more['key']}-{name}"} if "key" in more else {}
        return self.client.post(IN_SHOP, json=body, headers=headers)

    def look(self, name: str) -> Any:
        return self.contents[name].look()


def another_name(live: LiveServer) -> str:
    """Give the address of a server in another form: an IPv4 one as IPv6, which any resolver takes back."""
    return "127.0.0.1" if live.host == "localhost" else f"[::ffff:{live.host}]"


@contextmanager
def two(live: LiveServer, folder: Path, *, elsewhere: bool) -> Iterator[Two]:
    """Serve both to an admin of the shop; `elsewhere`: the url of the other one has another name of the same server."""
    now = time.time_ns()
    shop, payroll, spare = names = f"shop_{now}", f"payroll_{now}", f"spare_{now}"
    made = MADE[live.engine]
    with made(live, shop) as (url, first), made(live, payroll) as (other, second), made(live, spare) as (_, third):
        contents = dict(zip(names, (first, second, third), strict=True))
        for each in contents.values():
            each.fill()
        place = f"@{another_name(live) if elsewhere else live.host}:"
        file = configuration(
            folder,
            {"id": "ad-shop", "url": url},
            {"id": "ad-payroll", "url": other.replace(f"@{live.host}:", place)},
            tokens=[
                {"name": "shop", "token": TOKEN, "role": "admin", "databases": ["ad-shop"]},
                {"name": "all", "token": f"{TOKEN}-and-all", "role": "admin", "databases": ["*"]},
            ],
        )
        with (
            serving(file) as running,
            httpx.Client(
                base_url=running.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30, trust_env=False
            ) as client,
        ):
            wait_until_up(client, f"{TOKEN}-and-all", "ad-shop", "ad-payroll")
            yield Two(client, shop, payroll, spare, contents)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["the same address", "another name of the server"])
def test_an_admin_of_one_deployment_cannot_destroy_the_logical_database_of_another_on_mysql(
    mysql: LiveServer, tmp_path: Path, elsewhere: bool
) -> None:
    _test_the_other_one_is_out_of_reach(mysql, tmp_path, elsewhere=elsewhere)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["the same address", "another name of the server"])
def test_an_admin_of_one_deployment_cannot_destroy_the_logical_database_of_another_on_mongodb(
    mongodb: LiveServer, tmp_path: Path, elsewhere: bool
) -> None:
    _test_the_other_one_is_out_of_reach(mongodb, tmp_path, elsewhere=elsewhere)


def _test_the_other_one_is_out_of_reach(live: LiveServer, folder: Path, *, elsewhere: bool) -> None:
    with two(live, folder, elsewhere=elsewhere) as both:
        before = both.look(both.payroll)
        shown = {each["name"]: each["protected"] for each in both.act("list-databases").json()["result"]}
        assert (shown[both.shop], shown[both.payroll], shown[both.spare]) == (True, True, False)

        for destroyer in DESTROYERS:
            for way in WAYS:
                refused = both.act(destroyer, both.payroll, **way)
                assert (refused.status_code, refused.json()["code"]) == (403, "protected"), refused.text
                assert "another deployment" in refused.json()["error"]
        assert both.look(both.payroll) == before

        # What is its own or nobody's goes as it always did.
        assert both.act("reset-database", both.shop).status_code == 200
        both.contents[both.shop].fill()  # which it could not if anything were left
        assert both.act("reset-database", both.spare).status_code == 200
        assert both.act("delete-database", both.spare).status_code == 200
        assert both.act("create-database", both.spare).status_code == 200
        assert both.look(both.payroll) == before


async def test_an_account_of_mysql_that_reaches_another_deployment_is_protected(mysql: LiveServer) -> None:
    now = time.time_ns()
    shop, payroll = f"shop_{now}", f"payroll_{now}"
    with MADE["mysql"](mysql, shop), MADE["mysql"](mysql, payroll):
        server = connect(account_on(mysql, shop, parts=["users"]))
        users = installed_engines()["mysql"].users_of(server)
        assert users is not None
        with (
            pymysql.connect(host=mysql.host, port=mysql.port, user=mysql.admin, password=mysql.password) as admin,
            admin.cursor() as cursor,
        ):
            cursor.execute(f"CREATE USER both_{now} IDENTIFIED BY 'of-both-of-them-0123456789'")
            cursor.execute(f"GRANT SELECT ON `%{now}`.* TO both_{now}")
            try:
                assert not await _is_protected(users, f"both_{now}")
                server.others = lambda: {payroll}
                assert await _is_protected(users, f"both_{now}")
                with pytest.raises(Protected):
                    await change_password(users, f"both_{now}", "a-password-of-the-shop-0123456789")
                with pytest.raises(Protected):
                    await delete_user(users, f"both_{now}")
            finally:
                cursor.execute(f"DROP USER both_{now}")
        await server.close()


async def _is_protected(users: Any, name: str) -> bool:
    (found,) = [each for each in await users.all() if each.name == name]
    return found.protected
