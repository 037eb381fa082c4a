"""`force-ssl` as a client of the API switches it: the engine then refuses plain text, and takes it again afterwards."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pymysql
import pytest

from engines.engine import installed_engines
from tests.fakes.service import TOKENS, Valet, running
from tests.live.mysql.conftest import PASSWORD, USER, Root, make_account, with_option
from tests.live.mysql.test_tls import only_mysql
from tests.live.servers import LiveServer

PATH = "/api/databases/ad-one/features"
PLAIN_TEXT_REFUSED = 3159
"""ER_SECURE_TRANSPORT_REQUIRED, of MariaDB too."""
REQUIRED = "SELECT @@GLOBAL.require_secure_transport"


@pytest.fixture
def offers_tls(root: Root) -> bool:
    return root.live.flavour == "mysql" or root.live.version_tuple >= (11, 4)


@pytest.fixture(autouse=True)
def _as_before(root: Root) -> Iterator[None]:
    yield
    root.run("SET GLOBAL require_secure_transport = OFF")


@asynccontextmanager
async def valet_of(url: str) -> AsyncIterator[Valet]:
    tokens = [{"name": each, "token": TOKENS[each], "role": each, "databases": ["*"]} for each in ("admin", "reader")]
    databases = [{"id": "ad-one", "url": url}]
    async with running(databases=databases, tokens=tokens, engines=installed_engines()) as valet:
        yield valet


async def features(valet: Valet) -> Any:
    return (await valet.ask("GET", "/api/databases/ad-one")).json()["database"]["features"]


def log_in(live: LiveServer, **options: Any) -> str:
    """Give the cipher that a client of an ordinary driver has, after it worked with the server."""
    with (
        pymysql.connect(host=live.host, port=live.port, user=live.admin, password=live.password, **options) as client,
        client.cursor() as cursor,
    ):
        cursor.execute("SELECT COUNT(*) FROM information_schema.SCHEMATA")
        cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
        found = cursor.fetchone()
        assert found is not None
        return str(found[1])


def refused_plain(live: LiveServer) -> None:
    with pytest.raises(pymysql.err.OperationalError) as refused:
        log_in(live, ssl_disabled=True)
    assert refused.value.args[0] == PLAIN_TEXT_REFUSED


async def test_plain_text_is_refused_by_the_engine_until_it_is_switched_off(
    mysql: LiveServer, account: str, root: Root, offers_tls: bool
) -> None:
    log_in(mysql)  # a server with cached passwords takes them in plain text too
    assert log_in(mysql, ssl_disabled=True) == ""
    async with valet_of(account) as valet:
        on = await valet.ask("POST", PATH, json={"feature": {"name": "force-ssl", "status": ""}})
        if not offers_tls:
            assert (on.status_code, on.json()["code"]) == (409, "precondition")
            assert "without TLS" in on.json()["error"]
            assert log_in(mysql, ssl_disabled=True) == ""
            return
        assert (on.status_code, on.json()["status"]) == (200, "ACTIVATED")
        refused_plain(mysql)
        assert log_in(mysql, ssl={"check_hostname": False})
        assert await features(valet) == [{"name": "force-ssl", "status": "ACTIVATED"}]
        # A dbvalet that starts now gets in.
        async with valet_of(account) as another:
            assert await features(another) == [{"name": "force-ssl", "status": "ACTIVATED"}]
        again = await valet.ask("POST", PATH, json={"feature": {"name": "force-ssl"}})
        assert again.status_code == 200
        off = await valet.ask("DELETE", f"{PATH}?feature=force-ssl")
        assert off.status_code == 200
        assert off.json()["message"]
        assert log_in(mysql, ssl_disabled=True) == ""
        assert root.value(REQUIRED) == 0
        assert await features(valet) == []


async def test_dbvalet_does_not_lock_itself_out(mysql: LiveServer, account: str, root: Root) -> None:
    root.run("FLUSH PRIVILEGES")
    with pymysql.connect(host=mysql.host, port=mysql.port, user=USER, password=PASSWORD.encode()):
        pass  # now the server knows the password in memory and takes it in plain text
    async with valet_of(with_option(account, ssl="false")) as valet:
        refused = await valet.ask("POST", PATH, json={"feature": {"name": "force-ssl"}})
        assert (refused.status_code, refused.json()["code"]) == (409, "precondition")
        assert "lock it out" in refused.json()["error"]
        assert root.value(REQUIRED) == 0
        assert (await valet.act("get-sqlmode")).status_code == 200


async def test_a_reader_switches_nothing(account: str, root: Root) -> None:
    async with valet_of(account) as valet:
        refused = await valet.ask("POST", PATH, "reader", json={"feature": {"name": "force-ssl"}})
        assert refused.status_code == 403
        assert root.value(REQUIRED) == 0


async def test_an_account_that_may_not_is_told_the_grant(mysql: LiveServer, root: Root, offers_tls: bool) -> None:
    if not offers_tls:
        pytest.skip("it is refused for want of TLS before")
    root.run(
        "CREATE USER IF NOT EXISTS little@'%' IDENTIFIED BY 'of-the-little-one'", "GRANT SELECT ON app.* TO little"
    )
    async with valet_of(mysql.url("little", "of-the-little-one")) as valet:
        refused = await valet.ask("POST", PATH, json={"feature": {"name": "force-ssl"}})
        assert (refused.status_code, refused.json()["code"]) == (403, "privilege_missing")
        assert "GRANT S" in refused.json()["error"]
    assert root.value(REQUIRED) == 0


@only_mysql
async def test_it_outlives_a_restart_of_mysql_on_and_off(private: LiveServer) -> None:
    async with valet_of(make_account(private)) as valet:
        assert (await valet.ask("POST", PATH, json={"feature": {"name": "force-ssl"}})).status_code == 200
        private.restart()
        refused_plain(private)
        assert (await valet.ask("DELETE", f"{PATH}?feature=force-ssl")).status_code == 200
        private.restart()
        log_in(private)
        assert log_in(private, ssl_disabled=True) == ""
