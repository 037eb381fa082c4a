"""What a measurement runs: dbvalet itself, its loads, the bare drivers, pgbench."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx

from tests.bench.figures import summary

ROOT = Path(__file__).parents[2]
START_SECONDS = 20


class Dbvalet:
    """A running `dbvalet serve`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, token: str, state: Path) -> None:
        self.process, self.port, self.token, self.state = process, port, token, state

    def load(self, database: str, action: str, clients: int, seconds: float) -> dict[str, float]:
        """Let `clients` ask for an action as fast as they get answers."""
        command = ["tests.bench.load", "127.0.0.1", str(self.port), database, action, str(clients), str(seconds)]
        return run_json(command, BENCH_TOKEN=self.token)

    def writes(self, database: str, action: str, params: object, *, keyed: bool, seconds: float) -> dict[str, float]:
        """Ask for a change again and again over one kept connection, each with a key of its own if wished."""
        took: list[float] = []
        failed = 0
        began = time.perf_counter()
        with self._changes(database, action, params, keyed=keyed) as change:
            while time.perf_counter() - began < seconds:
                asked = time.perf_counter()
                status = change()
                took.append(time.perf_counter() - asked)
                failed += status != 200
        return summary(took, time.perf_counter() - began, failed)

    def commits(self, database: str, action: str, params: object, *, keyed: bool, writes: int = 25) -> float | None:
        """Give the durable commits of the state for each of so many changes: as often as its log is synced.

        None where strace, which counts them, is missing or may not trace
        """
        with self._changes(database, action, params, keyed=keyed) as change:
            # From a log that is empty on, of which no part is copied back before they are done.
            with closing(sqlite3.connect(self.state)) as state:
                state.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            change()
            trace = self.state.with_name("syncs")
            with _syncs_traced(self.process.pid, trace) as is_traced:
                if not is_traced:
                    return None
                for _ in range(writes):
                    change()
        synced = trace.read_text()
        # Where there is no log, the file itself is synced once for each.
        return (synced.count(f"<{self.state}-wal>") or synced.count(f"<{self.state}>")) / writes

    @contextmanager
    def _changes(self, database: str, action: str, params: object, *, keyed: bool) -> Iterator[Callable[[], int]]:
        """Give what asks once for a change, and gives the status."""
        body = json.dumps({"action_name": action, "params": params})
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port)

        def change() -> int:
            more = {"Idempotency-Key": os.urandom(8).hex()} if keyed else {}
            connection.request("POST", f"/api/databases/{database}/action", body, headers | more)
            answer = connection.getresponse()
            answer.read()
            return answer.status

        with closing(connection):
            yield change

    def act(self, database: str, action: str) -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{self.port}/api/databases/{database}/action",
            json={"action_name": action},
            headers={"Authorization": f"Bearer {self.token}"},
        )


@contextmanager
def _syncs_traced(pid: int, trace: Path) -> Iterator[bool]:
    """Note down what a process asks the kernel to sync, in a file that is whole at its end; tells whether it can."""
    strace = shutil.which("strace")
    if strace is None:
        yield False
        return
    command = [strace, "-f", "-y", "-e", "trace=fdatasync,fsync", "-o", str(trace), "-p", str(pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    try:
        yield "attached" in tracer.stderr.readline()
    finally:
        tracer.terminate()
        tracer.communicate()


@contextmanager
def serving(databases: dict[str, str], first: tuple[str, str]) -> Iterator[tuple[Dbvalet, float]]:
    """Serve databases (URL by id); gives dbvalet and the seconds from its start to the answer of the `first` action."""
    token = os.urandom(16).hex()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "dbvalet.json")
        config.write_text(
            json.dumps(
                {
                    "listen": f"127.0.0.1:{port}",
                    "state": f"sqlite:///{folder}/state.db",
                    "tokens": [{"name": "bench", "token": token, "role": "admin", "databases": ["*"]}],
                    # As in production, with what is counted counted, and never reached.
                    "limits": dict.fromkeys(("read", "write", "destructive"), "100000/second"),
                    "databases": [{"id": name, "url": url} for name, url in databases.items()],
                }
            )
        )
        with Path(folder, "log").open("wb") as log:
            began = time.perf_counter()
            dbvalet = shutil.which("dbvalet", path=str(Path(sys.executable).parent)) or "dbvalet"
            process = subprocess.Popen([dbvalet, "serve", "--config", str(config)], stdout=log, stderr=log)
            server = Dbvalet(process, port, token, Path(folder, "state.db"))
            try:
                yield server, _first_answer(server, first, began, Path(folder, "log"))
            finally:
                process.terminate()
                process.wait(30)


def _first_answer(server: Dbvalet, first: tuple[str, str], began: float, log: Path) -> float:
    while time.perf_counter() - began < START_SECONDS:
        if server.process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
        except OSError:
            time.sleep(0.002)
            continue
        answer = server.act(*first)
        if answer.status_code != 200:
            raise RuntimeError(f"{first}: {answer.status_code} {answer.text}")
        return time.perf_counter() - began
    raise RuntimeError(f"dbvalet did not start:\n{log.read_text()}")


def bare(engine: str, url: str, seconds: float) -> dict[str, float]:
    """Read through the bare driver, in a process of its own."""
    return run_json(["tests.bench.bare", engine, str(seconds)], BENCH_URL=url)


def pgbench(url: str, sql: str, clients: int, seconds: float) -> float:
    """Give the transactions per second of `pgbench -M prepared`.

    Raises: FileNotFoundError, when pgbench is not on this machine
    """
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(" ".join(sql.split()) + ";\n")
        script.flush()
        command = [find_pgbench(), "-n", "-M", "prepared", "-f", script.name, "-c", str(clients)]
        command += ["-j", str(min(clients, 2)), "-T", str(max(1, round(seconds))), url]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
    if found is None:
        raise RuntimeError(output)
    return float(found[1])


def find_pgbench() -> str:
    """Find pgbench on PATH or where Debian keeps it."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"), reverse=True)
    found = str(places[0]) if places else shutil.which("pgbench")
    if found is None:
        raise FileNotFoundError("pgbench: on Debian it is in the package postgresql-15 (or the newest there is)")
    return found


def run_json(module: list[str], **environment: str) -> dict[str, float]:
    """Run a module of this package and read the JSON it prints."""
    command = [sys.executable, "-m", *module]
    output = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=os.environ | environment)
    return json.loads(output.stdout)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
