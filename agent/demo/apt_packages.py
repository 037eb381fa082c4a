"""Debian and Ubuntu packages fetched with apt and unpacked into a folder: no root, nothing installed or touched.

apt works on the machine's own sources and keys, with package lists and a cache of the folder's own. What is
installed on the machine is taken as given, so only the libraries that it lacks are fetched with a program.

As a program, `python -m agent.demo.apt_packages FOLDER PACKAGE…` prints where it unpacked them (`scripts/_venv`).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.demo.cache import cached, system_name
from agent.demo.processes import ProcessFailed

Run = Callable[[Sequence[str]], None]
"""Runs a command to its end. Raises: ProcessFailed"""

# -c FILE is read after the machine's own files, so #clear takes away what they would run after an update (as root:
# on the system's cache). Locks are those of the system's package database, which is only read.
CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
Dir::State::Lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Dir::Log "{folder}/log";
Debug::NoLocking "true";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Acquire::Retries "2";
"""


class AptPackages:
    """Packages of this machine's sources, unpacked below one folder."""

    def __init__(self, folder: Path, run: Run, scratch: Path | None = None) -> None:
        """Keep what is fetched in `folder`, package lists in `scratch` until the end; `run` carries out commands."""
        self.folder = folder / system_name()
        self._scratch = scratch or self.folder
        self._run = run
        self._lock = threading.Lock()
        self._lists: tempfile.TemporaryDirectory[str] | None = None
        self._update_failure: ProcessFailed | None = None

    @staticmethod
    def available() -> bool:
        """Tell whether this machine has apt."""
        return shutil.which("apt-get") is not None and shutil.which("dpkg") is not None

    def fetch(self, packages: Sequence[str], announce: Callable[[], None] = lambda: None) -> Path:
        """Give the folder with these packages and the libraries they need, unpacked as they would lie below `/`.

        `announce` is called before it takes time.

        Raises: ProcessFailed, OSError
        """

        def download(tree: Path) -> None:
            announce()
            self._download(packages, tree)

        return cached(self.folder / packages[0], download)

    def close(self) -> None:
        """Remove the package lists."""
        if self._lists is not None:
            self._lists.cleanup()

    def _download(self, packages: Sequence[str], tree: Path) -> None:
        with self._lock:
            configuration = self._updated()
        archives = tree / "archives"
        (archives / "partial").mkdir(parents=True)
        install = [
            "apt-get",
            f"--config-file={configuration}",
            f"--option=Dir::Cache::Archives={archives}",
            "install",
            "--download-only",
            "--no-install-recommends",
            "--reinstall",  # or nothing is fetched of a package that is installed
            "--yes",
            *packages,
        ]
        try:
            self._run(install)
        except ProcessFailed as failure:
            if self._update_failure is None:
                raise
            raise ProcessFailed(f"{failure}; and the update before it: {self._update_failure}") from failure
        for archive in sorted(archives.glob("*.deb")):
            self._run(["dpkg", "--extract", str(archive), str(tree)])
        shutil.rmtree(archives)

    def _updated(self) -> Path:
        """Fetch the package lists, once; give the configuration that says where they are."""
        if self._lists is not None:
            return Path(self._lists.name) / "apt.conf"
        self._scratch.mkdir(parents=True, exist_ok=True)
        lists = tempfile.TemporaryDirectory(prefix="apt-", dir=self._scratch)
        folder = Path(lists.name)
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "cache").mkdir()
        configuration = folder / "apt.conf"
        configuration.write_text(CONFIGURATION.format(folder=folder), encoding="utf-8")
        try:
            self._run(["apt-get", f"--config-file={configuration}", "update"])
        except ProcessFailed as failure:
            # One source of several that is gone or unsigned is enough for that, and the packages may come from another.
            self._update_failure = failure
        self._lists = lists
        return configuration


def library_path(tree: Path) -> dict[str, str]:
    """Give the environment in which programs find the shared libraries of an unpacked tree."""
    folders = sorted(tree.glob("usr/lib/*-linux-gnu*")) + sorted(tree.glob("lib/*-linux-gnu*"))
    return {"LD_LIBRARY_PATH": ":".join(map(str, folders))}


def _run_quietly(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ProcessFailed(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stdout}{done.stderr}")


def main(folder: str, *packages: str) -> int:
    """Fetch packages and print where they are."""
    fetcher = AptPackages(Path(folder).absolute(), _run_quietly)
    try:
        print(fetcher.fetch(packages))
    except ProcessFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    finally:
        fetcher.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
