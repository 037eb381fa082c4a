"""What clients read around a database, with decoders as strict as theirs."""

from datetime import datetime

from tests.fakes.service import Valet


async def test_instances_status_is_a_list_at_the_root(valet: Valet) -> None:
    (shown,) = (await valet.ask("GET", "/api/databases/ad-one/instances_status")).json()
    assert (shown["type"], shown["status"]) == ("db-node", "running")


async def test_a_version_and_a_type_are_found_by_the_ids_of_the_database(valet: Valet) -> None:
    one = (await valet.ask("GET", "/api/databases/ad-one")).json()["database"]
    kind = (await valet.ask("GET", f"/api/database_types/{one['type_id']}")).json()["database_type"]
    version = (await valet.ask("GET", f"/api/database_type_versions/{one['version_id']}")).json()
    assert kind["name"] == one["type_name"]
    assert all(type(version["database_type_version"][part]) is int for part in ("major", "minor", "patch", "build"))
    assert version["database_type_version"]["next_upgrade"] is None


async def test_metrics_are_whole_numbers_or_null_by_instance(valet: Valet) -> None:
    body = (await valet.ask("GET", "/api/databases/ad-one/metrics")).json()
    for value in (body["cpu_usage"], body["real_disk_size"], *body["memory"].values()):
        assert value is None or type(value) is int
    assert body["memory"]["memory"] == 1000
    assert body["memory"]["swap"] is None
    assert isinstance(body["instances_metrics"], dict)


async def test_a_series_has_moments_with_an_offset_and_begins_at_since(valet: Valet) -> None:
    series = (await valet.ask("GET", "/api/databases/ad-one/metrics/memory?last=1")).json()["values"]
    assert series
    assert all(datetime.fromisoformat(each["time"]).tzinfo for each in series)
    later = await valet.ask("GET", "/api/databases/ad-one/metrics/memory?since=2999-01-01T00:00:00Z")
    assert later.json()["values"] == []


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


async def test_force_ssl_is_switched_and_other_features_are_refused(valet: Valet) -> None:
    path = "/api/databases/ad-one/features"
    on = await valet.ask("POST", path, json={"feature": {"name": "force-ssl", "status": ""}})
    off = await valet.ask("DELETE", f"{path}?feature=force-ssl")
    other = await valet.ask("POST", path, json={"feature": {"name": "publicly-available"}})
    assert (on.status_code, on.json()["status"]) == (200, "ACTIVATED")
    assert off.json()["message"]
    assert valet.server().performed == ["force-ssl True", "force-ssl False"]
    assert (other.status_code, other.json()["code"]) == (400, "not_supported")
