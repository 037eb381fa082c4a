"""Going back to an instant as clients ask for it and read it."""

import re
from typing import Any

from tests.fakes.service import Valet

ONE = "/api/databases/ad-one"
# What Go's time.Time takes from JSON.
RFC_3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})")
OPERATION_TYPES = {"id": str, "type": str, "status": str, "created_at": str}


def go_time(value: Any) -> str | None:
    assert value is None or (isinstance(value, str) and RFC_3339.fullmatch(value)), value
    return value


async def test_the_documented_request_gives_both_documented_and_real_answers(valet: Valet) -> None:
    answer = await valet.ask("POST", f"{ONE}/pitr/restore", json={"restore_time": "2026-07-18T23:00:00Z"})
    assert answer.status_code == 201
    body = answer.json()
    operation = body["operation"]
    assert body["operation_id"] == operation["id"]  # the documentation; the Go and JavaScript clients
    assert {name: type(operation[name]) for name in OPERATION_TYPES} == OPERATION_TYPES
    assert operation["type"] == "pitr_restore"
    assert go_time(operation["created_at"])
    assert go_time(operation["finished_at"]) is None
    assert operation["error"] is None
    polled = (await valet.ask("GET", f"{ONE}/operations/{operation['id']}")).json()["operation"]
    assert polled["id"] == operation["id"]


async def test_an_instant_of_another_zone_is_the_same_instant(valet: Valet) -> None:
    answer = await valet.ask("POST", f"{ONE}/pitr/restore", json={"restore_time": "2026-07-19T01:00:00+02:00"})
    (operation,) = await valet.service.operations.newest("ad-one")
    assert answer.status_code == 201
    assert operation.params["restore_time"] == "2026-07-18T23:00:00+00:00"


async def test_the_window_is_two_times_or_null(valet: Valet) -> None:
    window = (await valet.ask("GET", f"{ONE}/pitr/recovery_window")).json()["recovery_window"]
    assert set(window) == {"earliest_recoverable_at", "latest_recoverable_at"}
    assert all(go_time(value) for value in window.values())
