"""A backup brings everything back as it was, and takes away what was made since."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pymongo.errors import DuplicateKeyError

from engines.backup import MANIFEST, measure
from engines.errors import BackupDamaged, Conflict
from engines.mongodb import ENGINE
from engines.mongodb.backup import MongoBackups
from engines.mongodb.backup.files import DATA, METADATA, stem_of
from engines.mongodb.grants import BACKUP_ACTIONS, BACKUP_FUNCTION_ACTIONS, BACKUP_ROLE
from tests.live.mongodb.backup_child import backups_of
from tests.live.mongodb.backup_contents import NOW, contents, fill, spoil
from tests.live.mongodb.conftest import USER, Root, connect, quiet, sizes_in
from tests.live.servers import LiveServer


async def test_everything_comes_back_and_what_was_made_since_is_gone(
    backups: MongoBackups, root: Root, fresh: str, other: str, tmp_path: Path
) -> None:
    fill(root, fresh)
    before = contents(root, fresh)
    manifest = await backups.dump(tmp_path, quiet)
    assert (manifest.engine, manifest.database) == ("mongodb", fresh)
    assert manifest == await backups.verify(tmp_path)
    assert {*manifest.files, MANIFEST} == {*sizes_in(tmp_path)}
    assert contents(root, fresh) == before
    spoil(root, fresh)
    assert contents(root, fresh) != before
    told: list[float] = []
    notes = await backups.restore(tmp_path, lambda percent, _: told.append(percent))
    assert contents(root, fresh) == before
    # It never goes back.
    assert (told, told[-1]) == (sorted(told), 100)
    assert any("new view" in note for note in notes)
    assert any("by their age" in note and "indexed" in note for note in notes)
    # The indexes are in use, not only listed.
    assert root[fresh]["indexed"].find_one({"$text": {"$search": "haus"}})
    with pytest.raises(DuplicateKeyError):
        root[fresh]["indexed"].insert_one({"u": 5})


async def test_a_database_that_is_gone_comes_back_and_an_empty_one_empties(
    backups: MongoBackups, root: Root, fresh: str, tmp_path: Path
) -> None:
    (empty := tmp_path / "empty").mkdir()
    (full := tmp_path / "full").mkdir()
    await backups.dump(empty, quiet)
    fill(root, fresh)
    before = contents(root, fresh)
    await backups.dump(full, quiet)
    root.drop_database(fresh)
    await backups.restore(full, quiet)
    assert contents(root, fresh) == before
    await backups.restore(empty, quiet)
    assert contents(root, fresh) == {}


async def test_a_restored_time_series_is_one(backups: MongoBackups, root: Root, fresh: str, tmp_path: Path) -> None:
    fill(root, fresh)
    await backups.dump(tmp_path, quiet)
    await backups.restore(tmp_path, quiet)
    kinds = {each["name"]: each["type"] for each in root[fresh].list_collections()}
    if root.server_info()["versionArray"][:2] < [5, 0]:
        assert "series" not in kinds
    else:
        assert (kinds["series"], kinds["system.buckets.series"]) == ("timeseries", "collection")
        assert root[fresh]["system.buckets.series"].count_documents({}) < root[fresh]["series"].count_documents({})


async def test_measurements_of_one_id_and_of_none_all_come_back(
    backups: MongoBackups, root: Root, fresh: str, tmp_path: Path
) -> None:
    if root.server_info()["versionArray"][:2] < [5, 0]:
        pytest.skip("there are time series since 5.0")
    root[fresh].create_collection("series", timeseries={"timeField": "t"}, expireAfterSeconds=864_000)
    measured = [{"_id": 1, "t": NOW, "n": number} for number in range(3)]
    # The bare command, as the driver would give each an _id.
    root[fresh].command("insert", "series", documents=[*measured, {"t": NOW, "n": 3}])
    before = contents(root, fresh)
    assert len(before["series"][3]) == 4
    await backups.dump(tmp_path, quiet)
    root[fresh]["series"].drop()
    await backups.restore(tmp_path, quiet)
    assert contents(root, fresh) == before


async def test_the_files_say_what_they_hold_and_odd_names_are_safe(
    backups: MongoBackups, root: Root, fresh: str, tmp_path: Path
) -> None:
    fill(root, fresh)
    await backups.dump(tmp_path, quiet)
    for name, (kind, _, _, documents) in contents(root, fresh).items():
        metadata = json.loads((tmp_path / f"{stem_of(name)}{METADATA}").read_text())
        assert metadata["collectionName"] == name
        if kind in ("collection", "functions"):
            data = (tmp_path / f"{stem_of(name)}{DATA}").read_bytes()
            assert sorted(documents) == sorted(split(data))


def split(data: bytes) -> list[bytes]:
    found: list[bytes] = []
    while data:
        size = int.from_bytes(data[:4], "little")
        found.append(data[:size])
        data = data[size:]
    return found


def cut_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()


def lie_in_the_manifest(path: Path) -> None:
    """Leave away the last document, and let size and checksum fit."""
    path.write_bytes(b"".join(split(path.read_bytes())[:-1]))
    manifest = json.loads((path.parent / MANIFEST).read_text())
    found = measure(path)
    manifest["files"][path.name] = {"size": found.size, "sha256": found.sha256}
    (path.parent / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("file", ["a.bson", "a.metadata.json", MANIFEST])
@pytest.mark.parametrize("damage", [cut_the_end, flip_a_byte, remove, lie_in_the_manifest])
async def test_a_damaged_backup_is_refused_and_nothing_is_changed(
    backups: MongoBackups, root: Root, fresh: str, tmp_path: Path, *, damage: Callable[[Path], None], file: str
) -> None:
    if damage is lie_in_the_manifest and file != "a.bson":
        file = "b.bson"
    for name in ("a", "b"):
        root[fresh][name].insert_many([{"_id": number, "x": "y" * 50} for number in range(20)])
    await backups.dump(tmp_path, quiet)
    root[fresh]["a"].drop()
    root[fresh]["c"].insert_one({"_id": 1})
    before = contents(root, fresh)
    if damage is flip_a_byte and file == MANIFEST:
        text = (tmp_path / MANIFEST).read_text()
        (tmp_path / MANIFEST).write_text(text.replace('"size": ', '"size": 1', 1))
    else:
        damage(tmp_path / file)
    for attempt in (backups.verify(tmp_path), backups.restore(tmp_path, quiet)):
        with pytest.raises(BackupDamaged):
            await attempt
    assert contents(root, fresh) == before


async def test_a_backup_of_another_engine_is_refused(backups: MongoBackups, tmp_path: Path) -> None:
    await backups.dump(tmp_path, quiet)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "engine": "influxdb"}))
    with pytest.raises(BackupDamaged, match="influxdb"):
        await backups.restore(tmp_path, quiet)


async def test_a_foreign_collection_of_the_journals_name_is_in_the_backup_and_stops_a_restore(
    backups: MongoBackups, root: Root, fresh: str, tmp_path: Path
) -> None:
    root[fresh]["dbvalet_restore"].insert_one({"_id": "somebody's"})
    root[fresh]["dbvalet_restore_1"].insert_one({"_id": "too"})
    before = contents(root, fresh)
    manifest = await backups.dump(tmp_path, quiet)
    assert {"dbvalet_restore.bson", "dbvalet_restore_1.bson"} <= {*manifest.files}
    await backups.clean_up()
    with pytest.raises(Conflict, match="Rename or drop it"):
        await backups.restore(tmp_path, quiet)
    assert contents(root, fresh) == before


async def test_collections_named_as_temporary_ones_are_restored_too(
    backups: MongoBackups, root: Root, fresh: str, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        root[fresh][f"dbvalet_restore_{number}"].insert_one({"_id": number})
    before = contents(root, fresh)
    await backups.dump(tmp_path, quiet)
    root[fresh]["dbvalet_restore_2"].drop()
    root[fresh]["dbvalet_restore_4"].insert_one({})
    await backups.restore(tmp_path, quiet)
    assert contents(root, fresh) == before


async def test_missing_names_each_privilege_that_is_lacking(backups: MongoBackups, root: Root, fresh: str) -> None:
    assert await backups.missing() == []
    needed = [*((each, "") for each in BACKUP_ACTIONS), *((each, "system.js") for each in BACKUP_FUNCTION_ACTIONS)]
    # What the role of the actions brings too is never lacking with that.
    root.admin.command("revokeRolesFromUser", USER, roles=["dbvalet"])
    for action, collection in needed:
        privileges = [
            {"resource": {"db": fresh, "collection": place}, "actions": [each]}
            for each, place in needed
            if (each, place) != (action, collection)
        ]
        root.admin.command("updateRole", BACKUP_ROLE, privileges=privileges)
        lacking = await backups.missing()
        assert len(lacking) == 1
        told = f"{action} on system.js" if collection else action
        assert lacking[0].startswith(f"Missing: {told}. Remedy: ")


async def test_the_readme_roles_are_enough(mongodb: LiveServer, root: Root, fresh: str) -> None:
    roles = [{"role": each, "db": fresh} for each in ("readWrite", "dbAdmin")]
    root[fresh].command("createUser", "both", pwd="p", roles=roles)
    server = connect(mongodb.url("both", "p", fresh, authSource=fresh))
    assert await backups_of(server).missing() == []
    await server.close()
    root[fresh].command("dropUser", "both")


async def test_a_collection_that_is_made_anew_meanwhile_lets_the_dump_begin_again(
    backups: MongoBackups, root: Root, fresh: str, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        root[fresh][name].insert_one({"_id": "old"})
    changed = False

    def change(_: float, words: str) -> None:
        nonlocal changed
        if not changed and words.startswith("documents of"):
            changed = True
            for name in ("a", "b"):
                root[fresh][name].drop()
                root[fresh][name].insert_one({"_id": "new"})

    await backups.dump(tmp_path, change)
    root.drop_database(fresh)
    await backups.restore(tmp_path, quiet)
    assert [[*root[fresh][name].find()] for name in ("a", "b")] == [[{"_id": "new"}]] * 2


async def test_a_document_that_is_made_anew_meanwhile_is_there_once(
    backups: MongoBackups, root: Root, fresh: str, tmp_path: Path
) -> None:
    root[fresh]["a"].insert_many([{"_id": number, "x": "old" * 1000} for number in range(2000)])
    changed = False

    def change(_: float, words: str) -> None:
        nonlocal changed
        if not changed and words == "documents of a":
            changed = True
            root[fresh]["a"].delete_one({"_id": 0})
            root[fresh]["a"].insert_one({"_id": 0, "x": "new"})

    await backups.dump(tmp_path, change)
    assert (await backups.verify(tmp_path)).files["a.bson"].size > 0
    await backups.restore(tmp_path, quiet)
    assert root[fresh]["a"].count_documents({}) == 2000
    assert root[fresh]["a"].find_one({"_id": 0}) == {"_id": 0, "x": "new"}


def test_the_engine_offers_them() -> None:
    assert ENGINE.backups == "engines.mongodb.backup:MongoBackups"
