"""Imports that leave out what would take memory and is not needed."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def without(*packages: str) -> Generator[None]:
    """Let something be imported as if these packages were not installed, which it is written to go on without.

    One that is imported already is left where it is.
    """
    left_out = [name for name in packages if name not in sys.modules]
    for name in left_out:
        sys.modules[name] = None  # pyright: ignore[reportArgumentType] - https://docs.python.org/3/reference/import.html#the-module-cache
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # requests says that it misses one
            yield
    finally:
        for name in left_out:
            del sys.modules[name]
