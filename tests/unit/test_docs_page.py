"""The page for people: every action on it, and nothing from elsewhere."""

import base64
import re
from collections.abc import AsyncIterator
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import pytest

from agent.api.docs import page, tag
from agent.api.errors import STATUS
from engines.engine import installed_engines
from tests.fakes import ENGINE
from tests.fakes.service import Valet, running

VOID = {"meta"}


class Page(HTMLParser):
    """What a browser sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.styles: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.styles if self.open[-1:] == ["style"] else self.texts).append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with running(engines={**installed_engines(), "fake": ENGINE}) as valet:
        yield valet


async def shown(valet: Valet) -> Page:
    response = await valet.ask("GET", "/docs", None)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.text.startswith("<!doctype html>\n<html ")
    found = Page(response.text)
    assert found.open == []
    return found


async def test_every_action_is_there_with_its_effect_summary_and_request(valet: Valet):
    found = await shown(valet)
    for engine in (*installed_engines().values(), ENGINE):
        for name, action in engine.actions.items():
            assert f"{name} {action.effect.value}" in found.text
            assert action.summary.replace("`", "") in found.text
            assert f'"action_name": "{name}"' in found.text


async def test_params_are_there_with_type_and_need(valet: Valet):
    text = (await shown(valet)).text
    assert "namestringrequired" in text
    assert 'colourstringdefault "grey"' in text
    assert "colourstring or nulldefault null" in text
    assert "paramsstringrequired" in text
    assert "Takes at most 20 s. Can fail with not_found, protected, and as every action." in text
    assert "Needs superpower, preload." in text
    assert "From version 9.1." in text
    assert "The first one cannot be dropped." in text


async def test_paths_and_failures_are_there(valet: Valet):
    text = (await shown(valet)).text
    for path in ("GET /api/databases", "GET /api/databases/{database_id}/actions", "GET /livez", "GET /metrics"):
        assert path in text
    for code, status in STATUS.items():
        assert f"{status}{code}" in text


async def test_nothing_comes_from_elsewhere_and_nothing_runs(valet: Valet):
    for name, attributes in (await shown(valet)).tags:
        assert name not in {"script", "link", "img", "iframe", "object", "embed", "form", "base", "svg", "video"}
        for attribute, value in attributes.items():
            assert not attribute.startswith("on")
            assert attribute not in {"src", "srcset", "style", "action"}
            if attribute == "href":
                assert value is not None
                assert re.fullmatch(r"#[a-z0-9.-]+|openapi\.json", value)


async def test_its_policy_allows_its_own_style_and_nothing_else(valet: Valet):
    response = await valet.ask("GET", "/docs", None)
    (style,) = Page(response.text).styles
    digest = base64.b64encode(sha256(style.encode()).digest()).decode()

    assert response.headers["Content-Security-Policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert "url(" not in style
    assert "@import" not in style


async def test_every_link_within_the_page_leads_somewhere(valet: Valet):
    tags = (await shown(valet)).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in tags:
        href = attributes.get("href") or ""
        assert not href.startswith("#") or href[1:] in ids


async def test_it_needs_no_token_and_names_no_database(valet: Valet):
    text = (await valet.ask("GET", "/docs", None)).text
    assert "ad-one" not in text
    assert "db.example" not in text


def test_texts_are_escaped():
    from xml.etree.ElementTree import tostring

    written = tostring(tag("p", "<script>&", tag("b", '"<'), " > ", class_='"&'), encoding="unicode", method="html")
    assert written == '<p class="&quot;&amp;">&lt;script&gt;&amp;<b>"&lt;</b> &gt; </p>'


def test_types_are_told_in_words():
    params = {
        "type": "object",
        "required": ["enum"],
        "properties": {
            "enum": {"enum": ["a", 1]},
            "list": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}},
            "anything": {},
        },
    }
    schemas: dict[str, Any] = {"Thing": {"type": "object"}}
    for each in ENGINE.actions:
        schemas[f"fake.{each}.request"] = {"properties": {"params": params}}
    made = {"info": {"version": "1", "description": "a `b`"}, "paths": {}, "components": {"schemas": schemas}}
    text = "".join(page(made, {"fake": ENGINE}).itertext())

    assert 'enum"a" or 1required' in text
    assert "listlist of objectdefault null" in text
    assert "anythinganythingdefault null" in text
