"""What is read from the answers of MongoDB, without a server."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from engines import deadline
from engines.errors import Conflict, ConnectionLost, EngineUnavailable, PrivilegeMissing
from engines.mongodb import contents
from engines.mongodb.driver import Client
from engines.mongodb.health import MongoHealth, _line
from engines.mongodb.server import MongoServer
from engines.mongodb.users import MongoUsers


async def test_what_the_server_is_is_asked_again_when_its_process_is_another() -> None:
    asked: list[str] = []
    process = 1

    async def read(database: str, command: dict[str, Any]) -> dict[str, Any]:
        asked.append(next(iter(command)))
        return {"versionArray": [process, 0, 0, 0], "version": f"{process}.0.0"}

    async def process_of(hello: dict[str, Any]) -> tuple[datetime, int]:
        return datetime(2024, 1, process, tzinfo=UTC), process

    async def startup_time(*, first: bool) -> datetime:
        assert first
        return datetime(2023, 1, 1, tzinfo=UTC)

    server: Any = MongoServer.__new__(MongoServer)
    server._process, server._version, server._readable_version, server._created_at = None, (), "", None
    server.read, server._process_of, server._startup_time = read, process_of, startup_time
    first = await server.describe()
    assert (first.version, first.readable_version) == ((1, 0, 0), "1.0.0")
    assert await server.describe() == first
    assert asked == ["isMaster", "buildInfo", "isMaster"]
    process = 2
    again = await server.describe()
    assert (again.version, again.created_at) == ((2, 0, 0), first.created_at)
    assert again.started_at > first.started_at


async def test_the_size_of_a_collection_is_that_of_its_documents_and_its_indexes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def statistics(server: object, database: str, name: str) -> dict[str, Any]:
        return {"storageSize": 12288, "totalIndexSize": 4096, "count": 3}

    monkeypatch.setattr(contents, "_statistics", statistics)
    server: Any = SimpleNamespace()
    with deadline.within(20):
        found = await contents.measured(server, "app", {"seen": "view", "kept": "collection"})
    assert [(each.name, each.rows, each.bytes) for each in found] == [("kept", 3, 16384), ("seen", None, None)]


@pytest.mark.parametrize(("first", "order"), [(True, 1), (False, -1)])
async def test_the_log_of_starts_is_read_from_its_beginning_or_its_end(first: bool, order: int) -> None:
    entries: list[dict[str, Any]] = []

    async def read(database: str, command: dict[str, Any]) -> dict[str, Any]:
        assert database == "local"
        assert (command["find"], command["sort"], command["limit"]) == ("startup_log", {"$natural": order}, 1)
        assert repr(command["sort"]["$natural"]) == str(order)
        return {"cursor": {"firstBatch": entries}}

    server: Any = MongoServer.__new__(MongoServer)
    server.read = read
    assert await server._startup_time(first=first) is None
    entries.append({"startTime": datetime(2024, 1, 2, tzinfo=UTC)})
    assert await server._startup_time(first=first) == datetime(2024, 1, 2, tzinfo=UTC)


async def test_the_size_of_a_collection_without_statistics_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def statistics(server: object, database: str, name: str) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(contents, "_statistics", statistics)
    server: Any = SimpleNamespace()
    with deadline.within(20):
        (found,) = await contents.measured(server, "app", {"kept": "timeseries"})
    assert (found.kind, found.rows, found.bytes) == ("time series", None, None)


def test_who_may_not_manage_users_is_told_the_role_for_the_account_of_the_url() -> None:
    server: Any = SimpleNamespace(address=SimpleNamespace(user="valet", database="app"))
    refused = MongoUsers(server)._missing()
    assert 'grant "valet" the role userAdmin on "app"' in refused.message
    assert refused.privilege == "createUser"


@pytest.mark.parametrize("open_to_all", [True, False])
async def test_without_an_account_everything_is_allowed_where_there_is_no_access_control(open_to_all: bool) -> None:
    async def read(database: str, command: dict[str, Any]) -> dict[str, Any]:
        if "connectionStatus" in command:
            return {"authInfo": {"authenticatedUsers": [], "authenticatedUserPrivileges": []}}
        assert "listDatabases" in command
        if not open_to_all:
            raise PrivilegeMissing("MongoDB refused")
        return {"databases": []}

    server: Any = SimpleNamespace(read=read)
    if open_to_all:
        await contents.require_on(server, "app", "t", "dropCollection")
    else:
        with pytest.raises(PrivilegeMissing):
            await contents.require_on(server, "app", "t", "dropCollection")


@pytest.mark.parametrize(
    ("mechanisms", "told"), [(["SCRAM-SHA-256", "SCRAM-SHA-1"], "SCRAM-SHA-1, SCRAM-SHA-256"), ([], None)]
)
async def test_how_the_password_of_a_user_is_kept_is_told_where_it_is(mechanisms: list[str], told: str | None) -> None:
    async def read(database: str, command: dict[str, Any]) -> dict[str, Any]:
        assert (database, command) == ("app", {"usersInfo": 1})
        role = {"role": "read", "db": "app"}
        return {"users": [{"user": "reader", "roles": [role], **({"mechanisms": mechanisms} if mechanisms else {})}]}

    server: Any = SimpleNamespace(read=read, address=SimpleNamespace(user="valet", database="app"))
    (found,) = await MongoUsers(server).all()
    assert (found.name, found.read_only, found.password_encryption) == ("reader", True, told)


@pytest.mark.parametrize(
    ("extra", "seconds"), [({"user_time_us": 1_500_000, "system_time_us": 250_000}, 1.75), ({}, None)]
)
async def test_the_cpu_time_of_the_server_is_told_in_seconds(extra: dict[str, int], seconds: float | None) -> None:
    replies: dict[str, dict[str, Any]] = {
        "serverStatus": {
            "extra_info": extra,
            "mem": {"resident": 3},
            "opcounters": {"insert": 4, "deprecated": {"total": 5}},
            "connections": {"current": 6},
            "network": {"bytesIn": 7, "bytesOut": 8},
        },
        "dbStats": {"objects": 9, "dataSize": 10.0, "fsUsedSize": 11.0},
        "hostInfo": {"system": {"memSizeMB": 64, "memLimitMB": 32}},
        "isMaster": {"ismaster": True},
    }

    async def read(database: str, command: dict[str, Any]) -> dict[str, Any]:
        (name,) = command
        assert database == ("app" if name == "dbStats" else "admin")
        return replies[name]

    server: Any = SimpleNamespace(read=read, address=SimpleNamespace(database="app"))
    found = await MongoHealth(server).measures()
    assert found.cpu_seconds == seconds
    assert (found.memory, found.memory_limit) == (3 * 2**20, 32 * 2**20)
    assert (found.data_size, found.disk_used, found.disk_size) == (10, 11, None)
    assert found.counters == {
        "op_insert": 4,
        "connections": 6,
        "network_bytes_in": 7,
        "network_bytes_out": 8,
        "objects": 9,
    }


def granted(*actions: str, **resource: object) -> dict[str, Any]:
    return {"resource": resource, "actions": [*actions]}


WHOLE_SERVER = granted("serverStatus", "hostInfo", "getLog", cluster=True)


@pytest.mark.parametrize(
    ("privileges", "lacks"),
    [
        ([WHOLE_SERVER, granted("dbStats", db="app", collection="")], {}),
        ([WHOLE_SERVER, granted("dbStats", db="", collection="")], {}),
        ([WHOLE_SERVER, granted("dbStats", db="other", collection="")], {"metrics": ["dbStats"]}),
        (
            [granted("serverStatus", "hostInfo", "getLog", "dbStats", db="app", collection="")],
            {"metrics": ["serverStatus", "hostInfo"], "logs": ["getLog"]},
        ),
        ([], {"metrics": ["serverStatus", "hostInfo", "dbStats"], "logs": ["getLog"]}),
    ],
)
async def test_what_the_figures_need_is_looked_for_where_it_is_granted(
    privileges: list[dict[str, Any]], lacks: dict[str, list[str]]
) -> None:
    async def read(database: str, command: dict[str, Any]) -> dict[str, Any]:
        assert (database, "connectionStatus" in command) == ("admin", True)
        return {"authInfo": {"authenticatedUsers": [{"user": "valet"}], "authenticatedUserPrivileges": privileges}}

    server: Any = SimpleNamespace(read=read, address=SimpleNamespace(user="valet", database="app"))
    found = await MongoHealth(server).lacking()
    assert {route: [each.name for each in missing] for route, missing in found.items()} == lacks


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2020-05-01T12:00:00.250+0230 I  NETWORK  [listener] x", datetime(2020, 5, 1, 9, 30, 0, 250_000, tzinfo=UTC)),
        ("2020-05-01T12:00:00.000-0130 I  NETWORK  [listener] x", datetime(2020, 5, 1, 13, 30, tzinfo=UTC)),
        ('{"t":{"$date":"2020-05-01T12:00:00.000+02:00"},"s":"I"}', datetime(2020, 5, 1, 10, tzinfo=UTC)),
        ('{"t":{"$date":"2020-05-01T12:00:00.000Z"},"s":"I"}', datetime(2020, 5, 1, 12, tzinfo=UTC)),
    ],
)
def test_a_line_of_the_log_is_of_its_moment(text: str, at: datetime) -> None:
    line = _line(text)
    assert line is not None
    assert (line.at, line.text) == (at, text)


@pytest.mark.parametrize("text", ["", "words", '{"t":{"$date":"2020-05-01T12', '{"s":"I"}', '{"t":{"$date":1}}'])
def test_a_line_that_tells_no_moment_is_none(text: str) -> None:
    assert _line(text) is None


@pytest.mark.parametrize(
    ("reply", "cause", "text"),
    [
        ({"ok": 1, "writeConcernError": {"code": 189, "errmsg": "x"}}, EngineUnavailable, "done on the primary.*: x"),
        ({"ok": 1, "n": 0, "writeErrors": [{"index": 0, "code": 13, "errmsg": "x"}]}, PrivilegeMissing, "refused: x"),
        ({"ok": 1, "n": 0, "writeErrors": [{"index": 0, "code": 112, "errmsg": "x"}]}, Conflict, "another change"),
    ],
)
async def test_a_write_that_is_not_wholly_done_is_not_told_as_done(
    reply: dict[str, Any], cause: type[Exception], text: str
) -> None:
    async def command(database: str, command: dict[str, Any]) -> dict[str, Any]:
        assert (database, command["drop"], command["writeConcern"]["w"]) == ("app", "t", "majority")
        return reply

    client: Any = Client.__new__(Client)
    client._command = command
    with deadline.within(5), pytest.raises(cause, match=text) as refused:
        await client.write("app", {"drop": "t"})
    # Of a lost connection the outcome is looked up, on the primary alone.
    assert not isinstance(refused.value, ConnectionLost)
    reply.clear()
    assert await client.write("app", {"drop": "t"}) == {}
