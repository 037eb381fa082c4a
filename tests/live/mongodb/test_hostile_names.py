"""No name, however it is written, touches anything but the logical database of exactly that name."""

import pytest

from engines.errors import AlreadyExists, InvalidParams, LogicalDatabaseNotFound, Protected
from engines.mongodb.server import MongoServer
from tests.live.hostile_names import hostile_names
from tests.live.mongodb.conftest import Root, act, catalogue, names_in

pytestmark = pytest.mark.newest_mongodb

KNOWN = ("admin", "local", "config", "app", "victim_one", "Victim-Two")
MONGODBS_OWN = {"local", "config"}
BATCH = 200


@pytest.fixture
def victims(root: Root) -> None:
    for name in ("victim_one", "Victim-Two", "app"):
        root.drop_database(name)
        root[name]["kept"].insert_one({"_id": 1})
        root[name]["kept"].create_index("x")
        root[name]["system.js"].insert_one({"_id": "f", "value": "x"})


@pytest.mark.usefixtures("victims")
async def test_create_makes_that_name_or_nothing(server: MongoServer, root: Root) -> None:
    names = hostile_names(KNOWN, 1_000, longest=63)
    before = catalogue(root)
    created = 0
    for number, name in enumerate(names):
        try:
            await act(server, "create-database", name)
        except (AlreadyExists, InvalidParams, Protected):
            continue
        finally:
            if number % BATCH == 0:
                assert names_in(root) - MONGODBS_OWN <= {*before, name}
        created += 1
        assert names_in(root) - MONGODBS_OWN == {*before, name}
        root.drop_database(name)
    assert catalogue(root) == before
    assert created > 5


@pytest.mark.usefixtures("victims")
@pytest.mark.parametrize("action", ["delete-database", "reset-database"])
async def test_delete_and_reset_touch_nothing_of_another_name(server: MongoServer, root: Root, action: str) -> None:
    names = hostile_names(KNOWN, 1_000, longest=63)
    before = catalogue(root)
    for number, name in enumerate(names):
        with pytest.raises((LogicalDatabaseNotFound, InvalidParams)):
            await act(server, action, name)
        if number % BATCH == 0:
            assert catalogue(root) == before, name
    assert catalogue(root) == before


@pytest.mark.usefixtures("victims")
async def test_hostile_names_that_are_there_are_deleted_and_reset_alone(server: MongoServer, root: Root) -> None:
    # What MongoDB itself takes on Linux: all but these, up to 63 bytes, no two that differ only in case.
    refused = set('/\\. "$\0')
    names = {
        name.lower(): name
        for name in hostile_names(KNOWN, 1_000, longest=63)
        if 0 < len(name.encode()) < 64 and not refused & set(name) and name.lower() not in map(str.lower, KNOWN)
    }
    before = catalogue(root)
    there = [*names.values()][:150]
    assert len(there) == 150
    for name in there:
        root[name]["x"].insert_one({})
        await act(server, "reset-database", name)
        assert root[name].list_collection_names() == ["dbvalet_placeholder"]
        assert names_in(root) - MONGODBS_OWN == {*before, name}
        await act(server, "delete-database", name)
        assert names_in(root) - MONGODBS_OWN == {*before}
    assert catalogue(root) == before
