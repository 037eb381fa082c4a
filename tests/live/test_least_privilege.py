"""The account of `dbvalet grants` is no administrator's, and `doctor` says which action misses which privilege."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import influxdb as influxdb_driver
import psycopg
import pymongo
import pymysql
import pytest
from influxdb.exceptions import InfluxDBClientError

from engines.engine import installed_engines
from engines.mongodb.grants import PRIVILEGES
from tests.live.accounts import PASSWORD, account_on, run_as_admin
from tests.live.servers import LiveServer
from tests.unit.running import configuration, run

ACCOUNT = "least"

ATTRIBUTES = (
    "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = %s"
)

ROLES = """
WITH RECURSIVE held AS (
    SELECT oid FROM pg_roles WHERE rolname = %s
    UNION SELECT roleid FROM pg_auth_members JOIN held ON member = held.oid
)
SELECT rolname FROM pg_roles JOIN held USING (oid)
"""


def test_it_is_no_superuser_and_owns_nothing_on_postgresql(postgresql: LiveServer) -> None:
    account_on(postgresql, user=ACCOUNT)
    with psycopg.connect(postgresql.url()) as admin:
        assert admin.execute(ATTRIBUTES, [ACCOUNT]).fetchall() == [(False,) * 5]
        roles = {name for (name,) in admin.execute(ROLES, [ACCOUNT]).fetchall()}
        assert roles == {ACCOUNT, "pg_read_all_stats", "pg_signal_backend"}
        owned = "SELECT FROM pg_shdepend WHERE refobjid = %s::regrole AND deptype = 'o'"
        assert admin.execute(owned, [ACCOUNT]).fetchall() == []


def test_it_has_no_grant_option_and_not_all_privileges_on_mysql(mysql: LiveServer) -> None:
    account_on(mysql, user=ACCOUNT)
    held = {"SHOW DATABASES", "CREATE", "DROP", "ALTER ROUTINE", "EVENT"}
    if mysql.flavour == "mariadb":
        # SET GLOBAL sql_mode has no smaller privilege there.
        held |= {"SUPER"}
    else:
        held |= {"SYSTEM_VARIABLES_ADMIN", "SYSTEM_USER"} if mysql.version_tuple >= (8, 0, 16) else {"SUPER"}
    with (
        pymysql.connect(host=mysql.host, port=mysql.port, user=mysql.admin, password=mysql.password) as admin,
        admin.cursor() as cursor,
    ):
        cursor.execute(
            "SELECT privilege_type, is_grantable FROM information_schema.user_privileges WHERE grantee = %s",
            (f"'{ACCOUNT}'@'%'",),
        )
        assert set(cursor.fetchall()) == {(privilege, "NO") for privilege in held}
        for table in ("schema_privileges", "table_privileges", "column_privileges"):
            cursor.execute(f"SELECT * FROM information_schema.{table} WHERE grantee = %s", (f"'{ACCOUNT}'@'%'",))
            assert cursor.fetchall() == ()


def test_it_has_one_role_of_single_privileges_on_mongodb(mongodb: LiveServer) -> None:
    account_on(mongodb, user=ACCOUNT)
    with pymongo.MongoClient[dict[str, Any]](mongodb.url()) as admin:
        (user,) = admin.admin.command("usersInfo", ACCOUNT, showPrivileges=True)["users"]
    assert {role["role"] for role in user["inheritedRoles"]} == {"dbvalet"}
    assert told(user["inheritedPrivileges"]) == told(PRIVILEGES)
    assert not any("anyResource" in privilege["resource"] for privilege in user["inheritedPrivileges"])


def told(privileges: Iterable[dict[str, Any]]) -> set[tuple[str, tuple[str, ...]]]:
    return {(json.dumps(each["resource"], sort_keys=True), tuple(sorted(each["actions"]))) for each in privileges}


def test_it_is_an_administrator_on_influxdb_because_nobody_else_may_make_a_policy(influxdb: LiveServer) -> None:
    account_on(influxdb, user=ACCOUNT)
    client = influxdb_driver.InfluxDBClient(influxdb.host, influxdb.port, influxdb.admin, influxdb.password)
    assert {"user": ACCOUNT, "admin": True} in list(client.query("SHOW USERS").get_points())
    client.query(f"REVOKE ALL PRIVILEGES FROM {ACCOUNT}", method="POST")
    client.close()
    plain = influxdb_driver.InfluxDBClient(influxdb.host, influxdb.port, ACCOUNT, PASSWORD, "app")
    with pytest.raises(InfluxDBClientError, match="requires admin privilege"):
        plain.query("CREATE RETENTION POLICY refused ON app DURATION 1h REPLICATION 1", method="POST")
    plain.close()


Revoke = Callable[[LiveServer, str], None]
"""Takes a privilege from the account of a name; on PostgreSQL, its database has the same name."""


def by_statement(statement: str) -> Revoke:
    def revoke(live: LiveServer, name: str) -> None:
        run_as_admin(live, statement.format(name), name if live.engine == "postgresql" else "app")

    return revoke


def without_action(action: str) -> Revoke:
    def revoke(live: LiveServer, name: str) -> None:
        kept = [{**each, "actions": [one for one in each["actions"] if one != action]} for each in PRIVILEGES]
        with pymongo.MongoClient[dict[str, Any]](live.url()) as admin:
            privileges = [each for each in kept if each["actions"]]
            admin.admin.command("createRole", name, privileges=privileges, roles=[])
            admin.admin.command("updateUser", name, roles=[{"role": name, "db": "admin"}])

    return revoke


# What is taken away, and which of the requirements of the actions are then missing.
REVOKED: dict[str, list[tuple[Revoke, set[str]]]] = {
    "postgresql": [
        (by_statement("REVOKE pg_signal_backend FROM {}"), {"pg_signal_backend"}),
        (by_statement("REVOKE pg_read_all_stats FROM {}"), {"pg_read_all_stats"}),
        (
            by_statement("REVOKE EXECUTE ON FUNCTION public.pg_stat_statements FROM PUBLIC, {}"),
            {"read pg_stat_statements"},
        ),
        (
            by_statement("REVOKE EXECUTE ON FUNCTION public.pg_stat_statements_reset FROM {}"),
            {"execute pg_stat_statements_reset"},
        ),
        (
            by_statement("DROP EXTENSION pg_stat_statements"),
            {"create pg_stat_statements", "pg_stat_statements created"},
        ),
    ],
    "mysql": [
        *(
            (by_statement(f"REVOKE {each} ON *.* FROM {{}}"), {each})
            for each in ("CREATE", "DROP", "ALTER ROUTINE", "EVENT")
        ),
        (by_statement("REVOKE SYSTEM_USER ON *.* FROM {}"), {"SYSTEM_USER"}),
        (by_statement("REVOKE SYSTEM_VARIABLES_ADMIN ON *.* FROM {}"), {"SYSTEM_VARIABLES_ADMIN or SUPER"}),
        (
            by_statement(
                "REVOKE SHOW DATABASES, CREATE, DROP, ALTER ROUTINE, EVENT ON *.* FROM {0};"
                " GRANT SELECT ON app.* TO {0}"
            ),
            {"SHOW DATABASES", "CREATE", "DROP", "ALTER ROUTINE", "EVENT"},
        ),
    ],
    "mongodb": [
        (without_action(each), {each})
        for each in (
            *("listDatabases", "createCollection", "dropDatabase", "listCollections", "collStats"),
            *("dropCollection", "remove"),
        )
    ],
    "influxdb": [
        (by_statement("REVOKE ALL PRIVILEGES FROM {}"), {"ALL PRIVILEGES"}),
        (by_statement("REVOKE ALL PRIVILEGES FROM {0}; GRANT READ ON app TO {0}"), {"ALL PRIVILEGES", "WRITE"}),
        (by_statement("REVOKE ALL PRIVILEGES FROM {0}; GRANT WRITE ON app TO {0}"), {"ALL PRIVILEGES", "READ"}),
    ],
}


@contextmanager
def account_for_each(live: LiveServer) -> Iterator[dict[str, str]]:
    """Make an account for each thing that is taken away, and give the URLs."""
    names = [f"lacking_{number}" for number in range(len(REVOKED[live.engine]))]
    if live.engine == "postgresql":
        for name in names:
            run_as_admin(live, f"CREATE DATABASE {name}")
    yield {name: account_on(live, name if live.engine == "postgresql" else "app", user=name) for name in names}
    for name in names:
        if live.engine == "postgresql":
            run_as_admin(live, f"DROP DATABASE {name}")
            run_as_admin(live, f"DROP ROLE {name}")
        elif live.engine == "mongodb":
            with pymongo.MongoClient[dict[str, Any]](live.url()) as admin:
                admin.admin.command("dropUser", name)
                admin.admin.command("dropRole", name)
        else:
            run_as_admin(live, f"DROP USER {name}")


def each_is_named(live: LiveServer, folder: Path) -> None:
    rows, actions = REVOKED[live.engine], installed_engines()[live.engine].actions
    # What the server has to be set up with is tried in test_doctor.py.
    assert set[str]().union(*(lost for _, lost in rows)) == {
        name
        for action in actions.values()
        for name in action.privileges + action.settings
        if name != "pg_stat_statements preloaded"
    }
    with account_for_each(live) as urls:
        for (revoke, _), name in zip(rows, urls, strict=True):
            revoke(live, name)
        config = configuration(folder, *({"id": f"ad-{name}", "url": url} for name, url in urls.items()))
        ended = run("doctor", "--config", str(config), "--json")
    assert ended.returncode == 1, ended.stderr
    for (_, lost), found in zip(rows, json.loads(ended.stdout)["databases"], strict=True):
        assert found["problem"] is None
        named = {each["action"]: {lack["name"] for lack in each["missing"]} for each in found["actions"]}
        # Another installed package adds actions too.
        named = {name: lacks for name, lacks in named.items() if name in actions}
        assert named == {name: lost & {*each.privileges, *each.settings} for name, each in actions.items()}, lost


@pytest.mark.newest_version
def test_each_privilege_that_is_revoked_is_named_for_its_actions_on_postgresql(
    postgresql: LiveServer, tmp_path: Path
) -> None:
    each_is_named(postgresql, tmp_path)


@pytest.mark.newest_version
def test_each_privilege_that_is_revoked_is_named_for_its_actions_on_mysql(mysql: LiveServer, tmp_path: Path) -> None:
    each_is_named(mysql, tmp_path)


@pytest.mark.newest_version
def test_each_privilege_that_is_revoked_is_named_for_its_actions_on_mongodb(
    mongodb: LiveServer, tmp_path: Path
) -> None:
    each_is_named(mongodb, tmp_path)


@pytest.mark.newest_version
def test_each_privilege_that_is_revoked_is_named_for_its_actions_on_influxdb(
    influxdb: LiveServer, tmp_path: Path
) -> None:
    each_is_named(influxdb, tmp_path)
