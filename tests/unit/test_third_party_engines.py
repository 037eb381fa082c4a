"""What another installed package brings is there everywhere, and no list was touched for it."""

import json
from pathlib import Path
from typing import Any

import httpx

from tests.unit.running import ACME, TOKEN, configuration, run, serving

MYSQL = {"id": "ad-my", "url": "mysql://valet:secret@127.0.0.1:1/app"}


def names(output: str) -> set[tuple[str, str]]:
    listed: list[dict[str, Any]] = json.loads(output)
    return {(each["engine"], each["name"]) for each in listed}


def test_actions_of_a_package_are_listed_by_the_command() -> None:
    with_it = names(run("actions", "--json").stdout)
    without = names(run("actions", "--json", more={"PYTHONPATH": ""}).stdout)
    assert with_it - without == {("acme", "acme-wait"), ("mysql", "acme-count-tables")}
    assert without < with_it


def test_grants_of_a_package() -> None:
    assert run("grants", "acme", "--user", "steward").stdout == "ACME ACCOUNT steward\n"


def test_they_are_in_the_catalogue_in_openapi_and_performed(tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with (
        serving(configuration(tmp_path, ACME, MYSQL)) as running,
        httpx.Client(base_url=running.url, headers=headers, timeout=30) as client,
    ):
        (wait,) = client.get("/api/databases/ad-acme/actions").json()["actions"]
        assert (wait["name"], wait["effect"], wait["available"]) == ("acme-wait", "write", True)
        # The MySQL server of this test cannot be reached; its actions are listed all the same.
        listed = {each["name"] for each in client.get("/api/databases/ad-my/actions").json()["actions"]}
        assert {"acme-count-tables", "list-databases"} <= listed
        document = client.get("/openapi.json").text
        assert "acme-wait" in document
        assert "acme-count-tables" in document
        answer = client.post(
            "/api/databases/ad-acme/action", json={"action_name": "acme-wait", "params": {"seconds": 0}}
        )
        assert answer.json() == {"ok": 1, "result": "waited"}
        assert client.get("/api/databases/ad-acme").json()["database"]["type_name"] == "acme"


def test_doctor_examines_them(tmp_path: Path) -> None:
    ended = run("doctor", "--config", str(configuration(tmp_path, ACME)), "--json")
    assert ended.returncode == 0
    (found,) = json.loads(ended.stdout)["databases"]
    assert [each["action"] for each in found["actions"]] == ["acme-wait"]
