"""The fake engine's actions: one for each effect and each form of params."""

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from engines.action import Effect, Params, action
from engines.aftermath import AS_ASKED, Aftermath, Goal
from engines.engine import require, require_privileges
from engines.errors import AlreadyExists, NotFound, Protected
from engines.preview import Affected, Change, Preview, preview_of
from tests.fakes.driver import FakeServer


class Thing(TypedDict):
    """A thing and its colour."""

    name: str
    colour: str


class NewThing(Params):
    """A thing to be added."""

    name: Annotated[str, Field(min_length=1, max_length=20)]
    colour: str = "grey"


class ThingName(Params):
    """Which thing."""

    name: str


class Filter(Params):
    """Which things; all of them if it says nothing."""

    colour: str | None = None


@action("list-things", effect=Effect.READ, example_result=[{"name": "first", "colour": "blue"}])
async def list_things(server: FakeServer) -> list[Thing]:
    """List the things."""
    await server.perform("list-things")
    return server.list_things()


@action("find-things", effect=Effect.READ, example_params={"colour": "blue"}, example_result=[])
async def find_things(server: FakeServer, params: Filter) -> list[Thing]:
    """List the things of a colour."""
    await server.perform(f"find-things {params.colour}")
    return [thing for thing in server.list_things() if params.colour in (None, thing["colour"])]


@action("count-keys", effect=Effect.READ, example_params={"a": 1}, example_result=1)
async def count_keys(server: FakeServer, params: dict[str, Any]) -> int:
    """Count the keys of any object."""
    await server.perform("count-keys")
    return len(params)


@action("read-clock", effect=Effect.READ, deadline=0.5, example_result="now")
async def read_clock(server: FakeServer) -> str:
    """Read the clock, in half a second at most."""
    now = server.now()
    await server.perform("read-clock")
    return now


async def look_whether_as_asked(server: FakeServer, params: NewThing) -> list[str]:
    """Tell whether there is this thing, or of what colour one of its name is."""
    colour = server.things.get(params.name)
    return [] if colour is None else [AS_ASKED if colour == params.colour else colour]


async def look_whether_there(server: FakeServer, params: ThingName) -> list[str]:
    """Give the colour of a thing."""
    return [server.things[params.name]] if params.name in server.things else []


def as_shown(params: NewThing) -> Thing:
    """Give a thing that was made."""
    return {"name": params.name, "colour": params.colour}


def check_new(server: FakeServer, params: NewThing) -> None:
    """Make sure that a name is free."""
    if params.name in server.things:
        raise AlreadyExists


def check_droppable(server: FakeServer, params: ThingName) -> None:
    """Make sure that a thing is there and may go."""
    if params.name == "first":
        raise Protected
    if params.name not in server.things:
        raise NotFound(f"There is no thing {params.name}.")


async def preview_add(server: FakeServer, params: NewThing) -> Preview:
    """Tell what add-thing would make."""
    await server.perform(f"preview add-thing {params.name}")
    check_new(server, params)
    return preview_of("Adds a thing.", [Affected(change=Change.CREATE, kind="thing", name=params.name)])


async def preview_drop(server: FakeServer, params: ThingName) -> Preview:
    """Tell what drop-thing would remove."""
    await server.perform(f"preview drop-thing {params.name}")
    check_droppable(server, params)
    return preview_of("Drops a thing.", [Affected(change=Change.REMOVE, kind="thing", name=params.name, rows=1)])


async def preview_power(server: FakeServer) -> Preview:
    """Tell what use-power would do."""
    await server.perform("preview use-power")
    await require(server, "preload")
    await require_privileges(server, "superpower")
    return preview_of("Uses power.")


@action(
    "add-thing",
    effect=Effect.WRITE,
    example_params={"name": "second", "colour": "red"},
    example_result={"name": "second", "colour": "red"},
    aftermath=Aftermath(look=look_whether_as_asked, goal=Goal.THERE, result=as_shown),
    preview=preview_add,
)
async def add_thing(server: FakeServer, params: NewThing) -> Thing:
    """Add a thing.

    Raises: AlreadyExists
    """
    await server.perform(f"add-thing {params.name}")
    check_new(server, params)
    server.things[params.name] = params.colour
    server.end()
    return {"name": params.name, "colour": params.colour}


@action("set-mode", effect=Effect.WRITE, deadline=0.5, example_params="FAST,SAFE")
async def set_mode(server: FakeServer, params: str) -> None:
    """Set the mode: a bare text is its params."""
    await server.perform(f"set-mode {params}")


@action(
    "drop-thing",
    effect=Effect.DESTRUCTIVE,
    example_params={"name": "second"},
    aftermath=Aftermath(look=look_whether_there, goal=Goal.GONE),
    preview=preview_drop,
)
async def drop_thing(server: FakeServer, params: ThingName) -> None:
    """Drop a thing.

    The first one cannot be dropped.

    Raises: NotFound, Protected
    """
    await server.perform(f"drop-thing {params.name}")
    check_droppable(server, params)
    del server.things[params.name]
    server.end()


@action("use-power", effect=Effect.WRITE, privileges=("superpower",), settings=("preload",), preview=preview_power)
async def use_power(server: FakeServer) -> None:
    """Do what takes a privilege and a setting."""
    await server.perform("use-power")


@action("use-novelty", effect=Effect.READ, minimum_version=(9, 1))
async def use_novelty(server: FakeServer) -> None:
    """Do what only a later version can."""
    await server.perform("use-novelty")


@action("odd-result", effect=Effect.WRITE)
async def odd_result(server: FakeServer) -> Any:
    """Give whatever a test wants."""
    await server.perform("odd-result")
    return server.result
