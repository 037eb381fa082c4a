"""What a dump of InfluxDB writes and reads, without a server."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.errors import BackupDamaged
from engines.influxdb import ENGINE
from engines.influxdb.backup import catalogue, restore
from engines.influxdb.backup.catalogue import FIRST_TIME, LAST_TIME, Contents, Grant, Place, Policy, nanoseconds
from engines.influxdb.backup.connection import Series
from engines.influxdb.backup.files import BLOCK_BYTES, BLOCK_POINTS, PointsFile, Writer, blocks_in, from_json, to_json
from engines.influxdb.backup.journal import temporary_name
from engines.influxdb.backup.lines import points_of, value_of


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (5, "5i"),
        (-(2**63), "-9223372036854775808i"),
        (2**63, "9223372036854775808u"),
        (5.0, "5.0"),
        (0.1, "0.1"),
        (-0.0, "-0.0"),
        (1e300, "1e+300"),
        (5e-324, "5e-324"),
        (True, "true"),
        (False, "false"),
        ("", '""'),
        ('a "b" \\ , =\n', '"a \\"b\\" \\\\ , =\n"'),
    ],
)
def test_a_value_is_written_with_its_type(value: object, written: str) -> None:
    assert value_of(value) == written


def test_a_point_leaves_out_what_is_not_there_and_tells_what_is() -> None:
    series = Series(
        measurement="a b,c=d",
        tags={"k =,": "v =,", "none": "", "back\\": "a\\b"},
        fields=["f =,", "g", "h"],
        rows=[[5, 1, None, "x"], [-1, None, 2.5, None]],
    )
    assert [*points_of(series)] == [
        ('a\\ b\\,c=d,k\\ \\=\\,=v\\ \\=\\,,back\\=a\\b f\\ \\=\\,=1i,h="x" 5', [0, 2]),
        ("a\\ b\\,c=d,k\\ \\=\\,=v\\ \\=\\,,back\\=a\\b g=2.5 -1", [1]),
    ]


def written(path: Path, lines: list[str]) -> list[tuple[bytes, int]]:
    blocks: list[tuple[bytes, int]] = []
    writer = Writer()
    with path.open("wb") as file:
        points = PointsFile(file)
        for line in lines:
            if (block := writer.add(line)) is not None:
                blocks.append(block)
        if (block := writer.rest()) is not None:
            blocks.append(block)
        for each in blocks:
            points.write(*each)
        points.end()
    return blocks


def test_blocks_come_back_whatever_is_in_them(tmp_path: Path) -> None:
    lines = ['m s="# 3 bytes, 1 points\n# end: 0 points\n" 1', "m f=1 2", 'm s="\udcff" 3']
    blocks = written(tmp_path / "x", lines)
    assert [*blocks_in(tmp_path / "x")] == blocks
    assert b'"\xff"' in blocks[0][0]


def test_blocks_are_neither_too_long_nor_of_too_many_points(tmp_path: Path) -> None:
    assert [points for _, points in written(tmp_path / "x", ["m f=1 1"] * (BLOCK_POINTS + 1))] == [BLOCK_POINTS, 1]
    sizes = [len(block) for block, _ in written(tmp_path / "x", ["x" * 60_000] * 40)]
    assert max(sizes) < BLOCK_BYTES + 60_002
    assert len(sizes) == 3
    # The ends of the lines count.
    exactly = ["x" * (BLOCK_BYTES // 1024 - 1)] * 1024
    assert [points for _, points in written(tmp_path / "x", [*exactly, "x"])] == [1024, 1]


@pytest.mark.parametrize("cut", [1, 10, 17, 20, 30, 45])
def test_a_file_that_is_cut_is_found(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x"
    written(path, ["m f=1 1", "m f=1 2"])
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(BackupDamaged):
        _ = [*blocks_in(path)]


@pytest.mark.parametrize(
    "data", [b"", b"# end: 1 points\n", b"# end: 0 points\nmore", b"m f=1 1\n", b"# 5 bytes, 1 points\nm f=1 1\n"]
)
def test_a_file_that_is_none_is_found(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(BackupDamaged):
        _ = [*blocks_in(tmp_path / "x")]


def test_contents_come_back() -> None:
    policy = Policy(name='a "b"', duration=2**62, shard_duration=3_600_000_000_000, replication=1, default=True)
    contents = Contents(policies=[policy], grants=[Grant(user="ü", privilege="READ")], counts=[{"m": {"f": 5}}])
    assert to_json(from_json(to_json(contents))) == to_json(contents)
    for text in (b"", b"[]", b"{}", b'{"policies": [{}]}'):
        with pytest.raises(BackupDamaged):
            from_json(text)


def shards(*spans: tuple[str, str]) -> Any:
    rows = [{"retention_policy": "p", "start_time": start, "end_time": end} for start, end in spans]
    return SimpleNamespace(ask=lambda _: {"d": [*rows, {"retention_policy": "q", "start_time": "", "end_time": ""}]})


def test_time_is_divided_where_shards_meet_and_nothing_is_left_out_or_twice() -> None:
    days = [f"2024-01-0{day}T00:00:00Z" for day in range(1, 6)]
    at = [nanoseconds(day) for day in days]
    place = Place("d", "p")
    assert catalogue.intervals_of(shards(), place) == []
    assert catalogue.intervals_of(shards((days[0], days[1])), place) == [(FIRST_TIME, LAST_TIME)]
    found = catalogue.intervals_of(shards((days[0], days[2]), (days[1], days[3]), (days[3], days[4])), place)
    assert found == [
        (FIRST_TIME, at[1] - 1),
        (at[1], at[2] - 1),
        (at[2], at[3] - 1),
        (at[3], LAST_TIME),
    ]


def test_fewer_rows_are_read_at_a_time_where_they_hold_strings() -> None:
    def rows(*kinds: str) -> int:
        fields = [{"fieldKey": str(number), "fieldType": kind} for number, kind in enumerate(kinds)]
        connection: Any = SimpleNamespace(ask=lambda _: {"m": fields})
        return catalogue.measurements_of(connection, Place("d", "p"))["m"]

    assert rows("float") == rows(*["float"] * 20) == 2000
    assert rows(*["float"] * 40) == 1000
    assert rows("string") == 133
    assert rows("string", "integer") == 132
    assert rows(*["string"] * 100) == 10


def test_every_point_is_copied_however_many_blocks_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    points = BLOCK_POINTS * 2 + 1
    series = Series(measurement="m", tags={}, fields=["f"], rows=[[n, n] for n in range(points)])
    monkeypatch.setattr(restore, "measurements_of", lambda *_: {"m": 10})
    monkeypatch.setattr(restore, "intervals_of", lambda *_: [(0, 1)])
    monkeypatch.setattr(restore, "points_in", lambda *_: [series])
    blocks: list[bytes] = []
    connection: Any = SimpleNamespace(write_points=lambda _, block: blocks.append(block))
    restore._copy(connection, Place("from", "p"), Place("to", "p"))
    assert [block.count(b"\n") for block in blocks] == [BLOCK_POINTS, BLOCK_POINTS, 1]
    assert b"".join(blocks).splitlines() == [b"m f=%di %d" % (n, n) for n in range(points)]


def test_a_temporary_name_differs_by_database_and_is_never_too_long() -> None:
    assert temporary_name("app") == "app_dbvalet_restore"
    assert temporary_name("ü" * 100) == "ü" * 100 + "_dbvalet_restore"
    assert temporary_name("x" + "ü" * 100) != "x" + "ü" * 100 + "_dbvalet_restore"
    one, other = temporary_name("ü" * 120), temporary_name("ü" * 119 + "x")
    assert one != other
    assert len(one.encode()) < 100


def test_importing_the_engine_and_its_backups_does_not_import_the_driver() -> None:
    program = (
        "import sys; from engines.influxdb import ENGINE; from engines.address import parse_address;"
        "server = ENGINE.connect(parse_address('influxdb://u:p@h/app', 8086)); assert ENGINE.actions;"
        "assert ENGINE.backups_of(server); assert not {'influxdb', 'requests', 'msgpack'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert ENGINE.backups == "engines.influxdb.backup:InfluxBackups"
