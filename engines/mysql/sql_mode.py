"""The SQL mode of the server: get it, set it, and keep it over a restart."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StringConstraints

from engines.action import Effect, action
from engines.aftermath import AS_ASKED, Aftermath, Goal
from engines.errors import (
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    InvalidParams,
    PrivilegeMissing,
)
from engines.mysql.facts import granted, has_dynamic_privileges
from engines.mysql.identifiers import shown
from engines.mysql.persisted import Variable, set_for_good
from engines.preview import Affected, Change, Preview, preview_of

if TYPE_CHECKING:
    from engines.mysql.driver import Rows, Session
    from engines.mysql.facts import Facts
    from engines.mysql.server import MySQLServer

SqlMode = Annotated[
    str,
    StringConstraints(strict=True, max_length=2000),
    Field(description='names of modes with commas between them, in any case; "" clears the mode'),
]

GET = "SELECT @@GLOBAL.sql_mode"

TRY = "SET SESSION sql_mode = %s"

TRIED = "SELECT @@SESSION.sql_mode"

SET = "SET GLOBAL sql_mode = %s"

MODE = Variable(words="The mode", get=GET, set=SET, persist="SET PERSIST sql_mode = %s")

# A server that does not load what was persisted (persisted_globals_load=OFF) keeps no mode either.
KEPT = """
    SELECT @@GLOBAL.persisted_globals_load, VARIABLE_VALUE
      FROM performance_schema.persisted_variables WHERE VARIABLE_NAME = 'sql_mode'"""

MEMORY = "sql_mode"
"""Key of what dbvalet remembers for a server that forgets: `{"mode": "ANSI", "started_at": "…"}`, or null."""

NOT_USED = "NOT_USED"
"""What MySQL calls the bit of a mode that is no longer there. It accepts the name, which does nothing."""


@action(
    "get-sqlmode",
    effect=Effect.READ,
    example_result="ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,"
    "NO_AUTO_CREATE_USER,NO_ENGINE_SUBSTITUTION",
)
async def get_sqlmode(server: MySQLServer) -> str:
    """Get the SQL mode that new sessions begin with.

    The names are separated by commas. A combination such as ANSI stands behind the modes that it is made of.
    """
    [(mode,)] = await server.fetch(GET)
    return mode


async def look_at_mode(server: MySQLServer, params: SqlMode) -> list[str]:
    """Tell whether the mode is the one that is asked for and kept over a restart, or which one it is.

    Nothing stands for one that the server's next restart would undo: to set it again completes it.

    Raises: InvalidParams
    """

    names = names_in(params)

    def look(session: Session) -> tuple[bool, str, bool]:
        [(mode,)], facts = session.fetch(GET), session.facts
        kept = session.fetch(KEPT) if has_dynamic_privileges(facts.flavour, facts.version) else ()
        wanted = tried(session, ",".join(names))
        return modes(mode) == wanted, mode, lasts(kept, wanted)

    is_wanted, mode, lasting = await server.read(look)
    if not is_wanted:
        return [f"mode {mode}"]
    remembered: Any = await server.memory.recall(MEMORY)
    if remembered is not None:
        # It is set again after the next restart, whatever the server has kept itself.
        lasting = modes(remembered["mode"]) == frozenset(names)
    return [AS_ASKED] if lasting else []


async def preview_mode(server: MySQLServer, params: SqlMode) -> Preview:
    """Tell what set-sqlmode would change.

    Raises: InvalidParams, PrivilegeMissing
    """
    mode = ",".join(names_in(params))

    def look(session: Session) -> Preview:
        wanted = comes_to(session, mode)
        held = granted(session.facts.grants)
        if held.isdisjoint({"ALL PRIVILEGES", "SUPER", "SYSTEM_VARIABLES_ADMIN"}):
            raise PrivilegeMissing
        [(now,)] = session.fetch(GET)
        same = modes(now) == modes(wanted)
        return preview_of(
            "Sets the SQL mode that the server has already."
            if same
            else f"Sets the SQL mode of new sessions from {shown(now)} to {shown(wanted)}.",
            [] if same else [Affected(change=Change.CHANGE, kind="setting", name="sql_mode")],
            keeps=["the mode of sessions that are open"],
            before=now,
            after=wanted,
        )

    return await server.write(look)


@action(
    "set-sqlmode",
    effect=Effect.WRITE,
    privileges=("SYSTEM_VARIABLES_ADMIN or SUPER",),
    example_params="NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO",
    example_result=None,
    aftermath=Aftermath(look=look_at_mode, goal=Goal.THERE),
    preview=preview_mode,
)
async def set_sqlmode(server: MySQLServer, params: SqlMode) -> None:
    """Replace the SQL mode that new sessions begin with; "" clears it.

    Sessions that are open keep theirs. The mode survives a restart of the server: MySQL 8 and later keeps it itself,
    for the others dbvalet sets it again when it sees that the server was restarted.

    Raises: Conflict
    """
    mode = ",".join(names_in(params))
    try:
        async with server.sql_mode_lock:
            remembered = await _set(server, mode)
            try:
                await _remember(server, remembered)
            except EngineError as failed:
                raise EngineUnavailable(
                    f"The mode is set until the server's next restart, and could not be kept beyond: {failed.message} "
                    "Setting it again completes it."
                ) from failed
    except (ConnectionLost, DeadlineExceeded) as unfinished:
        raise await with_what_is_true(server, unfinished) from unfinished


async def restore(server: MySQLServer, started_at: datetime) -> bool:
    """Set the mode again that the server lost by its restart; tell whether that had to be done.

    What somebody else has set since on the same run of the server is left alone.

    Raises: as set-sqlmode
    """
    async with server.sql_mode_lock:
        remembered: Any = await server.memory.recall(MEMORY)
        if remembered is None or remembered["started_at"] == started_at.isoformat():
            return False
        await _remember(server, await _set(server, remembered["mode"]))
        return True


async def _set(server: MySQLServer, mode: str) -> dict[str, str] | None:
    """Set the mode, and give what is to be remembered of it: nothing where the server keeps it itself."""

    def work(session: Session) -> tuple[bool, Facts]:
        wanted = tried(session, mode)
        session.prepare_to_write()
        if has_dynamic_privileges(session.facts.flavour, session.facts.version):
            set_for_good(session, MODE, mode)
            lasting = lasts(session.execute(KEPT), wanted)
        else:
            session.execute(SET, mode)
            lasting = False
        [(found,)] = session.execute(GET)
        if modes(found) != wanted:
            raise Conflict(f"The mode was set, and set to {shown(found)} by somebody else at once.")
        return lasting, session.facts

    lasting, facts = await server.write(work)
    return None if lasting else {"mode": mode, "started_at": facts.started_at.isoformat()}


async def _remember(server: MySQLServer, remembered: dict[str, str] | None) -> None:
    if remembered is None and await server.memory.recall(MEMORY) is None:
        return
    await server.memory.remember(MEMORY, remembered)


def lasts(kept: Rows, wanted: frozenset[str]) -> bool:
    """Tell by the rows of `KEPT` whether the server will begin with this mode."""
    [(loads, mode)] = kept or ((False, None),)
    return bool(loads) and mode is not None and modes(mode) == wanted


async def with_what_is_true(
    server: MySQLServer, unfinished: ConnectionLost | DeadlineExceeded
) -> ConnectionLost | DeadlineExceeded:
    """Add to a cut or late attempt which mode the server has now."""
    try:
        [(mode,)] = await server.look(lambda session: session.fetch(GET))
    except (EngineUnavailable, DeadlineExceeded):
        return unfinished
    return type(unfinished)(f"{unfinished.message} The mode is {shown(mode)} now.")


def tried(session: Session, mode: str) -> frozenset[str]:
    """Let the server say of which modes a mode is made, as `comes_to`."""
    return modes(comes_to(session, mode))


def comes_to(session: Session, mode: str) -> str:
    """Let the server say what a mode comes to, on a session that is closed for it.

    Raises: InvalidParams, listing the modes that this server knows
    """
    try:
        session.fetch(TRY, mode)
        found: str = session.fetch(TRIED)[0][0]
    except InvalidParams:
        found = NOT_USED
    try:
        if NOT_USED not in modes(found):
            return found
        known = known_modes(session)
    finally:
        session.close()
    unknown = [shown(name) for name in mode.split(",") if name not in known]
    raise InvalidParams(
        {"params": [f"{', '.join(unknown)}: not a mode of this server. It knows {', '.join(sorted(known))}."]}
    )


def known_modes(session: Session) -> frozenset[str]:
    """Ask for the modes of this server: each is a bit, and a combination sets the bits of its parts too.

    https://dev.mysql.com/doc/refman/9.7/en/sql-mode.html
    """
    known: set[str] = set()
    for bit in range(64):
        try:
            session.fetch(TRY, 1 << bit)
        except InvalidParams:
            continue
        known |= modes(session.fetch(TRIED)[0][0])
    return frozenset(known - {NOT_USED})


def modes(value: str) -> frozenset[str]:
    """Take a mode apart as the server writes it."""
    return frozenset(value.split(",")) - {""}


def names_in(value: str) -> list[str]:
    """Take a mode apart as a person writes it: any case, spaces around the commas, each name once.

    The server accepts `ANSI,` and refuses `ANSI, TRADITIONAL`; both are plain enough.

    Raises: InvalidParams
    """
    names = [name.strip(" \t\r\n") for name in value.split(",")]
    # Only ASCII: the long s too becomes an S in upper case.
    names = [name.upper() if name.isascii() else name for name in names if name]
    if value and not names:
        raise InvalidParams({"params": ['names no mode; "" clears the mode']})
    return list(dict.fromkeys(names))
