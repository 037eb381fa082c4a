"""What only some versions of MariaDB have: the history of tables, and TLS out of the box."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engines.errors import BackupFailed
from tests.live.mysql.backup.conftest import KEEPER, Shop, backups_of, let_back_up
from tests.live.mysql.backup.content import HISTORY, make_everything
from tests.live.mysql.backup.programs import take_programs, write_script
from tests.live.mysql.conftest import PASSWORD, Root, connect, make_account, with_option
from tests.live.servers import spawn

NAME = "shop"

pytestmark = pytest.mark.one_mariadb


@asynccontextmanager
async def shop_on(version: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """A logical database with objects of every kind and with history, on a server of this version."""
    with spawn("mariadb", version) as live:
        take_programs(live, folder / "programs")
        monkeypatch.setenv("PATH", f"{folder / 'programs'}{os.pathsep}{os.defpath}")
        root = Root(live)
        root.run(f"CREATE DATABASE {NAME}")
        make_account(live, KEEPER)
        let_back_up(root, NAME)
        make_everything(root, NAME)
        server = connect(live.url(KEEPER, PASSWORD, database=NAME))
        made = Shop(NAME, root, server)
        made.run(*HISTORY)
        yield made
        await server.close()
        root.close()


@pytest.mark.engine_images("mariadb:10.11", "mariadb:11.8")
@pytest.mark.parametrize("version", ["10.11", "11.8"])
@pytest.mark.long
async def test_history_comes_back(version: str, dumped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shop_on(version, tmp_path, monkeypatch) as shop:
        before = shop.content()
        assert len(before["rows", "past"]) == 4
        manifest = await shop.backups.dump(dumped, shop.tell)
        assert "history" not in "".join(manifest.notes)
        for harm in ((f"DROP DATABASE {NAME}",), (f"DELETE FROM {NAME}.past", f"CREATE VIEW {NAME}.v AS SELECT 1")):
            shop.root.run(*harm)
            await shop.backups.restore(dumped, shop.tell)
            assert shop.content() == before
        await keep_rows_out_of_messages(shop, dumped, tmp_path / "programs")
        if version == "11.8":
            await log_in_as_the_url_says(shop, dumped)
        shop.run(
            """CREATE TABLE precise (
                 a INT, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START, e BIGINT UNSIGNED GENERATED ALWAYS AS ROW END,
                 PERIOD FOR SYSTEM_TIME (s, e)
               ) WITH SYSTEM VERSIONING"""
        )
        # mariadb-dump (11.8 too) can take neither such a history nor any other beside it.
        with pytest.raises(BackupFailed, match="`precise` with transaction-precise history"):
            await shop.backups.dump(dumped, shop.tell)


async def log_in_as_the_url_says(shop: Shop, dumped: Path) -> None:
    """With TLS or without it: MariaDB offers it by itself since 11.4, and its programs want it then."""
    root = shop.root
    root.run("SET GLOBAL log_output = 'TABLE'", "SET GLOBAL general_log = 1")
    for mode in ("REQUIRED", "DISABLED"):
        root.run(f"ALTER USER {KEEPER} REQUIRE {'SSL' if mode == 'REQUIRED' else 'NONE'}", "TRUNCATE mysql.general_log")
        server = connect(with_option(root.live.url(KEEPER, PASSWORD, database=NAME), **{"ssl-mode": mode}))
        await backups_of(server).restore(dumped, shop.tell)
        await server.close()
        logins = [
            str(row[0]) for row in root.rows("SELECT argument FROM mysql.general_log WHERE command_type = 'Connect'")
        ]
        of_keeper = [login for login in logins if KEEPER in login]
        assert len(of_keeper) == 3
        assert all(("using SSL/TLS" in login) == (mode == "REQUIRED") for login in of_keeper), of_keeper


async def keep_rows_out_of_messages(shop: Shop, dumped: Path, programs: Path) -> None:
    """Say what the server refused without the statement, which this client shows with all its rows."""
    client, aside = programs / "mariadb", programs / "aside"
    client.rename(aside)
    refused = "INSERT INTO nowhere VALUES ('secret row');"
    write_script(client, f'case "$*" in *--version*) exec {aside} "$@" ;; esac', f'echo "{refused}" | {aside} "$@"')
    with pytest.raises(BackupFailed, match="ERROR 1146") as told:
        await shop.backups.restore(dumped, shop.tell)
    assert "secret row" not in told.value.message
    aside.rename(client)
