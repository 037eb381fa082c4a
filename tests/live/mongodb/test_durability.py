"""What was said to be done is still done when the server is killed the moment after."""

import pymongo
import pytest

from engines.address import parse_address
from engines.engine import perform
from engines.mongodb import ENGINE
from tests.live.accounts import account_on
from tests.live.servers import LiveServer, spawn

pytestmark = pytest.mark.newest_mongodb


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


def databases_of(private: LiveServer) -> list[str]:
    with pymongo.MongoClient[dict[str, object]](private.url()) as root:
        return root.list_database_names()
