"""Metrics of a database: its engine's own counters and those of its host, now and over the last hour.

What neither tells is null.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from agent.api.databases import as_json, stable_id
from agent.api.openapi import described
from agent.api.query import given_once
from agent.api.service import database_of, service_of
from agent.databases import Database
from agent.errors import ResourceNotFound
from agent.sampler import Sample, cpu_percent
from engines.errors import InvalidParams

Kind = Literal["cpu", "memory", "swap", "disk", "diskio"]
KINDS = ("cpu", "memory", "swap", "disk", "diskio")
LAST_HOURS = 1


class MemoryMetrics(BaseModel):
    """Bytes; null where neither the engine nor its control group says. `…_max` is the most that was seen in the last
    hour."""

    memory: int | None
    memory_max: int | None
    memory_limit: int | None
    swap: int | None
    swap_max: int | None
    swap_limit: int | None


class DatabaseStats(BaseModel):
    """What the engine counts."""

    data_size: int | None
    """Bytes of the logical database."""
    counters: dict[str, int]


class MetricsBody(BaseModel):
    """The body of `GET /api/databases/:id/metrics`."""

    cpu_usage: int | None
    """Percent of one processor; null at the first question, and where the engine does not count it."""
    memory: MemoryMetrics
    database_stats: DatabaseStats
    real_disk_size: int | None
    instances_metrics: dict[str, dict[str, Any]]


class SeriesBody(BaseModel):
    """The body of `GET /api/databases/:id/metrics/:type`."""

    type: Kind
    values: list[dict[str, Any]]
    """Oldest first, of the last hour, since dbvalet was first asked."""


class LagBody(BaseModel):
    """The body of `GET /api/databases/:id/lag`."""

    role: Literal["leader", "follower"] | None
    lag_seconds: float | None
    """Null for a leader, and where the engine does not say."""


async def get_metrics(request: Request, database_id: str) -> Response:
    """Show what the engine counts now."""
    _, database = database_of(request, database_id)
    series = await service_of(request).sampler.now(database)
    newest = series[-1].measures
    cpu = cpu_percent(series[-2], series[-1]) if len(series) > 1 else None
    peak = max((each.measures.memory for each in series if each.measures.memory is not None), default=None)
    instance, address = stable_id("instance", database.id), database.server.address
    most_swap = max((each.measures.swap for each in series if each.measures.swap is not None), default=None)
    of_instance = {
        "instance_id": instance,
        "instance_address": f"{address.host}:{address.port}",
        "real_disk_size": newest.disk_used,
        "cpu": {"usage_in_percents": cpu},
        "memory": {
            "memory_usage": newest.memory,
            "max_memory_usage": peak,
            "memory_limit": newest.memory_limit,
            "swap_usage": newest.swap,
            "max_swap_usage": most_swap,
            "swap_limit": newest.swap_limit,
        },
        "disk": {"disk_used": newest.disk_used, "disk_size": newest.disk_size},
        "diskio": {"bytes_read": newest.bytes_read, "bytes_written": newest.bytes_written},
    }
    return as_json(
        {
            "cpu_usage": cpu,
            "memory": {
                "memory": newest.memory,
                "memory_max": peak,
                "memory_limit": newest.memory_limit,
                "swap": newest.swap,
                "swap_max": most_swap,
                "swap_limit": newest.swap_limit,
            },
            "database_stats": {"data_size": newest.data_size, "counters": dict(newest.counters)},
            "real_disk_size": newest.disk_used,
            "instances_metrics": {instance: of_instance},
        }
    )


async def get_series(request: Request, database_id: str, kind: str) -> Response:
    """Show one kind of metrics over time: `since` an instant or so many hours ago, or the `last` so many hours.

    `last=true` shows the newest value alone.
    """
    _, database = database_of(request, database_id)
    return await _series(request, database, kind)


async def get_instance_series(request: Request, database_id: str, instance_id: str, kind: str) -> Response:
    """Show one kind of metrics of one instance over time."""
    _, database = database_of(request, database_id)
    if instance_id != stable_id("instance", database.id):
        raise ResourceNotFound("There is no instance of this id on this database.")
    return await _series(request, database, kind)


async def get_lag(request: Request, database_id: str) -> Response:
    """Show how far the server is behind the one that it follows, if it follows one."""
    _, database = database_of(request, database_id)
    measures = (await service_of(request).sampler.now(database))[-1].measures
    return as_json({"role": measures.role, "lag_seconds": measures.lag_seconds})


async def _series(request: Request, database: Database, kind: str) -> Response:
    if kind not in KINDS:
        raise ResourceNotFound(f"There is no such type of metrics, only {', '.join(KINDS)}.")
    since, last = _since(request), _last(request)
    series = await service_of(request).sampler.now(database)
    end = series[-1].at
    if last == "newest":
        begin = end
    elif isinstance(since, datetime):
        begin = since
    else:
        begin = end - timedelta(hours=last or since or LAST_HOURS)
    previous: Sample | None = None
    values: list[dict[str, Any]] = []
    for each in series:
        if each.at >= begin:
            values.append({"time": each.at, **_values(kind, previous, each)})
        previous = each
    return as_json({"type": kind, "values": values})


def _values(kind: Kind, previous: Sample | None, sample: Sample) -> dict[str, Any]:
    now = sample.measures
    match kind:
        case "cpu":
            return {"value": cpu_percent(previous, sample) if previous else None}
        case "memory":
            return {"value": now.memory}
        case "swap":
            return {"value": now.swap}
        case "disk":
            return {"value": now.data_size, "disk_used": now.disk_used, "disk_size": now.disk_size}
        case "diskio":
            return {"bytes_read": now.bytes_read, "bytes_written": now.bytes_written}


def _since(request: Request) -> datetime | int | None:
    """Read an instant, or how many hours ago, which is what one client sends."""
    text = given_once(request, "since")
    if not text:
        return None
    if hours := _hours(text):
        return hours
    try:
        since = datetime.fromisoformat(text)
    except ValueError:
        since = None
    if since is None or since.tzinfo is None:
        raise InvalidParams({"since": ["must be an RFC 3339 date and time with an offset, or a number of hours"]})
    return since


def _last(request: Request) -> Literal["newest"] | int | None:
    """Read a number of hours, or whether the newest value is enough, which is what one client sends."""
    text = given_once(request, "last")
    if text in (None, "", "false"):
        return None
    if text == "true":
        return "newest"
    if hours := _hours(text):
        return hours
    raise InvalidParams({"last": ["must be a whole number of hours from 1 to 9999, or true"]})


def _hours(text: str) -> int | None:
    return int(text) or None if text.isascii() and text.isdigit() and len(text) <= 4 else None


def install(app: FastAPI) -> None:
    """Put the routes of metrics into an app."""
    one = "/api/databases/{database_id}"
    failures = (
        "not_supported",
        "privilege_missing",
        "not_found",
        "engine_unavailable",
        "overloaded",
        "deadline_exceeded",
    )
    for path, endpoint, model, name in (
        (one + "/metrics", get_metrics, MetricsBody, "get_database_metrics"),
        (one + "/lag", get_lag, LagBody, "get_database_lag"),
    ):
        app.add_api_route(
            path, endpoint, **described(*failures, response_model=model, tags=["metrics"], operation_id=name)
        )
    for path, endpoint, name in (
        (one + "/metrics/{kind}", get_series, "get_database_series"),
        (one + "/instances/{instance_id}/metrics/{kind}", get_instance_series, "get_instance_series"),
    ):
        app.add_api_route(
            path,
            endpoint,
            **described(
                *failures,
                "invalid_params",
                query={"since": {"type": "string"}, "last": {"type": "string"}},
                response_model=SeriesBody,
                tags=["metrics"],
                operation_id=name,
            ),
        )
