"""`dbvalet doctor`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from agent.api.service import Service
    from agent.databases import Database
    from agent.pitr.clusters import Clusters
    from engines.action import Action
    from engines.engine import Description
    from engines.health import Lack, Route

EXAMPLES = """\b
Examples:
  dbvalet doctor --config dbvalet.yaml
  dbvalet doctor --config dbvalet.yaml ad-pg ad-my
  dbvalet doctor --config dbvalet.yaml --json | jq '.databases[].problem'

\b
Exit codes: 0 every action would run; 1 something is missing; 2 the configuration is wrong.
What the routes of logs, metrics, users and features lack is told, and does not count.
Nor does what backups lack, unless they are made by themselves: at chosen hours, or before
something is destroyed."""

EXAMINE_SECONDS = 20.0
"""How long one database may take, whatever its server does; all are asked at the same time."""

CLOSE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What the account or the server lacks, and the exact GRANT or setting that helps."""

    name: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Whether one action would run."""

    action: str
    effect: str
    ready: Literal["yes", "no", "off"]
    """`off`: the configuration switches it off for this database."""
    missing: list[Missing]


@dataclass(frozen=True, kw_only=True)
class RouteDiagnosis:
    """Whether a route that shows how the server does, its users or features would do its work, and whole."""

    route: str
    ready: Literal["yes", "no"]
    missing: list[Missing]


@dataclass(kw_only=True)
class Findings:
    """What was found about one database."""

    id: str
    engine: str
    address: str
    version: str | None = None
    problem: str | None = None
    """Why the server cannot be asked."""
    actions: list[Diagnosis] = field(default_factory=list[Diagnosis])
    routes: list[RouteDiagnosis] = field(default_factory=list[RouteDiagnosis])
    """They take optional parts of the grants script, so what they lack is told and is no fault."""
    backups: list[Missing] = field(default_factory=list[Missing])
    """What backups lack. Where one is made by itself it stands with the actions too."""

    @property
    def sound(self) -> bool:
        """Tell whether no action lacks anything."""
        return self.problem is None and all(each.ready != "no" for each in self.actions)


def doctor(
    databases: Annotated[
        list[str] | None, typer.Argument(metavar="DB", help="Ids of databases; without any, all of them.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="As for `serve`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what accounts and servers lack for each action.

    Connects to each database of the configuration. What is missing is named with the GRANT or the setting that helps.
    Nothing is changed on any server. In a bucket for backups a file is written, and removed at once.
    """
    from agent.serve import put_together

    _, app, _ = put_together(config)
    service: Service = app.state.service
    known: dict[str, Database] = {each.id: each for each in service.databases}
    unknown = [each for each in databases or [] if each not in known]
    if unknown:
        raise typer.BadParameter(f"There is no {unknown[0]}. There are: {', '.join(known)}.", param_hint="DB")
    found = asyncio.run(_examine_all([known[each] for each in databases or known], service))
    sound = all(each.sound for each in found)
    if as_json:
        typer.echo(json.dumps({"ok": sound, "databases": [asdict(each) for each in found]}, indent=2))
    else:
        for each in found:
            _print(each)
        typer.echo(_verdict(found))
    if not sound:
        raise typer.Exit(1)


async def _examine_all(databases: Sequence[Database], service: Service) -> list[Findings]:
    return await asyncio.gather(*(examine(each, service) for each in databases))


async def examine(database: Database, service: Service) -> Findings:
    """Ask one server what each action would need; never longer than `EXAMINE_SECONDS`."""
    from engines.errors import EngineError

    found = Findings(id=database.id, engine=database.engine.title, address=str(database.server.address))
    try:
        async with asyncio.timeout(EXAMINE_SECONDS):
            description = await database.server.describe()
            found.version = description.readable_version
            found.actions = await _diagnose(database, description)
            found.routes = await _diagnose_routes(database)
            found.backups = await _lacking_backups(database, service)
            found.actions = await _with_backups(database, service, found)
            if service.clusters.has(database):
                found.actions.append(await _diagnose_recovery(database, service.clusters))
    except EngineError as problem:
        found.problem = problem.message
    except TimeoutError:
        found.problem = f"The server did not answer everything within {EXAMINE_SECONDS:g} s."
    finally:
        await _close(database)
    return found


async def _diagnose(database: Database, description: Description) -> list[Diagnosis]:
    asked: dict[str, Missing | None] = {}
    diagnoses: list[Diagnosis] = []
    for action in database.engine.actions.values():
        off = action.name in database.disabled_actions
        missing = [] if off else await _missing(database, action, description, asked)
        ready = "off" if off else "no" if missing else "yes"
        diagnoses.append(Diagnosis(action=action.name, effect=action.effect, ready=ready, missing=missing))
    return diagnoses


async def _diagnose_routes(database: Database) -> list[RouteDiagnosis]:
    """Ask what the routes lack that show logs and figures, manage users and switch features."""
    from agent.cgroup import is_cgroup, read_disk
    from agent.log_file import end_of_file
    from engines.errors import Precondition
    from engines.health import Lack

    health, settings = database.engine.health_of(database.server), database.settings
    users = database.engine.users_of(database.server)
    lacks: dict[Route, list[Lack]] = {} if users is None else {"users": await users.lacking()}
    if health is None:
        return _routes(lacks)
    lacks |= {"instances_status": [], "logs": [], "metrics": [], **await health.lacking()}
    if settings.log_file is not None:
        lacks["logs"] = []
        try:
            await asyncio.to_thread(end_of_file, settings.log_file, 1)
        except Precondition as problem:
            lacks["logs"] = [Lack(name="log_file", remedy=problem.message)]
    if settings.cgroup is not None and not is_cgroup(settings.cgroup):
        remedy = "`cgroup` of this database names no control group that can be read: its figures are null."
        lacks["metrics"] = [*lacks["metrics"], Lack(name="cgroup", remedy=remedy)]
    if settings.data_disk is not None and read_disk(settings.data_disk) == (None, None):
        remedy = "`data_disk` of this database names no folder that can be looked at: its figures are null."
        lacks["metrics"] = [*lacks["metrics"], Lack(name="data_disk", remedy=remedy)]
    return _routes(lacks)


def _routes(lacks: Mapping[Route, Sequence[Lack]]) -> list[RouteDiagnosis]:
    return [
        RouteDiagnosis(
            route=route,
            ready="no" if missing else "yes",
            missing=[Missing(name=each.name, remedy=each.remedy) for each in missing],
        )
        for route, missing in sorted(lacks.items())
    ]


async def _lacking_backups(database: Database, service: Service) -> list[Missing]:
    """Ask the engine, and try the places where backups are made and kept."""
    from agent.commands.tables import printable

    backups = database.engine.backups_of(database.server)
    if backups is None:
        return [Missing(name="backup", remedy=f"There are no backups of {database.engine.title} here.")]
    remedies, unwritable = await asyncio.gather(backups.missing(), service.backups.unwritable(database.id))
    return [Missing(name="backup", remedy=each) for each in remedies] + [
        Missing(name=place, remedy=f"`backups.{place}` cannot be written to: {printable(why)}")
        for place, why in unwritable.items()
    ]


async def _with_backups(database: Database, service: Service, found: Findings) -> list[Diagnosis]:
    """Add to the actions what is refused where no backup can be made, and the backups that nobody asks for by hand.

    Raises: Precondition, when the state cannot be read
    """
    from agent.kept_tokens import KeptTokens
    from agent.roles import allows
    from agent.tasks import CREATE_BACKUP, RESTORE_BACKUP
    from engines.action import Effect

    service.tokens.take((await KeptTokens(service.state, service.log).all()).tokens)
    comes_first = database.settings.backup_before_destroy or any(
        each.backup_before_destroy and each.sees(database.id) and allows(each.role, Effect.DESTRUCTIVE)
        for each in service.tokens.known()
    )
    if not (comes_first or (await service.choices.of(database.id)).periodic_backups_enabled):
        return found.actions
    diagnoses = list(found.actions)
    diagnoses += [
        Diagnosis(
            action=task.name,
            effect=task.effect,
            ready="off" if task.name in database.disabled_actions else "yes",
            missing=[],
        )
        for task in (CREATE_BACKUP, RESTORE_BACKUP)
    ]
    concerned = {CREATE_BACKUP.name, RESTORE_BACKUP.name}
    if comes_first:
        concerned |= {each.action for each in diagnoses if each.effect == Effect.DESTRUCTIVE}
    return [
        replace(each, ready="no", missing=[*each.missing, *found.backups])
        if found.backups and each.action in concerned and each.ready != "off"
        else each
        for each in diagnoses
    ]


async def _diagnose_recovery(database: Database, clusters: Clusters) -> Diagnosis:
    """Ask what going back to an instant lacks, which is no action but takes more than any of them."""
    from agent.tasks import RESTORE_TO_INSTANT
    from engines.errors import BackupFailed

    task = RESTORE_TO_INSTANT
    if task.name in database.disabled_actions:
        return Diagnosis(action=task.name, effect=task.effect, ready="off", missing=[])
    try:
        remedies = await clusters.of(database).missing()
    except BackupFailed as problem:
        remedies = [problem.message]
    missing = [Missing(name="pitr", remedy=each) for each in remedies]
    return Diagnosis(action=task.name, effect=task.effect, ready="no" if missing else "yes", missing=missing)


async def _missing(
    database: Database, action: Action, description: Description, asked: dict[str, Missing | None]
) -> list[Missing]:
    """`asked` holds what is known already: actions share most of what they need."""
    missing: list[Missing] = []
    if description.version < action.minimum_version:
        needed = ".".join(str(part) for part in action.minimum_version)
        missing.append(Missing(name=f"{database.engine.title} {needed}", remedy=f"Upgrade to {needed} or later."))
    for name in action.privileges + action.settings:
        if name not in asked:
            requirement = database.engine.requirements[name]
            met = await requirement.met(database.server)
            asked[name] = None if met else Missing(name=name, remedy=requirement.remedy(database.server))
        lacking = asked[name]
        if lacking is not None:
            missing.append(lacking)
    return missing


async def _close(database: Database) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await database.server.close()
    except TimeoutError:
        typer.echo(f"dbvalet: a connection to {database.id} could not be closed in order", err=True)


def _print(found: Findings) -> None:
    from agent.commands.tables import print_table, printable

    what = " ".join([found.engine, *([printable(found.version)] if found.version else [])])
    typer.echo(f"{found.id}: {what} at {found.address}")
    if found.problem is not None:
        typer.echo(f"  cannot be examined: {printable(found.problem)}\n")
        return
    print_table(
        ["action", "effect", "ready", "missing" if not found.sound else ""],
        [
            [each.action, each.effect, each.ready, ", ".join(lack.name for lack in each.missing)]
            for each in found.actions
        ],
    )
    remedies = dict.fromkeys(lack.remedy for each in found.actions for lack in each.missing)
    if remedies:
        typer.echo("\nWhat helps, run or set by an account that may:")
        for remedy in remedies:
            typer.echo(f"  {remedy}")
    typer.echo("")
    lacking = [each for each in found.routes if each.missing]
    if lacking:
        typer.echo("Routes that show or do less, or nothing; no fault where nobody asks them:")
        for each in lacking:
            typer.echo(f"  {each.route}: {', '.join(lack.name for lack in each.missing)}")
        for remedy in dict.fromkeys(lack.remedy for each in lacking for lack in each.missing):
            typer.echo(f"  {printable(remedy)}")
        typer.echo("")
    told = {lack.remedy for each in found.actions for lack in each.missing}
    if found.backups and not told.issuperset(each.remedy for each in found.backups):
        typer.echo("No backup can be made or restored; no fault where nobody asks for one:")
        for each in found.backups:
            typer.echo(f"  {printable(each.remedy)}")
        typer.echo("")


def _verdict(found: Sequence[Findings]) -> str:
    if all(each.sound for each in found):
        return "Nothing is missing."
    lacking = sum(diagnosis.ready == "no" for each in found for diagnosis in each.actions)
    unasked = [each.id for each in found if each.problem is not None]
    parts = [f"Actions that lack something: {lacking}."] if lacking else []
    parts += [f"Databases that cannot be examined: {', '.join(unasked)}."] if unasked else []
    return " ".join(parts)
