"""What is read from the answers of InfluxDB, without a server."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.address import parse_address
from engines.errors import BackupDamaged, EngineUnavailable
from engines.influxdb.backup import files
from engines.influxdb.backup.catalogue import Place, count
from engines.influxdb.backup.connection import Connection, Series
from engines.influxdb.retention import servers_name
from engines.influxdb.users import InfluxUsers


@pytest.mark.parametrize(
    ("held", "read_only", "protected"),
    [
        ([("app", "READ")], True, False),
        ([("app", "WRITE")], False, False),
        ([("app", "ALL PRIVILEGES")], False, False),
        ([("app", "READ"), ("other", "READ")], True, True),
        ([("app", "READ"), ("other", "WRITE")], False, True),
        ([("app", "READ"), ("a", "READ")], True, True),
        ([("app", "READ"), ("other", "NO PRIVILEGES")], True, False),
        ([("app", "NO PRIVILEGES")], True, True),
        ([], True, True),
    ],
)
async def test_who_may_only_read_and_who_is_protected_is_told_from_the_grants(
    held: list[tuple[str, str]], read_only: bool, protected: bool
) -> None:
    async def read(statement: str) -> dict[str, Any]:
        assert statement == 'SHOW GRANTS FOR "ann"'
        return {"": [{"database": database, "privilege": privilege} for database, privilege in held]}

    server: Any = SimpleNamespace(read=read, address=SimpleNamespace(database="app", user="valet"))
    found = await InfluxUsers(server)._shown("ann", is_admin=False)
    assert (found.name, found.read_only, found.protected) == ("ann", read_only, protected)
    assert (await InfluxUsers(server)._shown("ann", is_admin=True)).read_only is False


@pytest.mark.parametrize("name", [".", "..", "a/b", "a\\b", "/", "a\nb"])
def test_a_name_that_the_server_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be printable"):
        servers_name(name)


@pytest.mark.parametrize("name", ["...", "a.b", "x" * 255, "ü ☃"])
def test_a_name_that_the_server_takes_is_taken(name: str) -> None:
    assert servers_name(name) == name


def test_values_are_counted_over_all_pieces_and_none_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.influxdb.backup.catalogue.intervals_of", lambda *_: [(0, 1), (2, 3)])
    pieces = iter([[[0, 5, None]], [[2, 7, 3]]])

    def stream(statement: str, chunk: int) -> Any:
        return [Series(measurement="m", tags={}, fields=["count_a", "count_b"], rows=next(pieces))]

    connection: Any = SimpleNamespace(stream=stream)
    assert count(connection, Place("d", "p"), "m") == {"a": 12, "b": 3}


@pytest.mark.parametrize("engine", ["mysql", "a", "influxdb2"])
async def test_a_backup_of_another_engine_is_told_as_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: str
) -> None:
    async def read_manifest(folder: Path) -> Any:
        return SimpleNamespace(engine=engine, files={})

    monkeypatch.setattr(files, "read_manifest", read_manifest)
    with pytest.raises(BackupDamaged, match=f"This is a backup of {engine}, not of InfluxDB"):
        await files.read_backup(tmp_path)


@pytest.mark.parametrize("answer", [b"<html>502 Bad Gateway</html>", b'{"error":"no"}', b"\xc1", b"\x81\xa1\xff"])
def test_an_answer_that_is_none_of_influxdbs_is_no_bug(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(parse_address("influxdb://u:p@db.example/app", 8086), threading.Event(), lambda *_: None)

    class Answer:
        status_code = 502

        def __enter__(self) -> "Answer":
            return self

        def __exit__(self, *_: object) -> None:
            return

        def iter_content(self, _size: int) -> Iterator[bytes]:
            yield answer

    monkeypatch.setattr(connection._session, "request", lambda *_, **__: Answer())
    with pytest.raises(EngineUnavailable):
        list(connection.stream("SELECT 1", 10))
