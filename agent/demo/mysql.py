"""A MariaDB or MySQL of the demo's own: the machine's server, or MariaDB's Debian packages, unpacked."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pymysql

from agent.demo.apt_packages import AptPackages, library_path
from agent.demo.processes import ProcessFailed, RunFolder, Supervised
from agent.demo.started import (
    INITIALISE_LIMIT_SECONDS,
    START_LIMIT_SECONDS,
    LeftOut,
    Progress,
    StartedEngine,
    first_that_starts,
    new_password,
)

ADMIN = "root"
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

# Run by the server before it takes connections, one statement a line. mariadb-install-db leaves root without a password
# for localhost, 127.0.0.1, ::1 and the host's name; names are not looked up here, so root comes from 127.0.0.1.
MARIADB_ACCOUNTS = """\
DELETE FROM mysql.global_priv WHERE User = '' OR User = 'root';
FLUSH PRIVILEGES;
CREATE USER root@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL PRIVILEGES ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;
"""
MYSQL_ACCOUNTS = """\
CREATE USER root@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL PRIVILEGES ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;
DROP USER root@'localhost';
"""


@dataclass(frozen=True, slots=True)
class Programs:
    """A server with what it needs."""

    server: Path
    is_mariadb: bool
    root: Path = Path("/")
    """Below it the programs and their files lie as a package lays them below `/`."""
    environment: dict[str, str] = field(default_factory=dict[str, str])
    tools: Path | None = None
    """What dbvalet makes backups with, if it is not on PATH."""


def start_mysql(run: RunFolder, progress: Progress, packages: AptPackages) -> StartedEngine:
    """Start a MariaDB or MySQL server.

    Raises: DemoError
    """
    installed = _installed(run)
    ways = [lambda: _start(run, progress, _fetched(run, progress, packages), "mysql")]
    if installed is not None:
        ways.insert(0, lambda: _start(run, progress, installed, "mysql-installed"))
    return first_that_starts("mysql", progress, ways)


def _installed(run: RunFolder) -> Programs | None:
    found = shutil.which("mariadbd", path=SYSTEM_PATH) or shutil.which("mysqld", path=SYSTEM_PATH)
    if found is None:
        return None
    is_mariadb = "MariaDB" in run.output(found, "--version")
    if is_mariadb and shutil.which("mariadb-install-db", path=SYSTEM_PATH) is None:
        return None
    return Programs(Path(found), is_mariadb)


def _fetched(run: RunFolder, progress: Progress, packages: AptPackages) -> Programs:
    if not packages.available():
        raise LeftOut("there is no MariaDB or MySQL server on this machine and no apt to get one")
    tree = packages.fetch(
        ["mariadb-server-core", "mariadb-client-core"], lambda: progress("mysql", "fetching MariaDB's packages")
    )
    inside = Path("usr/sbin/mariadbd")
    root = run.readable(tree, [part.name for part in tree.iterdir() if part.is_dir()], inside)
    return Programs(root / inside, True, root, library_path(root), _tools(run, progress, packages, tree))


def _tools(run: RunFolder, progress: Progress, packages: AptPackages, tree: Path) -> Path | None:
    """Make a folder with the client and the dump program that run where they were unpacked; None without them."""
    try:
        # mariadb-dump is in another package than the client and the server.
        with_dump = packages.fetch(["mariadb-client"], lambda: progress("mysql", "fetching mariadb-dump"))
    except ProcessFailed as failure:
        progress("mysql", f"without backups: {failure}")
        return None
    libraries = ":".join(library_path(each)["LD_LIBRARY_PATH"] for each in (tree, with_dump)).strip(":")
    folder = run.path / "mariadb-tools"
    folder.mkdir(0o700, exist_ok=True)
    for program in (tree / "usr/bin/mariadb", with_dump / "usr/bin/mariadb-dump"):
        script = folder / program.name
        script.write_text(
            f'#!/bin/sh\nexport LD_LIBRARY_PATH={shlex.quote(libraries)}\nexec {shlex.quote(str(program))} "$@"\n',
            encoding="utf-8",
        )
        script.chmod(0o700)
    return folder


def _start(run: RunFolder, progress: Progress, programs: Programs, name: str) -> StartedEngine:
    folder = run.server_folder(name)
    progress("mysql", "making the data directory")
    _initialise(run, folder, programs)
    password = new_password()
    accounts = MARIADB_ACCOUNTS if programs.is_mariadb else MYSQL_ACCOUNTS
    run.write_secret(folder / "accounts.sql", accounts.format(password=password))

    def start(port: int) -> Supervised:
        return run.start(
            folder,
            [
                programs.server,
                "--no-defaults",
                *_places(programs),
                f"--datadir={folder / 'data'}",
                f"--init-file={folder / 'accounts.sql'}",
                "--socket=server.sock",  # within the data directory: a path of more than 107 bytes would not do
                "--pid-file=server.pid",
                "--bind-address=127.0.0.1",
                f"--port={port}",
                "--skip-name-resolve",
                *(() if programs.is_mariadb else ("--mysqlx=OFF", "--secure-file-priv=NULL")),
            ],
            environment=programs.environment,
        )

    def ready(port: int) -> bool:
        try:
            _connect(port, password).close()
        except pymysql.err.OperationalError:
            return False
        return True

    progress("mysql", "starting")
    _, port = run.start_on_free_port(start, ready, seconds=START_LIMIT_SECONDS)
    (folder / "accounts.sql").unlink()
    with _connect(port, password) as connection, connection.cursor() as cursor:
        # The greeting's version would do but for MariaDB, which puts `5.5.5-` before its own there.
        cursor.execute("SELECT VERSION()")
        (version,) = cursor.fetchone() or ("unknown",)
    url = f"mysql://{ADMIN}:{password}@127.0.0.1:{port}/mysql"
    return StartedEngine("mysql", str(version), port, ADMIN, password, url, tools=programs.tools)


def _connect(port: int, password: str) -> pymysql.Connection[pymysql.cursors.Cursor]:
    return pymysql.connect(host="127.0.0.1", port=port, user=ADMIN, password=password, connect_timeout=2)


def _places(programs: Programs) -> list[str]:
    """Tell an unpacked server where its own files lie; an installed one knows."""
    return [] if programs.root == Path("/") else [f"--basedir={programs.root / 'usr'}"]


def _initialise(run: RunFolder, folder: Path, programs: Programs) -> None:
    if not programs.is_mariadb:
        command: list[str | Path] = [
            programs.server,
            "--no-defaults",
            "--initialize-insecure",
            "--secure-file-priv=NULL",
            f"--datadir={folder / 'data'}",
        ]
        run.run(folder, command, seconds=INITIALISE_LIMIT_SECONDS, name="initialise")
        return
    run.run(
        folder,
        [
            programs.root / "usr/bin/mariadb-install-db",
            "--no-defaults",
            f"--basedir={programs.root / 'usr'}",
            f"--datadir={folder / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ],
        environment={**programs.environment, "PATH": f"{programs.root}/usr/bin:{programs.root}/usr/sbin:/usr/bin:/bin"},
        seconds=INITIALISE_LIMIT_SECONDS,
        name="initialise",
    )
