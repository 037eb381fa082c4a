"""What clients read around a database, with decoders as strict as theirs."""

from datetime import datetime

from engines.errors import EngineUnavailable, PrivilegeMissing
from tests.contract.decoders import go_database
from tests.fakes import BARE
from tests.fakes.service import URL, Valet, running


async def test_instances_status_is_a_list_at_the_root(valet: Valet) -> None:
    (shown,) = (await valet.ask("GET", "/api/databases/ad-one/instances_status")).json()
    assert (shown["type"], shown["status"], shown["role"]) == ("db-node", "running", "follower")


async def test_instances_status_is_answered_when_the_engine_is_down_or_does_not_tell_its_role(valet: Valet) -> None:
    path = "/api/databases/ad-one/instances_status"
    assert (await valet.ask("GET", path)).json()[0]["status"] == "running"
    valet.server().problem = PrivilegeMissing()
    (shown,) = (await valet.ask("GET", path)).json()
    assert (shown["status"], shown["role"]) == ("running", None)
    valet.server().description = EngineUnavailable()
    valet.database().forget()
    (shown,) = (await valet.ask("GET", path)).json()
    assert (shown["status"], shown["role"]) == ("stopped", None)


async def test_the_window_that_was_chosen_is_where_clients_look_for_it(valet: Valet) -> None:
    """The command-line client asks for a maintenance, and the database for its window while that has not begun."""
    path, chosen = "/api/databases/ad-one", {"weekday_utc": 2, "starting_hour_utc": 3}
    changed = await valet.ask("PATCH", path, json={"database": {"maintenance_window": chosen}})
    shown = (await valet.ask("GET", path)).json()
    assert changed.json() == shown
    assert go_database(await valet.ask("GET", path))["maintenance_window"] == {**chosen, "duration_in_hour": 8}
    (listed,) = [
        each for each in (await valet.ask("GET", "/api/databases")).json()["databases"] if each["id"] == "ad-one"
    ]
    assert listed["maintenance_window"] == shown["database"]["maintenance_window"]
    page = (await valet.ask("GET", f"{path}/maintenance?page=2&per_page=5")).json()
    assert page["maintenance"] == []
    assert (page["meta"]["pagination"]["current_page"], page["meta"]["pagination"]["total_pages"]) == (2, 1)
    absent = await valet.ask("GET", f"{path}/maintenance/{'0' * 24}")
    assert (absent.status_code, absent.json()["resource"]) == (404, "maintenance")


async def test_a_version_and_a_type_are_found_by_the_ids_of_the_database(valet: Valet) -> None:
    one = (await valet.ask("GET", "/api/databases/ad-one")).json()["database"]
    kind = (await valet.ask("GET", f"/api/database_types/{one['type_id']}")).json()["database_type"]
    version = (await valet.ask("GET", f"/api/database_type_versions/{one['version_id']}")).json()
    assert kind["name"] == one["type_name"]
    assert all(type(version["database_type_version"][part]) is int for part in ("major", "minor", "patch", "build"))
    assert version["database_type_version"]["next_upgrade"] is None


async def test_a_plan_is_found_by_its_name_where_the_token_sees_a_database_of_it() -> None:
    databases = [{"id": "ad-one", "url": URL, "plan": "large"}, {"id": "ad-two", "url": URL, "plan": "small"}]
    async with running(databases=databases) as valet:
        found = await valet.ask("GET", "/api/plans/large?type=fake")
        assert found.json() == (await valet.ask("GET", "/api/databases/ad-one/plan")).json()
        assert (await valet.ask("GET", "/api/plans/small?type=", "of-two")).status_code == 200
        assert (await valet.ask("GET", "/api/plans/large", "of-two")).status_code == 404


async def test_metrics_are_whole_numbers_or_null_by_instance(valet: Valet) -> None:
    body = (await valet.ask("GET", "/api/databases/ad-one/metrics")).json()
    for value in (body["cpu_usage"], body["real_disk_size"], *body["memory"].values()):
        assert value is None or type(value) is int
    assert body["memory"]["memory"] == 1000
    assert body["memory"]["swap"] is None
    ((instance, of_it),) = body["instances_metrics"].items()
    assert (of_it["instance_id"], of_it["instance_address"]) == (instance, "db.example:1234")
    assert (of_it["memory"]["max_memory_usage"], of_it["memory"]["max_swap_usage"]) == (1000, None)
    assert of_it["real_disk_size"] == body["real_disk_size"]


async def test_a_series_has_moments_with_an_offset_and_begins_at_since(valet: Valet) -> None:
    series = (await valet.ask("GET", "/api/databases/ad-one/metrics/memory?last=1")).json()["values"]
    assert series
    assert all(datetime.fromisoformat(each["time"]).tzinfo for each in series)
    later = await valet.ask("GET", "/api/databases/ad-one/metrics/memory?since=2999-01-01T00:00:00Z")
    assert later.json()["values"] == []


async def test_a_series_is_chosen_in_hours_and_down_to_its_newest_value(valet: Valet) -> None:
    path = "/api/databases/ad-one/metrics/memory"
    first = (await valet.ask("GET", path)).json()["values"]
    whole = (await valet.ask("GET", f"{path}?since=3&last=false")).json()["values"]
    (newest,) = (await valet.ask("GET", f"{path}?since=3&last=true")).json()["values"]
    assert whole[: len(first)] == first
    assert len(whole) == len(first) + 1
    assert newest["time"] > whole[-1]["time"]


async def test_a_log_line_has_its_container_as_the_fifth_word_and_no_double_space(valet: Valet) -> None:
    url = (await valet.ask("GET", "/api/databases/ad-one/logs")).json()["url"]
    shown = await valet.client.get(f"{url}&n=5")
    assert shown.status_code == 200
    assert shown.text == "2026-01-31 08:00:00.000120000 +0000 UTC [fake] a line with spaces\n"
    assert shown.text.split(" ")[4] == "[fake]"
    assert (await valet.client.get(f"{url}&n=5&filter=absent")).text == ""


async def test_a_log_link_of_another_database_or_a_changed_one_is_refused(valet: Valet) -> None:
    url = (await valet.ask("GET", "/api/databases/ad-one/logs")).json()["url"]
    assert (await valet.client.get(url.replace("ad-one", "ad-two"))).status_code == 403
    assert (await valet.client.get(url + "1")).status_code == 403


async def test_a_log_that_is_refused_names_the_right_and_its_remedy(valet: Valet) -> None:
    valet.server().problem, valet.server().unmet = PrivilegeMissing(), {"logright"}
    refused = await valet.ask("GET", "/api/databases/ad-one/logs")
    assert (refused.status_code, refused.json()["code"]) == (403, "privilege_missing")
    assert refused.json()["error"] == "Missing: logright. Remedy: GRANT logright"


async def test_force_ssl_is_switched_and_other_features_are_refused(valet: Valet) -> None:
    path = "/api/databases/ad-one/features"
    on = await valet.ask("POST", path, json={"feature": {"name": "force-ssl", "status": ""}})
    off = await valet.ask("DELETE", f"{path}?feature=force-ssl")
    other = await valet.ask("POST", path, json={"feature": {"name": "publicly-available"}})
    assert (on.status_code, on.json()["status"]) == (200, "ACTIVATED")
    assert off.json()["message"]
    assert valet.server().performed == ["force-ssl True", "force-ssl False"]
    assert (other.status_code, other.json()["code"]) == (400, "not_supported")


async def test_a_user_is_made_changed_and_deleted_and_its_password_is_shown_once(valet: Valet) -> None:
    path = "/api/databases/ad-one/users"
    made = await valet.ask("POST", path, json={"database_user": {"name": "somebody", "read_only": True}})
    first: str = made.json()["database_user"]["password"]
    assert made.status_code == 201
    assert made.json()["password"] == first == valet.server().passwords["somebody"]
    assert len(first) == 64
    reset = await valet.ask("POST", f"{path}/somebody/reset_password")
    second: str = reset.json()["password"]
    assert reset.status_code == 200
    assert second not in (first, None)
    assert second == valet.server().passwords["somebody"]
    chosen = "chosen-by-the-client-0123"
    content = {"database_user": {"database_id": "ad-one", "password": chosen, "password_confirmation": chosen}}
    changed = await valet.ask("PATCH", f"{path}/somebody", json=content)
    assert (changed.status_code, changed.json()["database_user"]["name"]) == (200, "somebody")
    assert chosen not in changed.text
    assert valet.server().passwords["somebody"] == chosen
    listed = await valet.ask("GET", path)
    assert listed.json() == {
        "database-users": [
            {"name": "self-hosted", "read_only": False, "protected": False, "dbms_attributes": None},
            {"name": "somebody", "read_only": True, "protected": False, "dbms_attributes": None},
            {
                "name": "valet",
                "read_only": False,
                "protected": True,
                "dbms_attributes": {"password_encryption": "SCRAM-SHA-256"},
            },
        ]
    }
    deleted = await valet.ask("DELETE", f"{path}/somebody")
    assert (deleted.status_code, deleted.content) == (204, b"")
    again = await valet.ask("DELETE", f"{path}/somebody")
    assert (again.status_code, again.json()["resource"]) == (404, "user")
    written = valet.log.getvalue().decode() + (await valet.ask("GET", "/api/audit")).text
    assert not [secret for secret in (first, second, chosen) if secret in written]
    assert "user_created" in written


async def test_an_engine_without_users_says_so() -> None:
    databases = [{"id": each, "url": "bare://db.example/app"} for each in ("ad-one", "ad-two")]
    async with running(databases=databases, engines={"bare": BARE}) as bare:
        refused = await bare.ask("GET", "/api/databases/ad-one/users")
        assert (refused.status_code, refused.json()["code"]) == (400, "not_supported")
