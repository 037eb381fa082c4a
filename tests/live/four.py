"""One dbvalet before four live servers, beside logical databases that are not its own and must stay as they are."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psycopg
import pymysql

from tests.live.accounts import account_on
from tests.live.servers import LiveServer
from tests.live.test_backup_routes import MADE, programs_of
from tests.unit.running import Running, configuration, serving

TOKENS = {role: f"token-of-the-{role}-of-four" for role in ("admin", "operator", "reader")}

SESSIONS = 5

FOLDERS: list[TemporaryDirectory[str]] = []
"""Which are there until this process ends."""

IDS = {engine: f"ad-{engine}" for engine in ("postgresql", "mysql", "mongodb", "influxdb")}


@dataclass
class Neighbours:
    """A logical database on each server that dbvalet has no business with, and a session of somebody in it."""

    name: str
    contents: dict[str, Any]
    postgresql: psycopg.Connection[Any]
    mysql: pymysql.connections.Connection[Any]

    def look(self) -> dict[str, Any]:
        """Give what they hold, as their applications see it."""
        return {engine: content.look() for engine, content in self.contents.items()}

    def sessions(self) -> tuple[Any, Any]:
        """Say who is asked in the sessions that were there from the beginning; fails when one was ended."""
        backend = self.postgresql.execute("SELECT pg_backend_pid()").fetchone()
        self.mysql.ping(reconnect=False)
        return backend, self.mysql.thread_id()


@dataclass
class Four:
    """The dbvalet, its servers, and the neighbours."""

    running: Running
    file: Path
    """Its configuration, whose urls stand in …"""
    variables: dict[str, str]
    lives: dict[str, LiveServer]
    names: dict[str, str]
    """Of the logical database in the URL, by engine."""
    contents: dict[str, Any]
    neighbours: Neighbours
    lines: list[bytes]
    """What it writes to its standard output, as it comes."""
    sessions: list[psycopg.Connection[Any]]
    """Of applications, in the PostgreSQL database that dbvalet serves."""

    def client(self, role: str = "admin", **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.running.url, headers=bearer(role), timeout=60, trust_env=False, **more)

    def backends(self) -> list[int]:
        """Give process ids of PostgreSQL that dbvalet may signal: of sessions that do nothing."""
        url = self.owner_url()
        for each in self.sessions:
            each.close()  # the server has as many connections as it has
        self.sessions[:] = [psycopg.connect(url, autocommit=True) for _ in range(SESSIONS)]
        return [each.info.backend_pid for each in self.sessions]

    def owner_url(self) -> str:
        """Give the URL of the PostgreSQL database for the ordinary role that owns it, as applications have it."""
        return self.contents["postgresql"].url


def bearer(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[role]}"}


@contextmanager
def planted(lives: dict[str, LiveServer]) -> Iterator[Neighbours]:
    name = f"neighbour_{time.time_ns()}"
    with ExitStack() as stack:
        contents: dict[str, Any] = {}
        for engine, live in lives.items():
            _, contents[engine] = stack.enter_context(MADE[engine](live, name))
            contents[engine].fill()
        pg, my = lives["postgresql"], lives["mysql"]
        yield Neighbours(
            name=name,
            contents=contents,
            postgresql=stack.enter_context(psycopg.connect(pg.url(database=name), autocommit=True)),
            mysql=stack.enter_context(
                pymysql.connect(host=my.host, port=my.port, user=my.admin, password=my.password, database=name)
            ),
        )


@cache
def programs_once(live: LiveServer) -> list[Path]:
    """Take the programs out of a server's container, once for all tests of this process."""
    folder = TemporaryDirectory(prefix="dbvalet-programs-")
    FOLDERS.append(folder)
    return programs_of(live, Path(folder.name) / "programs")


@contextmanager
def four(
    lives: dict[str, LiveServer],
    folder: Path,
    *,
    of_database: Callable[[str], dict[str, Any]] = lambda engine: {},
    with_programs: bool = False,
    **more: Any,
) -> Iterator[Four]:
    """Serve a new logical database of each server. `more` are keys of the configuration, `of_database` of each one.

    With the servers' own programs, backups can be made.
    """
    name = f"own_{time.time_ns()}"
    with ExitStack() as stack:
        neighbours = stack.enter_context(planted(lives))
        urls: dict[str, str] = {}
        contents: dict[str, Any] = {}
        for engine, live in lives.items():
            urls[engine], contents[engine] = stack.enter_context(MADE[engine](live, name))
            contents[engine].fill()
            # Whose objects there are is known only now.
            account_on(live, name, parts=("backups", "restores", "users", "figures", "logs"))
        settings = {
            "tokens": [
                {"name": role, "token": token, "role": role, "databases": ["*"]} for role, token in TOKENS.items()
            ],
            **more,
        }
        file = configuration(
            folder,
            *({"id": IDS[engine], "url": f"${{URL_{engine.upper()}}}", **of_database(engine)} for engine in urls),
            **settings,
        )
        programs = programs_once(lives["mysql"]) if with_programs else []
        variables = {
            "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
            **{f"URL_{engine.upper()}": url for engine, url in urls.items()},
        }
        running = stack.enter_context(serving(file, more=variables))
        lines: list[bytes] = []
        follow(running, lines)
        sessions: list[psycopg.Connection[Any]] = []
        yield Four(
            running=running,
            file=file,
            variables=variables,
            lives=lives,
            names=dict.fromkeys(urls, name),
            contents=contents,
            neighbours=neighbours,
            lines=lines,
            sessions=sessions,
        )


def follow(running: Running, lines: list[bytes]) -> None:
    """Keep what a dbvalet writes: a pipe that nobody reads holds up whoever writes to it."""
    pipe = running.process.stdout
    assert pipe is not None
    threading.Thread(target=lambda: lines.extend(pipe), daemon=True).start()
