"""`dbvalet demo`: engines, accounts, a dbvalet, a tour of what it does; then it serves until it is stopped."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import httpx

from agent.demo.accounts import Deployment, make_accounts
from agent.demo.engines import EmbeddedEngines, demo_folder
from agent.demo.guide import ANSWER_SECONDS, Guide, TourFailed
from agent.demo.processes import DemoError, ProcessFailed
from agent.demo.screen import Screen
from agent.demo.service import Service, start_service
from agent.demo.sessions import DRIVER_ERRORS
from agent.demo.started import StartedEngine
from agent.demo.stops import STOPS
from agent.demo.tour_postgresql import running
from agent.errors import AgentError
from engines.engine import installed_engines

INTERRUPTED = 130
"""The exit code of what Ctrl-C ended."""

LOOK_SECONDS = 0.2

LAST_LINES = 3


class DemoFailed(AgentError):
    """The demo cannot go on."""


def main(*, once: bool) -> None:
    """Run the demo. Ctrl-C ends it at any time; what it made is then thrown away.

    Raises: DemoFailed, SystemExit
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    screen = Screen()
    try:
        with ExitStack() as stack:
            began = time.monotonic()
            service, deployments, left_out = _start(screen, stack)
            ready_after = time.monotonic() - began
            guide = _guided(screen, service, deployments)
            _summary(screen, guide, time.monotonic() - began, ready_after, left_out)
            if not once:
                _serve(screen, service, deployments)
    except KeyboardInterrupt:
        screen.line()
        screen.line("Interrupted. What the demo made is thrown away.")
        sys.exit(INTERRUPTED)
    except (DemoError, OSError) as failure:
        raise DemoFailed(str(failure)) from failure


def _interrupt(_number: int, _frame: object) -> None:
    """End what is going on; a second signal must not end the ending, which takes seconds at most."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _start(screen: Screen, stack: ExitStack) -> tuple[Service, list[Deployment], dict[str, str]]:
    engines_there_are = installed_engines()
    titles = {name: engines_there_are[name].title for name in STOPS}
    titles["dbvalet"] = "dbvalet"
    with screen.starting("Starting databases, each as a process of its own", titles) as progress:
        engines = stack.enter_context(EmbeddedEngines(demo_folder(), progress))
        progress("dbvalet", "making its accounts, as dbvalet grants says")
        deployments = [_prepared(started) for started in engines.started.values()]
        progress("dbvalet", "starting")
        tools = [started.tools for started in engines.started.values() if started.tools is not None]
        service = start_service(engines.run, deployments, tools)
        progress("dbvalet", f"ready on {service.url}")
    titled = {titles[name]: " ".join(why.split()) for name, why in engines.left_out.items()}
    return service, deployments, titled


def _prepared(started: StartedEngine) -> Deployment:
    try:
        return make_accounts(started)
    except DRIVER_ERRORS as problem:
        raise DemoError(f"the accounts on {started.engine} cannot be made: {problem!r}") from problem


def _guided(screen: Screen, service: Service, deployments: Sequence[Deployment]) -> Guide:
    try:
        return _tour(screen, service, deployments)
    except TourFailed:
        screen.line()
        screen.line("The last lines of dbvalet's log, which is about to be thrown away:")
        for line in service.program.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]:
            screen.line(line)
        raise


def _tour(screen: Screen, service: Service, deployments: Sequence[Deployment]) -> Guide:
    headers = {"Authorization": f"Bearer {service.token}"}
    # A proxy of the environment has no business here.
    with httpx.Client(base_url=service.url, headers=headers, timeout=ANSWER_SECONDS, trust_env=False) as client:
        guide = Guide(client, screen)
        _overview(guide, deployments)
        for each in deployments:
            guide.heading(f"{each.title} · {each.id}")
            try:
                STOPS[each.engine](guide, each)
            except DRIVER_ERRORS as problem:
                raise guide.failure(f"the application was refused: {problem!r}") from problem
    return guide


def _overview(guide: Guide, deployments: Sequence[Deployment]) -> None:
    guide.heading("What there is")
    guide.refused_without_token("Without a token nothing is told.", "/api/databases")
    guide.read(
        "The databases of this dbvalet, asked of their servers just now.",
        "/api/databases",
        where=lambda body: (
            {(each["id"], each["status"]) for each in body["databases"]}
            == {(each.id, "running") for each in deployments}
        ),
        part=lambda body: _parts(body, "databases", ("id", "type_name", "status")),
        part_is="3 fields of each",
    )
    first = deployments[0]
    guide.read(
        "One of them in full.",
        f"/api/databases/{first.id}",
        where=lambda body: body["database"]["readable_version"] in first.title,
    )
    guide.read(
        "What can be done with it right now.",
        f"/api/databases/{first.id}/actions",
        where=lambda body: all(each["available"] for each in body["actions"]),
        part=lambda body: _parts(body, "actions", ("name", "effect", "available")),
        part_is="3 fields of each",
    )


def _parts(body: Any, key: str, fields: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    objects = cast(list[dict[str, Any]], body[key])
    return {key: [{field: each[field] for field in fields} for each in objects]}


def _summary(screen: Screen, guide: Guide, seconds: float, ready_after: float, left_out: dict[str, str]) -> None:
    screen.heading("Done")
    screen.paragraph(
        f"{guide.actions} actions, {guide.refusals} refusals, {guide.brought_back} databases brought back from a "
        f"backup, all as expected, in {seconds:.1f} s "
        f"({ready_after:.1f} s of them until everything was started).",
        "bold green",
    )
    for title, why in left_out.items():
        screen.paragraph(f"{title} was left out: {why}", "yellow")


def _serve(screen: Screen, service: Service, deployments: Sequence[Deployment]) -> None:
    """Serve until Ctrl-C.

    Raises: ProcessFailed, when dbvalet ends by itself
    """
    database = deployments[0]
    action = '{"action_name": "pg-list-queries"}'
    lines = (
        "",
        f"dbvalet serves {', '.join(each.id for each in deployments)} until Ctrl-C.",
        "",
        f"  address  {service.url}",
        f"  docs     {service.url}/docs",
        f"  token    {service.token}",
        f"  log      {service.program.log}",
        "",
        "To paste into another terminal:",
        "",
        f"export DBVALET_URL={service.url}",
        f"export DBVALET_TOKEN_FILE={shlex.quote(str(service.token_file))}",
        "",
        'curl -H "Authorization: Bearer $(cat "$DBVALET_TOKEN_FILE")" \\',
        "  -H 'Content-Type: application/json' \\",
        f"  -d '{action}' \\",
        f'  "$DBVALET_URL/api/databases/{database.id}/action"',
        "",
        f"{shlex.quote(_command())} call {database.id} pg-list-queries",
        "",
    )
    for each in lines:
        screen.line(each)
    try:
        # Something to see, and to cancel.
        with running(database, "SELECT pg_sleep(86400)"):
            while (code := service.program.exit_code()) is None:
                time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        screen.line()
        screen.line("Stopped. What the demo made is thrown away.")
        return
    raise ProcessFailed(f"dbvalet ended with code {code}: {service.program.last_words()}")


def _command() -> str:
    """Say how `dbvalet` is run in another terminal, where no virtual environment is active."""
    return str(Path(shutil.which(sys.argv[0]) or "dbvalet").absolute())
