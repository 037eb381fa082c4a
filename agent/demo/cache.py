"""Trees of files that are fetched once, kept between runs, and checked before each use."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

SEAL = "SHA256SUMS.json"


def system_name() -> str:
    """Name what programs for this system cannot be used on another: `debian-12-x86_64`."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {"ID": platform.system().lower()}
    return "-".join(filter(None, (release["ID"], release.get("VERSION_ID"), platform.machine())))


def digests(tree: Path) -> dict[str, str]:
    """Give each file's SHA-256 and each symbolic link's target by path within the tree, the seal itself left out."""
    found: dict[str, str] = {}
    for folder, _, names in os.walk(tree):
        for name in names:
            path = Path(folder, name)
            relative = str(path.relative_to(tree))
            if path.is_symlink():
                found[relative] = f"-> {path.readlink()}"
            elif relative != SEAL:
                with path.open("rb") as file:
                    found[relative] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def is_sealed(tree: Path) -> bool:
    """Tell whether a tree is complete and as it was when it was sealed."""
    try:
        sealed = json.loads((tree / SEAL).read_bytes())
        return bool(sealed == digests(tree))
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError):
        return False


def cached(tree: Path, make: Callable[[Path], None]) -> Path:
    """Give a tree, made first if it is not there or not as it was.

    `make` fills an empty folder beside it, which takes its place when it is complete. Several may ask at once.

    Raises: what `make` raises, OSError
    """
    if is_sealed(tree):
        return tree
    tree.parent.mkdir(parents=True, exist_ok=True)
    with tree.with_name(f"{tree.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_sealed(tree):
            return tree
        partial = tree.with_name(f"{tree.name}.partial")
        for old in (tree, partial):
            if old.exists():
                shutil.rmtree(old)
        partial.mkdir()
        make(partial)
        (partial / SEAL).write_text(json.dumps(digests(partial)), encoding="utf-8")
        partial.rename(tree)
    return tree
