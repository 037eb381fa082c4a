"""`force-ssl` as a client of the API switches it: the engine then refuses plain text, and takes it again afterwards."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pymysql
import pytest

from agent.once import Once
from engines.engine import installed_engines
from tests.fakes.service import TOKENS, Valet, running
from tests.live.mysql.conftest import PASSWORD, USER, Root, make_account, with_option
from tests.live.mysql.test_tls import only_mysql
from tests.live.servers import LiveServer, spawn

PATH = "/api/databases/ad-one/features"
PLAIN_TEXT_REFUSED = 3159
"""ER_SECURE_TRANSPORT_REQUIRED, of MariaDB too."""
REQUIRED = "SELECT @@GLOBAL.require_secure_transport"
BOTH = "SELECT @@GLOBAL.require_secure_transport, @@GLOBAL.sql_mode"


@pytest.fixture
def offers_tls(root: Root) -> bool:
    return root.live.flavour == "mysql" or root.live.version_tuple >= (11, 4)


@pytest.fixture(autouse=True)
def _as_before(root: Root) -> Iterator[None]:
    yield
    root.run("SET GLOBAL require_secure_transport = OFF")


@contextmanager
def keeps_nothing(live: LiveServer) -> Iterator[None]:
    """Put a folder where MySQL writes down what it keeps."""
    kept = "/var/lib/mysql/mysqld-auto.cnf"

    def run(script: str) -> None:
        result = live.container.get_wrapped_container().exec_run(["sh", "-ec", script], user="root")
        assert result.exit_code == 0, result.output

    run(f"[ ! -e {kept} ] || mv {kept} {kept}.away; mkdir -p {kept}/full")
    try:
        yield
    finally:
        run(f"rm -r {kept}; [ ! -e {kept}.away ] || mv {kept}.away {kept}")


Ask = Callable[[Valet], Awaitable[Any]]


async def force_ssl(valet: Valet) -> Any:
    return await valet.ask("POST", PATH, json={"feature": {"name": "force-ssl"}})


async def set_mode(valet: Valet) -> Any:
    return await valet.act("set-sqlmode", "ANSI")


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


async def test_a_switch_whose_answer_was_lost_is_seen_on_the_server(
    account: str, root: Root, offers_tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not offers_tls:
        pytest.skip("it is refused for want of TLS before")

    def lost(*_: Any) -> None:
        raise RuntimeError("lost")

    async with valet_of(account) as valet:

        async def ask() -> Any:
            key = {"Idempotency-Key": "key-1"}
            return await valet.ask("POST", PATH, json={"feature": {"name": "force-ssl"}}, headers=key)

        with monkeypatch.context() as patched:
            patched.setattr(Once, "keep", lost)
            assert (await ask()).status_code == 500
        assert root.value(REQUIRED) == 1
        again = await ask()
        assert (again.status_code, again.json()["status"]) == (200, "ACTIVATED")
        assert "earlier request" in again.json()["message"]
        # Others have switched it off, and it was on before.
        with monkeypatch.context() as patched:
            patched.setattr(Once, "keep", lost)
            key = {"Idempotency-Key": "key-2"}
            body = {"feature": {"name": "force-ssl"}}
            assert (await valet.ask("POST", PATH, json=body, headers=key)).status_code == 500
        root.run("SET GLOBAL require_secure_transport = OFF")
        untold = await valet.ask("POST", PATH, json=body, headers=key)
        assert (untold.status_code, untold.json()["code"]) == (409, "answer_unknown")
        assert root.value(REQUIRED) == 0


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
@pytest.mark.long
async def test_it_outlives_a_restart_of_mysql_on_and_off(private: LiveServer) -> None:
    async with valet_of(make_account(private)) as valet:
        assert (await valet.ask("POST", PATH, json={"feature": {"name": "force-ssl"}})).status_code == 200
        private.restart()
        refused_plain(private)
        assert (await valet.ask("DELETE", f"{PATH}?feature=force-ssl")).status_code == 200
        private.restart()
        log_in(private)
        assert log_in(private, ssl_disabled=True) == ""


@only_mysql
@pytest.mark.long
async def test_a_mysql_that_does_not_read_what_it_keeps_is_told_to_forget_it(mysql: LiveServer) -> None:
    with spawn(mysql.flavour, mysql.version, options=["--persisted-globals-load=OFF"]) as forgetful:
        async with valet_of(make_account(forgetful)) as valet:
            on = await valet.ask("POST", PATH, json={"feature": {"name": "force-ssl"}})
            assert (on.status_code, on.json()["status"]) == (200, "ACTIVATED")
            assert "ON until the server restarts" in on.json()["message"]
            refused_plain(forgetful)
            forgetful.restart()
            log_in(forgetful)
            assert log_in(forgetful, ssl_disabled=True) == ""


@only_mysql
@pytest.mark.parametrize("ask", [force_ssl, set_mode])
async def test_what_the_server_cannot_keep_is_as_it_was(private: LiveServer, ask: Ask) -> None:
    root = Root(private)
    [before] = root.rows(BOTH)
    async with valet_of(make_account(private)) as valet:
        with keeps_nothing(private):
            refused = await ask(valet)
            assert (refused.status_code, refused.json()["code"]) == (503, "engine_unavailable")
            assert "is as it was" in refused.json()["error"]
            assert root.rows(BOTH) == [before]
        assert (await ask(valet)).status_code == 200
        assert root.rows(BOTH) != [before]
    root.run("RESET PERSIST", "SET GLOBAL require_secure_transport = OFF")
    root.rows("SET GLOBAL sql_mode = %s", before[1])
    root.close()
