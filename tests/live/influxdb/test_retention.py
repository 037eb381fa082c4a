"""The actions on retention policies do to InfluxDB what they say."""

import asyncio
from typing import Any

import influxdb as bare
import pytest

from engines.errors import AlreadyExists, Conflict, InvalidParams, RetentionPolicyNotFound
from engines.influxdb.influxql import identifier
from engines.influxdb.server import InfluxServer
from tests.live.influxdb.conftest import act, catalogue, policies


async def test_the_documented_example_of_each_action(
    server: InfluxServer, root: bare.InfluxDBClient, database: str
) -> None:
    autogen = {"name": "autogen", "duration": "0", "default": True}
    assert await act(server, "list-retention-policies") == [autogen]
    assert await act(server, "add-retention-policy", name="30-days", duration="30d", default=True) is None
    assert await act(server, "list-retention-policies") == [
        autogen | {"default": False},
        {"name": "30-days", "duration": "30d", "default": True},
    ]
    await act(server, "add-retention-policy", name="other", duration="1w", default=True)
    assert await act(server, "del-retention-policy", name="30-days") is None
    assert {*policies(root, database)} == {"autogen", "other"}


@pytest.mark.parametrize(
    ("written", "kept", "shown"),
    [
        ("30d", "720h0m0s", "30d"),
        ("1h30m", "1h30m0s", "90m"),
        ("INF", "0s", "0"),
        ("inf", "0s", "0"),
        ("0", "0s", "0"),
        ("0s", "0s", "0"),
        ("1h", "1h0m0s", "1h"),
        ("25h", "25h0m0s", "25h"),
        ("2w", "336h0m0s", "14d"),
        ("3601s", "1h0m1s", "3601s"),
        ("3600000ms", "1h0m0s", "1h"),
        ("3600000000u", "1h0m0s", "1h"),
        ("3600000000\u00b5", "1h0m0s", "1h"),
        ("3600000000000ns", "1h0m0s", "1h"),
        ("59m60s", "1h0m0s", "1h"),
        ("9223372036s", "2562047h47m16s", "9223372036s"),
    ],
)
async def test_a_duration_is_kept_and_shown_in_the_documented_form(
    server: InfluxServer, root: bare.InfluxDBClient, database: str, *, written: str, kept: str, shown: str
) -> None:
    await act(server, "add-retention-policy", name="p", duration=written)
    policy = policies(root, database)["p"]
    assert (policy["duration"], policy["default"], policy["replicaN"]) == (kept, False, 1)
    assert {"name": "p", "duration": shown, "default": False} in await act(server, "list-retention-policies")


@pytest.mark.parametrize(
    "duration",
    [
        *(
            "",
            " ",
            "30",
            "d",
            "30 d",
            "30d ",
            "-1h",
            "+1h",
            "1.5h",
            "1e3h",
            "30D",
            "1y",
            "INFINITE",
            "0h;",
            "30d\n",
            "\u0663h",
        ),
        *("59m", "3599s", "1s", "3600001ms", "3600000000001ns", "1h1ns"),
        *("106752d", "9223372037s", "106751d106751d106751d", "9" * 90 + "w", "9" * 200 + "w"),
        *(30, None, True, ["30d"]),
    ],
)
async def test_a_duration_that_a_policy_cannot_have_is_told_by_its_field(
    server: InfluxServer, root: bare.InfluxDBClient, database: str, duration: object
) -> None:
    before = catalogue(root)
    with pytest.raises(InvalidParams) as refused:
        await act(server, "add-retention-policy", name="p", duration=duration)
    assert [*refused.value.errors] == ["duration"]
    assert catalogue(root) == before


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "a\\b", "a\nb", "a\0b", "a\tb", "a\u00a0b", "a\u200bb", "x" * 256, "\u00e9" * 128, 7, None],
)
async def test_a_name_that_the_server_does_not_take_is_told_by_its_field(
    server: InfluxServer, root: bare.InfluxDBClient, name: object
) -> None:
    before = catalogue(root)
    with pytest.raises(InvalidParams) as refused:
        await act(server, "add-retention-policy", name=name, duration="1h")
    assert [*refused.value.errors] == ["name"]
    assert catalogue(root) == before


@pytest.mark.parametrize(
    "name", ["a b", 'q"q', "'", "x;y", "-- c", "\u00e9\u4e2d\U0001f600", " ", "...", "x" * 255, "%s{}$1"]
)
async def test_any_other_name_is_created_and_deleted(
    server: InfluxServer, root: bare.InfluxDBClient, database: str, name: str
) -> None:
    await act(server, "add-retention-policy", name=name, duration="1h")
    assert {*policies(root, database)} == {"autogen", name}
    await act(server, "del-retention-policy", name=name)
    assert {*policies(root, database)} == {"autogen"}


@pytest.mark.parametrize(
    "params",
    [
        {"name": "p"},
        {"duration": "1h"},
        {"name": "p", "duration": "1h", "default": "true"},
        {"name": "p", "duration": "1h", "default": 1},
        {"name": "p", "duration": "1h", "replication": 2},
    ],
)
async def test_wrong_params_of_add_change_nothing(
    server: InfluxServer, root: bare.InfluxDBClient, params: dict[str, Any]
) -> None:
    before = catalogue(root)
    with pytest.raises(InvalidParams):
        await act(server, "add-retention-policy", **params)
    assert catalogue(root) == before


@pytest.mark.parametrize("duration", ["1h", "2h"])
@pytest.mark.parametrize("default", [True, False])
async def test_a_name_that_is_there_is_refused_whatever_its_settings(
    server: InfluxServer, root: bare.InfluxDBClient, duration: str, default: bool
) -> None:
    await act(server, "add-retention-policy", name="p", duration="1h")
    before = catalogue(root)
    with pytest.raises(AlreadyExists):
        await act(server, "add-retention-policy", name="p", duration=duration, default=default)
    assert catalogue(root) == before


async def test_an_absent_one_and_a_look_alike_are_not_there(server: InfluxServer, root: bare.InfluxDBClient) -> None:
    await act(server, "add-retention-policy", name="p", duration="1h")
    before = catalogue(root)
    for name in ("absent", "P", "p ", " p", '"p"', "p\0", "p\n", "\u0440", "x" * 5_000, "a/b"):
        with pytest.raises(RetentionPolicyNotFound):
            await act(server, "del-retention-policy", name=name)
    assert catalogue(root) == before


@pytest.mark.parametrize("name", ["", 7, None, ["p"]])
async def test_what_is_no_name_is_not_looked_for(server: InfluxServer, name: object) -> None:
    with pytest.raises(InvalidParams):
        await act(server, "del-retention-policy", name=name)


async def test_the_default_one_is_not_deleted(server: InfluxServer, root: bare.InfluxDBClient, database: str) -> None:
    with pytest.raises(Conflict, match="make another the default first"):
        await act(server, "del-retention-policy", name="autogen")
    await act(server, "add-retention-policy", name="p", duration="1h", default=True)
    with pytest.raises(Conflict):
        await act(server, "del-retention-policy", name="p")
    await act(server, "del-retention-policy", name="autogen")
    assert {*policies(root, database)} == {"p"}


async def test_deleting_takes_its_data_and_no_other(
    server: InfluxServer, root: bare.InfluxDBClient, database: str
) -> None:
    await act(server, "add-retention-policy", name="p", duration="INF")
    point = [{"measurement": "m", "fields": {"x": 1}}]
    for policy in ("p", "autogen"):
        root.write_points(point, database=database, retention_policy=policy)
    await act(server, "del-retention-policy", name="p")
    root.query(f"CREATE RETENTION POLICY p ON {identifier(database)} DURATION INF REPLICATION 1", method="POST")
    assert [*root.query("SELECT * FROM p.m", database=database).get_points()] == []
    assert len([*root.query("SELECT * FROM autogen.m", database=database).get_points()]) == 1


async def test_a_database_without_a_policy_has_an_empty_list(
    server: InfluxServer, root: bare.InfluxDBClient, database: str
) -> None:
    root.query(f"DROP RETENTION POLICY autogen ON {identifier(database)}", method="POST")
    assert await act(server, "list-retention-policies") == []
    await act(server, "add-retention-policy", name="p", duration="1h")
    assert {*policies(root, database)} == {"p"}


async def test_what_somebody_made_with_a_fraction_of_a_second_is_listed_exactly(
    server: InfluxServer, root: bare.InfluxDBClient, database: str
) -> None:
    for name, duration in (("a", "3600500ms"), ("b", "3600000001u"), ("c", "3600000000001ns")):
        root.query(
            f"CREATE RETENTION POLICY {name} ON {identifier(database)} DURATION {duration} REPLICATION 1", method="POST"
        )
    shown = {policy["name"]: policy["duration"] for policy in await act(server, "list-retention-policies")}
    assert shown == {"autogen": "0", "a": "3600500ms", "b": "3600000001u", "c": "3600000000001ns"}


async def test_of_creations_at_the_same_time_none_is_lost_or_changed(
    server: InfluxServer, root: bare.InfluxDBClient, database: str
) -> None:
    durations = [f"{hours}h" for hours in range(1, 9)]
    outcomes = await asyncio.gather(
        *(act(server, "add-retention-policy", name="p", duration=duration) for duration in durations),
        return_exceptions=True,
    )
    (winner,) = (duration for duration, outcome in zip(durations, outcomes, strict=True) if outcome is None)
    assert all(isinstance(outcome, AlreadyExists) for outcome in outcomes if outcome is not None)
    assert policies(root, database)["p"]["duration"] == f"{winner}0m0s"


async def test_another_database_is_not_touched(server: InfluxServer, root: bare.InfluxDBClient, database: str) -> None:
    root.query("CREATE RETENTION POLICY p ON app DURATION 1h REPLICATION 1", method="POST")
    before = policies(root, "app")
    with pytest.raises(RetentionPolicyNotFound):
        await act(server, "del-retention-policy", name="p")
    await act(server, "add-retention-policy", name="p", duration="2h")
    await act(server, "del-retention-policy", name="p")
    assert policies(root, "app") == before
    root.query("DROP RETENTION POLICY p ON app", method="POST")
