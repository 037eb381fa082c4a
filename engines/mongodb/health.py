"""What MongoDB tells of how it does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from engines.errors import Precondition
from engines.health import Lack, LogLine, Measures, Role, Route, Switched
from engines.mongodb.grants import CLUSTER_ACTIONS, FIGURE_ACTIONS, figure_remedy
from engines.mongodb.requirements import ANY_COLLECTION, CLUSTER, met
from engines.mongodb.server import MongoServer

MEGABYTE = 1024 * 1024


class MongoHealth:
    """Counters and log of one MongoDB deployment."""

    def __init__(self, server: MongoServer) -> None:
        self._server = server

    async def measures(self) -> Measures:
        """Read serverStatus, hostInfo and dbStats.

        Raises: PrivilegeMissing, when the account has not the role clusterMonitor; EngineUnavailable
        """
        status = await self._server.read("admin", {"serverStatus": 1})
        stats = await self._server.read(self._server.address.database, {"dbStats": 1})
        host = (await self._server.read("admin", {"hostInfo": 1}))["system"]
        extra: dict[str, Any] = status.get("extra_info", {})
        cpu = None
        if "user_time_us" in extra:
            cpu = (extra["user_time_us"] + extra["system_time_us"]) / 1_000_000
        resident = status.get("mem", {}).get("resident")
        role = await self.role()
        counters = {f"op_{name}": int(value) for name, value in status["opcounters"].items() if name != "deprecated"}
        counters |= {
            "connections": int(status["connections"]["current"]),
            "network_bytes_in": int(status["network"]["bytesIn"]),
            "network_bytes_out": int(status["network"]["bytesOut"]),
            "objects": int(stats["objects"]),
        }
        return Measures(
            counters=counters,
            role=role,
            cpu_seconds=cpu,
            memory=None if resident is None else int(resident) * MEGABYTE,
            memory_limit=_limit(host),
            data_size=int(stats["dataSize"]),
            disk_used=_whole(stats.get("fsUsedSize")),
            disk_size=_whole(stats.get("fsTotalSize")),
        )

    async def role(self) -> Role | None:
        """Ask whether this is the primary or a secondary; an arbiter, or who is not elected yet, is neither.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        hello = await self._server.read("admin", {"isMaster": 1})
        if hello.get("msg") == "isdbgrid":
            return None  # a router, which holds no data
        return "leader" if hello.get("ismaster") else "follower" if hello.get("secondary") else None

    async def log(self, lines: int) -> list[LogLine]:
        """Read the last lines, of 1024 that the server keeps in memory.

        Raises: PrivilegeMissing, when the account has not the role clusterMonitor; EngineUnavailable
        """
        reply = await self._server.read("admin", {"getLog": "global"})
        return [line for text in reply["log"][-lines:] if (line := _line(text)) is not None]

    async def lacking(self) -> Mapping[Route, list[Lack]]:
        """Look which of the commands the account may not run.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        database = self._server.address.database
        remedy = figure_remedy(self._server.address.user or "valet", database)
        lacks: dict[Route, list[Lack]] = {}
        for route, actions in FIGURE_ACTIONS.items():
            places = [
                CLUSTER if action in CLUSTER_ACTIONS else {"db": database, "collection": ""} for action in actions
            ]
            missing = [
                Lack(name=action, remedy=remedy)
                for action, place in zip(actions, places, strict=True)
                if not (await met(action, place)(self._server) or await met(action, ANY_COLLECTION)(self._server))
            ]
            if missing:
                lacks[route] = missing
        return lacks

    async def force_ssl(self, on: bool) -> Switched:
        """Refuse: TLS of MongoDB is chosen when it starts.

        Raises: Precondition
        """
        raise Precondition(
            "MongoDB chooses when it starts whether it refuses connections without TLS: set net.tls.mode to "
            "requireTLS (or allowTLS to let others in) in its configuration and restart it."
        )


def _limit(host: dict[str, Any]) -> int | None:
    """Give what the server's control group may hold; None where that is all of the machine, which is no limit."""
    limit = host.get("memLimitMB")
    return None if limit is None or limit >= host["memSizeMB"] else int(limit) * MEGABYTE


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _line(text: str) -> LogLine | None:
    """Read a line: JSON since 4.4, before it a date and words."""
    try:
        at = json.loads(text)["t"]["$date"] if text.startswith("{") else text.split(" ", 1)[0]
        moment = datetime.fromisoformat(at[:-2] + ":" + at[-2:] if at[-5] in "+-" else at)
    except (ValueError, KeyError, TypeError, IndexError):
        return None  # cut short by the server, at 1024 bytes: it says of no moment
    return LogLine(at=moment.astimezone(UTC), text=text.rstrip())
