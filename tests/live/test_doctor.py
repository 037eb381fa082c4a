"""`dbvalet doctor` on live servers: the account of `dbvalet grants` suffices, and what it asks for is what helps."""

import itertools
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymongo
import pytest

from tests.live.accounts import account_on, run_as_admin, with_parts
from tests.live.images import newest
from tests.live.servers import LiveServer, spawn
from tests.unit.running import configuration, run

PASSWORD = "doctor's/pass:word@1"
_numbers = itertools.count(1)


def fresh_name(kind: str) -> str:
    return f"doctor_{kind}_{next(_numbers)}"


def examine(folder: Path, url: str, **more: Any) -> tuple[int, dict[str, Any], str]:
    """Run doctor on one database; give exit code, findings and all that was printed."""
    ended = run("doctor", "--config", str(configuration(folder, {"id": "ad-x", "url": url, **more})), "--json")
    secret = urlsplit(url).password
    assert secret is not None
    assert secret not in ended.stdout + ended.stderr
    assert PASSWORD not in ended.stdout + ended.stderr
    (found,) = json.loads(ended.stdout)["databases"]
    return ended.returncode, found, ended.stderr


def missing(found: dict[str, Any]) -> dict[str, list[str]]:
    return {each["action"]: [lack["name"] for lack in each["missing"]] for each in found["actions"] if each["missing"]}


def remedies(found: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(lack["remedy"] for each in found["actions"] for lack in each["missing"]))


def statement_of(remedy: str) -> str:
    """Take the statement out of a remedy, which may say beside it where to run it or what else would do."""
    found = re.search(r"(?:GRANT|CREATE|db\.).*?(?:;(?= or |$)|(?= \()|$)", remedy)
    assert found is not None, remedy
    return found[0]


def check_grants_suffice(live: LiveServer, folder: Path, database: str = "app") -> None:
    user = fresh_name("granted")
    (folder / "password").write_text(PASSWORD)
    flavour = ["--flavour", "mariadb"] if live.flavour == "mariadb" else []
    options = ["--user", user, "--database", database, "--server-version", live.version, *flavour]
    script = run("grants", live.engine, *options, "--password-file", str(folder / "password"))
    assert script.returncode == 0, script.stderr
    run_as_admin(live, script.stdout, database)
    code, found, said = examine(folder, live.url(user, PASSWORD, database))
    assert (code, said, found["problem"]) == (0, "", None)
    assert {each["ready"] for each in found["actions"]} == {"yes"}
    assert found["version"].startswith(live.version)


def check_remedies_help(live: LiveServer, folder: Path, url: str, database: str = "app") -> list[dict[str, list[str]]]:
    """Do what doctor says, as often as it says so; give what was missing each time."""
    rounds: list[dict[str, list[str]]] = []
    while len(rounds) < 4:
        code, found, said = examine(folder, url)
        assert (said, found["problem"]) == ("", None)
        if code == 0:
            return rounds
        rounds.append(missing(found))
        for remedy in remedies(found):
            run_as_admin(live, statement_of(remedy), database)
    raise AssertionError(f"what was asked for was done and it was not enough: {rounds}")


def test_the_account_of_the_grants_script_suffices_on_postgresql(postgresql: LiveServer, tmp_path: Path) -> None:
    database = fresh_name("db")
    run_as_admin(postgresql, f"CREATE DATABASE {database}")
    check_grants_suffice(postgresql, tmp_path, database)


def test_the_account_of_the_grants_script_suffices_on_mysql(mysql: LiveServer, tmp_path: Path) -> None:
    check_grants_suffice(mysql, tmp_path)


def test_the_account_of_the_grants_script_suffices_on_mongodb(mongodb: LiveServer, tmp_path: Path) -> None:
    check_grants_suffice(mongodb, tmp_path)


def test_the_account_of_the_grants_script_suffices_on_influxdb(influxdb: LiveServer, tmp_path: Path) -> None:
    check_grants_suffice(influxdb, tmp_path)


def routes(found: dict[str, Any]) -> dict[str, list[str]]:
    return {each["route"]: [lack["name"] for lack in each["missing"]] for each in found["routes"] if each["missing"]}


def check_optional_part(
    live: LiveServer, folder: Path, database: str = "app"
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Give what the routes lack with the account of the grants script, and with its optional parts too."""
    user = fresh_name("shown")
    (folder / "password").write_text(PASSWORD)
    flavour = ["--flavour", "mariadb"] if live.flavour == "mariadb" else []
    options = ["--user", user, "--database", database, "--server-version", live.version, *flavour]
    script = run("grants", live.engine, *options, "--password-file", str(folder / "password")).stdout
    found: list[dict[str, list[str]]] = []
    # The script ends where PostgreSQL is too old for users.
    manages_users = live.engine != "postgresql" or int(live.version) >= 14
    for each in (script, with_parts(live, script, ["figures", *(["users"] if manages_users else [])])):
        run_as_admin(live, each, database)
        code, examined, said = examine(folder, live.url(user, PASSWORD, database))
        # What a route lacks is no fault of the account of the actions.
        assert (code, said) == (0, "")
        features = {"features"} if live.engine == "mysql" else set[str]()
        assert {each["route"] for each in examined["routes"]} == {
            "logs",
            "metrics",
            "instances_status",
            "users",
        } | features
        found.append(routes(examined))
    return found[0], found[1]


def test_what_routes_lack_is_named_one_by_one_on_mongodb(mongodb: LiveServer, tmp_path: Path) -> None:
    lacking, then = check_optional_part(mongodb, tmp_path)
    assert lacking == {
        "logs": ["getLog"],
        "metrics": ["serverStatus", "hostInfo", "dbStats"],
        "users": ["changePassword", "createUser", "dropUser", "grantRole", "viewUser", "killAnySession"],
    }
    assert then == {}


def test_what_routes_lack_is_named_one_by_one_on_mysql(mysql: LiveServer, tmp_path: Path) -> None:
    lacking, then = check_optional_part(mysql, tmp_path)
    *users, on_database = lacking.pop("users")
    assert on_database.endswith(" ON `app`.* WITH GRANT OPTION")
    assert set(users) <= {"CREATE USER", "PROCESS", "CONNECTION_ADMIN", "CONNECTION ADMIN", "SELECT ON mysql.*"}
    assert "CREATE USER" in users
    if mysql.flavour == "mysql":
        replica = ["REPLICATION CLIENT"]
        log = ["SELECT ON performance_schema.error_log"]
        assert lacking == {"logs": log, "metrics": replica, "instances_status": replica}
        assert then == {}
    else:
        assert lacking == then == {"logs": ["log_file"]}


def test_what_routes_lack_is_named_one_by_one_on_postgresql(postgresql: LiveServer, tmp_path: Path) -> None:
    database = fresh_name("db")
    run_as_admin(postgresql, f"CREATE DATABASE {database}")
    lacking, then = check_optional_part(postgresql, tmp_path, database)
    assert lacking.pop("logs") == then.pop("logs") == ["logging_collector"]
    if int(postgresql.version) < 14:
        assert lacking == then == {"users": ["PostgreSQL 14"]}
        return
    assert then == {}
    assert "CREATEROLE" in lacking["users"]
    assert ("pg_read_all_data WITH ADMIN OPTION" in lacking["users"]) is (int(postgresql.version) >= 16)


def test_an_account_that_may_set_no_variable_cannot_switch_features_on_mysql(mysql: LiveServer, tmp_path: Path) -> None:
    user, quoted = fresh_name("bare"), PASSWORD.replace("'", "''")
    run_as_admin(mysql, f"CREATE USER {user}@'%' IDENTIFIED BY '{quoted}'; GRANT SELECT ON app.* TO {user}@'%'")
    _, found, _ = examine(tmp_path, mysql.url(user, PASSWORD))
    assert routes(found)["features"] == ["SYSTEM_VARIABLES_ADMIN or SUPER"]


@pytest.mark.newest_version
def test_what_routes_lack_is_named_on_postgresql_and_influxdb(
    postgresql: LiveServer, influxdb: LiveServer, tmp_path: Path
) -> None:
    assert routes(examine(tmp_path, account_on(postgresql))[1])["logs"] == ["logging_collector"]
    assert routes(examine(tmp_path, account_on(influxdb))[1]) == {"logs": ["log_file"]}


def test_a_file_or_a_control_group_that_cannot_be_read_is_named(postgresql: LiveServer, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none")
    _, found, _ = examine(tmp_path, account_on(postgresql), log_file=nowhere, cgroup=nowhere, data_disk=nowhere)
    assert {**routes(found), "users": []} == {"logs": ["log_file"], "metrics": ["cgroup", "data_disk"], "users": []}
    (tmp_path / "log").write_text("a line\n")
    _, found, _ = examine(tmp_path, account_on(postgresql), log_file=str(tmp_path / "log"), data_disk=str(tmp_path))
    assert set(routes(found)) <= {"users"}


def test_an_account_without_rights_is_told_what_it_lacks_on_postgresql(postgresql: LiveServer, tmp_path: Path) -> None:
    user, database = fresh_name("bare"), fresh_name("db")
    run_as_admin(postgresql, f"CREATE DATABASE {database}")
    quoted = PASSWORD.replace("'", "''")
    run_as_admin(postgresql, f"CREATE ROLE {user} LOGIN PASSWORD '{quoted}'")
    first, *_ = check_remedies_help(postgresql, tmp_path, postgresql.url(user, PASSWORD, database), database)
    assert first["pg-cancel-query"] == ["pg_signal_backend", "pg_read_all_stats"]
    assert first["pg-list-queries"] == ["pg_read_all_stats"]
    assert "list-extensions" not in first


def test_an_account_without_rights_is_told_what_it_lacks_on_mysql(mysql: LiveServer, tmp_path: Path) -> None:
    user, quoted = fresh_name("bare"), PASSWORD.replace("'", "''")
    run_as_admin(mysql, f"CREATE USER {user}@'%' IDENTIFIED BY '{quoted}'; GRANT SELECT ON app.* TO {user}@'%'")
    first, *_ = check_remedies_help(mysql, tmp_path, mysql.url(user, PASSWORD))
    assert "CREATE" in first["create-database"]
    assert "DROP" in first["delete-database"]
    assert "get-sqlmode" not in first


def test_an_account_without_rights_is_told_what_it_lacks_on_mongodb(mongodb: LiveServer, tmp_path: Path) -> None:
    user = fresh_name("bare")
    with pymongo.MongoClient[dict[str, Any]](mongodb.url()) as client:
        client.admin.command("createUser", user, pwd=PASSWORD, roles=[])
    first, *_ = check_remedies_help(mongodb, tmp_path, mongodb.url(user, PASSWORD))
    assert set(first) == {"create-database", "delete-database", "list-databases", "reset-database"}


def test_an_account_without_rights_is_told_what_it_lacks_on_influxdb(influxdb: LiveServer, tmp_path: Path) -> None:
    user, quoted = fresh_name("bare"), PASSWORD.replace("'", "\\'")
    run_as_admin(influxdb, f"CREATE USER {user} WITH PASSWORD '{quoted}'")
    first, *_ = check_remedies_help(influxdb, tmp_path, influxdb.url(user, PASSWORD))
    assert "ALL PRIVILEGES" in first["add-retention-policy"]


def test_a_setting_of_the_server_that_is_missing_is_named(tmp_path: Path) -> None:
    with spawn("postgresql", newest("postgresql").version, preload=False) as live:
        code, found, _ = examine(tmp_path, account_on(live))
    assert code == 1
    lacking = missing(found)
    assert "pg_stat_statements preloaded" in lacking["pg-stat-statements-list"]
    assert any("shared_preload_libraries" in remedy for remedy in remedies(found))
    assert "pg-list-queries" not in lacking


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda live: live.url("minder", "not-the-password"), id="password"),
        pytest.param(lambda live: account_on(live).replace(f":{live.port}/", ":1/"), id="port"),
        pytest.param(lambda live: account_on(live).replace(live.host, "nowhere.invalid"), id="host"),
        pytest.param(lambda live: account_on(live).replace("/app", "/no_such_database"), id="database"),
    ],
)
def test_a_server_that_does_not_let_us_in_is_told_clearly(
    postgresql: LiveServer, tmp_path: Path, change: Callable[[LiveServer], str]
) -> None:
    began = time.monotonic()
    code, found, said = examine(tmp_path, change(postgresql))
    assert time.monotonic() - began < 15
    assert (code, said) == (1, "")
    assert found["problem"]
    assert found["actions"] == []
    assert "\n" not in found["problem"]


@pytest.mark.newest_version
def test_a_frozen_server_is_given_up_and_the_others_are_examined(postgresql: LiveServer, tmp_path: Path) -> None:
    with spawn("postgresql", newest("postgresql").version) as frozen:
        databases = [{"id": "ad-frozen", "url": account_on(frozen)}, {"id": "ad-well", "url": account_on(postgresql)}]
        config = configuration(tmp_path, *databases)
        with frozen.paused():
            began = time.monotonic()
            ended = run("doctor", "--config", str(config), "--json")
            assert time.monotonic() - began < 25
    stuck, well = json.loads(ended.stdout)["databases"]
    assert ended.returncode == 1
    assert stuck["problem"]
    assert well["problem"] is None
    assert {each["ready"] for each in well["actions"]} <= {"yes", "no"}


def test_people_read_the_grant_they_can_run(postgresql: LiveServer, tmp_path: Path) -> None:
    user, quoted = fresh_name("bare"), PASSWORD.replace("'", "''")
    run_as_admin(postgresql, f"CREATE ROLE {user} LOGIN PASSWORD '{quoted}'")
    config = configuration(tmp_path, {"id": "ad-pg", "url": postgresql.url(user, PASSWORD)})
    ended = run("doctor", "--config", str(config))
    assert ended.returncode == 1
    assert f'  GRANT pg_signal_backend TO "{user}";\n' in ended.stdout
    assert PASSWORD not in ended.stdout + ended.stderr
