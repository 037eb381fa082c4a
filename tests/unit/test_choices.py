"""What clients set for a database: whole or not at all, named when it is wrong, kept across restarts."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.decoders import go_database, go_failure
from tests.fakes.service import Valet, running

ONE = "/api/databases/ad-one"


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with running() as valet:
        yield valet


async def change(valet: Valet, fields: Any, method: str = "PATCH", token: str = "operator") -> httpx.Response:
    return await valet.ask(method, ONE, token, json={"database": fields})


async def shown(valet: Valet) -> dict[str, Any]:
    return go_database(await valet.ask("GET", ONE))


async def test_without_a_choice_there_are_no_backups_and_no_window(valet: Valet):
    database = await shown(valet)
    assert database["periodic_backups_enabled"] is False
    assert database["periodic_backups_scheduled_at"] == []
    assert database["maintenance_window"] is None


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize(
    ("sent", "hours"),
    [(0, [0]), (23, [23]), ([3], [3]), ([23, 3, 3, 0], [0, 3, 23]), (list(range(24)), list(range(24)))],
)
async def test_hours_are_one_or_a_list_and_are_answered_sorted_without_doubles(
    valet: Valet, method: str, sent: Any, hours: list[int]
):
    changed = go_database(await change(valet, {"periodic_backups_scheduled_at": sent}, method))

    assert changed["periodic_backups_scheduled_at"] == hours
    assert changed["periodic_backups_enabled"] is False
    assert await shown(valet) == changed


async def test_what_is_left_out_stays(valet: Valet):
    await change(valet, {"periodic_backups_enabled": True, "periodic_backups_scheduled_at": [5, 4]})
    await change(valet, {"maintenance_window": {"weekday_utc": 6, "starting_hour_utc": 22}})
    await change(valet, {"maintenance_window": {"starting_hour_utc": 21}})
    await change(valet, {})

    database = await shown(valet)
    assert database["periodic_backups_enabled"] is True
    assert database["periodic_backups_scheduled_at"] == [4, 5]
    assert database["maintenance_window"] == {"weekday_utc": 6, "starting_hour_utc": 21, "duration_in_hour": 8}


async def test_backups_that_are_switched_on_without_an_hour_are_made_at_midnight(valet: Valet):
    database = go_database(await change(valet, {"periodic_backups_enabled": True}))
    assert database["periodic_backups_scheduled_at"] == [0]


async def test_choices_survive_a_restart_and_belong_to_one_database(tmp_path: Path):
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as valet:
        await change(valet, {"periodic_backups_enabled": True, "periodic_backups_scheduled_at": 7})
        before = await shown(valet)
    async with running(state=state) as valet:
        assert await shown(valet) == before
        other = go_database(await valet.ask("GET", "/api/databases/ad-two"))
        assert other["periodic_backups_enabled"] is False


async def test_a_whole_number_may_be_written_with_a_point(valet: Valet):
    response = await change(
        valet, {"periodic_backups_scheduled_at": [7.0, 3], "maintenance_window": {"weekday_utc": 2.0}}
    )
    assert response.status_code == 200
    database = await shown(valet)
    assert database["periodic_backups_scheduled_at"] == [3, 7]
    assert database["maintenance_window"]["weekday_utc"] == 2


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        *(
            ({"periodic_backups_scheduled_at": value}, "periodic_backups_scheduled_at")
            for value in (-1, 24, 1.5, "3", True, None, [], [24], [-1], [3, 24], [3, "4"], [True], [[3]], {"at": 3})
        ),
        *(({"periodic_backups_enabled": value}, "periodic_backups_enabled") for value in (None, 1, "true", [])),
        *(({"maintenance_window": value}, "maintenance_window") for value in (None, 1, [], "Sunday")),
        *(
            ({"maintenance_window": {part: value}}, f"maintenance_window.{part}")
            for part, value in (
                ("weekday_utc", 7),
                ("weekday_utc", -1),
                ("weekday_utc", True),
                ("starting_hour_utc", 24),
                ("starting_hour_utc", "1"),
                ("starting_hour_utc", None),
                ("duration_in_hour", 8),
                ("unknown", 1),
            )
        ),
        *(({field: None}, field) for field in ("id", "plan", "status", "created_at", "instances", "flags", "unknown")),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_of_the_change_is_kept(
    valet: Valet, fields: dict[str, Any], named: str
):
    await change(valet, {"periodic_backups_enabled": True, "periodic_backups_scheduled_at": 7})
    before = await shown(valet)
    sound = {"periodic_backups_enabled": False, "maintenance_window": {"weekday_utc": 3}}
    response = await change(valet, {**sound, **fields})

    assert response.status_code == 422
    assert list(response.json()["errors"]) == [named]
    assert go_failure(response)
    assert await shown(valet) == before


async def test_a_field_that_is_only_shown_is_told_to_be_read_only(valet: Valet):
    response = await change(valet, {"plan": "free", "planned": 1, "maintenance_window": {"duration_in_hour": 1}})
    assert response.json()["errors"] == {
        "plan": ["is read-only"],
        "planned": ["is not known"],
        "maintenance_window.duration_in_hour": ["is read-only"],
    }


async def test_a_change_takes_an_operator_and_is_logged(valet: Valet):
    refused = await change(valet, {"periodic_backups_enabled": True}, token="reader")
    assert (refused.status_code, refused.json()["error"]) == (
        403,
        "update-database needs the role operator; this token is reader.",
    )
    assert (await shown(valet))["periodic_backups_enabled"] is False
    await change(valet, {"periodic_backups_enabled": True})

    (line,) = valet.lines("database_changed")
    assert (line["who"], line["database"]) == ("operator", "ad-one")


async def test_a_change_can_be_allowed_to_a_token_by_name_or_switched_off():
    token = {"name": "admin", "token": "token-of-the-admin-0123456789", "role": "admin", "databases": ["*"]}
    databases = [
        {"id": "ad-one", "url": "fake://u:p@h/d"},
        {"id": "ad-two", "url": "fake://u:p@h/d", "disabled_actions": ["update-database"]},
    ]
    async with running(tokens=[{**token, "allow": ["update-database"]}], databases=databases) as valet:
        assert (await change(valet, {}, token="admin")).status_code == 200
        refused = await valet.ask("PATCH", "/api/databases/ad-two", json={"database": {}})
        assert refused.json()["error"] == "update-database is switched off for this database."


async def test_a_state_that_is_lost_hides_no_database(tmp_path: Path):
    state = tmp_path / "state.db"
    async with running(state=f"sqlite:///{state}") as valet:
        await change(valet, {"periodic_backups_enabled": True, "periodic_backups_scheduled_at": 7})
        before = await shown(valet)
        await valet.database().identity()
        _spoil(state)

        assert (await shown(valet))["periodic_backups_scheduled_at"] == before["periodic_backups_scheduled_at"]
        (line, *_) = valet.lines("choices_not_read")
        assert line["reason"].startswith("The state cannot be used: ")
        assert (await change(valet, {"periodic_backups_enabled": False})).status_code == 503


def _spoil(file: Path) -> None:
    file.unlink()  # else what was kept last is read from its log
    file.write_bytes(b"spoilt" * 2000)
