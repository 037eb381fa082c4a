"""The documents about the API: OpenAPI for programs, and a page for people without a script or a foreign host."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any
from xml.etree.ElementTree import Element, tostring

import orjson
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from agent.api.errors import STATUS
from agent.api.openapi import ACTION_PATH, document
from agent.api.openapi_actions import request_example
from agent.codes import meaning
from engines.action import Action
from engines.engine import Engine

STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --accent: #0b63b5 }
@media (prefers-color-scheme: dark) { :root { --accent: #7ab8f5 } }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 64rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem }
h1 { margin: 0 } h2 { margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line) } h3 { margin: 1.6rem 0 .25rem }
h2, h3 { scroll-margin-top: 1rem } a { color: var(--accent) } p { margin: .4rem 0 }
code, pre { font: .875em/1.5 ui-monospace, monospace } code { overflow-wrap: anywhere }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: .4rem }
pre { padding: .6rem .8rem; overflow-x: auto }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: .6rem 0 }
th, td { text-align: left; vertical-align: top }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line) }
nav ul { columns: 16rem; list-style: none; padding: 0 } nav ul ul { columns: auto; padding-left: 1rem }
nav li { break-inside: avoid } summary { cursor: pointer; margin: .4rem 0 }
.effect { border: 1px solid; border-radius: 1rem; padding: 0 .55rem; font-size: .8rem; font-weight: 600 }
.read { color: #23803c } .write { color: #a45c00 } .destructive { color: #c62f2f }
@media (prefers-color-scheme: dark) {
  .read { color: #6cc98a } .write { color: #e8a95b } .destructive { color: #ff8a80 }
}
"""

_STYLE_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()

CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Child = Element | str


class Docs:
    """Makes both documents when they are first asked for: together they take a tenth of a second."""

    def __init__(self, app: FastAPI, engines: Mapping[str, Engine]) -> None:
        self._app = app
        self._engines = engines

    async def openapi(self, _: Request) -> Response:
        """Give the OpenAPI document."""
        return Response(await _aside(lambda: self._openapi), media_type="application/json")

    async def page(self, _: Request) -> Response:
        """Give the page for people."""
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "X-Content-Type-Options": "nosniff"}
        return Response(await _aside(lambda: self._page), headers=headers, media_type="text/html")

    @cached_property
    def _document(self) -> dict[str, Any]:
        return document(self._app, self._engines)

    @cached_property
    def _openapi(self) -> bytes:
        return orjson.dumps(self._document)

    @cached_property
    def _page(self) -> bytes:
        return b"<!doctype html>\n" + tostring(page(self._document, self._engines), encoding="utf-8", method="html")


async def _aside(make: Callable[[], bytes]) -> bytes:
    """Make it in a thread: no action waits for it."""
    return await asyncio.to_thread(make)


def page(made: dict[str, Any], engines: Mapping[str, Engine]) -> Element:
    """Write the page: how to ask, every action with its example, the other routes, the error table."""
    return tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", "dbvalet"),
            tag("style", STYLE),
        ),
        tag(
            "body",
            tag("h1", "dbvalet ", tag("small", made["info"]["version"])),
            *(_prose("p", paragraph) for paragraph in made["info"]["description"].split("\n\n")),
            tag("p", "For programs: ", tag("a", "openapi.json", href="openapi.json"), "."),
            _contents(engines),
            tag("h2", "How to ask", id="how"),
            _prose(
                "p",
                "An action is a POST. `$TOKEN` is a token of the configuration, `$DATABASE` a database's id there; "
                "`GET /api/databases/{database_id}/actions` says what is possible on it.",
            ),
            tag("pre", _curl({"action_name": "NAME", "params": "what the action takes"})),
            *(
                tag(
                    "section",
                    tag("h2", engine.title, id=engine.name),
                    *(_section(shown, made["components"]["schemas"]) for shown in _of(engine)),
                )
                for engine in engines.values()
            ),
            tag("h2", "Other paths", id="paths"),
            _table(("path", "what it gives", "token"), _paths(made["paths"])),
            tag("h2", "Failures", id="failures"),
            _table(
                ("status", "code", "meaning"),
                ((str(status), tag("code", code), _prose("span", meaning(code))) for code, status in STATUS.items()),
            ),
        ),
        lang="en",
    )


def tag(name: str, /, *children: Child, **attributes: str) -> Element:
    """Make an element; `class_` is the attribute `class`. Texts are escaped when the page is written."""
    element = Element(name, {key.rstrip("_"): value for key, value in attributes.items()})
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            element.append(child)
            last = child
        elif last is None:
            element.text = (element.text or "") + child
        else:
            last.tail = (last.tail or "") + child
    return element


def _prose(name: str, text: str) -> Element:
    """Make an element of a text in which `backticks` stand around code."""
    return tag(name, *(tag("code", part) if number % 2 else part for number, part in enumerate(text.split("`"))))


def _contents(engines: Mapping[str, Engine]) -> Element:
    listed = [_link(engine.name, engine.title, *map(_link_to, _of(engine))) for engine in engines.values()]
    return tag(
        "nav",
        tag("ul", *listed, _link("how", "How to ask"), _link("paths", "Other paths"), _link("failures", "Failures")),
    )


def _link(anchor: str, text: str, *below: Element) -> Element:
    return tag("li", tag("a", text, href=f"#{anchor}"), *([tag("ul", *below)] if below else []))


def _link_to(shown: Shown) -> Element:
    return _link(shown.anchor, shown.action.name)


@dataclass(frozen=True)
class Shown:
    """An action of an engine on the page."""

    engine: Engine
    action: Action

    @property
    def anchor(self) -> str:
        """Name it within the page."""
        return f"{self.engine.name}.{self.action.name}"


def _of(engine: Engine) -> list[Shown]:
    return [Shown(engine, action) for action in engine.actions.values()]


def _section(shown: Shown, schemas: dict[str, Any]) -> Element:
    action = shown.action
    needs = [*action.privileges, *action.settings]
    codes = list(dict.fromkeys(cause.code for cause in action.raises))
    facts = [
        f"Takes at most {action.deadline:g} s.",
        f"Needs {', '.join(needs)}." if needs else "",
        f"From version {'.'.join(map(str, action.minimum_version))}." if action.minimum_version else "",
        f"Can fail with {', '.join(codes)}, and as every action." if codes else "",
    ]
    fields = list(_fields(schemas[f"{shown.anchor}.request"]["properties"]["params"], schemas))
    effect = tag("span", action.effect, class_=f"effect {action.effect}")
    return tag(
        "section",
        tag("h3", f"{action.name} ", effect, id=shown.anchor),
        _prose("p", action.summary),
        *(_prose("p", paragraph) for paragraph in action.description.split("\n\n") if paragraph),
        tag("p", " ".join(fact for fact in facts if fact)),
        *([_table(("param", "type", "", ""), fields)] if fields else []),
        tag("pre", _curl(request_example(action))),
        tag("pre", json.dumps({"ok": 1, "result": action.example_result}, indent=2)),
    )


def _fields(params: dict[str, Any], schemas: dict[str, Any]) -> Iterator[tuple[Child, ...]]:
    """Give a row for each field of the params, or one for a bare value."""
    schema = _resolved(params.get("anyOf", [params])[0], schemas)
    if schema.get("type") != "object":
        yield tag("code", "params"), _type(schema, schemas), "required", _prose("span", schema.get("description", ""))
        return
    for name, field in schema.get("properties", {}).items():
        needed = "required" if name in schema.get("required", []) else f"default {json.dumps(field.get('default'))}"
        yield tag("code", name), _type(field, schemas), needed, _prose("span", field.get("description", ""))


def _resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    return schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _type(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """Say in words what a schema allows."""
    schema = _resolved(schema, schemas)
    if "anyOf" in schema:
        return " or ".join(_type(each, schemas) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(json.dumps(each) for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}), schemas)}"
    return schema.get("type", "anything")


def _curl(body: dict[str, Any]) -> str:
    quoted = json.dumps(body).replace("'", "'\\''")
    return (
        'curl -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\\n'
        f"  http://127.0.0.1:8000{ACTION_PATH.format(database_id='$DATABASE')} \\\n"
        f"  -d '{quoted}'"
    )


def _paths(paths: dict[str, Any]) -> Iterator[tuple[Child, ...]]:
    for path, operations in paths.items():
        for method, operation in operations.items():
            if path != ACTION_PATH:
                needed = "needed" if operation["security"] else ""
                yield tag("code", f"{method.upper()} {path}"), operation["description"], needed


def _table(head: Sequence[str], rows: Iterable[Sequence[Child]]) -> Element:
    return tag(
        "table",
        tag("thead", tag("tr", *(tag("th", text) for text in head))),
        tag("tbody", *(tag("tr", *(tag("td", cell) for cell in row)) for row in rows)),
    )
