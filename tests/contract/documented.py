"""The examples of the documented API's page "Databases", as they stand there: what is sent, and what is answered.

`engine` is the section of the page, `about` the action that the example stands under. Where the page leaves out the
rest of a list with `...`, it is left out here too.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Example:
    """A request to `POST /api/databases/:id/action` and its answer."""

    engine: str
    about: str
    request: dict[str, Any]
    answer: dict[str, Any]

    @property
    def action(self) -> str:
        """The action that is asked for; differs from `about` in the one example with the wrong name."""
        return self.request["action_name"]


DATABASES = [
    {"name": "database-name-1234", "protected": True},
    {"name": "custom-db", "protected": False},
]
CUSTOM_DB = {"database_name": "custom-db"}


def _logical_databases(engine: str) -> list[Example]:
    return [
        # The page shows no request for this one.
        Example(engine, "list-databases", {"action_name": "list-databases"}, {"ok": 1, "result": DATABASES}),
        Example(
            engine,
            "create-database",
            {"action_name": "create-database", "params": CUSTOM_DB},
            {"ok": 1, "result": {"name": "custom-db", "protected": False}},
        ),
        Example(
            engine,
            "delete-database",
            {"action_name": "delete-database", "params": CUSTOM_DB},
            {"ok": 1, "result": None},
        ),
        # The page writes delete-database under the heading reset-database.
        Example(
            engine,
            "reset-database",
            {"action_name": "delete-database", "params": CUSTOM_DB},
            {"ok": 1, "result": None},
        ),
    ]


EXAMPLES = [
    *_logical_databases("mysql"),
    Example(
        "mysql",
        "get-sqlmode",
        {"action_name": "get-sqlmode", "params": None},
        {
            "ok": 1,
            "result": (
                "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,"
                "ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_CREATE_USER,NO_ENGINE_SUBSTITUTION"
            ),
        },
    ),
    Example(
        "mysql",
        "set-sqlmode",
        {"action_name": "set-sqlmode", "params": "NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO"},
        {"ok": 1, "result": None},
    ),
    Example(
        "postgresql",
        "list-extensions",
        {"action_name": "list-extensions", "params": None},
        {"ok": 1, "result": [{"name": "plpgsql", "version": "v1.0"}, {"name": "postgis", "version": "v2.5.0"}]},
    ),
    Example(
        "postgresql",
        "pg-list-queries",
        {"action_name": "pg-list-queries"},
        {
            "ok": 1,
            "result": [
                {
                    "query": "SELECT * FROM users",
                    "state": "active",
                    "username": "username_1234",
                    "query_start": "2020-05-10T09:00:00Z",
                    "pid": 2000,
                    "query_duration": 1000000000,
                }
            ],
        },
    ),
    Example(
        "postgresql",
        "pg-cancel-query",
        {"action_name": "pg-cancel-query", "params": {"pid": 2000}},
        {"ok": 1, "result": None},
    ),
    Example(
        "postgresql",
        "pg-terminate-query",
        {"action_name": "pg-terminate-query", "params": {"pid": 2000}},
        {"ok": 1, "result": None},
    ),
    Example(
        "postgresql",
        "pg-stat-statements-enable",
        {"action_name": "pg-stat-statements-enable"},
        {"ok": 1, "result": None},
    ),
    Example(
        "postgresql", "pg-stat-statements-reset", {"action_name": "pg-stat-statements-reset"}, {"ok": 1, "result": None}
    ),
    Example(
        "postgresql",
        "pg-stat-statements-list",
        {"action_name": "pg-stat-statements-list"},
        {
            "ok": 1,
            "result": [
                {
                    "user_id": 1000,
                    "query": "SELECT * FROM users",
                    "calls": 24512,
                    "rows": 500,
                    "total_time": 1837.1,
                    "min_time": 0.2,
                    "max_time": 3.5,
                    "mean_time": 0.6,
                    "std_dev": 0.1,
                }
            ],
        },
    ),
    *_logical_databases("mongodb"),
    Example(
        "influxdb",
        "list-retention-policies",
        {"action_name": "list-retention-policies"},
        {
            "ok": 1,
            "result": [
                {"name": "autogen", "duration": "0", "default": True},
                {"name": "30-days", "duration": "30d", "default": False},
            ],
        },
    ),
    Example(
        "influxdb",
        "add-retention-policy",
        {"action_name": "add-retention-policy", "params": {"name": "30-days", "duration": "30d", "default": True}},
        {"ok": 1, "result": None},
    ),
    Example(
        "influxdb",
        "del-retention-policy",
        {"action_name": "del-retention-policy", "params": {"name": "30-days"}},
        {"ok": 1, "result": None},
    ),
]

DATABASE = {
    "id": "5c599fd6f18b3202f7ab4e66",
    "resource_id": "lolapp-2107",
    "app_name": "lolapp",
    "created_at": "2019-02-05T15:38:14.343+01:00",
    "encryption_at_rest": True,
    "features": [{"name": "redis-rdb", "status": "ACTIVATED"}],
    "plan": "free",
    "status": "running",
    "type_id": "5bf30d1104c87f000161285a",
    "type_name": "redis",
    "version_id": "5bf30d1104c87f000161285b",
    "instances": [
        {
            "id": "a7ecbaf9-7f3c-4324-bf35-975f546718c2",
            "hostname": "a7ecbaf9-7f3c-4324-bf35-975f546718c2.test-db.redis.dbs.scalingo.com",
            "port": 1234,
            "status": "running",
            "type": "db-node",
        }
    ],
    "readable_version": "3.2.9-1",
    "periodic_backups_enabled": True,
    "periodic_backups_scheduled_at": [0],
}
"""What the page shows as the answer of `GET /api/databases/:id`, under the key `database`."""

HEADERS = {"Accept": "application/json", "Content-Type": "application/json"}
"""What every example of the page sends beside its token."""
