"""The programs verify the server as the URL asks: dbvalet's own connection would let them reach another one."""

import io
import tarfile
from pathlib import Path

import certifi
import pytest

from engines.address import parse_address
from engines.errors import BackupFailed
from engines.mysql import tools
from engines.mysql.connection import connected
from tests.live.mysql.backup.conftest import KEEPER, Shop
from tests.live.mysql.conftest import PASSWORD, connect, with_option

pytestmark = pytest.mark.newest_mysql


@pytest.fixture
def ca(shop: Shop, tmp_path: Path) -> Path:
    """The certificate of the authority that MySQL made for itself."""
    stream, _ = shop.root.live.container.get_wrapped_container().get_archive("/var/lib/mysql/ca.pem")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "ca.pem"


async def test_an_authority_that_signed_the_server_s_certificate(shop: Shop, ca: Path, dumped: Path) -> None:
    url = shop.root.live.url(KEEPER, PASSWORD, database=shop.name)
    server = connect(with_option(url, ssl_ca=str(ca)))
    before = shop.content()
    try:
        backups = server.engine.backups_of(server)
        assert backups is not None
        await backups.dump(dumped, shop.tell)
        await backups.restore(dumped, shop.tell)
    finally:
        await server.close()
    assert shop.content() == before


async def test_another_authority(shop: Shop, dumped: Path) -> None:
    url = shop.root.live.url(KEEPER, PASSWORD, database=shop.name)
    mistrusting = parse_address(with_option(url, ssl_ca=certifi.where()), 3306)
    async with connected(shop.server.address) as connection:
        dumper = await tools.find_dumper(connection.facts)
        with (
            tools.logging_in(mistrusting, "mysql", encrypted=True) as login,
            pytest.raises(BackupFailed, match="certificate"),
        ):
            await tools.dump_tables(
                dumper,
                login,
                connection.facts,
                database=shop.name,
                left_out=[],
                target=dumped / "tables.sql",
                watch=lambda: None,
            )
