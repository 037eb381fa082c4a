"""The script that makes a least-privilege account."""

from __future__ import annotations

from engines.engine import GrantsFor


def grants(whom: GrantsFor) -> str:
    return ""
