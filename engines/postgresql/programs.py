"""PostgreSQL's own programs: which ones fit, how they log in."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engines.address import Address
from engines.backup import run_tool
from engines.errors import BackupFailed, Precondition
from engines.postgresql.session import DUMPING, WITHOUT_LIMITS, parameters
from engines.threads import in_own_thread

INSTALLED = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin")
"""Where Debian's and PostgreSQL's own RPM packages put the programs of each version, which need not be on PATH."""

CHOOSES_BY_ITSELF = "pg_wrapper"
"""What Debian puts on PATH: a script that runs a version of its own choice."""

INHERITED = re.compile(
    r"PATH|HOME|LD_LIBRARY_PATH|PGSSL\w+|PGGSS\w+|PGCHANNELBINDING|PGREQUIREAUTH|PGKRBSRVNAME|KRB5\w+"
)
"""Variables that libpq reads in this process too, so that the programs connect as dbvalet does."""

BY_VARIABLE = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}


class NoPrograms(Exception):
    """There are no fitting programs; the text says what to install."""


@dataclass(frozen=True, kw_only=True)
class Programs:
    """pg_dump and pg_restore of one version."""

    folder: Path
    version: tuple[int, ...]

    @property
    def pg_dump(self) -> Path:
        """The program that dumps."""
        return self.folder / "pg_dump"

    @property
    def pg_restore(self) -> Path:
        """The program that reads dumps."""
        return self.folder / "pg_restore"

    def __str__(self) -> str:
        return f"pg_dump {'.'.join(map(str, self.version))}"


def usual_folders(root: Path = Path("/")) -> list[Path]:
    """List where the programs may be: on PATH, and where packages put them."""
    on_path = [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder]
    return on_path + [folder for pattern in INSTALLED for folder in sorted(root.glob(pattern))]


async def find_programs(at_least: int, folders: Iterable[Path]) -> Programs:
    """Find the programs of this major version, else those of the nearest later one.

    An older pg_dump refuses a server; what a much newer one writes may hold settings that the server does not know.

    Raises: NoPrograms
    """
    found: list[Programs] = []
    for folder in dict.fromkeys(folders):
        if all(os.access(folder / name, os.X_OK) for name in ("pg_dump", "pg_restore")):
            if (folder / "pg_dump").resolve().name == CHOOSES_BY_ITSELF:
                continue
            if version := parse_version(await _said([folder / "pg_dump", "--version"])):
                found.append(Programs(folder=folder, version=version))
    fitting = [programs for programs in found if programs.version[0] >= at_least]
    if fitting:
        return min(fitting, key=lambda programs: programs.version[0])
    remedy = f"Install pg_dump and pg_restore {at_least} or later: the package postgresql-client-{at_least}."
    if not found:
        raise NoPrograms(f"There is no pg_dump with its pg_restore on PATH. {remedy}")
    newest = max(found, key=lambda programs: programs.version)
    raise NoPrograms(f"{newest} is older than what is needed here, {at_least}. {remedy}")


def parse_version(text: str) -> tuple[int, ...]:
    """Read the first version number of a text such as `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`."""
    found = re.search(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


async def _said(argv: Sequence[str | Path]) -> str:
    """Run a program that does not connect; nothing when it cannot run here."""
    with tempfile.TemporaryDirectory(prefix="dbvalet-") as folder:
        said = Path(folder, "said")
        try:
            await run_tool(argv, environment=offline(), stdout=said)
        except (BackupFailed, OSError):
            return ""
        return await in_own_thread(said.read_text, errors="replace")


def offline() -> dict[str, str]:
    """Give the environment of a program that does not connect."""
    inherited = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**inherited, "LC_ALL": "C"}


@contextmanager
def logging_in(address: Address) -> Generator[dict[str, str]]:
    """Give the environment with which a program logs in as dbvalet does.

    What a URL says after `?` stands in a service file, in a private folder that goes away: not all of it has a
    variable. The password stands in a file beside it, as tools that list processes show variables too; only one that
    such a file cannot hold is a variable.

    Raises: Precondition, for an option that cannot be written
    """
    settings = {name: str(value) for name, value in parameters(address).items() if value is not None}
    variables = {BY_VARIABLE[name]: settings.pop(name) for name in BY_VARIABLE if name in settings}
    for name in ("application_name", "client_encoding", "options"):
        settings.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="dbvalet-") as folder:
        service = Path(folder, "service")
        service.touch(mode=0o600)
        service.write_text(service_file(settings), encoding="utf-8")
        password = variables.get("PGPASSWORD")
        if password is not None and (line := password_line(password)):
            passwords = Path(folder, "passwords")
            passwords.touch(mode=0o600)
            passwords.write_text(line, encoding="utf-8")
            del variables["PGPASSWORD"]
            variables["PGPASSFILE"] = str(passwords)
        yield {
            **{name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)},
            **variables,
            "PGAPPNAME": DUMPING,
            "PGSERVICEFILE": str(service),
            "PGSERVICE": "dbvalet",
            "PGOPTIONS": f"{address.options.get('options', '')} {WITHOUT_LIMITS}".strip(),
            "LC_ALL": "C",
        }


def password_line(password: str) -> str | None:
    """Write a password for every server; None for one that would not be read as it is.

    https://www.postgresql.org/docs/current/libpq-pgpass.html; before version 14 a line may have 320 bytes.
    """
    line = "*:*:*:*:" + re.sub(r"([\\:])", r"\\\1", password) + "\n"
    return line if len(line.splitlines()) == 1 and len(line.encode()) < 320 else None


def service_file(settings: dict[str, str]) -> str:
    """Write settings of a connection: https://www.postgresql.org/docs/current/libpq-pgservice.html.

    Raises: Precondition, for a value that the format cannot hold
    """
    for name, value in settings.items():
        if value != value.strip() or len(value.splitlines()) > 1:
            raise Precondition(f"{name} in the database's url begins or ends with a space, or has more than one line.")
    return "[dbvalet]\n" + "".join(f"{name}={value}\n" for name, value in settings.items())
