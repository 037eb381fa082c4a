"""Write docs/reference.md from the records of the actions, the causes of errors and the model of the configuration."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter
from reference_configuration import CONFIGURATION_HEAD, configuration
from reference_tables import described, fields_of, listed, resolved, table, texts_of_fields, type_of
from starlette.responses import Response
from starlette.routing import Route

from agent.api import audit, routes
from agent.api.errors import STATUS
from agent.api.openapi_actions import BACKUP_FIRST_FIELD, DRY_RUN_EXAMPLE, DRY_RUN_FIELD, BackupFirstMade
from agent.codes import causes, meaning
from agent.paging import LARGEST, LARGEST_RESULT, PAGE_FIELDS, PER_PAGE, Pagination
from agent.roles import needed_for
from agent.tasks import READ_AUDIT
from engines.action import Action
from engines.engine import Engine, installed_engines
from engines.errors import default_message
from engines.preview import Affected, Preview

PLACE = Path(__file__).parents[1] / "docs" / "reference.md"

HEAD = """\
# Reference

Written by `scripts/reference` from the records of the actions, the causes of errors and the model of the configuration:
edit those, not this page. A running dbvalet tells the same of itself: `/openapi.json`, `/docs`,
`GET /api/databases/:id/actions`.

- [Performing an action](#performing-an-action)
- [Dry run](#dry-run)
- [Long lists](#long-lists)
- [Actions](#actions)
- [The audit](#the-audit)
- [Errors](#errors)
- [Configuration](#configuration)

## Performing an action

`POST /api/databases/:id/action` with `Authorization: Bearer TOKEN` and a JSON object: `action_name`, and `params` if
the action takes any (absent, `null` and `{}` are one case). The answer is 200 and `{"ok": 1, "result": …}`, or a
status of the [error table](#errors) and `{"ok": 0, "error": "text for a person", "code": "stable_code"}`. `ok` is said
after the engine was read again. No answer takes longer than 25 seconds. In the examples the database is `ad-local`.
"""

BODY: dict[str, dict[str, Any]] = {
    "action_name": {"type": "string", "description": "Which action."},
    "params": {"description": "What the action takes; absent, `null` and `{}` are one case."},
    "dry_run": DRY_RUN_FIELD,
    **PAGE_FIELDS,
}
"""What the body of an action may hold."""

ANSWER: dict[str, dict[str, Any]] = {
    "ok": {"enum": [1], "description": "It was done, and the engine was read again."},
    "result": {"description": "What the action gives; `null` where it gives nothing."},
    "meta": {"type": "object", "description": "Of a page of a list alone: [where it stands](#long-lists)."},
    "backup": {
        "type": "object",
        "description": "Of what destroyed something, where `backup_before_destroy` says so: the backup made before.",
    },
    "earlier_backups": {
        "type": "array",
        "items": {"type": "object"},
        "description": "Of what was done again after its end was lost: the backups made before its earlier tries.",
    },
    "dry_run": {"type": "boolean", "description": "Of a [dry run](#dry-run) alone."},
    "backup_first": {**BACKUP_FIRST_FIELD, "description": f"Of a dry run alone. {BACKUP_FIRST_FIELD['description']}"},
}
"""What the answer of an action may hold."""

LISTS_HEAD = f"""\
## Long lists

A list is given whole, or one page of it to whoever asks for that with `page` (1 unless given) or `per_page`
({PER_PAGE} unless given): whole numbers from 1 to {LARGEST}, beside `params` for an action whose result is a list, in
the query for the routes below. What is wrong with them is 422 `invalid_params`. An answer of more than
{LARGEST_RESULT // 2**20} MiB is 413 `too_large`: ask for it in pages. A page is cut out of the list as it is at that
moment: what is added or goes between two pages moves the others. `…/maintenance` is always a page.

"""

AUDIT_HEAD = f"""\
## The audit

`GET /api/audit`, for the role **{needed_for(READ_AUDIT.effect)}**, gives the lines of the databases in the token's
scope, oldest first; those of a database whose `disabled_actions` have `{READ_AUDIT.name}` are left out. The answer is
`{{"audit": [line, …], "next_after": N}}`: ask again with `after=N` until `next_after` is `null`. With
`Accept: {audit.JSON_LINES}` each line of the text is a line of the audit as JSON, and the `sequence` of the last
is the next `after`. What the audit proves: [security.md](security.md#the-audit); the whole of it, and whether it is
whole: [`dbvalet audit`](cli.md#audit).

"""

DRY_RUN_HEAD = """\
## Dry run

With `"dry_run": true` beside `params` nothing is changed. The answer is 200 and
`{"ok": 1, "dry_run": true, "result": …}` with what the action would do now, found by the same checks; or the status,
code and text with which it would be refused. It is for whoever may do the action itself, counts as a read for the
limits, has no line in the audit, and ignores an `Idempotency-Key`. It takes 10 seconds at most, and no lock that others
wait for. What the engine finds out only on the way (a lock that is never given up, a full disk) it cannot tell. An
action that only reads, or that has no dry run, is refused with `not_supported`; a `dry_run` that is neither true nor
false with `invalid_params`. Only actions have it: a route beside them that changes something refuses it, as it does
every field that it does not know, also where it needs no body. In the query of a route that changes something, that of
the actions included, `dry_run` is refused whatever its value, so that nothing is done that was only to be tried.

"""

ERRORS_HEAD = """\
## Errors

The body of a failure is `{"error": "text for a person", "code": "stable_code"}`, with `"ok": 0` on the route of
actions; 422 has `errors` besides, `{"field": ["text"]}` (the field is `params` where the whole value is wrong); 404 has
`resource`, what was not found; 429, 503 and `in_progress` come with `Retry-After`. Every answer carries `X-Request-Id`.

A request that changes something takes a header `Idempotency-Key`, a text of the client's choice, a new one for each
thing that is to be done. Sent again within a day (after a timeout, a cut connection, a crash of dbvalet), it gets the
first answer, with `Idempotent-Replayed: true`, and nothing is done twice. The same key with another request is 422;
while the first runs, 409 `in_progress`. Where nobody saw how the first one ended, or a power cut took an answer of the
last moments, dbvalet looks at the engine: what was done is answered as done, what was not is done now, and what cannot
be told is 409 `answer_unknown` and not done again.
A backup or a restore that was begun is found; a backup that is gone was deleted, and an operation that is cancelled was
cancelled; of a feature, the hours and the window of a database it is seen whether they were changed, and of a user
whether there is one. No engine shows a password, nor who made a user: where there is one by now, and after a change of
its password, it cannot be told.
After a refusal that says nothing was begun (400, 401, 403, 422, 429, `overloaded`, and 404 but for what an action
itself did not find) the same key may ask again. So it may after whatever a route beside the actions refuses before it
begins (another operation is in progress, a backup is not done, something is not set up, there is a user of the name),
and where the storage of backups could not be used. What an engine refuses otherwise is an answer, and given again.

Test `code`, not the text: the meaning below is what a code stands for, and the text of an answer says more.
"""


def main(arguments: Sequence[str]) -> int:
    """Write the page, or with --check only compare."""
    wanted = reference(installed_engines())
    if "--check" not in arguments:
        PLACE.write_text(wanted)
        return 0
    there = PLACE.read_text() if PLACE.exists() else ""
    if there == wanted:
        return 0
    difference = difflib.unified_diff(there.splitlines(), wanted.splitlines(), "there", "wanted", lineterm="", n=1)
    print("\n".join([*difference][:40]))
    print("docs/reference.md lags: run scripts/reference", file=sys.stderr)
    return 1


def reference(engines: dict[str, Engine]) -> str:
    """Give the whole page."""
    ordered = sorted(engines.values(), key=lambda engine: engine.title.lower())
    parts = [
        HEAD,
        *envelope(),
        DRY_RUN_HEAD,
        *dry_run(),
        LISTS_HEAD,
        *long_lists(),
        *actions(ordered),
        AUDIT_HEAD,
        *the_audit(),
        ERRORS_HEAD,
        table(
            ("status", "code", "meaning"), ((status, f"`{code}`", error_texts(code)) for code, status in STATUS.items())
        ),
        CONFIGURATION_HEAD,
        *configuration(),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def envelope() -> Iterable[str]:
    """Write what goes to the route of actions and what comes back."""
    yield fields_of({"properties": BODY}, head="field of the body")
    yield fields_of({"properties": ANSWER}, head="field of the answer")
    schema = TypeAdapter(BackupFirstMade).json_schema(mode="serialization")
    yield fields_of(schema, BackupFirstMade, head="field of `backup`")


def long_lists() -> Iterable[str]:
    """Write which routes give pages, and what is said of one."""
    paged = [(method, path) for method, path, query in queries() if set(PAGE_FIELDS) <= query]
    yield table(("route",), ((f"`{method} {path}`",) for method, path in paged))
    yield fields_of(Pagination.model_json_schema(), Pagination, head="field of `meta.pagination`")


def queries() -> Iterable[tuple[str, str, set[str]]]:
    """Give every described route with what its query may say."""
    app = FastAPI()
    routes.install(app, Route("/", Response()), {}, metrics_are_public=False)
    for route in app.routes:
        parameters = (getattr(route, "openapi_extra", None) or {}).get("parameters", ())
        query = {each["name"] for each in parameters if each["in"] == "query"}
        for method in sorted(getattr(route, "methods", None) or ()):
            yield method, re.sub(r"{(?:database_)?(\w+)}", r":\1", getattr(route, "path", "")), query


def the_audit() -> Iterable[str]:
    """Write what the audit is asked, what a line of it holds, and an example."""
    yield fields_of({"properties": audit.QUERY}, head="query")
    yield fields_of(audit.AuditLine.model_json_schema(), audit.AuditLine, head="field of a line")
    yield (
        "```sh\n"
        f"curl -H \"Authorization: Bearer $TOKEN\" -H 'Accept: {audit.JSON_LINES}' \\\n"
        f"  'http://127.0.0.1:8000/api/audit?after=0&limit={audit.MOST}&database=ad-local'\n"
        "```\n"
    )


def dry_run() -> Iterable[str]:
    """Write the fields of what a dry run gives, and an example."""
    yield fields_of(TypeAdapter(Preview).json_schema(mode="serialization"), Preview, head="field of the result")
    yield fields_of(TypeAdapter(Affected).json_schema(mode="serialization"), Affected, head="field of an object")
    yield f"```json\n{json.dumps(DRY_RUN_EXAMPLE, indent=2, ensure_ascii=False)}\n```\n"


def actions(engines: Iterable[Engine]) -> Iterable[str]:
    """Write the sections of all actions."""
    engines = list(engines)
    yield "## Actions\n"
    yield table(
        ("engine", "action", "effect", "role", ""),
        (
            (
                engine.title,
                f"[`{action.name}`](#{anchor(engine, action)})",
                action.effect,
                needed_for(action.effect),
                action.summary,
            )
            for engine in engines
            for action in engine.actions.values()
        ),
    )
    for engine in engines:
        yield f"### {engine.title}\n"
        for action in engine.actions.values():
            yield section(engine, action)


def anchor(engine: Engine, action: Action) -> str:
    """Give the name of a section that no other engine's action has."""
    return f"{engine.name}-{action.name}"


def section(engine: Engine, action: Action) -> str:
    """Write the section of one action."""
    documentation = inspect.getdoc(action.function) or ""
    source = re.search(r"^Source:\s*(\S+)", documentation, flags=re.MULTILINE)
    description = re.sub(r"^Source:\s*\S+$", "", action.description, flags=re.MULTILINE).strip()
    facts = [
        f"Effect: **{action.effect}**, for the role **{needed_for(action.effect)}** and above.",
        f"Deadline: {action.deadline:g} s.",
        "It has a [dry run](#dry-run)." if action.preview is not None else "",
        f"Since {engine.title} {'.'.join(map(str, action.minimum_version))}." if action.minimum_version else "",
        f"Account: {listed(action.privileges)}." if action.privileges else "",
        f"Server: {listed(action.settings)}." if action.settings else "",
        f"[The engine's manual]({source[1]})." if source else "",
    ]
    parts = [
        f'<a id="{anchor(engine, action)}"></a>\n\n#### `{action.name}` ({engine.title})\n',
        f"{action.summary}\n",
        f"{description}\n" if description else "",
        " ".join(fact for fact in facts if fact) + "\n",
        params(action),
        result(action),
        errors(action),
        examples(action),
    ]
    return "\n".join(part for part in parts if part)


def params(action: Action) -> str:
    """Write the params as a table."""
    schema = action.params.json_schema()
    definitions = schema.get("$defs", {})
    if schema.get("type") != "object":
        return f"**Params**: {type_of(schema, definitions)}, bare. {schema.get('description', '')}".rstrip() + "\n"
    properties: dict[str, Any] = schema.get("properties", {})
    if not properties:
        return "**Params**: none\n"
    required = schema.get("required", [])
    rows = (
        (f"`{name}`", type_of(each, definitions), "yes" if name in required else "no", described(each))
        for name, each in properties.items()
    )
    return "**Params**\n\n" + table(("name", "type", "required", "description"), rows)


def result(action: Action) -> str:
    """Write the result: its type, and the fields of an object as a table."""
    schema = action.result.json_schema(mode="serialization")
    definitions = schema.get("$defs", {})
    objects = resolved(schema.get("items", schema), definitions)
    text = f"**Result**: {type_of(schema, definitions)}\n"
    if objects.get("type") != "object":
        return text
    model = getattr(inspect.getmodule(action.function), objects.get("title", ""), None)
    texts = texts_of_fields(model) if inspect.isclass(model) else {}
    rows = (
        (f"`{name}`", type_of(each, definitions), described(each) or texts.get(name, ""))
        for name, each in objects.get("properties", {}).items()
    )
    return text + "\n" + table(("field", "type", "description"), rows)


def errors(action: Action) -> str:
    """Write the causes of an action's own; those of every action stand in the table of all."""
    rows = sorted((STATUS[cause.code], f"`{cause.code}`", default_message(cause)) for cause in action.raises)
    own = table(("status", "code", "when"), rows) if action.raises else ""
    return "**Errors**, beside [those of every action](#errors)" + ("\n\n" + own if own else "\n")


def examples(action: Action) -> str:
    """Write a request and its answer, for curl and for `dbvalet call`."""
    body: dict[str, Any] = {"action_name": action.name}
    words = ["dbvalet", "call", "ad-local", action.name]
    if action.takes_params:
        body["params"] = action.example_params
        words.append(
            action.example_params
            if isinstance(action.example_params, str)
            else json.dumps(action.example_params, ensure_ascii=False)
        )
    answer = json.dumps({"ok": 1, "result": action.example_result}, indent=2, ensure_ascii=False)
    return (
        "```sh\n"
        "curl -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))} \\\n"
        "  http://127.0.0.1:8000/api/databases/ad-local/action\n"
        f"{shlex.join(words)}\n"
        "```\n\n"
        f"```json\n{answer}\n```\n"
    )


def error_texts(code: str) -> str:
    """Say what a code means, and the cases of it that have a text of their own."""
    cases = [default_message(each) for each in causes().get(code, [])[1:]]
    return " ".join([meaning(code), *(f"*Or:* {case}" for case in cases)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
