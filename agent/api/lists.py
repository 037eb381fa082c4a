"""Lists of a resource: whole, as the known clients read them, or the page that the query asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from agent.api.databases import as_json
from agent.api.query import given_once
from agent.errors import ListTooLarge
from agent.paging import LARGEST_RESULT, PAGE_FIELDS, Page, page_asked_for
from engines.errors import InvalidParams

T = TypeVar("T")


def page_of(request: Request) -> Page | None:
    """Read which page of a list the query asks for; None is the whole list.

    Raises: InvalidParams
    """
    given = {name: _number(text) for name in PAGE_FIELDS if (text := given_once(request, name))}
    errors: dict[str, list[str]] = {}
    page = page_asked_for(given, errors)
    if errors:
        raise InvalidParams(errors)
    return page


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else text


def listed(root: str, found: Sequence[T], shown: Callable[[T], dict[str, Any]], page: Page | None) -> Response:
    """Render a list, or a page of it with its place in `meta`, by what `shown` gives of each entry.

    Raises: ListTooLarge
    """
    body: dict[str, Any] = {root: [shown(each) for each in (found if page is None else page.of(found))]}
    if page is not None:
        body["meta"] = page.place_in(len(found))
    answer = as_json(body)
    if len(answer.body) > LARGEST_RESULT:
        raise ListTooLarge
    return answer
