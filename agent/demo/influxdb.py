"""An InfluxDB 1.x of the demo's own: the machine's `influxd`, or that of the Debian package, unpacked."""

from __future__ import annotations

import base64
import http.client
import shutil
import signal
import urllib.parse
from http import HTTPStatus
from pathlib import Path

from agent.demo.apt_packages import AptPackages
from agent.demo.processes import DemoError, RunFolder, Supervised
from agent.demo.started import START_LIMIT_SECONDS, LeftOut, Progress, StartedEngine, first_that_starts, new_password

ADMIN = "admin"

CONFIGURATION = """\
reporting-disabled = true
bind-address = "127.0.0.1:0"

[meta]
  dir = "meta"

[data]
  dir = "data"
  wal-dir = "wal"
  query-log-enabled = false

[monitor]
  store-enabled = false

[http]
  bind-address = "127.0.0.1:{port}"
  auth-enabled = true
  log-enabled = false
"""


def start_influxdb(run: RunFolder, progress: Progress, packages: AptPackages) -> StartedEngine:
    """Start an influxd with accounts.

    Raises: DemoError
    """
    installed = shutil.which("influxd")
    ways = [lambda: _start(run, progress, _fetched(run, progress, packages), "influxdb")]
    # influxd 2.x has the same name and none of the 1.x administration.
    if installed is not None and "v2." not in run.output(installed, "version"):
        ways.insert(0, lambda: _start(run, progress, Path(installed), "influxdb-installed"))
    return first_that_starts("influxdb", progress, ways)


def _fetched(run: RunFolder, progress: Progress, packages: AptPackages) -> Path:
    if not packages.available():
        raise LeftOut("there is no influxd 1.x on this machine and no apt to get one")
    inside = Path("usr/bin/influxd")
    tree = packages.fetch(["influxdb"], lambda: progress("influxdb", "fetching the package influxdb"))
    return run.readable(tree, ("usr",), inside) / inside


def _start(run: RunFolder, progress: Progress, program: Path, name: str) -> StartedEngine:
    folder = run.server_folder(name)
    password = new_password()

    def start(port: int) -> Supervised:
        (folder / "influxdb.conf").write_text(CONFIGURATION.format(port=port), encoding="utf-8")
        return run.start(folder, [program, "-config", "influxdb.conf"], stop_signal=signal.SIGINT)

    progress("influxdb", "starting")
    _, port = run.start_on_free_port(start, lambda port: _version(port) is not None, seconds=START_LIMIT_SECONDS)
    # Without any account, anyone may create the first one if it is an admin.
    _query(port, f"CREATE USER {ADMIN} WITH PASSWORD '{password}' WITH ALL PRIVILEGES", None)
    _query(port, "SHOW USERS", password)
    url = f"influxdb://{ADMIN}:{password}@127.0.0.1:{port}/"
    return StartedEngine("influxdb", _version(port) or "unknown", port, ADMIN, password, url)


def _version(port: int) -> str | None:
    """Ask `/ping`, which 1.6 answers where it has no `/health`; None while nothing listens.

    Raises: DemoError
    """
    try:
        answer, _ = _ask(port, "GET", "/ping", {})
    except OSError:
        return None
    version = answer.getheader("X-Influxdb-Version")
    if version is None:
        raise DemoError(f"another server than InfluxDB answers on port {port}")
    return version


def _query(port: int, statement: str, password: str | None) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if password is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(f'{ADMIN}:{password}'.encode()).decode()}"
    answer, text = _ask(port, "POST", "/query", headers, urllib.parse.urlencode({"q": statement}))
    if answer.status != HTTPStatus.OK or '"error"' in text:
        raise DemoError(f"InfluxDB refused its first account: {answer.status} {text}")


def _ask(
    port: int, method: str, path: str, headers: dict[str, str], body: str | None = None
) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer, answer.read().decode(errors="replace")
    finally:
        connection.close()
