"""InfluxDB: retention policies."""

from __future__ import annotations

from typing import Any

from influxdb import InfluxDBClient

from agent.demo.accounts import APPLICATION, DATABASE, Deployment
from agent.demo.guide import Guide
from agent.demo.recovery import bring_back
from agent.demo.sessions import influxdb_session

POINTS = 1000
AUTOGEN = {"name": "autogen", "duration": "0", "default": True}
POLICY = {"name": "30-days", "duration": "30d", "default": False}


def visit(guide: Guide, deployment: Deployment) -> None:
    """Show the actions on InfluxDB.

    Raises: TourFailed
    """
    application = influxdb_session(deployment.port, APPLICATION, deployment.password)

    def durations() -> dict[str, str]:
        return {each["name"]: each["duration"] for each in application.get_list_retention_policies(DATABASE)}

    def ask(title: str, wanted: list[dict[str, Any]]) -> None:
        guide.done(title, deployment.id, "list-retention-policies", where=lambda rows: rows == wanted)

    try:
        ask("InfluxDB begins with a policy that keeps everything for ever.", [AUTOGEN])
        guide.done(
            "A policy that keeps data for 30 days is added.",
            deployment.id,
            "add-retention-policy",
            {"name": "30-days", "duration": "720h", "default": False},
        )
        ask("It is in the list, in days.", [AUTOGEN, POLICY])
        guide.check(durations().get("30-days") == "720h0m0s", "the application sees it too: 720h0m0s")
        guide.refused(
            "Once more: the name is taken, about which InfluxDB itself says nothing.",
            deployment.id,
            "add-retention-policy",
            {"name": "30-days", "duration": "720h", "default": False},
            status=409,
            code="already_exists",
        )
        guide.refused(
            "The default one is not deleted: new data is written to it.",
            deployment.id,
            "del-retention-policy",
            {"name": "autogen"},
            status=409,
            code="conflict",
        )
        guide.done("The other one is deleted.", deployment.id, "del-retention-policy", {"name": "30-days"})
        guide.check("30-days" not in durations(), "the application does not see it any more")
        ask("The list again.", [AUTOGEN])
        application.write_points(
            [{"measurement": "load", "time": at, "fields": {"value": 1.5}} for at in range(POINTS)]
        )
        bring_back(
            guide,
            deployment,
            content=lambda: _points(application),
            lose=lambda: application.query("DELETE FROM load", method="POST"),
        )
    finally:
        application.close()


def _points(application: InfluxDBClient) -> str:
    counted = [row["count"] for row in application.query("SELECT count(value) FROM load").get_points()]
    return f"{sum(counted)} points"
