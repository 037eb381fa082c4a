"""An action that this package adds to an engine of dbvalet's own."""

from typing import Any

from engines.action import Effect, action


@action("acme-count-tables", effect=Effect.READ, example_result=3)
async def acme_count_tables(server: Any) -> int:
    """Count the tables of the deployment's own logical database."""
    return 3
