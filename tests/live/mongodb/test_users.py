"""Users of a logical database of MongoDB: a reader is refused every kind of write by the server itself."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pymongo
import pytest
from pymongo.errors import OperationFailure

from engines import deadline
from engines.address import parse_address
from engines.engine import GrantsFor
from engines.errors import AlreadyExists, PrivilegeMissing, Protected, UserNotFound
from engines.mongodb import ENGINE
from engines.mongodb.grants import commands, user_commands
from engines.users import Users, change_password, create_user, delete_user, made_password
from tests.live.mongodb.conftest import Root
from tests.live.servers import LiveServer
from tests.live.test_users import hostile

DATABASE, VALET, PASSWORD = "of_users", "valet_of_users", "pass-of-the-valet-0123"
REFUSED = {13, 8000}

Database = Any

WRITES: dict[str, Callable[[Database], object]] = {
    "insert": lambda db: db.things.insert_one({"n": 2}),
    "insert many": lambda db: db.things.insert_many([{"n": 2}, {"n": 3}]),
    "update": lambda db: db.things.update_one({}, {"$set": {"n": 3}}),
    "upsert": lambda db: db.things.update_one({"n": 9}, {"$set": {"n": 9}}, upsert=True),
    "replace": lambda db: db.things.replace_one({}, {"n": 3}),
    "delete": lambda db: db.things.delete_many({}),
    "find and modify": lambda db: db.things.find_one_and_update({}, {"$set": {"n": 3}}),
    "find and delete": lambda db: db.things.find_one_and_delete({}),
    "bulk": lambda db: db.things.bulk_write([pymongo.InsertOne({"n": 4})]),
    "$out": lambda db: list(db.things.aggregate([{"$out": "mine"}])),
    "$merge": lambda db: list(db.things.aggregate([{"$merge": "mine"}])),
    "create": lambda db: db.create_collection("mine"),
    "create a view": lambda db: db.command({"create": "mine", "viewOn": "things", "pipeline": []}),
    "create an index": lambda db: db.things.create_index("n"),
    "drop an index": lambda db: db.things.drop_indexes(),
    "change options": lambda db: db.command({"collMod": "things", "validationLevel": "off"}),
    "rename": lambda db: db.things.rename("mine"),
    "drop a collection": lambda db: db.drop_collection("things"),
    "drop the database": lambda db: db.client.drop_database(db.name),
    "make a user": lambda db: db.command({"createUser": "mine", "pwd": "x", "roles": []}),
    "make a role": lambda db: db.command({"createRole": "mine", "privileges": [], "roles": []}),
    "give itself a role": lambda db: db.command({"grantRolesToUser": "reader", "roles": ["readWrite"]}),
    "its own password": lambda db: db.command({"updateUser": "reader", "pwd": "x"}),
    "keep a function": lambda db: db["system.js"].insert_one({"_id": "f", "value": "x"}),
    "profile": lambda db: db.command({"profile": 2}),
    "another database": lambda db: db.client["another"].things.insert_one({}),
    "read of another": lambda db: db.client["another"].things.find_one(),
}


@pytest.fixture
async def users(root: Root, mongodb: LiveServer) -> AsyncIterator[Users]:
    root[DATABASE]["things"].insert_one({"n": 1})
    root["another"]["things"].insert_one({"n": 1})
    wanted = GrantsFor(user=VALET, database=DATABASE, password=PASSWORD)
    for command in commands(wanted):
        try:
            root.admin.command(command)
        except OperationFailure as there:
            assert there.code == 51002, there  # the role, of another test
    server = ENGINE.connect(parse_address(mongodb.url(VALET, PASSWORD, DATABASE), ENGINE.default_port))
    found = server.engine.users_of(server)
    assert found is not None
    with deadline.within(60):
        yield found
    await server.close()
    root.admin.command({"dropUser": VALET})
    root[DATABASE].command({"dropAllUsersFromDatabase": 1})
    for name in (DATABASE, "another"):
        root.drop_database(name)
    if root.admin.command({"rolesInfo": "dbvalet_users"})["roles"]:
        root.admin.command({"dropRole": "dbvalet_users"})


def login(live: LiveServer, user: str, password: str) -> Database:
    url = live.url(user, password, DATABASE).partition("?")[0]
    return pymongo.MongoClient[dict[str, Any]](f"{url}?authSource={DATABASE}")[DATABASE]


def allow(root: Root) -> None:
    for command in user_commands(GrantsFor(user=VALET, database=DATABASE)):
        root.admin.command(command)


async def test_an_account_that_may_not_is_told_what_it_lacks(users: Users) -> None:
    with pytest.raises(PrivilegeMissing, match="dbvalet_users"):
        await users.all()


async def test_a_reader_reads_and_is_refused_every_write(users: Users, root: Root, mongodb: LiveServer) -> None:
    allow(root)
    first, second = made_password(), made_password()
    made = await create_user(users, "reader", first, read_only=True)
    assert (made.name, made.read_only, made.protected) == ("reader", True, False)
    database = login(mongodb, "reader", first)
    assert database.things.find_one()["n"] == 1
    for what, write in WRITES.items():
        with pytest.raises(OperationFailure) as refused:
            write(database)
            pytest.fail(what)
        assert refused.value.code in REFUSED, (what, refused.value)
    root[DATABASE]["later"].insert_one({"n": 7})
    assert database.later.find_one()["n"] == 7
    with pytest.raises(OperationFailure):
        database.later.insert_one({})
    await change_password(users, "reader", second)
    with pytest.raises(OperationFailure):
        login(mongodb, "reader", first).things.find_one()
    again = login(mongodb, "reader", second)
    assert again.things.find_one()
    await delete_user(users, "reader")
    with pytest.raises(OperationFailure):
        again.things.find_one()
    with pytest.raises(UserNotFound):
        await delete_user(users, "reader")


async def test_a_writer_writes_here_and_nowhere_else(users: Users, root: Root, mongodb: LiveServer) -> None:
    allow(root)
    password = made_password()
    made = await create_user(users, "writer", password, read_only=False)
    assert (made.read_only, made.protected) == (False, False)
    database = login(mongodb, "writer", password)
    database.mine.insert_one({"n": 1})
    with pytest.raises(OperationFailure):
        database.client["another"].things.insert_one({})
    with pytest.raises(AlreadyExists):
        await create_user(users, "WRITER", password, read_only=True)
    await delete_user(users, "writer")
    assert root[DATABASE]["mine"].find_one()


async def test_who_is_made_or_taken_away_by_somebody_else_meanwhile_is_told_so(users: Users, root: Root) -> None:
    allow(root)
    await users.create("writer", made_password(), read_only=False)
    with pytest.raises(AlreadyExists):
        await users.create("writer", made_password(), read_only=False)
    await users.delete("writer")
    with pytest.raises(UserNotFound):
        await users.delete("writer")


async def test_users_with_more_rights_are_left_alone(users: Users, root: Root) -> None:
    allow(root)
    roles = {"admin_of_it": ["dbOwner"], "of_two": ["read", {"role": "read", "db": "another"}], "of_none": []}
    for name, held in roles.items():
        root[DATABASE].command({"createUser": name, "pwd": PASSWORD, "roles": held})
    listed = {each.name: each for each in await users.all()}
    for name in roles:
        assert listed[name].protected, name
        with pytest.raises(Protected):
            await change_password(users, name, made_password())
        with pytest.raises(Protected):
            await delete_user(users, name)
    await hostile(users, list(roles))


async def test_who_may_more_by_a_role_that_inherits_is_left_alone(
    users: Users, root: Root, mongodb: LiveServer
) -> None:
    allow(root)
    # A role of the deployment's database inherits from others of it alone, one of admin from any.
    inherits: dict[tuple[str, str], list[object]] = {
        ("inner", "admin"): [{"role": "root", "db": "admin"}],
        ("outer", "admin"): [{"role": "inner", "db": "admin"}],
        ("reads", DATABASE): [{"role": "read", "db": DATABASE}],
        ("owns", DATABASE): [{"role": "dbOwner", "db": DATABASE}],
    }
    for (role, database), inherited in inherits.items():
        root[database].command({"createRole": role, "privileges": [], "roles": inherited})
    try:
        for role, database in inherits:
            name = f"who_{role}"
            root[DATABASE].command({"createUser": name, "pwd": PASSWORD, "roles": [{"role": role, "db": database}]})
        # The name of a role that is built in cannot be given to one that may more.
        with pytest.raises(OperationFailure):
            root[DATABASE].command({"createRole": "read", "privileges": [], "roles": ["dbOwner"]})
        assert login(mongodb, "who_outer", PASSWORD).client["another"].things.find_one()
        listed = {each.name: each for each in await users.all()}
        for role, _ in inherits:
            assert listed[f"who_{role}"].protected, role
            assert not listed[f"who_{role}"].read_only, role
            with pytest.raises(Protected):
                await change_password(users, f"who_{role}", made_password())
            with pytest.raises(Protected):
                await delete_user(users, f"who_{role}")
            assert login(mongodb, f"who_{role}", PASSWORD).command("connectionStatus")
    finally:
        root[DATABASE].command({"dropAllRolesFromDatabase": 1})
        for role in ("outer", "inner"):
            root.admin.command({"dropRole": role})
