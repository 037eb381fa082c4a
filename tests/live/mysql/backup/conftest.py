"""A logical database with an object of every kind, the account that backs it up, and the programs that it takes."""

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engines.engine import GrantsFor
from engines.mysql import ENGINE
from engines.mysql.backup import MySQLBackups
from engines.mysql.grants import backup_grants
from engines.mysql.journal import places_beside
from engines.mysql.server import MySQLServer
from tests.live.mysql.backup.content import Content, content_of, make_everything
from tests.live.mysql.backup.programs import take_programs, write_script
from tests.live.mysql.conftest import PASSWORD, Root, connect, make_account, quote
from tests.live.servers import LiveServer, spawn

KEEPER = "keeper"


@dataclass
class Shop:
    """A deployment's logical database, and what backs it up."""

    name: str
    root: Root
    server: MySQLServer
    told: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """What was told of the progress."""

    @property
    def backups(self) -> MySQLBackups:
        return backups_of(self.server)

    @property
    def beside(self) -> tuple[str, str]:
        places = places_beside(self.name)
        return places.fresh, places.before

    def tell(self, percent: float, words: str) -> None:
        self.told.append((percent, words))

    def content(self) -> Content:
        return content_of(self.root, self.name)

    def nothing_is_beside(self) -> bool:
        return not self.root.names() & set(self.beside)

    def run(self, *statements: str) -> None:
        """Run statements in the logical database."""
        self.root.run(f"USE {quote(self.name)}", *statements, "USE information_schema")


def backups_of(server: MySQLServer) -> MySQLBackups:
    backups = ENGINE.backups_of(server)
    assert isinstance(backups, MySQLBackups)
    return backups


def let_back_up(root: Root, database: str, user: str = KEEPER) -> None:
    whom = GrantsFor(user=user, database=database, flavour=root.live.flavour, version=root.live.version_tuple)
    root.run(*backup_grants(whom))


@pytest.fixture(scope="session")
def programs(mysql: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the server's dump tool and client."""
    folder = tmp_path_factory.mktemp("programs") / mysql.flavour
    take_programs(mysql, folder)
    return folder


@pytest.fixture(autouse=True)
def path(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")


BINARY_LOG = {
    "mysql": (
        "--log-bin",
        "--sync-binlog=0",
        "--gtid-mode=ON",
        "--enforce-gtid-consistency=ON",
        "--log-bin-trust-function-creators=ON",
    ),
    "mariadb": ("--log-bin", "--log-bin-trust-function-creators=ON"),
}


@pytest.fixture(scope="session")
def logging(mysql: LiveServer) -> Iterator[LiveServer]:
    """A server of the same version with a binary log, as most have that are in use; it may be killed."""
    with spawn(mysql.flavour, mysql.version, options=BINARY_LOG[mysql.flavour]) as live:
        yield live


@pytest.fixture(scope="session")
def keeper(mysql: LiveServer) -> str:
    """An account that the grants script makes, without its optional part."""
    make_account(mysql, KEEPER)
    return KEEPER


_numbers = itertools.count(1)


@pytest.fixture
async def empty_shop(mysql: LiveServer, root: Root, keeper: str) -> AsyncIterator[Shop]:
    """An empty logical database, and the account that may back it up, as the grants script's optional part lets it."""
    name = f"shop_{next(_numbers)}"
    root.run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    let_back_up(root, name)
    server = connect(mysql.url(keeper, PASSWORD, database=name))
    made = Shop(name, root, server)
    yield made
    await server.close()
    root.drop(name, *made.beside)


@pytest.fixture
def shop(empty_shop: Shop) -> Shop:
    """A logical database with objects of every kind."""
    make_everything(empty_shop.root, empty_shop.name)
    return empty_shop


class Fakes:
    """Programs of the test's own, before or instead of the server's."""

    def __init__(self, programs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.programs = programs
        self.folder = folder
        self._monkeypatch = monkeypatch

    def put_before(self, name: str, *lines: str) -> None:
        """Run these lines of shell when the program is called for its work, not for its version."""
        real = self.programs / name
        write_script(
            self.folder / name,
            f"real={real}",
            'case "$*" in *--version*) exec $real "$@" ;; esac',
            *lines,
        )
        self._monkeypatch.setenv("PATH", f"{self.folder}{os.pathsep}{os.environ['PATH']}")

    def put_alone(self, name: str, *lines: str) -> None:
        """Let there be no other program of the server's than this one."""
        write_script(self.folder / name, *lines)
        self._monkeypatch.setenv("PATH", f"{self.folder}{os.pathsep}{os.defpath}")


@pytest.fixture
def fakes(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    folder = tmp_path / "fakes"
    folder.mkdir()
    return Fakes(programs, folder, monkeypatch)


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


@pytest.fixture
def dumped(tmp_path: Path) -> Path:
    """An empty folder for a dump."""
    folder = tmp_path / "dump"
    folder.mkdir()
    return folder
