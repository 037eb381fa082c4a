"""What a backup uses, and what it is worth when others write: memory, a full disk, one instant."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bson.binary import Binary
from bson.timestamp import Timestamp
from testcontainers.core.container import DockerContainer

from engines.errors import BackupFailed
from engines.mongodb.backup import MongoBackups, connection, dump
from tests.leftovers import wait_until
from tests.live.admins import refuse_admins
from tests.live.images import find_image
from tests.live.mongodb.backup_contents import contents
from tests.live.mongodb.conftest import Root, connect, quiet, sizes_in
from tests.live.servers import OWNER, LiveServer, free_port, owner_label

pytestmark = pytest.mark.newest_mongodb

CHECKOUT = Path(__file__).parents[3]
MOST = 64 * 1024 * 1024


async def in_a_process(work: str, url: str, folder: Path, *more: str) -> str:
    """Give the last line of what the child says."""
    refuse_admins(url)
    argv = [sys.executable, "-m", "tests.live.mongodb.backup_child", work, url, folder, *more]
    done = await asyncio.to_thread(subprocess.run, argv, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def big(root: Root, mongodb: LiveServer) -> Any:
    """A logical database of 300 MB: small documents, and large ones of 10 MiB."""
    database = root["big"]
    small = [{"n": number, "text": "x" * 1000} for number in range(1000)]
    for _ in range(120):
        for each in small:
            each.pop("_id", None)
        database["small"].insert_many(small)
    for number in range(18):
        database["large"].insert_one({"_id": number, "data": Binary(b"\1" * (10 * 1024 * 1024))})
    # The role of the script is for one logical database at a time, and other tests take it.
    roles = [{"role": role, "db": name} for role in ("readWrite", "dbAdmin") for name in ("big", "nothing")]
    root.admin.command("createUser", "keeper_of_big", pwd="p", roles=roles)
    yield mongodb.url("keeper_of_big", "p", "big")
    root.admin.command("dropUser", "keeper_of_big")
    root.drop_database("big")


@pytest.mark.long
async def test_memory_rises_by_less_than_64_mib(big: str, root: Root, tmp_path: Path) -> None:
    before = root["big"].command("dbHash")["md5"]
    assert int(await in_a_process("dump", big, tmp_path)) < MOST
    assert sum(sizes_in(tmp_path).values()) > 300_000_000
    root["big"]["small"].drop()
    assert int(await in_a_process("restore", big, tmp_path)) < MOST
    assert root["big"].command("dbHash")["md5"] == before


async def test_a_full_disk_is_told_and_leaves_no_file(big: str, tmp_path: Path) -> None:
    assert await in_a_process("dump", big, tmp_path, "50000000") == "OSError File too large"
    assert sizes_in(tmp_path) == {}


@pytest.fixture(scope="module")
def replica_set(mongodb: LiveServer) -> Any:
    """The URL of a replica set of one member, without accounts, for snapshots."""
    port = free_port()
    container = (
        DockerContainer(find_image("mongodb", mongodb.version).name)
        .with_command(["sh", "-c", "exec mongod --replSet rs0 --bind_ip_all"])
        .with_bind_ports(27017, port)
        .with_kwargs(labels={OWNER: owner_label(os.getpid())})
    )
    container.start()
    host = container.get_container_host_ip()
    with Root(f"mongodb://{host}:{port}/?directConnection=true") as client:
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": [{"_id": 0, "host": "127.0.0.1:27017"}]})
        yield f"mongodb://{host}:{port}/app?directConnection=true"
    container.stop()


@pytest.fixture
async def snapshots(replica_set: str) -> AsyncIterator[tuple[MongoBackups, Root]]:
    server = connect(replica_set)
    with Root(replica_set) as root:
        assert await asyncio.to_thread(wait_until, lambda: root.admin.command("hello")["isWritablePrimary"])
        root.drop_database("app")
        yield MongoBackups(server), root
    await server.close()


def write_once(root: Root) -> Any:
    """Give a progress that writes to both collections after the first was read."""
    written = False

    def write(_: float, words: str) -> None:
        nonlocal written
        if not written and words == "documents of a":
            written = True
            with root.start_session() as session, session.start_transaction():
                for name in ("a", "z"):
                    root["app"][name].insert_one({"_id": "late"}, session=session)

    return write


async def test_a_replica_set_gives_one_instant(snapshots: tuple[MongoBackups, Root], tmp_path: Path) -> None:
    backups, root = snapshots
    assert await backups.missing() == []
    for name in ("a", "z"):
        root["app"][name].insert_one({"_id": "early"})
    root["app"].create_collection("series", timeseries={"timeField": "t"})
    root["app"]["series"].insert_one({"t": root.admin.command("hello")["localTime"]})
    before = contents(root, "app")
    manifest = await backups.dump(tmp_path, write_once(root))
    assert not any("point in time" in note for note in manifest.notes)
    assert root["app"]["z"].count_documents({}) == 2
    await backups.restore(tmp_path, quiet)
    assert contents(root, "app") == before


async def test_an_instant_that_is_no_longer_kept_is_done_without_and_noted(
    snapshots: tuple[MongoBackups, Root], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups, root = snapshots
    for name in ("a", "z"):
        root["app"][name].insert_one({"_id": "early"})

    async def long_ago(_: connection.Connection) -> Any:
        return Timestamp(1, 1)

    monkeypatch.setattr(dump, "_instant", long_ago)
    manifest = await backups.dump(tmp_path, quiet)
    assert dump.SNAPSHOT_TOO_OLD in manifest.notes
    assert {"a.bson", "z.bson"} <= {*manifest.files}


async def test_a_standalone_server_says_that_it_gives_no_instant(backups: MongoBackups, tmp_path: Path) -> None:
    assert dump.NO_SNAPSHOT in (await backups.dump(tmp_path, quiet)).notes


async def test_collections_that_change_all_the_time_fail_a_dump_and_leave_no_file(
    backups: MongoBackups, root: Root, fresh: str, tmp_path: Path
) -> None:
    root[fresh]["a"].insert_one({})

    def change(_: float, __: str) -> None:
        root[fresh]["a"].drop()
        root[fresh]["a"].insert_one({})

    with pytest.raises(BackupFailed, match="all the time"):
        await backups.dump(tmp_path, change)
    assert sizes_in(tmp_path) == {}
