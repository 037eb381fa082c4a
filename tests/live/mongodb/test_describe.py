"""What a MongoDB server says of itself is true, to an account that may hardly anything too."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from engines.mongodb.server import MongoServer
from tests.live.mongodb.conftest import Root, connect
from tests.live.servers import LiveServer


async def test_describe_tells_version_and_start(server: MongoServer, mongodb: LiveServer, root: Root) -> None:
    description = await server.describe()
    info = root.server_info()
    assert description.readable_version == info["version"]
    assert description.version == tuple(info["versionArray"][:3])
    assert description.version[:2] == mongodb.version_tuple
    started = datetime.now(UTC) - timedelta(seconds=root.admin.command("serverStatus")["uptime"])
    assert abs(description.started_at - started) < timedelta(seconds=3)
    assert description.replica_set is None
    # 4.2 says nothing that no other server says.
    assert (description.instance is not None) == (mongodb.version_tuple >= (4, 4))


async def test_describe_tells_when_the_data_directory_was_first_used(server: MongoServer, root: Root) -> None:
    description = await server.describe()
    first = root.local["startup_log"].find_one(sort=[("$natural", 1)])
    assert first is not None and description.created_at is not None
    assert description.created_at.replace(tzinfo=None) == first["startTime"]
    assert description.created_at <= description.started_at


async def test_describe_again_is_one_command(
    account: Callable[[str], str], mongodb: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = connect(account("app"))
    first = await server.describe()
    sent: list[str] = []
    read = server.read

    async def counted(database: str, command: dict[str, object]) -> dict[str, object]:
        sent.append(next(iter(command)))
        return await read(database, command)

    monkeypatch.setattr(server, "read", counted)
    assert await server.describe() == first
    # 4.2 does not say in `isMaster` which process it is.
    assert sent == (["isMaster"] if mongodb.version_tuple >= (4, 4) else ["isMaster", "find"])
    await server.close()


async def test_describe_needs_no_privilege(mongodb: LiveServer, root: Root) -> None:
    root.admin.command({"createUser": "nobody", "pwd": "p", "roles": []})
    server = connect(mongodb.url("nobody", "p"))
    description = await server.describe()
    assert description == await server.describe()
    assert description.version[:2] == mongodb.version_tuple
    assert description.created_at is None
    await server.close()
    root.admin.command({"dropUser": "nobody"})


async def test_nothing_is_connected_before_the_first_call_and_after_close(account: Callable[[str], str]) -> None:
    server = connect(account("app"))
    assert (server.pool_use().open, server.pool_use().limit) == (0, 4)
    await server.describe()
    assert (server.pool_use().open, server.pool_use().in_use) == (1, 0)
    await server.close()
    assert server.pool_use().open == 0
