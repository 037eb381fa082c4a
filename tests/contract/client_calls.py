"""What the known clients send, in an order in which it can be sent, and what each reads of the answer.

A record is one request of one client. Paths are those of the route table; a name in braces, in a path or in a body,
stands for what an earlier answer gave (`keeps`) or what the run begins with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.contract.decoders import GO_DATABASE
from tests.contract.fields import (
    Check,
    Undecodable,
    among,
    anything,
    date,
    fields,
    filled,
    integer,
    like,
    list_of,
    map_of,
    number,
    only,
    or_null,
    text,
    truth,
    unsigned,
)


class Client(StrEnum):
    """Who sends it."""

    GO = "go"
    """The Go SDK, and the command-line client that is made of it."""
    JS = "js"
    RUBY = "ruby"
    DOCUMENTATION = "documentation"
    """The examples of the documented API, as they stand there."""


class Token(StrEnum):
    """What it sends in `Authorization`."""

    NONE = "none"
    API = "api"
    """The API token, as the password of `Basic`."""
    LOGIN = "login"
    """A name and a password of somebody, as `Basic`."""
    USER = "user"
    """The JWT that an API token was exchanged for."""
    ADDON = "addon"
    """The JWT for one database."""
    STATIC = "static"
    """The API token itself, as `Bearer`."""


ABSENT: Any = object()
"""Of a request without a body."""

POSTGRESQL, MYSQL, MONGODB, INFLUXDB, FAKE = "postgresql", "mysql", "mongodb", "influxdb", "fake"
ENGINES = (POSTGRESQL, MYSQL, MONGODB, INFLUXDB, FAKE)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, and what its client reads of the answer."""

    client: Client
    method: str
    path: str
    query: str = ""
    body: Any = ABSENT
    token: Token
    status: int = 200
    """The client takes no other for a success; scalingo.js takes any 2xx."""
    given: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names in braces that stand for this, in this request."""
    root: str | None = None
    """The key that it unwraps."""
    reads: Check = anything
    keeps: Mapping[str, str] = field(default_factory=dict[str, str])
    """What later requests need, by name: where it stands in the body."""
    link: str | None = None
    """The name of an address that an earlier answer gave: it is sent there, not to `path`."""
    plain: bool = False
    """It is a bare GET, such as a browser's: no header is the client's own."""
    file: str | None = None
    """The type of an answer that is no JSON."""
    until: tuple[str, str] | None = None
    """It is sent again until this place in the body has this value."""
    refused: Mapping[str, int] = field(default_factory=dict[str, int])
    """Engines on which dbvalet cannot do it: the status under which the user is told why."""
    engines: tuple[str, ...] = ENGINES
    """On which it means anything."""
    about: tuple[str, ...] = ()
    """Where clients and documentation differ: the subjects of `DIFFERENCES` that it shows."""

    def __str__(self) -> str:
        asked = f"{self.client} {self.method} {self.path}{'?' if self.query else ''}{self.query}"
        return asked if self.body is ABSENT else f"{asked} {self.body}"


def _call(client: Client, method: str, path: str, **more: Any) -> Call:
    of_addon = client in (Client.GO, Client.RUBY) and path.startswith("/api/")
    token = Token.ADDON if of_addon else Token.STATIC if client is Client.DOCUMENTATION else Token.USER
    return Call(client=client, method=method, path=path, **{"token": token, **more})


def go(method: str, path: str, **more: Any) -> Call:
    return _call(Client.GO, method, path, **more)


def js(method: str, path: str, **more: Any) -> Call:
    return _call(Client.JS, method, path, **more)


def ruby(method: str, path: str, **more: Any) -> Call:
    return _call(Client.RUBY, method, path, **more)


def documentation(method: str, path: str, **more: Any) -> Call:
    return _call(Client.DOCUMENTATION, method, path, **more)


def go_and_js(method: str, path: str, **more: Any) -> list[Call]:
    return [go(method, path, **more), js(method, path, **more)]


NOWHERE = dict.fromkeys(ENGINES, 400)
"""What dbvalet does on no engine: it says so, and why."""

UNKNOWN = dict.fromkeys(ENGINES, 404)
"""Ids of what dbvalet never has."""

# Authentication.

JWT = like(r"[\w-]+\.[\w-]+\.[\w-]+")
URL = like(r"https?://[^/\s]+(/\S*)?")
BASE_URL = like(r"https?://[^/\s]+")
REGION = fields(
    name=filled, display_name=text, ssh=text, api=BASE_URL, dashboard=text, database_api=BASE_URL, default=truth
)

AUTHENTICATION = [
    # One client takes the only value that there is.
    *(
        _call(client, "POST", "/v1/tokens/exchange", token=Token.API, reads=only(token=JWT), keeps={"jwt": "token"})
        for client in (Client.GO, Client.JS, Client.RUBY)
    ),
    go(
        "POST",
        "/v1/tokens",
        token=Token.LOGIN,
        body={"token": {"name": "a computer"}},
        status=201,
        root="token",
        refused=NOWHERE,
    ),
    go("GET", "/v1/regions", token=Token.NONE, root="regions", reads=list_of(REGION, least=1)),
    *go_and_js("GET", "/v1/regions", root="regions", reads=list_of(REGION, least=1)),
    *go_and_js(
        "GET",
        "/v1/users/self",
        root="user",
        reads=fields(id=text, username=filled, email=text, fullname=text, flags=map_of(truth)),
    ),
]

# The platform around the databases.

APP, ADDONS = "/v1/apps/{app}", "/v1/apps/{app}/addons"
ADDON = f"{ADDONS}/{{addon}}"
NAMED = fields(id=filled, name=filled)
PLAN = fields(id=text, name=filled, display_name=text)
PROVIDER = fields(
    id=among("postgresql", "mysql", "mongodb", "influxdb", "fake"),
    name=among("PostgreSQL", "MySQL", "MongoDB", "InfluxDB", "Fake"),
)
AN_ADDON = fields(
    id=like("ad-.+"),
    app_id=text,
    resource_id=text,
    status=among("running", "provisioning", "suspended"),
    plan=PLAN,
    addon_provider=PROVIDER,
    provisioned_at=or_null(date),
    deprovisioned_at=or_null(date),
)
AN_APP = fields(id=text, name=filled, flags=map_of(truth))
TO_PROVISION = {"addon": {"addon_provider_id": "postgresql", "plan_id": "self-hosted"}}
LISTED = {"app": "{listed}"}
TO_UPGRADE = {"addon": {"plan_id": "self-hosted"}}

PLATFORM = [
    go("GET", ADDONS, root="addons", reads=list_of(AN_ADDON, least=1), keeps={"app_id": "addons.0.app_id"}),
    js("GET", ADDONS, root="addons", reads=list_of(AN_ADDON, least=1)),
    *go_and_js("GET", ADDON, root="addon", reads=AN_ADDON, keeps={"provider": "addon.addon_provider.id"}),
    go("POST", f"{ADDON}/token", root="addon", reads=fields(token=JWT), keeps={"addon_jwt": "addon.token"}),
    ruby("POST", f"{ADDON}/token", reads=only(addon=fields(token=JWT)), keeps={"addon_jwt": "addon.token"}),
    *go_and_js("GET", APP, root="app", reads=AN_APP),
    go(
        "GET",
        f"{APP}/variables",
        query="aliases=false",
        root="variables",
        reads=list_of(fields(id=text, name=like("SCALINGO_[A-Z]+_URL"), value=filled), least=1),
    ),
    js("GET", f"{APP}/variables", root="variables", reads=list_of(fields(id=text, name=text, value=text), least=1)),
    go(
        "POST",
        f"{APP}/run",
        body={"command": "psql", "env": {}, "size": "", "detached": False, "has_uploads": False},
        reads=fields(container=anything, operation_url=text),
        refused=NOWHERE,
    ),
    *go_and_js("GET", "/v1/addon_providers", root="addon_providers", reads=list_of(NAMED, least=1)),
    js("GET", "/v1/addon_providers", token=Token.NONE, root="addon_providers", reads=list_of(NAMED, least=1)),
    go(
        "GET",
        "/v1/addon_providers/{provider}/plans",
        query="show_all=false",
        root="plans",
        reads=list_of(PLAN, least=1),
    ),
    *go_and_js("POST", ADDONS, body=TO_PROVISION, status=201, root="addon", reads=AN_ADDON, refused=NOWHERE),
    *go_and_js("PATCH", ADDON, body=TO_UPGRADE, root="addon", reads=AN_ADDON, refused=NOWHERE),
    ruby("PUT", ADDON, body=TO_UPGRADE, root="addon", reads=AN_ADDON, refused=NOWHERE),
    *go_and_js("DELETE", ADDON, status=204, refused=NOWHERE),
    *go_and_js(
        "GET",
        "/v1/databases",
        root="databases",
        reads=list_of(
            fields(id=like("ad-.+"), name=filled, project_id=text, technology=filled, plan=text),
            least=1,
        ),
        keeps={"listed": "databases.0.name"},
    ),
    # For each entry, by its name, as if that were an application.
    go("GET", ADDONS, given=LISTED, root="addons", reads=list_of(AN_ADDON, least=1, most=1)),
    go("GET", APP, given=LISTED, root="app", reads=AN_APP),
    go("POST", f"{ADDON}/token", given=LISTED, root="addon", reads=fields(token=JWT)),
    go(
        "POST",
        "/v1/databases",
        body={"addon_provider_id": "postgresql", "plan_id": "self-hosted", "name": "mine"},
        status=201,
        root="database",
        refused=NOWHERE,
        about=("database create (v1)",),
    ),
    js(
        "POST",
        "/v1/databases",
        body={"database": {"technology": "postgresql", "plan": "self-hosted", "name": "mine"}},
        root="apps",
        refused=NOWHERE,
    ),
    documentation(
        "POST",
        "/v1/databases",
        body={"database": {"technology": "postgresql", "plan": "self-hosted"}},
        status=201,
        root="database",
        refused=NOWHERE,
        about=("database create (v1)",),
    ),
]

# A database. Where `or_null` stands, Go takes null for nothing; scalingo.js types some of these fields as never null.

ONE = "/api/databases/{database_id}"
INSTANCE_STATUS = among("booting", "running", "restarting", "migrating", "upgrading", "stopped", "removing")
JS_DATABASE = fields(
    dict.fromkeys(("id", "resource_id", "app_name", "plan", "type_id", "type_name", "version_id", "hostname"), text),
    **dict.fromkeys(("readable_version", "mongo_repl_set_name"), or_null(text)),
    **dict.fromkeys(("next_version_id", "current_operation_id"), or_null(text)),
    **dict.fromkeys(("created_at", "first_pitr_backup"), or_null(date)),
    **dict.fromkeys(("encryption_at_rest", "periodic_backups_enabled", "cluster"), truth),
    status=among("creating", "running", "migrating", "updating", "upgrading", "stopped"),
    features=list_of(fields(name=text, status=text)),
    flags=list_of(text),
    instances=list_of(
        fields(
            id=text,
            hostname=text,
            port=integer,
            private_ip=or_null(text),
            type=text,
            status=INSTANCE_STATUS,
        ),
        least=1,
    ),
    periodic_backups_scheduled_at=list_of(integer),
    maintenance_window=or_null(fields(weekday_utc=integer, starting_hour_utc=integer, duration_in_hour=integer)),
)


def _scheduled(*hours: int) -> Check:
    return fields(periodic_backups_scheduled_at=among(list(hours)))


DATABASE = [
    go("GET", ONE, root="database", reads=GO_DATABASE),
    js(
        "GET",
        ONE,
        root="database",
        reads=JS_DATABASE,
        keeps={
            "version_id": "database.version_id",
            "type_id": "database.type_id",
            "instance_id": "database.instances.0.id",
            "type_name": "database.type_name",
        },
        about=("token in the Database API",),
    ),
    documentation(
        "GET",
        ONE,
        root="database",
        reads=fields(id=like("ad-.+"), instances=list_of(anything, least=1)),
        about=("database id",),
    ),
    go(
        "PATCH",
        ONE,
        body={"database": {"periodic_backups_scheduled_at": 3, "periodic_backups_enabled": True}},
        root="database",
        reads=GO_DATABASE,
    ),
    go("PATCH", ONE, body={"database": {"periodic_backups_enabled": False}}, root="database", reads=_scheduled(3)),
    go(
        "PATCH",
        ONE,
        body={"database": {"maintenance_window": {"weekday_utc": 1, "starting_hour_utc": 4}}},
        root="database",
        reads=fields(maintenance_window=fields(weekday_utc=among(1), starting_hour_utc=among(4))),
    ),
    js(
        "PATCH",
        ONE,
        body={
            "database": {
                "periodic_backups_enabled": True,
                "periodic_backups_scheduled_at": [15, 3],
                "maintenance_window": {"weekday_utc": 0, "starting_hour_utc": 22},
            }
        },
        root="database",
        reads=_scheduled(3, 15),
        about=("backup schedule",),
    ),
    js("PATCH", ONE, body={"database": {"periodic_backups_enabled": False}}, root="database", reads=JS_DATABASE),
    *(
        documentation(
            method,
            ONE,
            body={"database": {"periodic_backups_enabled": False, "periodic_backups_scheduled_at": 3}},
            root="database",
            reads=_scheduled(3),
            about=("backup schedule",),
        )
        for method in ("PATCH", "PUT")
    ),
]

# Around a database.

INSTANCE = fields(id=text, type=text, status=INSTANCE_STATUS, role=or_null(among("leader", "follower")))
BYTES = or_null(unsigned)
METRICS = fields(
    cpu_usage=or_null(integer),
    memory=fields(
        dict.fromkeys(("memory", "memory_max", "memory_limit", "swap", "swap_max", "swap_limit"), BYTES),
    ),
    database_stats=fields(data_size=BYTES),
    real_disk_size=BYTES,
    instances_metrics=map_of(anything),
)
OF_INSTANCE = fields(
    instance_id=text,
    instance_address=text,
    real_disk_size=BYTES,
    memory=fields(
        **dict.fromkeys(("memory_usage", "memory_limit", "max_memory_usage"), BYTES),
        **dict.fromkeys(("swap_usage", "swap_limit", "max_swap_usage"), BYTES),
    ),
)
MOMENT = fields(time=date)
SERIES = (f"{ONE}/metrics/{{kind}}", f"{ONE}/instances/{{instance_id}}/metrics/{{kind}}")
A_PLAN = fields(id=text, name=filled, backup=truth, disk=BYTES, memory=BYTES)
A_VERSION = fields(
    **dict.fromkeys(("id", "database_type_id"), text),
    **dict.fromkeys(("major", "minor", "patch", "build"), integer),
    **dict.fromkeys(("next_upgrade", "allowed_plugins"), among(None)),
)

AROUND = [
    js(
        "GET",
        f"{ONE}/instances_status",
        reads=list_of(INSTANCE, least=1),
        about=("role", "never an array as root"),
    ),
    js("GET", f"{ONE}/metrics", reads=METRICS, about=("instances_metrics",)),
    documentation(
        "GET", f"{ONE}/metrics", reads=fields(instances_metrics=map_of(OF_INSTANCE)), about=("memory metrics",)
    ),
    *(
        js("GET", path, given={"kind": kind}, reads=fields(values=list_of(MOMENT, least=1)))
        for path in SERIES
        for kind in ("cpu", "memory", "swap", "disk", "diskio")
    ),
    # `since` is hours to look back, `last` whether the newest value is enough.
    *(js("GET", path, query="since=3&last=false", reads=fields(values=list_of(MOMENT, least=2))) for path in SERIES),
    *(js("GET", path, query="last=true", reads=fields(values=list_of(MOMENT, least=1, most=1))) for path in SERIES),
    *(
        send("GET", f"{ONE}/health", reads=fields(status=text), refused=NOWHERE, about=("health",))
        for send in (js, documentation)
    ),
    js("GET", f"{ONE}/lag", reads=map_of(anything)),
    js("POST", f"{ONE}/ping", body={}, reads=map_of(anything)),
    js("GET", f"{ONE}/plan", root="plan", reads=A_PLAN, keeps={"name": "plan.name"}),
    js("GET", "/api/plans/{name}", query="type={type_name}", root="plan", reads=A_PLAN),
    js("GET", "/api/database_types", root="database_types", reads=list_of(NAMED, least=1)),
    js("GET", "/api/database_types/{type_id}", root="database_type", reads=NAMED),
    *(
        send(
            "GET",
            "/api/database_type_versions/{version_id}",
            root="database_type_version",
            reads=A_VERSION,
            about=("version path", "next_upgrade", "allowed_plugins"),
        )
        for send in (go, js, documentation)
    ),
    js("GET", "/api/ca_certificate", token=Token.NONE, plain=True, file="application/x-pem-file"),
    js("POST", f"{ONE}/upgrade", body={}, reads=fields(operation_id=text), refused=NOWHERE),
    ruby("POST", f"{ONE}/upgrade", body={}, refused=NOWHERE),
]

MAINTENANCE = fields(id=text, type=text, status=text, started_at=or_null(date), ended_at=or_null(date))
PAGES = fields(
    maintenance=list_of(MAINTENANCE), meta=fields(pagination=fields(current_page=integer, total_pages=integer))
)
NO_LOG = {POSTGRESQL: 409, INFLUXDB: 409}
"""The engines that give their log to nobody, or not as the images are set up."""
LOG_LINES = like(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9} \+0000 UTC \[\w+\]( \S+)*\n)*")
ARCHIVES = fields(
    archives=list_of(fields({"from": text, "to": text}, url=URL, size=integer)), next_cursor=text, has_more=truth
)
NO_SSL = {POSTGRESQL: 409, MONGODB: 409, INFLUXDB: 409}
"""The engines that choose at their start whether they want TLS."""
RULE = {"type": "custom_range", "cidr": "10.0.0.0/8", "label": "office"}
A_RULE = fields(id=text, type=among("managed_range", "custom_range"), cidr=text, label=text, range_id=text)
RULES = f"{ONE}/firewall_rules"

SETTINGS = [
    go("GET", f"{ONE}/maintenance", query="page=1&per_page=20", reads=PAGES),
    js("GET", f"{ONE}/maintenance", reads=PAGES),
    *go_and_js("GET", f"{ONE}/maintenance/{{maintenance_id}}", reads=MAINTENANCE, refused=UNKNOWN),
    documentation(
        "GET",
        f"{ONE}/maintenance/{{maintenance_id}}",
        root="maintenance",
        reads=MAINTENANCE,
        refused=UNKNOWN,
        about=("maintenance show",),
    ),
    go(
        "POST",
        f"{ONE}/features",
        body={"feature": {"name": "force-ssl", "status": ""}},
        reads=fields(name=text, status=among("ACTIVATED", "PENDING", "FAILED"), message=text),
        refused=NO_SSL,
    ),
    go("DELETE", f"{ONE}/features", query="feature=force-ssl", reads=fields(message=filled), refused=NO_SSL),
    js(
        "POST",
        f"{ONE}/features",
        body={"feature": {"name": "force-ssl"}},
        reads=fields(
            name=text, status=among("ACTIVATED", "PENDING", "FAILED", "PENDING_TO_ACTIVATE", "PENDING_TO_REMOVE")
        ),
        refused=NO_SSL,
    ),
    js("DELETE", f"{ONE}/features", query="feature=force-ssl", reads=fields(message=filled), refused=NO_SSL),
    js("POST", f"{ONE}/features", body={"feature": {"name": "publicly-available"}}, refused=NOWHERE),
    *(
        send("GET", f"{ONE}/logs", root="url", reads=URL, keeps={"log": "url"}, refused=NO_LOG, about=("logs path",))
        for send in (js, documentation, go)
    ),
    go(
        "GET",
        "/api/logs/{log_id}",
        link="log",
        query="filter=&n=20",
        token=Token.NONE,
        file="text/plain; charset=utf-8",
        reads=LOG_LINES,
        engines=tuple(engine for engine in ENGINES if engine not in NO_LOG),
    ),
    go("GET", f"{ONE}/logs_archives", query="page=1", reads=ARCHIVES, refused=NOWHERE),
    js("GET", f"{ONE}/logs_archives", query="cursor=1", reads=ARCHIVES, refused=NOWHERE),
    *go_and_js("GET", RULES, root="rules", reads=list_of(A_RULE), refused=NOWHERE),
    go("POST", RULES, body=RULE, status=201, root="rule", reads=A_RULE, refused=NOWHERE, about=("firewall create",)),
    js(
        "POST",
        RULES,
        body={"firewall_rule": RULE},
        status=201,
        root="rule",
        reads=A_RULE,
        refused=NOWHERE,
        about=("firewall create",),
    ),
    js(
        "PATCH",
        f"{RULES}/{{rule_id}}",
        body={"firewall_rule": {"label": "home"}},
        root="rule",
        reads=A_RULE,
        refused=NOWHERE,
    ),
    *go_and_js("DELETE", f"{RULES}/{{rule_id}}", status=204, refused=NOWHERE),
    *go_and_js(
        "GET",
        "/api/firewall/managed_ranges",
        root="ranges",
        reads=list_of(NAMED),
        refused=NOWHERE,
    ),
]

# Users of a database.

USERS, A_USER = f"{ONE}/users", f"{ONE}/users/{{user_name}}"
SHOWN_USER = fields(
    name=filled, read_only=truth, protected=truth, dbms_attributes=or_null(fields(password_encryption=text))
)
MADE_PASSWORD = like(".{24,64}")
CHOSEN = {"password": "chosen-by-its-user-0123456789", "password_confirmation": "chosen-by-its-user-0123456789"}
READERS_WRITE = {INFLUXDB: 409}
"""The engines on which, as the servers are set up, a user who is to read only could write."""


def _user(name: str, *, password: Check = MADE_PASSWORD, read_only: bool = False) -> Check:
    return fields(name=among(name), read_only=among(read_only), protected=among(False), password=password)


def _lives() -> list[Call]:
    """Each client makes a user, gives it passwords and takes it away."""
    go_user, js_user, hand, reader = (
        {"user_name": name} for name in ("made-by-go", "made-by-js", "made-by-hand", "made-to-read")
    )
    reset = f"{A_USER}/reset_password"
    of_root = {"root": "database_user"}
    id_ = {"database_id": "{database_id}"}
    return [
        go(
            "POST",
            USERS,
            body={"database_user": {**id_, "name": "made-by-go", "read_only": False}},
            status=201,
            reads=_user("made-by-go"),
            **of_root,
        ),
        go("PATCH", A_USER, given=go_user, body={"database_user": {**id_, **CHOSEN}}, reads=SHOWN_USER, **of_root),
        go("POST", reset, given=go_user, reads=_user("made-by-go"), **of_root),
        js(
            "POST",
            USERS,
            body={"database_user": {**id_, "name": "made-by-js", **CHOSEN}},
            status=201,
            reads=SHOWN_USER,
            **of_root,
        ),
        js("POST", reset, given=js_user, reads=_user("made-by-js"), **of_root),
        documentation(
            "POST",
            USERS,
            body={
                "database_user": {
                    "database_id": "5c599fd6f18b3202f7ab4e66",
                    "name": "made-by-hand",
                    "read_only": False,
                    "password": None,
                    "password_confirmation": None,
                }
            },
            status=201,
            reads=_user("made-by-hand"),
            about=("user create, reset", "database_id of a user"),
        ),
        documentation(
            "PATCH",
            A_USER,
            given=hand,
            body={"database_user": {"database_id": "5c599fd6f18b3202f7ab4e66", **CHOSEN}},
            about=("user update",),
        ),
        documentation(
            "POST",
            reset,
            given=hand,
            body="",
            reads=_user("made-by-hand"),
            about=("user create, reset", "reset password example"),
        ),
        go(
            "POST",
            USERS,
            body={"database_user": {**id_, "name": "made-to-read", "read_only": True}},
            status=201,
            reads=_user("made-to-read", read_only=True),
            refused=READERS_WRITE,
            **of_root,
        ),
        *go_and_js("GET", USERS, root="database-users", reads=list_of(SHOWN_USER, least=3)),
        documentation("GET", USERS, root="database-users", reads=list_of(SHOWN_USER, least=3)),
        go("DELETE", A_USER, given=go_user, status=204),
        js("DELETE", A_USER, given=js_user, status=204),
        documentation("DELETE", A_USER, given=hand, status=204),
        go("DELETE", A_USER, given=reader, status=204, refused=dict.fromkeys(READERS_WRITE, 404)),
        go("POST", reset, given=go_user, refused=UNKNOWN),
    ]


# Backups and operations.

BACKUPS = f"{ONE}/backups"
BACKUP = f"{BACKUPS}/{{backup_id}}"
METHOD = among("periodic", "manual")
GO_BACKUP = fields(
    id=text,
    created_at=date,
    name=filled,
    size=or_null(unsigned),
    status=among("scheduled", "running", "done", "error"),
    database_id=text,
    method=METHOD,
)
JS_BACKUP = fields(
    dict.fromkeys(("id", "database_id", "name"), text),
    method=METHOD,
    status=among("scheduled", "running", "done", "error", "cancelling", "cancelled"),
    size=or_null(unsigned),
    created_at=date,
)
RESTORATION = fields(
    dict.fromkeys(("id", "database_id", "source_backup_id"), text),
    created_at=date,
    status=among("scheduled", "running", "done", "error"),
)
OPERATION = fields(
    id=text,
    type=text,
    status=among("pending", "running", "finished", "error", "user-error", "cancelling", "cancelled"),
    created_at=date,
    finished_at=or_null(date),
    error=or_null(text),
)


def _newest_first(value: Any, where: str) -> None:
    list_of(fields(created_at=date), least=3)(value, where)
    if [backup["id"] for backup in sorted(value, key=lambda each: each["created_at"], reverse=True)] != [
        backup["id"] for backup in value
    ]:
        raise Undecodable(f"{where} does not begin with the newest: an older one would be downloaded")


MADE: dict[str, Any] = {
    "status": 201,
    "root": "database_backup",
    "keeps": {"backup_id": "database_backup.id", "operation_id": "database_backup.operation_id"},
}
LINKED: dict[str, Any] = {"root": "download_url", "reads": URL, "keeps": {"archive": "download_url"}}
DOWNLOADED: dict[str, Any] = {
    "link": "archive",
    "token": Token.NONE,
    "plain": True,
    "file": "application/gzip",
    "reads": like(r"(?s)\x1f\x8b.+"),
}
DOWNLOAD = "/api/backups/{backup_id}/download"
# A backup that is done can be had; what its operation still does behind it keeps the next one waiting.
OPERATION_ENDS = js(
    "GET",
    f"{ONE}/operations/{{operation_id}}",
    root="operation",
    reads=OPERATION,
    until=("operation.status", "finished"),
)

BACKING_UP = [
    go("POST", BACKUPS, reads=GO_BACKUP, **MADE),
    go(
        "GET",
        "/api/backups/{backup_id}",
        root="database_backup",
        reads=GO_BACKUP,
        until=("database_backup.status", "done"),
        about=("one backup",),
    ),
    OPERATION_ENDS,
    js("POST", BACKUPS, body={}, reads=JS_BACKUP, **MADE),
    js(
        "GET",
        BACKUP,
        root="database_backup",
        reads=JS_BACKUP,
        until=("database_backup.status", "done"),
        about=("one backup",),
    ),
    OPERATION_ENDS,
    documentation("POST", BACKUPS, reads=GO_BACKUP, **MADE),
    documentation(
        "GET",
        BACKUPS,
        root="database_backups",
        reads=list_of(fields(type=METHOD, method=METHOD), least=3),
        until=("database_backups.0.status", "done"),
        about=("backup fields", "list of backups in the overview"),
    ),
    OPERATION_ENDS,
    go("GET", BACKUPS, root="database_backups", reads=list_of(GO_BACKUP, least=3)),
    go("GET", BACKUPS, root="database_backups", reads=_newest_first),
    js("GET", BACKUPS, root="database_backups", reads=list_of(JS_BACKUP, least=3)),
    go("GET", f"{BACKUP}/archive", **LINKED),
    go("GET", DOWNLOAD, **DOWNLOADED),
    js("GET", f"{BACKUP}/archive", **LINKED),
    js("GET", DOWNLOAD, **DOWNLOADED),
    documentation("GET", f"{BACKUP}/archive", **LINKED),
    documentation("GET", DOWNLOAD, **DOWNLOADED),
    js(
        "POST",
        f"{BACKUP}/restore",
        body={},
        status=201,
        reads=RESTORATION,
        keeps={"restoration_id": "id", "operation_id": "operation_id"},
    ),
    js(
        "GET",
        f"{ONE}/backup_restorations/{{restoration_id}}",
        root="backup_restoration",
        reads=RESTORATION,
        until=("backup_restoration.status", "done"),
    ),
    OPERATION_ENDS,
]

# Going back to an instant: of a PostgreSQL that has an archive; here only the fake engine has one.

NO_ARCHIVE = {POSTGRESQL: 409, MYSQL: 400, MONGODB: 400, INFLUXDB: 400}
TO_INSTANT: dict[str, Any] = {"method": "POST", "path": f"{ONE}/pitr/restore", "status": 201, "refused": NO_ARCHIVE}
BEGUN = {"operation_id": "operation.id"}

GOING_BACK = [
    go(
        "GET",
        f"{ONE}/pitr/recovery_window",
        root="recovery_window",
        reads=fields(earliest_recoverable_at=or_null(date), latest_recoverable_at=or_null(date)),
        refused=NO_ARCHIVE,
    ),
    go(
        **TO_INSTANT,
        body={"restore_time": "2026-01-31T09:00:00.123456789Z"},
        root="operation",
        reads=fields(id=filled, created_at=date, finished_at=or_null(date), error=or_null(text)),
        keeps=BEGUN,
    ),
    OPERATION_ENDS,
    js(**TO_INSTANT, body={"restore_time": "2026-01-31T09:00:00.000Z"}, reads=fields(operation=OPERATION), keeps=BEGUN),
    OPERATION_ENDS,
    documentation(
        **TO_INSTANT,
        body={"restore_time": "2026-01-31T09:00:00Z"},
        reads=fields(operation_id=filled),
        keeps=BEGUN,
        about=("pitr/restore answer",),
    ),
    OPERATION_ENDS,
]

# Actions. scalingo.js sends `{}` for params that are absent or null.

DATABASES_OF = (MYSQL, MONGODB)
LOGICAL = {"database_name": "clients-db"}
A_LOGICAL = fields(name=filled, protected=truth)
RUNNING_QUERY = fields(
    query=text,
    state=text,
    username=text,
    query_start=or_null(date),
    pid=integer,
    query_duration=or_null(integer),
)
STATEMENT = fields(
    dict.fromkeys(("user_id", "calls", "rows"), integer),
    **dict.fromkeys(("total_time", "min_time", "max_time", "mean_time", "std_dev"), number),
    query=text,
)
POLICY = fields(name=filled, duration=text, default=truth)


def _shown(engines: tuple[str, ...], name: str, result: Check, *, params: Any = ABSENT, **more: Any) -> Call:
    """Ask for an action as the documentation does."""
    body = {"action_name": name} | ({} if params is ABSENT else {"params": params})
    told = only(ok=among(1), result=result)
    return documentation("POST", f"{ONE}/action", body=body, engines=engines, reads=told, **more)


def _sent(engines: tuple[str, ...], name: str, result: Check, *, params: Any = ABSENT, **more: Any) -> Call:
    """Ask for an action as scalingo.js does."""
    body = {"action_name": name, "params": {} if params in (ABSENT, None) else params}
    told = only(ok=among(1), result=result)
    return js("POST", f"{ONE}/action", body=body, engines=engines, reads=told, **more)


def _both(*what: Any, **more: Any) -> list[Call]:
    return [_shown(*what, **more), _sent(*what, **more)]


TWO, OF_MYSQL, OF_POSTGRESQL, OF_INFLUXDB = (MYSQL, MONGODB), (MYSQL,), (POSTGRESQL,), (INFLUXDB,)
DIFFER = {"about": ("action params",)}
NO_BACKEND: dict[str, Any] = {"params": {"pid": 2147483647}, "refused": {POSTGRESQL: 404}}
A_POLICY = {"name": "made-by-clients", "duration": "30d"}

ACTING = [
    _shown(TWO, "create-database", A_LOGICAL, params=LOGICAL),
    *_both(TWO, "list-databases", list_of(A_LOGICAL, least=1), **DIFFER),
    *_both(TWO, "reset-database", among(None), params=LOGICAL, about=("reset-database example",)),
    _shown(TWO, "delete-database", among(None), params=LOGICAL),
    _sent(TWO, "create-database", A_LOGICAL, params=LOGICAL),
    _sent(TWO, "delete-database", among(None), params=LOGICAL),
    *_both(OF_MYSQL, "get-sqlmode", filled, params=None, keeps={"sql_mode": "result"}, **DIFFER),
    *_both(OF_MYSQL, "set-sqlmode", among(None), params="{sql_mode}", **DIFFER),
    *_both(
        OF_POSTGRESQL, "list-extensions", list_of(fields(name=filled, version=filled), least=1), params=None, **DIFFER
    ),
    *_both(OF_POSTGRESQL, "pg-list-queries", list_of(RUNNING_QUERY), **DIFFER),
    *_both(OF_POSTGRESQL, "pg-cancel-query", among(None), **NO_BACKEND),
    *_both(OF_POSTGRESQL, "pg-terminate-query", among(None), **NO_BACKEND),
    *_both(OF_POSTGRESQL, "pg-stat-statements-enable", among(None)),
    *_both(OF_POSTGRESQL, "pg-stat-statements-list", list_of(STATEMENT)),
    *_both(OF_POSTGRESQL, "pg-stat-statements-reset", among(None)),
    _shown(OF_INFLUXDB, "add-retention-policy", among(None), params={**A_POLICY, "default": False}),
    *_both(OF_INFLUXDB, "list-retention-policies", list_of(POLICY, least=2), **DIFFER),
    _shown(OF_INFLUXDB, "del-retention-policy", among(None), params={"name": A_POLICY["name"]}),
    _sent(OF_INFLUXDB, "add-retention-policy", among(None), params=A_POLICY),
    _sent(OF_INFLUXDB, "del-retention-policy", among(None), params={"name": A_POLICY["name"]}),
]

CALLS = [
    *AUTHENTICATION,
    *PLATFORM,
    *DATABASE,
    *AROUND,
    *SETTINGS,
    *_lives(),
    *BACKING_UP,
    *GOING_BACK,
    *ACTING,
]

DIFFERENCES = (
    "pitr/restore answer",
    "user create, reset",
    "user update",
    "maintenance show",
    "backup schedule",
    "action params",
    "reset-database example",
    "reset password example",
    "one backup",
    "backup fields",
    "firewall create",
    "instances_metrics",
    "memory metrics",
    "next_upgrade",
    "allowed_plugins",
    "never an array as root",
    "role",
    "logs path",
    "version path",
    "health",
    "database id",
    "database_id of a user",
    "list of backups in the overview",
    "token in the Database API",
    "database create (v1)",
)
"""Where the documentation and the clients say different things: a call shows each."""
