"""What InfluxDB tells of how it does."""

from __future__ import annotations

from collections.abc import Mapping

from engines.errors import Precondition
from engines.health import LOG_FILE, Lack, LogLine, Measures, Role, Route, Switched
from engines.influxdb.requirements import grant_admin_for_counters, is_admin
from engines.influxdb.server import InfluxServer

SERIES = {
    "httpd": ("req", "queryReq", "writeReq", "pointsWrittenOK", "clientError", "serverError"),
    "queryExecutor": ("queriesExecuted", "queriesFinished"),
    "write": ("pointReq", "writeOk"),
}
"""What is kept of SHOW STATS. https://docs.influxdata.com/platform/monitoring/influxdata-platform/tools/measurements-internal/"""


class InfluxHealth:
    """Counters of one InfluxDB server."""

    def __init__(self, server: InfluxServer) -> None:
        self._server = server

    async def measures(self) -> Measures:
        """Read SHOW STATS, which takes an admin.

        Raises: PrivilegeMissing, EngineUnavailable, DeadlineExceeded
        """
        stats = await self._server.read("SHOW STATS")
        counters = {
            f"{series}_{name}": int(stats[series][0][name])
            for series, names in SERIES.items()
            if stats.get(series)
            for name in names
            if name in stats[series][0]
        }
        runtime = stats["runtime"][0] if stats.get("runtime") else {}
        memory = runtime.get("Sys")
        # 1.x as open source knows no followers.
        return Measures(counters=counters, role="leader", memory=None if memory is None else int(memory))

    async def role(self) -> Role | None:
        """Give the only role: 1.x as open source knows no followers."""
        return "leader"

    async def log(self, lines: int) -> list[LogLine]:
        """Refuse: InfluxDB gives its log to nobody.

        Raises: Precondition
        """
        raise Precondition(
            "InfluxDB 1.x does not give its log to clients. Name the file that it is kept in with `log_file` at this "
            "database in dbvalet's configuration."
        )

    async def lacking(self) -> Mapping[Route, list[Lack]]:
        """Look whether the account may see the counters; nobody is given the log.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        lacks: dict[Route, list[Lack]] = {"logs": [LOG_FILE]}
        if not await is_admin(self._server):
            lacks["metrics"] = [Lack(name="ALL PRIVILEGES", remedy=grant_admin_for_counters(self._server))]
        return lacks

    async def force_ssl(self, on: bool) -> Switched:
        """Refuse: HTTPS is chosen when it starts.

        Raises: Precondition
        """
        raise Precondition(
            "InfluxDB chooses when it starts whether it speaks HTTPS, and then nothing else: set https-enabled in the "
            "section [http] of its configuration and restart it."
        )
