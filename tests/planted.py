"""What the state may hold, put there by hand: operations that have ended, and a backup with its archive."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import BinaryIO

from sqlalchemy import Connection

from agent.api.databases import stable_id
from agent.backups import record as backups
from agent.operations import record
from tests.fakes.service import Valet

IDS = {
    "database_id": "ad-one",
    "operation_id": "0" * 24,
    "backup_id": "1" * 24,
    "restoration_id": "2" * 24,
}
"""Of what `plant` puts there, by the names that paths give them."""

IDS |= {
    "name": "self-hosted",
    "user_name": "self-hosted",
    "kind": "memory",
    "instance_id": stable_id("instance", "ad-one"),
    "type_id": stable_id("type", "fake"),
    "version_id": stable_id("version", "fake", "1.2.0"),
    "rule_id": "none",
    "maintenance_id": "none",
    "log_id": "ad-one",
    "app": "app",
    "addon": "ad-one",
    "provider": "fake",
}

REFUSED = {
    "/api/databases/{database_id}/firewall_rules",
    "/api/databases/{database_id}/firewall_rules/{rule_id}",
    "/api/firewall/managed_ranges",
    "/api/databases/{database_id}/health",
    "/api/databases/{database_id}/upgrade",
    "/api/databases/{database_id}/logs_archives",
    "/api/databases/{database_id}/maintenance/{maintenance_id}",
    "/api/ca_certificate",
    "/api/logs/{log_id}",
}
"""Routes that refuse whoever comes with nothing but a token: they say why, in the errors of the table."""

THEN = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


async def plant(valet: Valet) -> None:
    """Put one of each into the state and the storage of a service."""

    def make(target: BinaryIO) -> None:
        target.write(b"archive")

    written = valet.service.backups.storage.write(f"ad-one/{IDS['backup_id']}.tar.gz", make, lambda: None)

    def work(connection: Connection) -> None:
        record.add(connection, replace(_ended(IDS["operation_id"], "backup"), owner="planted", finished_at=None))
        backups.add(
            connection,
            backup_id=IDS["backup_id"],
            database_id="ad-one",
            operation_id=IDS["operation_id"],
            method="manual",
            created_at=THEN,
        )
        backup = backups.find(connection, IDS["backup_id"])
        assert backup is not None
        backups.done(connection, backup, "planted", size=written.size, sha256=written.sha256, manifest=b"{}", now=THEN)
        record.finish(connection, backup.operation_id, "planted", record.Outcome(status=record.Status.FINISHED), THEN)
        record.add(connection, _ended(IDS["restoration_id"], "backup_restore"))

    await valet.service.state.run(work)


def _ended(operation_id: str, type_: str) -> record.Operation:
    return record.Operation(
        id=operation_id,
        database_id="ad-one",
        type=type_,
        status=record.Status.FINISHED,
        progress=100,
        step="done",
        error=None,
        params={"backup_id": IDS["backup_id"]},
        notes=[],
        started_by="admin",
        created_at=THEN,
        finished_at=THEN,
        owner=None,
        heartbeat=0,
        clean_up_due=False,
    )
