"""The text of statements, as it is shown: without the passwords that stand in some."""

from __future__ import annotations

import asyncio
from typing import Any

from engines.log_text import masked, may_hold_password

LONGEST = 64 * 1024
"""Characters of a statement that may hold a password: what comes after is not looked through, and not shown."""


async def mask_queries(rows: list[dict[str, Any]]) -> None:
    """Blot out the passwords in the `query` of each row, where there is one.

    A reader sees statements of roles that may more: CREATE ROLE, ALTER ROLE, the connection string of a subscription.
    """
    suspects = [row for row in rows if row["query"] is not None and may_hold_password(row["query"])]
    if suspects:
        # Not in the event loop: there may be thousands.
        await asyncio.to_thread(_mask, suspects)


def _mask(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        text: str = row["query"]
        shown = masked(text[:LONGEST])
        row["query"] = shown if len(text) <= LONGEST else f"{shown} [cut: the statement has {len(text)} characters]"
