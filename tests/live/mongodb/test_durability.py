"""What was said to be done is still done when the server is killed the moment after, or another becomes primary."""

from pathlib import Path

import pymongo
import pytest

from engines.address import parse_address
from engines.engine import perform
from engines.errors import EngineUnavailable
from engines.mongodb import ENGINE
from engines.mongodb.backup import MongoBackups
from tests.live.accounts import account_on
from tests.live.mongodb.backup_contents import contents
from tests.live.mongodb.conftest import connect, quiet
from tests.live.servers import LiveServer, spawn

pytestmark = pytest.mark.newest_mongodb


@pytest.mark.long
async def test_what_was_said_done_outlives_a_kill(mongodb: LiveServer) -> None:
    with spawn("mongodb", mongodb.version) as private:
        server = ENGINE.connect(parse_address(account_on(private), ENGINE.default_port))
        actions = ENGINE.actions
        for name in ("kept1", "kept2", "kept3"):
            create = actions["create-database"]
            await perform(server, create, create.validate({"database_name": name}))
            private.kill()
            private.start()
            assert name in databases_of(private)
        delete = actions["delete-database"]
        await perform(server, delete, delete.validate({"database_name": "kept1"}))
        private.kill()
        private.start()
        assert "kept1" not in databases_of(private)
        await server.close()


async def test_what_most_members_are_not_known_to_have_is_not_said_done(mongodb: LiveServer) -> None:
    with spawn("mongodb", mongodb.version, options=["--setParameter", "enableTestCommands=1"]) as private:
        server = ENGINE.connect(parse_address(account_on(private), ENGINE.default_port))
        for name, params, command in (
            ("create-database", {"database_name": "kept"}, "create"),
            ("reset-database", {"database_name": "kept"}, "drop"),
            ("delete-database", {"database_name": "kept"}, "dropDatabase"),
        ):
            with pymongo.MongoClient[dict[str, object]](private.url()) as root:
                if command == "drop":
                    root["kept"]["things"].insert_one({})
                answer_late(root, command)
            action = ENGINE.actions[name]
            with pytest.raises(EngineUnavailable, match=r"done on the primary.*waiting for replication timed out"):
                await perform(server, action, action.validate(params))
            assert ("kept" in databases_of(private)) is (name != "delete-database")
        await server.close()


@pytest.mark.parametrize("command", ["insert", "create", "createIndexes", "update", "renameCollection", "drop"])
async def test_a_restore_of_which_most_members_are_not_known_to_have_a_step_is_not_said_done(
    mongodb: LiveServer, tmp_path: Path, command: str
) -> None:
    with (
        spawn("mongodb", mongodb.version, options=["--setParameter", "enableTestCommands=1"]) as private,
        pymongo.MongoClient[dict[str, object]](private.url()) as root,
    ):
        root["app"]["plain"].insert_one({"_id": 1, "old": True})
        root["app"]["plain"].create_index("old")
        root["app"].create_collection("view", viewOn="plain", pipeline=[])
        server = connect(account_on(private, "app", parts=["backups"]))
        backups = MongoBackups(server)
        await backups.dump(tmp_path, quiet)
        wanted = contents(root, "app")
        root["app"]["plain"].insert_one({"_id": 2})
        root["app"]["view"].drop()
        answer_late(root, command)
        with pytest.raises(EngineUnavailable, match=r"done on the primary.*waiting for replication timed out"):
            await backups.restore(tmp_path, quiet)
        await backups.clean_up()
        await backups.restore(tmp_path, quiet)
        assert contents(root, "app") == wanted
        await server.close()


def answer_late(root: pymongo.MongoClient[dict[str, object]], command: str) -> None:
    """Let the server do what it is told next and then answer as if its replica set had not followed in time."""
    late = {"code": 64, "errmsg": "waiting for replication timed out"}
    root.admin.command(
        {
            "configureFailPoint": "failCommand",
            "mode": {"times": 1},
            "data": {"failCommands": [command], "writeConcernError": late},
        }
    )


def databases_of(private: LiveServer) -> list[str]:
    with pymongo.MongoClient[dict[str, object]](private.url()) as root:
        return root.list_database_names()
