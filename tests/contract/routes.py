"""The entries of an app's route table, each by what asks for it and its path."""

from collections.abc import Iterator

from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

Entry = tuple[str, str]

SOCKET = "WEBSOCKET"


def entries_of(app: FastAPI) -> list[Entry]:
    """Give the method and the path of each route; HEAD is answered by what answers GET."""
    return [entry for route in app.routes for entry in _entries(route)]


def _entries(route: BaseRoute) -> Iterator[Entry]:
    path: str = getattr(route, "path", "")
    match route:
        case Route(methods=methods) if methods:
            yield from ((method, path) for method in sorted(methods) if method != "HEAD")
        case WebSocketRoute():
            yield SOCKET, path
        case Mount():
            yield "MOUNT", path
        case _:
            # A route of any method, a host, or a kind that is new: it is a door all the same.
            yield type(route).__name__.upper(), path
