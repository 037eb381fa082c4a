"""A backup brings everything back as it was, and takes away what was made since."""

import json
from collections.abc import Callable
from pathlib import Path

import influxdb as bare
import pytest

from engines.backup import MANIFEST, measure
from engines.errors import BackupDamaged, BackupFailed, Conflict
from engines.influxdb.backup import InfluxBackups
from engines.influxdb.influxql import identifier
from tests.live.influxdb.backup_contents import DAY, NOW, contents, fill, query, spoil, subscriptions, write
from tests.live.influxdb.conftest import connect, create_user, drop_user, quiet, sizes_in
from tests.live.servers import LiveServer


async def test_everything_comes_back_and_what_was_made_since_is_gone(
    backups: InfluxBackups, influxdb: LiveServer, root: bare.InfluxDBClient, database: str, tmp_path: Path
) -> None:
    fill(influxdb, root, database)
    before = contents(influxdb, root, database)
    # What the comparison stands on: all types, names, times and nothing else.
    assert len(before["points of autogen"]) > 6300
    for known in (
        ("types", [], NOW, "float", "float", 5.0),
        ("types", [], NOW, "integer", "int", 5),
        ("odd name,x=y", [("tag key,=", '" ,= end')], NOW, 'field ,="', "float", 1.0),
        ("mixed", [("t", "x")], NOW, "value", "int", 1),
        ("mixed", [("t", "y")], NOW + 90 * DAY, "value", "bool", True),
        ("ends", [], -9223372036854775806, "f", "float", 1.0),
        ("lines", [("t", "a\\\nb")], NOW, "f", "float", 1.0),
    ):
        assert repr(known) in before["points of autogen"]
    manifest = await backups.dump(tmp_path, quiet)
    assert (manifest.engine, manifest.database) == ("influxdb", database)
    assert manifest == await backups.verify(tmp_path)
    assert {*manifest.files, MANIFEST} == {*sizes_in(tmp_path)}
    assert contents(influxdb, root, database) == before
    spoil(influxdb, root, database)
    assert contents(influxdb, root, database) != before
    subscribed = subscriptions(root)
    assert subscribed
    notes = await backups.restore(tmp_path, quiet)
    assert contents(influxdb, root, database) == before
    assert subscriptions(root) == subscribed
    assert any("30 'days'" in note for note in notes)


async def test_a_database_that_is_gone_comes_back_with_its_grants(
    backups: InfluxBackups, influxdb: LiveServer, root: bare.InfluxDBClient, database: str, tmp_path: Path
) -> None:
    fill(influxdb, root, database)
    for user, privilege in (('r"eader', "READ"), ("writer", "WRITE"), ("both", "ALL"), ("gone", "ALL")):
        create_user(root, user, privilege, database)
    before = contents(influxdb, root, database)
    await backups.dump(tmp_path, quiet)
    query(root, f"DROP DATABASE {identifier(database)}")
    drop_user(root, "gone")
    await backups.restore(tmp_path, quiet)
    assert contents(influxdb, root, database) == before
    for user, privilege in (('r"eader', "READ"), ("writer", "WRITE"), ("both", "ALL PRIVILEGES")):
        assert query(root, f"SHOW GRANTS FOR {identifier(user)}") == [{"database": database, "privilege": privilege}]
    # A grant that was taken away since does not come back while the logical database is there.
    query(root, f"REVOKE ALL ON {identifier(database)} FROM writer")
    await backups.restore(tmp_path, quiet)
    assert [row["privilege"] for row in query(root, "SHOW GRANTS FOR writer")] in ([], ["NO PRIVILEGES"])
    for user in ('r"eader', "writer", "both"):
        drop_user(root, user)


async def test_an_empty_one_empties(
    backups: InfluxBackups, influxdb: LiveServer, root: bare.InfluxDBClient, database: str, tmp_path: Path
) -> None:
    before = contents(influxdb, root, database)
    await backups.dump(tmp_path, quiet)
    fill(influxdb, root, database)
    await backups.restore(tmp_path, quiet)
    assert contents(influxdb, root, database) == before


async def test_a_backup_of_another_database_comes_without_its_continuous_queries(
    backups: InfluxBackups,
    influxdb: LiveServer,
    root: bare.InfluxDBClient,
    *,
    account: Callable[[str], str],
    database: str,
    tmp_path: Path,
) -> None:
    fill(influxdb, root, database)
    before = contents(influxdb, root, database)
    await backups.dump(tmp_path, quiet)
    server = connect(account("elsewhere"))
    notes = await InfluxBackups(server).restore(tmp_path, quiet)
    assert contents(influxdb, root, "elsewhere") == {**before, "continuous queries": []}
    assert any("left out" in note for note in notes)
    assert contents(influxdb, root, database) == before
    await server.close()
    query(root, "DROP DATABASE elsewhere")


async def test_a_continuous_query_that_is_refused_is_told_and_keeps_nothing_else_back(
    backups: InfluxBackups, root: bare.InfluxDBClient, influxdb: LiveServer, database: str, tmp_path: Path
) -> None:
    write(influxdb, database, "autogen", [f"m f=1 {NOW}"])
    query(
        root,
        f"CREATE CONTINUOUS QUERY n ON {identifier(database)} "
        "BEGIN SELECT count(f) INTO d FROM m GROUP BY time(1h) END",
    )
    await backups.dump(tmp_path, quiet)
    replace_in(tmp_path / "contents.json", "GROUP BY time(1h)", "GROUP NOTHING")
    told = [note for note in await backups.restore(tmp_path, quiet) if "did not come back" in note]
    assert len(told) == 1
    assert "GROUP NOTHING" in told[0]
    assert query(root, "SELECT * FROM m", database=database)


def replace_in(path: Path, old: str, new: str) -> None:
    """Change a file, and let the manifest fit."""
    data = path.read_text()
    assert old in data
    path.write_text(data.replace(old, new, 1))
    manifest = json.loads((path.parent / MANIFEST).read_text())
    found = measure(path)
    manifest["files"][path.name] = {"size": found.size, "sha256": found.sha256}
    (path.parent / MANIFEST).write_text(json.dumps(manifest))


def cut_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()


def lose_a_point(path: Path) -> None:
    """Let the file end before its last block, with a manifest that fits."""
    replace_in(path, "points\n", "points too many\n")


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        *((damage, file) for damage in (cut_the_end, flip_a_byte, remove) for file in ("policy-0.lp", "contents.json")),
        (cut_the_end, MANIFEST),
        (remove, MANIFEST),
        (lose_a_point, "policy-0.lp"),
    ],
)
async def test_a_damaged_backup_is_refused_and_nothing_is_changed(
    backups: InfluxBackups,
    *,
    influxdb: LiveServer,
    root: bare.InfluxDBClient,
    database: str,
    tmp_path: Path,
    damage: Callable[[Path], None],
    file: str,
) -> None:
    write(influxdb, database, "autogen", [f"m f={number} {number}" for number in range(50)])
    await backups.dump(tmp_path, quiet)
    write(influxdb, database, "autogen", ["new f=1 1"])
    before = contents(influxdb, root, database)
    damage(tmp_path / file)
    for attempt in (backups.verify(tmp_path), backups.restore(tmp_path, quiet)):
        with pytest.raises(BackupDamaged):
            await attempt
    assert contents(influxdb, root, database) == before


async def test_points_that_the_server_does_not_take_fail_the_restore_and_the_old_ones_stay(
    backups: InfluxBackups, influxdb: LiveServer, root: bare.InfluxDBClient, database: str, tmp_path: Path
) -> None:
    write(influxdb, database, "autogen", ["m f=1 1", "m f=2 2"])
    await backups.dump(tmp_path, quiet)
    write(influxdb, database, "autogen", ["new f=1 1"])
    before = contents(influxdb, root, database)
    replace_in(tmp_path / "policy-0.lp", "f=2.0", 'f="2"')
    with pytest.raises(BackupFailed, match="field type conflict"):
        await backups.restore(tmp_path, quiet)
    assert contents(influxdb, root, database) == before
    replace_in(tmp_path / "policy-0.lp", 'f="2"', "g=2.0")
    with pytest.raises(BackupFailed, match="Of 2 values of the field f of m, 1 are there"):
        await backups.restore(tmp_path, quiet)
    assert contents(influxdb, root, database) == before
    assert not [row for row in query(root, "SHOW DATABASES") if "dbvalet_restore" in row["name"]]


async def test_a_foreign_database_of_the_restores_name_stops_it_and_stays(
    backups: InfluxBackups, influxdb: LiveServer, root: bare.InfluxDBClient, database: str, tmp_path: Path
) -> None:
    foreign = f"{database}_dbvalet_restore"
    query(root, f"CREATE DATABASE {identifier(foreign)}")
    write(influxdb, foreign, "autogen", ["m f=1 1"])
    await backups.dump(tmp_path, quiet)
    await backups.clean_up()
    with pytest.raises(Conflict, match="is in the way"):
        await backups.restore(tmp_path, quiet)
    assert query(root, "SELECT * FROM m", database=foreign)
    query(root, f"DROP DATABASE {identifier(foreign)}")


async def test_missing_names_the_privilege(
    influxdb: LiveServer, root: bare.InfluxDBClient, backups: InfluxBackups, database: str
) -> None:
    assert await backups.missing() == []
    create_user(root, "plain", "ALL", database)
    server = connect(influxdb.url("plain", "p", database))
    lacking = await InfluxBackups(server).missing()
    assert len(lacking) == 1
    assert "GRANT ALL PRIVILEGES TO" in lacking[0]
    await server.close()
    drop_user(root, "plain")


async def test_a_database_that_is_not_there_is_no_empty_backup(account: Callable[[str], str], tmp_path: Path) -> None:
    server = connect(account("nowhere"))
    with pytest.raises(BackupFailed, match="does not exist"):
        await InfluxBackups(server).dump(tmp_path, quiet)
    assert sizes_in(tmp_path) == {}
    await server.close()
