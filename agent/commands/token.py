"""`dbvalet token`: tokens that are kept in the state, made, rotated and revoked without a restart."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from agent.audit.line import Change
    from agent.kept_tokens import KeptToken, KeptTokens, Value
    from agent.platform.signing_keys import SigningKeys
    from agent.settings import Settings, TokenSettings

T = TypeVar("T")

EXAMPLES = """\b
Examples:
  dbvalet token create nightly --role operator --database ad-pg --allow pg-list-queries --allow pg-cancel-query
  dbvalet token create grafana --role reader --all-databases --expires-in 90d
  dbvalet token list
  dbvalet token rotate nightly --overlap 24h              a new value, good for as long as the one before was made
                                                          for; the old one is good for another day
  dbvalet token revoke nightly
  dbvalet token rotate-keys                               of the short-lived tokens that clients exchange theirs for

\b
The value goes to standard output, this once: only its SHA-256 is kept.
A dbvalet that runs on the same state takes every change within 3 seconds.
Exit codes: 0 done; 1 refused; 2 the command line or the configuration is wrong."""

app = typer.Typer(
    name="token",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make, list, rotate and revoke tokens, without a restart.",
    epilog=EXAMPLES,
)

Config = Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="As for `serve`.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Who holds it, as the log and the audit say.")]
ExpiresIn = Annotated[
    str | None, typer.Option("--expires-in", metavar="TIME", help="As in 90d, 12h, 30m or never; never unless given.")
]

COLUMNS = ("name", "role", "databases", "actions", "expires", "from")

_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1), "s": timedelta(seconds=1)}


@app.command(epilog=EXAMPLES)
def create(
    *,
    name: Name,
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="reader, operator or admin.")],
    databases: Annotated[
        list[str] | None, typer.Option("--database", metavar="DB", help="An id that it sees; repeatable.")
    ] = None,
    every: Annotated[bool, typer.Option("--all-databases", help="It sees every database.")] = False,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", metavar="ACTION", help="Only this action; repeatable.")
    ] = None,
    deny: Annotated[
        list[str] | None, typer.Option("--deny", metavar="ACTION", help="Every action but this; repeatable.")
    ] = None,
    backup_before_destroy: Annotated[
        bool, typer.Option("--backup-before-destroy", help="What it destroys is backed up first.")
    ] = False,
    expires_in: ExpiresIn = None,
    config: Config = None,
) -> None:
    """Make a token and print it."""
    from agent.kept_tokens import KeptToken

    settings = _settings(config)
    if bool(databases) == every:
        raise typer.BadParameter("Say which databases it sees, or --all-databases.", param_hint="--database")
    secret, value = _made(expires_in)
    wanted = _checked(
        name=name,
        role=role,
        databases=["*"] if every else list(databases or []),
        allow=allow,
        deny=deny or [],
        digest=value.sha256,
    )
    _check_known(settings, wanted)
    token = KeptToken(
        name=wanted.name,
        role=wanted.role,
        databases=tuple(wanted.databases),
        allow=None if wanted.allow is None else tuple(wanted.allow),
        deny=tuple(wanted.deny),
        values=(value,),
        backup_before_destroy=backup_before_destroy,
    )
    seen = {"role": wanted.role, "databases": wanted.databases, "allow": wanted.allow, "deny": wanted.deny}
    more = {"backup_before_destroy": backup_before_destroy, "expires_at": value.expires_at}
    change = _change("create", name=name, **seen, **more)
    _with_tokens(settings, lambda tokens: tokens.add(token), change)
    _hand_out(secret, value, f"The token is made, nobody has its value: `dbvalet token revoke {name}` takes it away.")


@app.command("list")
def list_(*, config: Config = None) -> None:
    """List the tokens of the state and those of the configuration; no value is shown, as none is kept."""
    from agent.commands.tables import print_table

    settings = _settings(config)
    rows = [
        _row(token, [token.expires_at and int(token.expires_at.timestamp())], "configuration")
        for token in settings.all_tokens()
    ]
    declared = {token.name for token in settings.all_tokens()}
    kept = _with_tokens(settings, lambda tokens: tokens.all(), makes=False)
    for token in kept.tokens:
        where = "state, without effect: the configuration has one of this name" if token.name in declared else "state"
        rows.append(_row(token, [value.expires_at for value in token.values], where))
    if rows:
        print_table(COLUMNS, rows)
    else:
        typer.echo("(none)")
    for name in kept.not_understood:
        typer.echo(
            f"{name}: another dbvalet wrote it in a way that this one does not know; here it lets nobody in.", err=True
        )


@app.command(epilog=EXAMPLES)
def rotate(
    *,
    name: Name,
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="TIME", help="How long the old value is still good, as in 24h or 0s.")
    ] = "1h",
    expires_in: Annotated[
        str | None,
        typer.Option(
            "--expires-in",
            metavar="TIME",
            help="As in 90d, 12h, 30m or never; as for the value before unless given.",
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Give a token another value and print it."""
    secret, value = _made(expires_in)

    def next_value(newest: Value) -> Value:
        if expires_in is not None or newest.expires_at is None:
            return value
        return replace(value, expires_at=value.made_at + newest.expires_at - newest.made_at)

    old_until = int((datetime.now(UTC) + _duration(overlap, "--overlap")).timestamp())
    change = _change("rotate", name=name, old_until=old_until, expires_in=expires_in)
    rotated = _with_tokens(
        _settings(config), lambda tokens: tokens.rotate(name, next_value, old_until=old_until), change, makes=False
    )
    _hand_out(secret, rotated.values[-1], f"Nobody has the new value: `dbvalet token rotate {name}` makes another one.")


@app.command(epilog=EXAMPLES)
def revoke(*, name: Name, config: Config = None) -> None:
    """Take a token away, with the short-lived ones that were made for it."""
    change = _change("revoke", name=name)
    _with_tokens(_settings(config), lambda tokens: tokens.revoke(name), change, makes=False)


@app.command("rotate-keys", epilog=EXAMPLES)
def rotate_keys(
    *,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Forget the old keys: every short-lived token ends, none is revoked.")
    ] = False,
    config: Config = None,
) -> None:
    """Sign short-lived tokens with a new key; those that are out stay good until they end, an hour at most.

    It is done by itself every 30 days.
    """

    async def work(keys: SigningKeys) -> None:
        await (keys.replace() if at_once else keys.rotate())

    _with_keys(_settings(config), work, _change("rotate-keys", at_once=at_once))


def _settings(config: Path | None) -> Settings:
    from agent.settings import load_settings

    return load_settings(config)


def _hand_out(secret: str, value: Value, if_lost: str) -> None:
    from agent.commands.told import tell

    tell(secret, if_lost)
    typer.echo(f"It ends: {_end(value.expires_at)}.", err=True)


def _made(expires_in: str | None) -> tuple[str, Value]:
    """Make a value of 256 bits that nobody has seen."""
    from hashlib import sha256
    from secrets import token_hex

    from agent.kept_tokens import Value

    now = datetime.now(UTC)
    lasts = None if expires_in in (None, "never") else _duration(expires_in, "--expires-in")
    if lasts == timedelta():
        raise typer.BadParameter("A value that ends at once would let nobody in.", param_hint="--expires-in")
    ends = None if lasts is None else int((now + lasts).timestamp())
    secret = token_hex(32)
    return secret, Value(sha256=sha256(secret.encode()).hexdigest(), made_at=int(now.timestamp()), expires_at=ends)


def _duration(text: str, option: str) -> timedelta:
    matched = re.fullmatch(r"([0-9]{1,5})([dhms])", text)
    if matched is None:
        raise typer.BadParameter("A time is a number and d, h, m or s, as in 90d.", param_hint=option)
    return int(matched[1]) * _UNITS[matched[2]]


def _checked(
    *, name: str, role: str, databases: list[str], allow: list[str] | None, deny: list[str], digest: str
) -> TokenSettings:
    """Check a token as one of the configuration is."""
    from pydantic import ValidationError

    from agent.roles import Role
    from agent.settings_tokens import TokenSettings
    from engines.action import texts_by_field

    roles = [each.value for each in Role]
    if role not in roles:
        raise typer.BadParameter(f"There are: {', '.join(roles)}.", param_hint="--role")
    try:
        # An empty list of allowed actions would be a token for nothing.
        return TokenSettings(
            name=name, sha256=digest, role=Role(role), databases=databases, allow=allow or None, deny=deny
        )
    except ValidationError as invalid:
        field, texts = next(iter(texts_by_field(invalid, whole="token").items()))
        raise typer.BadParameter(f"{texts[0]}.", param_hint="NAME" if field == "name" else f"--{field}") from None


def _check_known(settings: Settings, wanted: TokenSettings) -> None:
    from agent.roles import allows, needed_for
    from agent.tasks import TASKS
    from engines.engine import installed_engines

    if any(each.name == wanted.name for each in settings.all_tokens()):
        raise typer.BadParameter("The configuration has a token of this name.", param_hint="NAME")
    declared = [each.id for each in settings.all_databases()]
    unknown = [each for each in wanted.databases if each != "*" and each not in declared]
    if unknown:
        raise typer.BadParameter(
            f"There is no database {unknown[0]}. There are: {', '.join(declared)}.", param_hint="--database"
        )
    known = [*TASKS.values(), *(each for engine in installed_engines().values() for each in engine.actions.values())]
    allowed = wanted.allow or []
    for option, names in (("--allow", allowed), ("--deny", wanted.deny)):
        for name in names:
            if not any(each.name == name for each in known):
                raise typer.BadParameter(f"No engine has an action {name}: see `dbvalet actions`.", param_hint=option)
    for name in allowed:
        if name in wanted.deny:
            raise typer.BadParameter(f"{name} is denied by --deny too.", param_hint="--allow")
        effects = [each.effect for each in known if each.name == name]
        if not any(allows(wanted.role, each) for each in effects):
            text = f"{name} takes the role {needed_for(effects[0])}: with the role {wanted.role} it is never allowed."
            raise typer.BadParameter(text, param_hint="--allow")


def _row(token: TokenSettings | KeptToken, ends: Iterable[int | None], where: str) -> list[str]:
    actions = ", ".join(token.allow) if token.allow is not None else "those of the role"
    if token.deny:
        actions += f", without {', '.join(token.deny)}"
    return [token.name, str(token.role), ", ".join(token.databases), actions, ", ".join(map(_end, ends)), where]


def _end(seconds: int | None) -> str:
    if seconds is None:
        return "never"
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}Z{' (expired)' if at <= datetime.now(UTC) else ''}"


def _change(what: str, **params: object) -> Change:
    """Say what is changed here as the audit has it: by whoever is logged in on this machine."""
    from getpass import getuser
    from secrets import token_hex

    from agent.audit.line import Change
    from engines.action import Effect

    return Change(
        request_id=token_hex(8),
        who=f"{getuser()} on this machine",
        address=None,
        method="COMMAND",
        path=f"dbvalet token {what}",
        action=f"{what}-token" if what != "rotate-keys" else what,
        effect=Effect.WRITE,
        database=None,
        params=params,
    )


def _with_tokens(
    settings: Settings,
    work: Callable[[KeptTokens], Awaitable[T]],
    change: Change | None = None,
    *,
    makes: bool = True,
) -> T:
    from agent.kept_tokens import KeptTokens
    from agent.log import make_log
    from agent.state.state import State

    async def on(state: State) -> T:
        return await work(KeptTokens(state, make_log("error")))

    return _on_state(settings, on, change, makes=makes)


def _with_keys(settings: Settings, work: Callable[[SigningKeys], Awaitable[T]], change: Change) -> T:
    from agent.log import make_log
    from agent.platform.signing_keys import SigningKeys
    from agent.state.state import State

    async def on(state: State) -> T:
        return await work(SigningKeys(state, make_log("error")))

    return _on_state(settings, on, change, makes=True)


def _on_state(settings: Settings, work: Callable[..., Awaitable[T]], change: Change | None, *, makes: bool) -> T:
    from agent.audit.journal import Journal
    from agent.errors import AgentError
    from agent.log import make_log
    from agent.state.state import FILE_SCHEME, State
    from engines.errors import Precondition

    url = settings.state_url()
    state = State(url)

    async def audited() -> T:
        if change is None:
            return await work(state)
        journal = Journal(state, make_log("error"), on=settings.audit != "none")
        # Who may do what is never changed without a trace, also where this is killed before the next line.
        await journal.begin(change, first_line=True)
        try:
            result = await work(state)
        except AgentError:
            await journal.end(change, None, "refused")
            raise
        await journal.end(change, 200, "ok")
        return result

    try:
        result = asyncio.run(audited())
    except Precondition as problem:
        raise AgentError(problem.message) from problem
    finally:
        state.close()
    if makes and url.startswith(FILE_SCHEME):
        # A relative path is another file in another folder: then no dbvalet would ever see what was done here.
        typer.echo(f"Kept in {Path(url.removeprefix(FILE_SCHEME)).absolute()}.", err=True)
    return result
