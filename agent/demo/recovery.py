"""A backup is made, something is lost, the backup is brought back: the same on every engine.

PostgreSQL goes this way too, not by point-in-time recovery: the pgBackRest of Debian 12, 2.45, knows no PostgreSQL
later than 15, and the demo's is 18.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.demo.accounts import Deployment
from agent.demo.guide import Guide


def bring_back(guide: Guide, deployment: Deployment, *, content: Callable[[], Any], lose: Callable[[], object]) -> None:
    """Show a backup and a restore; `content` is what the application sees, `lose` its mistake.

    Ends early where the engine's own dump programs are not to be had, which dbvalet says.

    Raises: TourFailed
    """
    path = f"/api/databases/{deployment.id}"
    before = content()
    begun = guide.begun("A backup is begun, which outlives its request.", f"{path}/backups", may_lack_programs=True)
    if begun is None:
        return
    backup = begun["database_backup"]
    guide.ended(
        "It is done once it was written, read back and compared.", f"{path}/operations/{backup['operation_id']}"
    )
    lose()
    guide.check(content() != before, f"the application loses data by mistake: {before} before, {content()} now")
    begun = guide.begun("The backup is brought back.", f"{path}/backups/{backup['id']}/restore")
    if begun is None:
        raise guide.failure("the restore did not begin")
    guide.ended("It ends when all is in place again.", f"{path}/operations/{begun['operation_id']}")
    guide.check(content() == before, f"the application has its data again: {before}")
    guide.brought_back += 1
