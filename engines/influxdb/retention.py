"""Retention policies of the deployment's logical database: list, add, delete.

https://docs.influxdata.com/influxdb/v1.8/query_language/manage-database/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

from pydantic import AfterValidator, Field, StringConstraints
from typing_extensions import TypedDict

from engines.action import Effect, Params, action
from engines.aftermath import AS_ASKED, Aftermath, Goal
from engines.engine import require_privileges, unseen
from engines.errors import (
    AlreadyExists,
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    EngineUnavailable,
    PrivilegeMissing,
    RetentionPolicyNotFound,
)
from engines.influxdb.influxql import identifier, parse_duration, read_duration, show_duration
from engines.preview import Affected, Change, Preview, preview_of

if TYPE_CHECKING:
    from engines.influxdb.server import InfluxServer

LONGEST_NAME = 255
"""Bytes. The server takes no longer name."""


class RetentionPolicy(TypedDict):
    """A retention policy as the documented API shows it."""

    name: str
    duration: str
    default: bool


def servers_name(name: str) -> str:
    """Check a name by the server's own rule, so that the answer tells which part of it is not met.

    Raises: ValueError
    """
    if len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"must have at most {LONGEST_NAME} bytes")
    if name in (".", "..") or "/" in name or "\\" in name or not name.isprintable():
        raise ValueError("must be printable, without / and \\, and neither . nor ..")
    return name


def servers_duration(text: str) -> str:
    """Raises: ValueError, when it is not a duration or not one that a policy can have."""
    parse_duration(text)
    return text


NewName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=LONGEST_NAME),
    AfterValidator(servers_name),
    Field(description="printable, without / and \\, neither . nor .., at most 255 bytes of UTF-8"),
]
NewDuration = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100),
    AfterValidator(servers_duration),
    Field(description="as InfluxQL writes it: 30d, 1h30m; INF or 0 for ever; whole seconds, at least 1h"),
]


class NewRetentionPolicy(Params):
    """A retention policy to be created."""

    name: NewName
    duration: NewDuration
    default: bool = Field(default=False, description="write to this policy from now on when none is named")


class ExistingRetentionPolicy(Params):
    """The name of a retention policy that is there."""

    name: Annotated[str, StringConstraints(min_length=1), Field(description="as list-retention-policies gives it")]


@action(
    "list-retention-policies",
    effect=Effect.READ,
    privileges=("READ",),
    example_result=[
        {"name": "autogen", "duration": "0", "default": True},
        {"name": "30-days", "duration": "30d", "default": False},
    ],
)
async def list_retention_policies(server: InfluxServer) -> list[RetentionPolicy]:
    """List the retention policies, in the server's order.

    `duration` is `0` for ever, else a number of the largest of the units d, h, m, s that divides it.
    """
    reply = await server.read(f"SHOW RETENTION POLICIES ON {identifier(server.address.database)}")
    return [
        RetentionPolicy(
            name=row["name"], duration=show_duration(read_duration(row["duration"])), default=row["default"]
        )
        for row in reply.get("", [])
    ]


async def look_whether_as_asked(server: InfluxServer, params: NewRetentionPolicy) -> list[str]:
    """Tell whether there is this policy, or what one of its name is like."""
    found = await find(server, params.name)
    return [] if found is None else [AS_ASKED if found == as_shown(params) else str(found)]


async def look_at_shards(server: InfluxServer, params: ExistingRetentionPolicy) -> list[str]:
    """List the shards of a policy, whose ids no later one of its name has.

    Where it has none, or only an admin may list them, nothing tells it from a later one: it is another at each look, so
    that only its absence says anything.
    """
    found = await find(server, params.name)
    if found is None:
        return []
    shards, _ = await shards_of(server, params.name)
    return [f"{found} shard {shard}" for shard in shards] or [f"{found} {uuid4()}"]


def as_shown(params: NewRetentionPolicy) -> RetentionPolicy:
    """Give a policy as the server lists it once it is made."""
    return RetentionPolicy(
        name=params.name, duration=show_duration(parse_duration(params.duration)), default=params.default
    )


async def preview_add(server: InfluxServer, params: NewRetentionPolicy) -> Preview:
    """Tell what add-retention-policy would make.

    Raises: AlreadyExists, PrivilegeMissing
    """
    policies = await list_retention_policies(server)
    check_new(policies, params.name)
    await require_privileges(server, "ALL PRIVILEGES")
    made = as_shown(params)
    kept = "for ever" if made["duration"] == "0" else f"for {made['duration']}"
    would = f"Creates the retention policy {params.name}, under which data is kept {kept}"
    itself = Affected(change=Change.CREATE, kind="retention policy", name=params.name)
    if not params.default:
        return preview_of(f"{would}.", [itself])
    before = next((policy["name"] for policy in policies if policy["default"]), None)
    return preview_of(
        f"{would}, and makes it the default.",
        [itself, Affected(change=Change.CHANGE, kind="setting", name="default retention policy")],
        keeps=[f"the retention policy {policy['name']} and its data" for policy in policies if policy["default"]],
        before=before,
        after=params.name,
    )


async def preview_del(server: InfluxServer, params: ExistingRetentionPolicy) -> Preview:
    """Tell what del-retention-policy would remove.

    Raises: RetentionPolicyNotFound, Conflict, PrivilegeMissing
    """
    policy = check_deletable(await list_retention_policies(server), params.name)
    await require_privileges(server, "WRITE")
    shards, warnings = await shards_of(server, params.name)
    itself = Affected(change=Change.REMOVE, kind="retention policy", name=policy["name"])
    return preview_of(
        f"Deletes the retention policy {policy['name']} (duration {policy['duration']}) with all data under it.",
        [itself, *(Affected(change=Change.REMOVE, kind="shard", name=shard) for shard in shards)],
        warnings=warnings,
    )


async def shards_of(server: InfluxServer, policy: str) -> tuple[list[str], list[str]]:
    """List the shards, the files of a span of time each, that hold a policy's data; or warn that only an admin may."""
    database = server.address.database
    try:
        reply = await server.read("SHOW SHARDS")
    except PrivilegeMissing:
        return [], ["How much data is under it cannot be told: only an admin may list shards."]
    return [str(row["id"]) for row in reply.get(database, []) if row["retention_policy"] == policy], []


@action(
    "add-retention-policy",
    effect=Effect.WRITE,
    privileges=("READ", "ALL PRIVILEGES"),
    example_params={"name": "30-days", "duration": "30d", "default": True},
    aftermath=Aftermath(look=look_whether_as_asked, goal=Goal.THERE),
    preview=preview_add,
)
async def add_retention_policy(server: InfluxServer, params: NewRetentionPolicy) -> None:
    """Create a retention policy, with one copy of the data as InfluxDB 1.x has it; `default` makes it the default.

    Raises: AlreadyExists, Conflict
    """
    check_new(await list_retention_policies(server), params.name)
    wanted = as_shown(params)
    database, name = identifier(server.address.database), identifier(params.name)
    # `DURATION 0` is a parse error in 1.6.
    duration = "INF" if wanted["duration"] == "0" else wanted["duration"]
    if params.default:
        statement = f"CREATE RETENTION POLICY {name} ON {database} DURATION {duration} REPLICATION 1 DEFAULT"
    else:
        statement = f"CREATE RETENTION POLICY {name} ON {database} DURATION {duration} REPLICATION 1"
    if not await write_and_look(server, statement, params.name, wanted):
        raise Conflict("The retention policy was created and somebody changed it at the same time: look at the list.")


@action(
    "del-retention-policy",
    effect=Effect.DESTRUCTIVE,
    privileges=("READ", "WRITE"),
    example_params={"name": "30-days"},
    aftermath=Aftermath(look=look_at_shards, goal=Goal.GONE),
    preview=preview_del,
)
async def del_retention_policy(server: InfluxServer, params: ExistingRetentionPolicy) -> None:
    """Delete a retention policy with all data under it. The default one is refused: make another the default first.

    Raises: RetentionPolicyNotFound, Conflict
    """
    check_deletable(await list_retention_policies(server), params.name)
    statement = f"DROP RETENTION POLICY {identifier(params.name)} ON {identifier(server.address.database)}"
    if not await write_and_look(server, statement, params.name, None):
        raise Conflict("The retention policy was deleted and is there again: somebody made it anew.")


def check_new(policies: Sequence[RetentionPolicy], name: str) -> None:
    """Make sure that a name is free: the server says nothing when a policy of the same settings has it.

    Raises: AlreadyExists
    """
    if any(policy["name"] == name for policy in policies):
        raise AlreadyExists()


def check_deletable(policies: Sequence[RetentionPolicy], name: str) -> RetentionPolicy:
    """Give a policy that is there and may go.

    The server says nothing when there is none, and drops the default one: then every write without a policy fails.

    Raises: RetentionPolicyNotFound, Conflict
    """
    policy = next((policy for policy in policies if policy["name"] == name), None)
    if policy is None:
        raise RetentionPolicyNotFound()
    if policy["default"]:
        raise Conflict("This is the default retention policy: make another the default first.")
    return policy


async def find(server: InfluxServer, name: str) -> RetentionPolicy | None:
    """Find a retention policy by its exact name."""
    return next((policy for policy in await list_retention_policies(server) if policy["name"] == name), None)


async def write_and_look(server: InfluxServer, statement: str, name: str, wanted: RetentionPolicy | None) -> bool:
    """Send a statement about a policy once, then tell whether the policy is as wanted; None stands for not there.

    Raises: ConnectionLost, when the connection was cut and it is not as wanted
    """
    lost: ConnectionLost | None = None
    try:
        await server.write(statement)
    except ConnectionLost as cut:
        lost = cut
    try:
        done = await find(server, name) == wanted
    except (EngineUnavailable, DeadlineExceeded, PrivilegeMissing) as blind:
        raise lost or unseen(server, blind, "READ") from blind
    if lost is not None and not done:
        raise lost
    return done
