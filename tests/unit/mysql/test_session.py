"""A session learns what its account may do when it logs in, and forgets it with the connection."""

from typing import Any, cast

import pytest

from engines.errors import PrivilegeMissing
from engines.mysql import driver
from engines.mysql.driver import Session
from engines.mysql.pool import Pool


class Wire:
    """An open connection to a server that grants whatever `granted` has by then."""

    server_version = "9.7.0"

    def __init__(self, granted: list[str]) -> None:
        self.open = True
        self._granted = granted

    def limit(self, seconds: float) -> None: ...

    def interrupt(self) -> None: ...

    def close(self) -> None:
        self.open = False

    def ask(self, statement: str) -> Any:
        if statement == "SHOW GRANTS":
            return [(each,) for each in self._granted]
        return [("9.7.0", 0, "valet@%", "2026-01-01 00:00:00", "1")]


@pytest.fixture
def granted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    now: list[str] = []
    monkeypatch.setattr(driver, "_open", lambda *_: Wire(now))
    monkeypatch.setattr(driver, "_facts", lambda _, wire: _Facts(wire))
    return now


class _Facts:
    def __init__(self, wire: Wire) -> None:
        self.grants = tuple(row[0] for row in wire.ask("SHOW GRANTS"))


async def test_what_is_granted_after_the_login_counts_for_who_looks_at_the_grants_first(granted: list[str]) -> None:
    pool = Pool(lambda: Session(cast(Any, None), lambda _: None))

    def look(session: Session) -> tuple[str, ...]:
        if not session.facts.grants:
            raise PrivilegeMissing
        return session.facts.grants

    with pytest.raises(PrivilegeMissing):
        await pool.read(look)
    granted.append("GRANT DROP ON *.* TO `valet`@`%`")
    assert await pool.read(look) == tuple(granted)
    await pool.close()
