"""Who may come through which door: one row a route, with the least role that it takes and what it may change."""

from __future__ import annotations

from typing import NamedTuple

from agent.roles import Role
from engines.action import Effect


class Door(NamedTuple):
    """A route: the role that a token needs at least, and the effect that the audit tells of."""

    role: Role | None
    effect: Effect = Effect.READ
    every_database: bool = False
    """Whether a token must see every database."""
    by_link: bool = False
    """Whether a signed link lets in, and no token."""
    by_password: bool = False
    """Whether a token comes as the password of `Basic`, and not as `Bearer`."""


OPEN = Door(None)
BY_LINK = Door(None, by_link=True)
READS = Door(Role.READER)
READS_MUCH = Door(Role.OPERATOR)
"""Changes nothing, but shows more than settings."""
WRITES = Door(Role.OPERATOR, Effect.WRITE)
DESTROYS = Door(Role.ADMIN, Effect.DESTRUCTIVE)

ONE = "/api/databases/{database_id}"
APP = "/v1/apps/{app}"
ADDON = APP + "/addons/{addon}"
ACTION = ("POST", ONE + "/action")

DOORS: dict[tuple[str, str], Door] = {
    ("GET", "/api/databases"): READS,
    ("GET", ONE): READS,
    ("PATCH", ONE): WRITES,
    ("PUT", ONE): WRITES,
    ("GET", ONE + "/actions"): READS,
    ("GET", ONE + "/operations"): READS,
    ("GET", ONE + "/operations/{operation_id}"): READS,
    ("POST", ONE + "/operations/{operation_id}/cancel"): WRITES,
    ("GET", ONE + "/backups"): READS,
    ("POST", ONE + "/backups"): WRITES,
    ("GET", ONE + "/backups/{backup_id}"): READS,
    ("GET", "/api/backups/{backup_id}"): READS,
    ("DELETE", ONE + "/backups/{backup_id}"): DESTROYS,
    ("GET", ONE + "/backups/{backup_id}/archive"): READS_MUCH,
    ("GET", "/api/backups/{backup_id}/download"): BY_LINK,
    ("POST", ONE + "/backups/{backup_id}/restore"): DESTROYS,
    ("GET", ONE + "/backup_restorations/{restoration_id}"): READS,
    ("GET", "/api/audit"): Door(Role.ADMIN),
    ("POST", ONE + "/features"): WRITES,
    ("DELETE", ONE + "/features"): WRITES,
    ("GET", ONE + "/firewall_rules"): READS,
    ("POST", ONE + "/firewall_rules"): WRITES,
    ("PATCH", ONE + "/firewall_rules/{rule_id}"): WRITES,
    ("DELETE", ONE + "/firewall_rules/{rule_id}"): WRITES,
    ("GET", "/api/firewall/managed_ranges"): READS,
    ("GET", ONE + "/instances_status"): READS,
    ("POST", ONE + "/ping"): READS,
    ("GET", ONE + "/health"): READS,
    ("POST", ONE + "/upgrade"): DESTROYS,
    ("GET", ONE + "/logs"): READS_MUCH,
    ("GET", ONE + "/logs_archives"): READS_MUCH,
    ("GET", "/api/logs/{log_id}"): BY_LINK,
    ("WEBSOCKET", "/api/logs/{log_id}"): BY_LINK,
    ("GET", ONE + "/maintenance"): READS,
    ("GET", ONE + "/maintenance/{maintenance_id}"): READS,
    ("GET", ONE + "/metrics"): READS,
    ("GET", ONE + "/lag"): READS,
    ("GET", ONE + "/metrics/{kind}"): READS,
    ("GET", ONE + "/instances/{instance_id}/metrics/{kind}"): READS,
    ("GET", ONE + "/pitr/recovery_window"): READS,
    ("POST", ONE + "/pitr/restore"): DESTROYS,
    ("GET", ONE + "/plan"): READS,
    ("GET", ONE + "/users"): READS,
    ("POST", ONE + "/users"): WRITES,
    ("PATCH", ONE + "/users/{user_name}"): WRITES,
    ("POST", ONE + "/users/{user_name}/reset_password"): WRITES,
    ("DELETE", ONE + "/users/{user_name}"): DESTROYS,
    ("GET", "/api/plans/{name}"): READS,
    ("GET", "/api/database_types"): READS,
    ("GET", "/api/database_types/{type_id}"): READS,
    ("GET", "/api/database_type_versions/{version_id}"): READS,
    ("GET", "/api/ca_certificate"): OPEN,
    ("POST", "/v1/tokens/exchange"): Door(Role.READER, by_password=True),
    ("POST", "/v1/tokens"): OPEN,
    ("GET", "/v1/users/self"): READS,
    ("GET", "/v1/regions"): OPEN,
    ("GET", "/v1/addon_providers"): OPEN,
    ("GET", "/v1/addon_providers/{provider}/plans"): READS,
    ("POST", "/v1/databases"): READS,
    ("GET", "/v1/databases"): READS,
    ("GET", APP): READS,
    ("GET", APP + "/variables"): READS,
    ("POST", APP + "/run"): READS,
    ("GET", APP + "/addons"): READS,
    ("POST", APP + "/addons"): READS,
    ("GET", ADDON): READS,
    ("PATCH", ADDON): READS,
    ("PUT", ADDON): READS,
    ("DELETE", ADDON): READS,
    ("POST", ADDON + "/token"): READS,
    ("GET", "/livez"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/metrics"): Door(Role.READER, every_database=True),
    ("GET", "/openapi.json"): OPEN,
    ("GET", "/docs"): OPEN,
}
"""Of the action route there is one row an effect: `ACTIONS`."""

ACTIONS = {"list-things": READS, "add-thing": WRITES, "drop-thing": DESTROYS}
"""An action of each effect, of the fake engine."""
