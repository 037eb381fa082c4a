"""Connections are encrypted where the server offers it, and as strictly checked as the URL asks."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest

from engines.engine import Feature
from engines.errors import EngineUnavailable
from engines.mysql.server import MySQLServer
from tests.live.accounts import account_on
from tests.live.mysql.conftest import USER, Root, act, connect, with_option
from tests.live.servers import LiveServer

only_mysql = pytest.mark.newest_mysql

CIPHER = "SHOW SESSION STATUS LIKE 'Ssl_cipher'"


async def cipher(server: MySQLServer) -> str:
    return (await server.fetch(CIPHER))[0][1]


@pytest.fixture
def offers_tls(root: Root) -> bool:
    return root.live.flavour == "mysql" or root.live.version_tuple >= (11, 4)


@pytest.fixture
def ca(mysql: LiveServer, tmp_path: Path) -> Path:
    """The certificate of the authority that MySQL made for itself."""
    stream, _ = mysql.container.get_wrapped_container().get_archive("/var/lib/mysql/ca.pem")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        file = archive.extractfile("ca.pem")
        assert file is not None
        path = tmp_path / "ca.pem"
        path.write_bytes(file.read())
    return path


async def test_by_default_it_is_encrypted_where_the_server_offers_it(server: MySQLServer, offers_tls: bool) -> None:
    assert await act(server, "list-databases")
    assert bool(await cipher(server)) == offers_tls


async def test_required_is_refused_where_the_server_offers_none(account: str, offers_tls: bool) -> None:
    server = connect(with_option(account, **{"ssl-mode": "REQUIRED"}))
    if offers_tls:
        assert await cipher(server)
    else:
        with pytest.raises(EngineUnavailable, match="SSL"):
            await act(server, "list-databases")
    await server.close()


async def test_disabled_is_not_encrypted(mysql: LiveServer, root: Root) -> None:
    # An account that has logged in before with TLS: the server knows its password in memory.
    server = connect(account_on(mysql))
    await act(server, "get-sqlmode")
    await server.close()
    plain = connect(with_option(account_on(mysql), ssl="false"))
    assert await cipher(plain) == ""
    await plain.close()


@only_mysql
async def test_an_account_with_caching_sha2_password_logs_in_the_first_time(account: str, root: Root) -> None:
    assert root.value("SELECT plugin FROM mysql.user WHERE user = %s", USER) == "caching_sha2_password"
    # The server forgets the passwords that it keeps in memory, as after a restart.
    root.run("FLUSH PRIVILEGES")
    server = connect(account)
    assert await act(server, "list-databases")
    await server.close()


@only_mysql
async def test_without_tls_such_an_account_is_told_what_to_do(
    account: str, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymysql._auth._have_cryptography", False)
    root.run("FLUSH PRIVILEGES")
    server = connect(with_option(account, ssl="false"))
    with pytest.raises(EngineUnavailable, match=r"authentication plugin.*TLS"):
        await act(server, "list-databases")
    await server.close()


@only_mysql
async def test_the_certificate_is_checked_when_the_url_says_so(account: str, ca: Path) -> None:
    server = connect(with_option(account, **{"ssl-mode": "VERIFY_CA", "ssl_ca": str(ca)}))
    assert await cipher(server)
    await server.close()
    for options in (
        {"ssl-mode": "VERIFY_CA", "ssl_ca": certifi.where()},
        {"ssl-mode": "VERIFY_CA"},
        {"ssl_ca": certifi.where()},
        # The certificate is of "MySQL_Server_…", not of the address.
        {"ssl-mode": "VERIFY_IDENTITY", "ssl_ca": str(ca)},
    ):
        server = connect(with_option(account, **options))
        with pytest.raises(EngineUnavailable, match=r"certificate .* is not accepted"):
            await act(server, "list-databases")
        await server.close()


async def test_a_file_that_is_not_there_is_told(account: str, tmp_path: Path) -> None:
    server = connect(with_option(account, ssl_ca=str(tmp_path / "missing.pem")))
    with pytest.raises(EngineUnavailable, match="TLS file"):
        await act(server, "list-databases")
    await server.close()


def test_a_mode_that_does_not_exist_is_a_mistake_of_the_configuration(account: str) -> None:
    with pytest.raises(ValueError, match="ssl-mode"):
        connect(with_option(account, **{"ssl-mode": "SOMETIMES"}))


@pytest.fixture
def secure_transport(root: Root) -> Iterator[None]:
    root.run("SET GLOBAL require_secure_transport = ON")
    yield
    root.run("SET GLOBAL require_secure_transport = OFF")


@only_mysql
@pytest.mark.usefixtures("secure_transport")
async def test_a_server_that_enforces_tls_is_described_so(server: MySQLServer, account: str) -> None:
    assert Feature(name="force-ssl") in (await server.describe()).features
    plain = connect(with_option(account, ssl="false"))
    with pytest.raises(EngineUnavailable, match="3159"):
        await act(plain, "list-databases")
    await plain.close()


async def test_a_server_that_does_not_enforce_tls_is_not_described_so(server: MySQLServer) -> None:
    assert (await server.describe()).features == ()
