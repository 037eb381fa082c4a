"""Every call of the known clients, sent as they send it to a served dbvalet with a live server behind it."""

from pathlib import Path

import httpx
import pytest

from tests.contract.client_calls import CALLS
from tests.contract.client_replay import Replay, known
from tests.live.accounts import Part
from tests.live.servers import LiveServer
from tests.live.test_backup_routes import prepared
from tests.unit.running import TOKEN

EVERY_PART: tuple[Part, ...] = ("backups", "restores", "users", "figures", "logs")

pytestmark = pytest.mark.newest_version


async def every_call_can_be_read(live: LiveServer, folder: Path) -> None:
    certificate = folder / "ca.pem"
    certificate.write_text("-----BEGIN CERTIFICATE-----\n")
    with (
        prepared(live, folder, parts=EVERY_PART, ca_certificate=str(certificate)) as (valet, _),
        valet.serving() as running,
    ):
        async with httpx.AsyncClient(base_url=running.url, timeout=30, trust_env=False) as client:
            replay = Replay(client, live.engine, known(TOKEN, "ad-x"))
            await replay.run(CALLS)
        assert not replay.broken, "\n".join(replay.broken)


async def test_what_clients_send_to_postgresql(postgresql: LiveServer, tmp_path: Path) -> None:
    await every_call_can_be_read(postgresql, tmp_path)


async def test_what_clients_send_to_mysql(mysql: LiveServer, tmp_path: Path) -> None:
    await every_call_can_be_read(mysql, tmp_path)


async def test_what_clients_send_to_mongodb(mongodb: LiveServer, tmp_path: Path) -> None:
    await every_call_can_be_read(mongodb, tmp_path)


async def test_what_clients_send_to_influxdb(influxdb: LiveServer, tmp_path: Path) -> None:
    await every_call_can_be_read(influxdb, tmp_path)
