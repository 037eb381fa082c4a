"""Calls the JavaScript client."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.clients.outcome import Book, Outcome

NAME = "scalingo.js"
DRIVER = Path(__file__).with_name("javascript.cjs")
WAIT_SECONDS = 60.0

READABLE = frozenset({400, 403, 404, 409, 422})
"""Statuses whose text every client shows."""

ACTIONS: dict[str, tuple[tuple[str, Any], ...]] = {
    "ad-pg": (("pg-list-queries", None), ("list-extensions", None), ("pg-cancel-query", {"pid": 2147483647})),
    "ad-my": (("list-databases", None), ("create-database", {"database_name": "made_by_js"}), ("get-sqlmode", None)),
    "ad-mg": (("list-databases", None), ("create-database", {"database_name": "made_by_js"})),
    "ad-inf": (
        ("list-retention-policies", None),
        ("add-retention-policy", {"name": "made_by_js", "duration": "30d"}),
    ),
}


class JavaScript:
    """A Node process with the client in it."""

    def __init__(self, bundle: Path, url: str, api_token: str, book: Book) -> None:
        self._process = subprocess.Popen(
            ["node", str(DRIVER), str(bundle.resolve()), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._book = book
        self._token = self._ask("", [["Tokens"]], "exchange", [api_token])["value"]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)

    def _ask(self, token: str, target: list[list[str]], method: str, args: list[Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        request = {"token": token, "target": target, "method": method, "args": args}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def call(
        self,
        database: str,
        path: str,
        *args: Any,
        of: str | None = None,
        holds: Callable[[Any], bool] = lambda _: True,
        label: str | None = None,
    ) -> Outcome:
        """Call `Databases.apiShow`, or `Databases.backups.all` of a database, and write the outcome down."""
        *names, method = path.split(".")
        target = [[name] for name in names]
        if of is not None:
            target[-1].append(of)
        answer = self._ask(self._token, target, method, list(args))
        if "value" in answer:
            right = holds(answer["value"])
            outcome = Outcome(right, answer["value"], broke=None if right else f"unexpected: {answer['value']!r:.300}")
        elif answer["status"] in READABLE and answer["message"] and "status=" not in answer["message"]:
            outcome = Outcome(False, refusal=answer["message"])
        else:
            outcome = Outcome(False, broke=f"{answer['status']} {answer['message']:.300}")
        return self._book.write(NAME, label or path, database, outcome)

    def wait(self, database: str, path: str, *args: Any, of: str | None, ended: Callable[[Any], bool]) -> Outcome:
        """Ask again and again until what was begun has ended, as the client's users do."""
        ends_at = time.monotonic() + WAIT_SECONDS
        while True:
            outcome = self.call(database, path, *args, of=of)
            if not outcome.works or ended(outcome.value) or time.monotonic() > ends_at:
                return outcome
            time.sleep(0.3)


def every_method(js: JavaScript, app: str, database: str) -> None:
    """Call every method about databases on one of them."""
    _platform(js, app, database)
    _look(js, database)
    _users(js, database)
    _backups(js, database)
    for action, params in ACTIONS[database]:
        js.call(database, "Databases.apiAction", database, action, params, label=f"Databases.apiAction {action}")
    js.call(database, "Databases.apiPitrRestore", database, "2020-05-10T09:00:00Z")
    js.call(database, "Databases.apiUpgrade", database)
    rule = {"type": "custom_range", "cidr": "10.0.0.0/8", "label": "office"}
    js.call(database, "Databases.apiCreateFirewallRule", database, rule)
    js.call(database, "Databases.apiUpdateFirewallRule", database, "0" * 24, {"label": "office"})
    js.call(database, "Databases.apiDeleteFirewallRule", database, "0" * 24)
    js.call(database, "Databases.apiDatabaseFeatureEnable", database, "force-ssl")
    js.call(database, "Databases.apiDatabaseFeatureDisable", database, "force-ssl")
    js.call(database, "Databases.apiDatabaseFeatureEnable", database, "publicly-available", label="publicly-available")


def _platform(js: JavaScript, app: str, database: str) -> None:
    js.call(database, "Regions.all", holds=lambda found: len(found) >= 1)
    js.call(database, "Users.self", holds=lambda found: bool(found["username"]))
    js.call(database, "Apps.find", app, holds=lambda found: found["name"] == app)
    js.call(database, "Addons.for", app, holds=lambda found: database in {each["id"] for each in found})
    js.call(database, "Addons.getAddon", app, database, holds=lambda found: found["id"] == database)
    js.call(database, "Addons.listProviders")
    js.call(database, "Addons.create", app, {"plan_id": "x", "addon_provider_id": "postgresql"})
    js.call(database, "Addons.destroy", app, database)
    js.call(database, "Environment.for", app)
    js.call(database, "Databases.all")
    js.call(database, "Databases.show", database)
    js.call(database, "Databases.create", {"technology": "postgresql-ng", "plan": "x", "name": "x"})


def _look(js: JavaScript, database: str) -> None:
    shown = js.call(database, "Databases.apiShow", database, holds=lambda found: found["id"] == database)
    changed = {"periodic_backups_enabled": True, "periodic_backups_scheduled_at": [3, 15]}
    js.call(
        database,
        "Databases.apiUpdate",
        database,
        changed,
        holds=lambda found: found["periodic_backups_scheduled_at"] == [3, 15],
    )
    js.call(database, "Databases.apiUpdate", database, {"periodic_backups_enabled": False})
    js.call(database, "Databases.apiPlan", database, holds=lambda found: bool(found["name"]))
    js.call(database, "Databases.apiShowPlan", "self-hosted", "postgresql")
    js.call(database, "Databases.apiMetrics", database, holds=lambda found: "memory" in found)
    for kind in ("cpu", "memory", "swap", "disk", "diskio"):
        js.call(database, "Databases.apiMetricsType", database, kind, {"last": True})
    status = js.call(database, "Databases.apiInstancesStatus", database, holds=lambda found: len(found) == 1)
    if status.works:
        js.call(database, "Databases.apiInstanceMetrics", database, status.value[0]["id"], "memory", {"since": 1})
    js.call(database, "Databases.apiHealth", database)
    js.call(database, "Databases.apiLag", database)
    js.call(database, "Databases.apiPing", database)
    js.call(database, "Databases.apiLogs", database, holds=lambda url: url.startswith("http"))
    js.call(database, "Databases.apiLogsArchives", database)
    types = js.call(database, "Databases.listDatabaseTypes", holds=lambda found: len(found) == 4)
    js.call(database, "Databases.showDatabaseType", types.value[0]["id"] if types.works else "x")
    version = shown.value["version_id"] if shown.works else "x"
    js.call(database, "Databases.showDatabaseTypeVersion", version)
    js.call(database, "Databases.apiFirewallRules", database)
    js.call(database, "Databases.apiManagedFirewallRanges")
    js.call(database, "Databases.maintenances.all", of=database)
    js.call(database, "Databases.maintenances.show", "0" * 24, of=database)
    js.call(database, "Databases.apiOperationShow", database, "0" * 24)


def _users(js: JavaScript, database: str) -> None:
    js.call(database, "Databases.apiDatabaseUsers", database)
    params = {"database_id": database, "name": "made_by_js", "read_only": True}
    made = js.call(
        database,
        "Databases.apiDatabaseUserCreate",
        database,
        params,
        holds=lambda found: found["name"] == "made_by_js" and len(found["password"]) >= 24,
    )
    if made.works:
        js.call(
            database,
            "Databases.apiDatabaseUsers",
            database,
            holds=lambda found: [each["read_only"] for each in found if each["name"] == "made_by_js"] == [True],
        )
    js.call(database, "Databases.apiDatabaseUserResetPassword", database, "made_by_js")
    js.call(database, "Databases.apiDatabaseUserDelete", database, "made_by_js")


def _backups(js: JavaScript, database: str) -> None:
    made = js.call(database, "Databases.backups.create", of=database)
    backup = made.value["id"] if made.works else "0" * 24
    js.wait(
        database,
        "Databases.backups.show",
        backup,
        of=database,
        ended=lambda found: found["status"] in ("done", "error"),
    )
    js.call(database, "Databases.backups.all", of=database)
    js.call(database, "Databases.backups.archiveUrl", backup, of=database)
    restored = js.call(database, "Databases.backups.restore", backup, of=database)
    js.wait(
        database,
        "Databases.apiBackupRestorationShow",
        database,
        restored.value["id"] if restored.works else "0" * 24,
        of=None,
        ended=lambda found: found["status"] in ("done", "error"),
    )
