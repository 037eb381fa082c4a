"""Secrets come from files and variables: what stands on a command line can be read in the list of processes."""

from __future__ import annotations

from pathlib import Path

from agent.errors import SettingsError


def read_secret(file: Path, key: str) -> str:
    """Read a file that holds a secret; one final newline is not part of it. `key` is the option that named the file.

    Raises: SettingsError
    """
    try:
        return file.read_text().removesuffix("\n").removesuffix("\r")
    except OSError as problem:
        raise SettingsError(key, f"{file} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(key, f"{file} is not UTF-8") from None
