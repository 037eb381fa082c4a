"""The fake engine's counters, log and switch."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from engines.engine import Feature
from engines.health import Lack, LogLine, Measures, Role, Route, Switched
from tests.fakes.driver import FakeServer


class FakeHealth:
    """Raises the server's `problem`; TLS is what was last set."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    async def measures(self) -> Measures:
        await self._server.perform("measure")
        return Measures(counters={"work": len(self._server.performed)}, role="leader", memory=1000, data_size=5)

    async def role(self) -> Role | None:
        await self._server.perform("role")
        return "follower"

    async def log(self, lines: int) -> list[LogLine]:
        await self._server.perform("log")
        return [LogLine(at=datetime(2026, 1, 31, 8, 0, 0, 120, tzinfo=UTC), text="  a  line\twith spaces")][:lines]

    async def lacking(self) -> Mapping[Route, list[Lack]]:
        lacks = [
            Lack(name=each, remedy=f"GRANT {each}") for each in ("logright",) if not await self._server.check(each)
        ]
        return {"logs": lacks} if lacks else {}

    async def force_ssl(self, on: bool) -> Switched:
        await self._server.perform(f"force-ssl {on}")
        seen = self._server.description
        if not isinstance(seen, Exception):
            others = tuple(each for each in seen.features if each.name != "force-ssl")
            self._server.description = replace(seen, features=others + (Feature(name="force-ssl"),) * on)
        self._server.end()
        return Switched(name="force-ssl", status="ACTIVATED" if on else "REMOVED", message="set")
