"""A dbvalet that is asked while something fails, and what every one of its answers has to be."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from agent.api.errors import STATUS
from tests.live.faults.disk import Disk, new_disk
from tests.unit.running import TOKEN, Running, configuration, serving

DIRECT, THROUGH = "ad-x", "ad-cut"
"""The deployment, and the same one with a network before it that can fail."""

LATE = 30.0
"""Seconds after which clients give up."""

PATIENCE = 60.0
"""Seconds within which everything is over."""

TRY_LATER = frozenset({429, 503, 504})

PUT_RIGHT = frozenset({"in_progress", "privilege_missing"})
"""Codes after which the same key asks anew: nothing was begun."""


class Broken(AssertionError):
    """What a user may rely on was not so. `kind` is the column of totals that it counts in."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


@dataclass(frozen=True)
class Answer:
    """An answer of dbvalet to an action, in the form that all of them have."""

    status: int
    body: bytes
    replayed: bool

    @property
    def code(self) -> str:
        """`ok`, or that of the error table."""
        return "ok" if self.status == 200 else str(json.loads(self.body)["code"])

    @property
    def result(self) -> Any:
        return json.loads(self.body)["result"]

    @property
    def is_final(self) -> bool:
        return self.status not in TRY_LATER and self.code not in PUT_RIGHT


class Service:
    """A dbvalet that runs, with the file of its state."""

    def __init__(self, running: Running, state: Path, disk: Disk | None) -> None:
        self.running = running
        self.log: list[str] = []
        """What it logged, and what it said otherwise."""
        self.unknown: set[str] = set()
        """Keys of which it said that it is not known what became of them."""
        self.disk = disk
        """Where the state is, if that can be made full."""
        self._state = state
        self._client = httpx.Client(
            base_url=running.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=LATE, trust_env=False
        )

    def follow(self, pipe: IO[bytes]) -> None:
        """Read a log to its end."""
        for line in pipe:
            self.log.append(line.decode(errors="replace").rstrip())

    def ask(
        self, action: str, params: Any = None, *, key: str | None = None, of: str = DIRECT, dry_run: bool = False
    ) -> Answer:
        """Ask for an action; whatever the answer, it has the form of the documented ones.

        Raises: Broken
        """
        body: dict[str, Any] = {"action_name": action, "params": params}
        if dry_run:
            body["dry_run"] = True
        headers = {} if key is None else {"Idempotency-Key": key}
        try:
            response = self._client.post(f"/api/databases/{of}/action", json=body, headers=headers)
        except httpx.TransportError as nothing:
            raise Broken("late", f"no answer within {LATE:g} s: {nothing!r}") from nothing
        text = f"{action}: {response.status_code} {response.text}"
        given = response.json()
        if response.status_code == 200:
            if given.get("ok") != 1 or "result" not in given:
                raise Broken("odd", text)
        else:
            if given.get("ok") != 0 or STATUS.get(given.get("code")) != response.status_code or not given.get("error"):
                raise Broken("odd", text)
            if given["code"] == "internal":
                raise Broken("odd", "\n".join([text, *self.log[-20:]]))
            if given["code"] == "answer_unknown" and key is not None:
                self.unknown.add(key)
            if response.status_code in (429, 503) and not response.headers.get("Retry-After", "").isdigit():
                raise Broken("odd", f"no Retry-After: {text}")
        return Answer(response.status_code, response.content, "Idempotent-Replayed" in response.headers)

    def ask_until_final(self, ask: Callable[[], Answer]) -> Answer:
        """Ask again as long as the answer says to try later.

        Raises: Broken
        """
        ends_at = time.monotonic() + PATIENCE
        while not (answer := ask()).is_final:
            if time.monotonic() > ends_at:
                raise Broken("stuck", f"after {PATIENCE:g} s still {answer.body!r}")
            time.sleep(0.1)
        return answer

    def open_work(self) -> list[str]:
        """List the keys whose request is neither answered nor said to be unknown, and operations without an end."""
        if not self._state.exists():
            return []
        with closing(sqlite3.connect(f"file:{self._state}?mode=ro", uri=True, timeout=10)) as state:
            keys = state.execute("SELECT key FROM idempotency_keys WHERE answer IS NULL").fetchall()
            operations = state.execute("SELECT id FROM operations WHERE finished_at IS NULL").fetchall()
        return [str(row[0]) for row in (*keys, *operations) if row[0] not in self.unknown]

    def use_up_the_log(self) -> None:
        """Copy the log of the state back: what it has room for is kept on a full disk too."""
        if self._state.exists():
            with closing(sqlite3.connect(f"file:{self._state}?mode=rw", uri=True, timeout=10)) as state:
                state.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def new_service(folder: Path, direct: str, through: str) -> Iterator[Service]:
    """Serve a deployment, by its URL, and by the one that leads through a network that can fail."""
    with new_disk(folder / "state", "4m") as disk:
        config = configuration(folder / "state", {"id": DIRECT, "url": direct}, {"id": THROUGH, "url": through})
        with serving(config) as running:
            process = running.process
            service = Service(running, folder / "state" / "state.db", disk)
            # A pipe that nobody reads holds up whoever writes to it.
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                threading.Thread(target=service.follow, args=(pipe,), daemon=True).start()
            yield service
            assert process.poll() is None, "dbvalet ended"
