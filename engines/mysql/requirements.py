"""The privileges that actions need, by flavour and version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.engine import Requirement

if TYPE_CHECKING:
    from engines.mysql.server import MySQLServer
REQUIREMENTS: dict[str, Requirement] = {}
