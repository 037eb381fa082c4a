"""What the state may hold, put there by hand: an operation that has ended."""

from datetime import UTC, datetime

from agent.operations import record
from tests.fakes.service import Valet

IDS = {"database_id": "ad-one", "operation_id": "0" * 24}
"""Of what `plant` puts there, by the names that paths give them."""

THEN = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


async def plant(valet: Valet) -> None:
    """Put one of each into the state of a service."""
    operation = record.Operation(
        id=IDS["operation_id"],
        database_id="ad-one",
        type="fake",
        status=record.Status.FINISHED,
        progress=100,
        step="done",
        error=None,
        params={},
        notes=[],
        started_by="admin",
        created_at=THEN,
        finished_at=THEN,
        owner=None,
        heartbeat=0,
        clean_up_due=False,
    )
    await valet.service.state.run(lambda connection: record.add(connection, operation))
