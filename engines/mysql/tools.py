"""The server's own programs: which ones fit, how they log in, and how they are run."""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engines.address import Address
from engines.backup import BLOCK, find_tool, run_tool
from engines.errors import BackupFailed
from engines.mysql.facts import Facts, Flavour, parse_version
from engines.mysql.tls import Mode, Tls, requested
from engines.threads import in_own_thread

TITLES: dict[Flavour, str] = {"mysql": "MySQL", "mariadb": "MariaDB"}

DUMPERS: dict[Flavour, tuple[str, ...]] = {"mysql": ("mysqldump",), "mariadb": ("mariadb-dump", "mysqldump")}

CLIENTS: dict[Flavour, tuple[str, ...]] = {"mysql": ("mysql",), "mariadb": ("mariadb", "mysql")}

PACKAGES: dict[Flavour, str] = {
    "mysql": "MySQL's package mysql-client (Debian: mysql-client-core)",
    "mariadb": "the package mariadb-client (mariadb-client-core is not enough)",
}

LARGEST_ROW = "--max-allowed-packet=1G"
"""What the server itself allows at most. Memory is used for the largest row only."""

# LOCK TABLES around the rows would forbid the sequences that a default of MariaDB's names: error 1100.
DUMP = (
    "--single-transaction",
    "--quick",
    "--hex-blob",
    "--skip-add-locks",
    "--skip-triggers",
    "--skip-routines",
    "--skip-events",
    "--no-tablespaces",
    "--default-character-set=utf8mb4",
    LARGEST_ROW,
)

# Without --binary-mode a \r\n in a comment would come back as \n, and a line of the file could run a command.
LOAD = ("--batch", "--binary-mode", "--default-character-set=utf8mb4", LARGEST_ROW)

FIRST_STATEMENT: dict[Flavour, str] = {
    "mysql": "SET @dbvalet = GET_LOCK('{lock}', 0), SESSION lock_wait_timeout = 60, SESSION wait_timeout = 604800",
    "mariadb": "SET @dbvalet = GET_LOCK('{lock}', 0), SESSION lock_wait_timeout = 60, SESSION wait_timeout = 604800,"
    " SESSION max_statement_time = 0",
}
"""Of a session that loads. The lock tells who it is, for the case that it outlives its dbvalet."""

HISTORY_SINCE = (10, 11)
"""MariaDB: `--dump-history`, and a session variable with which the server takes it back."""


OVERTAKEN = frozenset({1146, 1412})
"""NO_SUCH_TABLE and TABLE_DEF_CHANGED: a table was dropped, changed or emptied since the snapshot was taken."""

NUMBER = re.compile(r"[Ee]rror:? (\d+):|\((\d+)\)$", flags=re.ASCII | re.MULTILINE)
"""Of an error of the server, as the dump programs write it: `Error 1412: …`, `Got error: 1146: …`, `… (1146)`."""


class Overtaken(BackupFailed):
    """The program met a table that is no longer what it was when it began."""


class NoTool(Exception):
    """There is no fitting program; the text says what to install."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A program of the server's flavour, at least as new as the server."""

    path: Path
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.path.name} {'.'.join(map(str, self.version))}"


async def find_dumper(facts: Facts) -> Tool:
    """Raises: NoTool."""
    return await _find(facts, DUMPERS[facts.flavour])


async def find_client(facts: Facts) -> Tool:
    """Raises: NoTool."""
    return await _find(facts, CLIENTS[facts.flavour])


async def _find(facts: Facts, names: tuple[str, ...]) -> Tool:
    remedy = f"Install {PACKAGES[facts.flavour]} of version {series(facts.version)} or later."
    others: list[str] = []
    for path in filter(None, map(find_tool, names)):
        flavour, version = identify(await _version(path))
        if flavour != facts.flavour:
            others.append(f"{path.name} on PATH is {TITLES[flavour]}'s, and the server is {TITLES[facts.flavour]}.")
        elif version[:2] < facts.version[:2]:
            others.append(f"{path.name} {series(version)} is older than the server, {facts.readable_version}.")
        else:
            return Tool(path=path, version=version)
    raise NoTool(" ".join([*(others or [f"{names[0]} is not on PATH."]), remedy]))


def series(version: tuple[int, ...]) -> str:
    """Write the part of a version that decides what dumps and data can be exchanged: `10.11`."""
    return ".".join(map(str, version[:2]))


def identify(said: str) -> tuple[Flavour, tuple[int, ...]]:
    """Read what a program says to --version.

    MySQL: `mysqldump  Ver 9.7.4 for Linux`; MariaDB: `mysqldump  Ver 10.19 Distrib 10.11.18-MariaDB, for …` up to 11.0,
    and `mariadb-dump from 11.8.9-MariaDB, client 10.20 for …` since.
    """
    if found := re.search(r"(\d[\d.]*)-MariaDB", said):
        return "mariadb", parse_version(found[1])
    found = re.search(r"Distrib (\d[\d.]*)", said) or re.search(r"Ver (\d[\d.]*)", said)
    return "mysql", parse_version(found[1]) if found else ()


async def _version(path: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="dbvalet-") as folder:
        said = Path(folder, "said")
        await run_tool([path, "--no-defaults", "--version"], environment=environment(folder), stdout=said)
        return await in_own_thread(said.read_text, errors="replace")


def environment(home: str | Path) -> dict[str, str]:
    """Give what a program needs; its home is a private folder, where no .my.cnf and no .mylogin.cnf is."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home)}


@contextmanager
def logging_in(address: Address, flavour: Flavour, *, encrypted: bool) -> Generator[Path]:
    """Write an option file that only this user can read, in a private folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="dbvalet-") as folder:
        path = Path(folder, "login.cnf")
        path.touch(mode=0o600)
        path.write_text(option_file(address, flavour, encrypted=encrypted), encoding="utf-8")
        yield path


def option_file(address: Address, flavour: Flavour, *, encrypted: bool) -> str:
    """Write how a program logs in; `encrypted` says whether dbvalet's own connection is."""
    tls = requested(address.options)
    options: dict[str, str] = {
        "protocol": "tcp",
        "host": address.host,
        "port": str(address.port),
        **({"user": address.user} if address.user else {}),
        "password": address.password or "",
        **(_mysql_tls(tls) if flavour == "mysql" else _mariadb_tls(tls, encrypted=encrypted)),
    }
    if tls.mode is not Mode.DISABLED:
        files = {"ssl-ca": _authorities(tls), "ssl-cert": tls.certificate, "ssl-key": tls.key}
        options |= {option: path for option, path in files.items() if path}
    return "[client]\n" + "".join(f"{option}={quoted_option(value)}\n" for option, value in options.items())


def quoted_option(value: str) -> str:
    """Quote a value for an option file: https://dev.mysql.com/doc/refman/9.7/en/option-files.html."""
    for character, written in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        value = value.replace(character, written)
    return f'"{value}"'


def _mysql_tls(tls: Tls) -> dict[str, str]:
    # Without TLS, caching_sha2_password needs the server's key to send the password; PyMySQL fetches it too.
    return {"ssl-mode": tls.mode.name, "get-server-public-key": "1"}


def _mariadb_tls(tls: Tls, *, encrypted: bool) -> dict[str, str]:
    # These programs know no "where it is offered", and since 11.4 they verify unless told not to.
    if tls.mode is Mode.DISABLED or (tls.mode is Mode.PREFERRED and not encrypted):
        return {"ssl": "0"}
    # With an authority named its signature is verified all the same, and since 11.4 the host's name too.
    return {"ssl": "1", "ssl-verify-server-cert": "1" if tls.mode is Mode.VERIFY_IDENTITY else "0"}


def _authorities(tls: Tls) -> str | None:
    if tls.mode < Mode.VERIFY_CA:
        return None
    return tls.ca or ssl.get_default_verify_paths().cafile


async def dump_tables(
    tool: Tool,
    login: Path,
    facts: Facts,
    *,
    database: str,
    left_out: Sequence[str],
    target: Path,
    watch: Callable[[], None],
) -> None:
    """Write the tables and sequences of a logical database as SQL; `left_out` are its views.

    Raises: Overtaken, BackupFailed, OSError (disk full)
    """
    if facts.flavour == "mariadb":
        options = ["--dump-history"] if dumps_history(tool, facts) else []
    else:
        options = ["--set-gtid-purged=OFF"]
        # Histograms of the optimizer come back with the tables that have some.
        options += ["--column-statistics"] if facts.version >= (8,) else []
    ignored = [f"--ignore-table={database}.{name}" for name in left_out]
    argv = [tool.path, f"--defaults-file={login}", *DUMP, *options, *ignored, "--", database]
    try:
        await run_tool(argv, environment=environment(login.parent), stdout=target, watch=watch)
    except BackupFailed as failed:
        await in_own_thread(check_space, target)
        if any(int(one or other) in OVERTAKEN for one, other in NUMBER.findall(failed.message)):
            raise Overtaken(failed.message) from failed
        raise


def check_space(path: Path) -> None:
    """Find out whether a file cannot grow: a tool that the limit killed could not say so.

    Raises: OSError, disk full or file too large
    """
    with path.open("ab") as file:
        file.write(bytes(BLOCK))
        file.flush()
        os.fsync(file.fileno())


def dumps_history(tool: Tool, facts: Facts) -> bool:
    """Tell whether the history of system-versioned tables is in a dump, and can come back."""
    return facts.flavour == "mariadb" and min(tool.version, facts.version)[:2] >= HISTORY_SINCE


async def load(tool: Tool, login: Path, flavour: Flavour, *, database: str, source: Path, lock: str) -> None:
    """Run the statements of a file in a logical database, to the first that fails.

    Raises: BackupFailed
    """
    first = FIRST_STATEMENT[flavour].format(lock=lock)
    argv = [tool.path, f"--defaults-file={login}", *LOAD, f"--init-command={first}", f"--database={database}"]
    try:
        await run_tool(argv, environment=environment(login.parent), stdin=source)
    except BackupFailed as failed:
        # MariaDB's client shows the statement too, and with it the rows.
        said = re.findall(r"^ERROR \d.*", failed.message, re.MULTILINE)
        raise BackupFailed(f"{tool.path.name}: {said[-1]}" if said else failed.message) from None
