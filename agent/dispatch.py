"""The way of an action: token, database, body, role, params, then run it (or share a run), and record it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import orjson
from pydantic_core import to_jsonable_python
from starlette.requests import ClientDisconnect

from agent.asked import Asked, fingerprint_of, key_of
from agent.audit.journal import Journal
from agent.audit.line import Change
from agent.backups.named import Named, fields_of, named, naming
from agent.backups.safety import SafetyNet, is_wished
from agent.coalesce import Coalescer
from agent.databases import Database, Databases
from agent.errors import AgentError, Forbidden, ListTooLarge, Malformed, NotSupported, UnknownAction
from agent.limits import Limits
from agent.log import Log
from agent.metrics import Metrics
from agent.once import Answer, Once
from agent.paging import LARGEST_RESULT, Page, page_asked_for
from agent.tasks import Task
from agent.tokens import Principal, Tokens
from engines import deadline
from engines.action import Action, Effect
from engines.aftermath import judge
from engines.engine import look, perform, preview
from engines.errors import DeadlineExceeded, EngineError, InvalidParams, Precondition

_ENVELOPE = frozenset({"action_name", "params", "dry_run", "page", "per_page"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """What a body asks for."""

    name: str
    params: Any
    """As they came."""
    dry_run: bool
    page: Page | None
    """Which part of a list; None for the whole result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionRequest:
    """What HTTP hands over; the body is read only once the token and the database are known."""

    id: str
    authorization: bytes | None
    database_id: str
    address: str | None
    """Of the client."""
    headers: Sequence[tuple[bytes, bytes]]
    read_body: Callable[[], Awaitable[bytes]]


class Dispatcher:
    """Carries out action requests, one method for the whole way."""

    def __init__(
        self,
        tokens: Tokens,
        databases: Databases,
        limits: Limits,
        metrics: Metrics,
        *,
        journal: Journal,
        once: Once,
        safety: SafetyNet,
        log: Log,
    ) -> None:
        self._tokens = tokens
        self._databases = databases
        self._limits = limits
        self._metrics = metrics
        self._journal = journal
        self._once = once
        self._safety = safety
        self._log = log
        self._coalescer = Coalescer(metrics.coalesced)

    async def act(self, request: ActionRequest) -> Answer:
        """Carry out one request and give its answer.

        Raises: AgentError, EngineError
        """
        began = time.perf_counter()
        principal: Principal | None = None
        database: Database | None = None
        action: Action | None = None
        asked: Envelope | None = None
        outcome = "internal"
        try:
            principal = self._tokens.authenticate(request.authorization)
            try:
                database = self._databases.find(principal, request.database_id)
                body = await request.read_body()
                asked = parse_envelope(body)
                action = find_action(database, asked.name)
            except (AgentError, EngineError):
                # What it would have done is not known: it has read what there is and what there is not.
                self._limits.count(principal.name, Effect.READ)
                raise
            if asked.dry_run:
                tried = await self._try(principal, database, action, asked)
                answer = Answer(status=200, code="ok", body=tried)
            elif action.effect is Effect.READ:
                params = self._permitted(principal, database, action, asked)
                with database.admitted(action.effect):
                    read = await self._read(database, action, asked, params)
                answer = Answer(status=200, code="ok", body=read)
            else:
                change = _change_of(request, principal, database, action, asked.params)
                async with self._journal.line_of(change):
                    params = self._permitted(principal, database, action, asked)
                    refuse_older(database, action)
                    with database.admitted(action.effect):
                        answer = await self._change(
                            request, change, body, principal=principal, database=database, action=action, params=params
                        )
            outcome = answer.code
            return answer
        except (AgentError, EngineError) as refused:
            outcome = refused.code
            raise
        except (ClientDisconnect, asyncio.CancelledError):
            outcome = "client_left"
            raise
        finally:
            seconds = time.perf_counter() - began
            who = principal.name if principal else None
            tried_only = asked is not None and asked.dry_run
            record = partial(self._record, request.id, who, database, action, (outcome, seconds), dry_run=tried_only)
            if action is not None and action.effect is Effect.READ:
                # After the answer is on its way, so that no reader waits for a line of the log.
                asyncio.get_running_loop().call_soon(record)
            else:
                record()

    async def _try(self, principal: Principal, database: Database, action: Action, asked: Envelope) -> bytes:
        """Tell what an action would do: as the token may do it, but counted as a read, since it is one.

        Raises: NotSupported, RateLimited, Forbidden, and as the action itself
        """
        self._limits.count(principal.name, Effect.READ)
        authorise(principal, database, action)
        if action.effect is Effect.READ:
            raise NotSupported(f"{action.name} only reads: there is nothing to try. Send it without dry_run.")
        if action.preview is None:
            raise NotSupported(f"{action.name} has no dry run: it cannot be told beforehand what it would do.")
        params = validate(action, asked)
        refuse_older(database, action)
        with database.admitted(Effect.READ):
            result = await preview(database.server, action, params)
            if action.effect is Effect.DESTRUCTIVE:
                await self._safety.require_ready(principal, database, action, params)
        answer = {"ok": 1, "dry_run": True, "result": result}
        if action.effect is Effect.DESTRUCTIVE:
            answer["backup_first"] = is_wished(principal, database)
        return orjson.dumps(answer)

    async def _change(
        self,
        request: ActionRequest,
        change: Change,
        body: bytes,
        *,
        principal: Principal,
        database: Database,
        action: Action,
        params: Any,
    ) -> Answer:
        """Carry out an action that changes something: once for all requests with the same key."""
        began = time.monotonic()

        async def prepare() -> None:
            backup = await self._safety.spread(principal, database, action, params)
            if backup is not None:
                change.saved.append(named(backup))

        async def run() -> bytes:
            with naming(change.saved), deadline.within(deadline.LONGEST - (time.monotonic() - began)):
                result = await perform(database.server, action, params)
            return render(result, saved=change.saved)

        key = key_of(request.headers)
        if key is None:
            await prepare()
            await self._journal.begin(change)
            return Answer(status=200, code="ok", body=await run())
        return await self._once.perform(
            Asked(who=change.who, key=key, fingerprint=fingerprint_of(change.method, change.path, body)),
            change,
            prepare=prepare,
            look=lambda: look(database.server, action, params),
            judge=partial(judge, action.aftermath.goal),
            run=run,
            done=lambda: render(action.aftermath.result(params), saved=change.saved),
        )

    def _record(
        self,
        request_id: str,
        who: str | None,
        database: Database | None,
        action: Action | None,
        ended: tuple[str, float],
        *,
        dry_run: bool,
    ) -> None:
        outcome, seconds = ended
        where, what = database.id if database else None, action.name if action else None
        # By a name of its own: who counts what was done must not count what was only asked about.
        self._metrics.action(where or "", f"{what} (dry run)" if dry_run else what or "", outcome, seconds)
        self._log.info(
            "dry_run" if dry_run else "action",
            request_id=request_id,
            who=who,
            action=what,
            database=where,
            outcome=outcome,
            ms=round(seconds * 1000, 3),
        )

    def _permitted(self, principal: Principal, database: Database, action: Action, asked: Envelope) -> Any:
        """Let a principal perform an action with these params, which are given as the action takes them.

        Raises: RateLimited, Forbidden, InvalidParams
        """
        # Also what is refused: it has its line in the audit, and who may not do it could fill a disk with them.
        self._limits.count(principal.name, action.effect)
        authorise(principal, database, action)
        return validate(action, asked)

    async def _read(self, database: Database, action: Action, asked: Envelope, params: Any) -> bytes:
        """Share a run with those that asked for the same, as their params tell.

        Raises: Precondition, ListTooLarge, DeadlineExceeded
        """
        refuse_older(database, action)

        async def run() -> bytes:
            return render(await perform(database.server, action, params), asked.page)

        key = (database.id, action.name, _comparable(asked.params) if action.takes_params else None, asked.page)
        try:
            return await self._coalescer.read(key, run, action.deadline + deadline.GRACE)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{action.name} did not finish within {action.deadline:g} s: the engine does not answer."
            ) from None


def refuse_older(database: Database, action: Action) -> None:
    """Refuse an action that a server is too old for, once its version is known.

    Raises: Precondition
    """
    if (
        action.minimum_version
        and database.description is not None
        and database.description.version < action.minimum_version
    ):
        needed = ".".join(str(part) for part in action.minimum_version)
        raise Precondition(f"{action.name} needs {database.engine.title} {needed} or later.")


def _change_of(request: ActionRequest, principal: Principal, database: Database, action: Action, raw: Any) -> Change:
    return Change(
        request_id=request.id,
        who=principal.name,
        address=request.address,
        method="POST",
        path=f"/api/databases/{database.id}/action",
        action=action.name,
        effect=action.effect,
        database=database.id,
        params=raw,
    )


def parse_envelope(body: bytes) -> Envelope:
    """Read `{"action_name": …, "params": …, "dry_run": …, "page": …, "per_page": …}`.

    Raises: Malformed, InvalidParams
    """
    envelope = parse_object(body)
    errors: dict[str, list[str]] = {field: ["is not known"] for field in envelope if field not in _ENVELOPE}
    name = envelope.get("action_name")
    if name is None:
        errors["action_name"] = ["is required"]
    elif not isinstance(name, str):
        errors["action_name"] = ["must be a text"]
    dry_run = envelope.get("dry_run", False)
    if not isinstance(dry_run, bool):
        errors["dry_run"] = ["must be true or false"]
    page = page_asked_for(envelope, errors)
    if errors:
        raise InvalidParams(errors)
    return Envelope(name=cast(str, name), params=envelope.get("params"), dry_run=dry_run, page=page)


def parse_object(body: bytes) -> Mapping[str, Any]:
    """Read a JSON object.

    Raises: Malformed
    """
    try:
        parsed: Any = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        where = f"line {problem.lineno}, column {problem.colno}"
        raise Malformed(f"The body is not JSON in UTF-8: {problem.msg} ({where}).") from None
    if not isinstance(parsed, dict):
        raise Malformed
    return cast(dict[str, Any], parsed)


def find_action(database: Database, name: str) -> Action:
    """Find an action of the database's engine.

    Raises: UnknownAction, which lists those there are
    """
    action = database.engine.actions.get(name)
    if action is None:
        known = ", ".join(database.engine.actions)
        raise UnknownAction(f"{database.engine.title} has no such action. It has: {known}.")
    return action


def authorise(principal: Principal, database: Database, action: Action | Task) -> None:
    """Let a principal perform an action or a task, or not.

    Raises: Forbidden
    """
    if action.name in database.disabled_actions:
        raise Forbidden(f"{action.name} is switched off for this database.")
    refusal = principal.refusal(action)
    if refusal:
        raise Forbidden(refusal)


def validate(action: Action, asked: Envelope) -> Any:
    """Check the params of an action, and that it gives a list where a page of one is asked for.

    Raises: InvalidParams
    """
    if asked.page is not None and not action.gives_list:
        raise InvalidParams({"page": [f"is not possible: {action.name} gives no list"]})
    return action.validate(asked.params)


def render(result: Any, page: Page | None = None, saved: Sequence[Named] = ()) -> bytes:
    """Write the answer of an action that succeeded; a time without an offset is one in UTC.

    page: of the list that is the result; saved: the backups of what was destroyed

    Raises: ListTooLarge
    """
    answer: dict[str, Any] = {"ok": 1, "result": result}
    if page is not None:
        answer = {"ok": 1, "result": page.of(result), "meta": page.place_in(len(result))}
    answer |= fields_of(saved)
    text = orjson.dumps(answer, default=to_jsonable_python, option=orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC)
    if len(text) > LARGEST_RESULT and isinstance(result, list):
        most = LARGEST_RESULT // 2**20
        raise ListTooLarge(
            f"The result is larger than {most} MiB: ask for it in smaller parts, with page and per_page beside params."
        )
    return text


def _comparable(raw: Any) -> bytes:
    """Give the same bytes for the same params.

    Raises: InvalidParams
    """
    try:
        return orjson.dumps({} if raw is None else raw, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # orjson reads 1024 levels and writes 254
        raise InvalidParams({"params": ["is nested too deeply"]}) from None
