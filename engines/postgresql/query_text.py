"""The text of statements, as it is shown: without the passwords that stand in some."""

from __future__ import annotations

import asyncio
from typing import Any

from engines.log_text import LONGEST, masked, may_hold_password

MOST = 4 * 1024 * 1024
"""Characters that are looked through for one answer: whoever may log in can leave thousands of long statements."""

NOT_SHOWN = "[not shown: the statements before it that may hold passwords are too long together]"


async def mask_queries(rows: list[dict[str, Any]]) -> None:
    """Blot out the passwords in the `query` of each row, where there is one.

    A reader sees statements of roles that may more: CREATE ROLE, ALTER ROLE, the connection string of a subscription.
    """
    suspects = [row for row in rows if row["query"] is not None and may_hold_password(row["query"])]
    if suspects:
        # Not in the event loop: there may be thousands.
        await asyncio.to_thread(_mask, suspects)


def _mask(rows: list[dict[str, Any]]) -> None:
    left = MOST
    for row in rows:
        text: str = row["query"]
        row["query"] = masked(text) if left > 0 else NOT_SHOWN
        left -= min(len(text), LONGEST)
