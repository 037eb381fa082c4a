"""Database users: listed from the engine, made, given passwords, taken away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, cast

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from agent.api.bodies import fields_of, no_fields, refuse_others
from agent.api.databases import as_json
from agent.api.lists import listed, page_of
from agent.api.openapi import described
from agent.api.service import (
    TOLD_ONCE,
    became_of,
    begin_change,
    database_of,
    permitted,
    require_no_doubt,
    service_of,
)
from agent.databases import Database
from agent.errors import AnswerUnknown, NotSupported
from agent.once import not_again
from agent.paging import PAGE_FIELDS, ListMeta
from agent.tasks import CHANGE_USER, CREATE_USER, DELETE_USER
from agent.tokens import Principal
from engines import deadline
from engines.action import Effect
from engines.aftermath import Goal, Verdict
from engines.errors import AlreadyExists, DeadlineExceeded, InvalidParams
from engines.users import (
    NAME_PATTERN,
    PASSWORD_LENGTH,
    User,
    Users,
    change_password,
    create_user,
    delete_user,
    made_password,
)

SECONDS = 20.0
PASSWORD_PATTERN = f"^[ -~]{{{PASSWORD_LENGTH[0]},{PASSWORD_LENGTH[-1]}}}$"


MADE = not_again(
    "A user of this name that is there may be the one that was asked for, but no engine shows who made it and with "
    "which password"
)

DELETED = not_again(
    "A user of this name that is there may have been made anew since, and that there is none may be the work of others"
)

NOT_SHOWN = "No engine shows a password, so that nothing tells whether it was set"


class Attributes(BaseModel):
    """What only some engines tell of a user."""

    password_encryption: str | None


class UserBody(BaseModel):
    """A user as the documented API shows it."""

    name: str
    read_only: bool
    protected: bool
    dbms_attributes: Attributes | None = Field(description="null where the engine does not tell")


class UsersBody(BaseModel):
    """The answer of `GET /api/databases/:id/users`."""

    database_users: list[UserBody] = Field(alias="database-users")
    meta: ListMeta | None = Field(None, description="Where a page stands, if one was asked for.")


class UserWithPassword(UserBody):
    """A user with its new password, which is shown this once; null when the client chose it."""

    password: str | None


class ChangedBody(UserWithPassword):
    """The fields at the root, as documented, and under `database_user`, as clients read them."""

    database_user: UserWithPassword


class NewUser(BaseModel):
    """What a client asks for; `database_id` is sent by some and means nothing, as the path has it."""

    model_config = ConfigDict(extra="forbid")

    database_id: str = ""
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    read_only: bool = False
    password: Annotated[str, Field(pattern=f"^$|{PASSWORD_PATTERN}")] = ""
    password_confirmation: str = ""


class NewUserBody(BaseModel):
    """The body of `POST /api/databases/:id/users`."""

    model_config = ConfigDict(extra="forbid")

    database_user: NewUser


class NewPassword(BaseModel):
    """What a client asks for; `database_id` and `name` mean nothing, as the path has them."""

    model_config = ConfigDict(extra="forbid")

    database_id: str = ""
    name: str = ""
    password: Annotated[str, Field(pattern=PASSWORD_PATTERN)]
    password_confirmation: str


class NewPasswordBody(BaseModel):
    """The body of `PATCH /api/databases/:id/users/:name`."""

    model_config = ConfigDict(extra="forbid")

    database_user: NewPassword


async def list_users(request: Request, database_id: str) -> Response:
    """List the users of the engine: all of them, or a page."""
    _, database = database_of(request, database_id)
    page = page_of(request)
    async with _users(database, Effect.READ) as users:
        found = await users.all()
    return listed("database-users", found, _fields, page)


async def create(request: Request, database_id: str) -> Response:
    """Create a user; the password that is made for it is shown in this answer only."""
    principal, database = permitted(request, database_id, CREATE_USER)
    asked = await _asked(request, "database_id", "name", "read_only", "password", "password_confirmation")
    name, read_only = asked.get("name"), asked.get("read_only", False)
    errors: dict[str, list[str]] = {}
    if not isinstance(name, str):
        errors["name"] = ["must be a text"]
    if not isinstance(read_only, bool):
        errors["read_only"] = ["must be true or false"]
    if errors:
        raise InvalidParams(errors)
    chosen = _chosen(asked)
    password = chosen or made_password()
    request.scope[TOLD_ONCE] = chosen is None
    async with _users(database, Effect.WRITE) as users:
        look = partial(_there, users, cast(str, name))
        verdict = await became_of(request, Goal.THERE, look)
        if verdict not in (None, Verdict.NOT_DONE):
            raise AnswerUnknown(MADE)
        begin = partial(begin_change, request, look)
        try:
            user = await create_user(users, cast(str, name), password, read_only=cast(bool, read_only), begin=begin)
        except AlreadyExists:
            if verdict is None:
                raise
            # An earlier request with this key may have ended since it was looked for.
            raise AnswerUnknown(MADE) from None
    _log(request, "user_created", principal, database, user.name)
    return _changed(user, None if chosen else password, 201)


async def change(request: Request, database_id: str, user_name: str) -> Response:
    """Give a user the password that the client chose."""
    principal, database = permitted(request, database_id, CHANGE_USER)
    asked = await _asked(request, "database_id", "name", "password", "password_confirmation")
    chosen = _chosen(asked)
    if chosen is None:
        raise InvalidParams({"password": ["is required; reset_password has one made"]})
    require_no_doubt(request, NOT_SHOWN)
    async with _users(database, Effect.WRITE) as users:
        user = await change_password(users, user_name, chosen, begin=partial(begin_change, request))
    _log(request, "user_changed", principal, database, user_name)
    return _changed(user, None, 200)


async def reset_password(request: Request, database_id: str, user_name: str) -> Response:
    """Give a user a new password, shown in this answer only."""
    principal, database = permitted(request, database_id, CHANGE_USER)
    await no_fields(request)
    require_no_doubt(request, NOT_SHOWN)
    password = made_password()
    request.scope[TOLD_ONCE] = True
    async with _users(database, Effect.WRITE) as users:
        user = await change_password(users, user_name, password, begin=partial(begin_change, request))
    _log(request, "user_changed", principal, database, user_name)
    return _changed(user, password, 200)


async def delete(request: Request, database_id: str, user_name: str) -> Response:
    """End a user's sessions and take it away."""
    principal, database = permitted(request, database_id, DELETE_USER)
    await no_fields(request)
    async with _users(database, Effect.DESTRUCTIVE) as users:
        look = partial(_there, users, user_name)
        verdict = await became_of(request, Goal.GONE, look)
        if verdict not in (None, Verdict.DONE):
            raise AnswerUnknown(DELETED)
        if verdict is None:
            await delete_user(users, user_name, begin=partial(begin_change, request, look))
    _log(request, "user_deleted", principal, database, user_name)
    return Response(status_code=204)


@asynccontextmanager
async def _users(database: Database, effect: Effect) -> AsyncGenerator[Users]:
    """Give the engine's users, within a deadline.

    Raises: NotSupported, Overloaded, DeadlineExceeded
    """
    users = database.engine.users_of(database.server)
    if users is None:
        raise NotSupported(f"dbvalet manages no users of {database.engine.title}.")
    try:
        with deadline.within(SECONDS):
            async with asyncio.timeout(SECONDS + deadline.GRACE):
                with database.admitted(effect):
                    yield users
    except TimeoutError as late:
        told = f"Whether it was done is not known: {deadline.awaited(late)} does not answer."
        raise DeadlineExceeded(told) from None


async def _there(users: Users, name: str) -> list[str]:
    """Give the user of this name, if there is one: nothing tells it from one that was made anew."""
    return [user.name for user in await users.all() if user.name == name]


async def _asked(request: Request, *known: str) -> Mapping[str, Any]:
    asked: Any = (await fields_of(request, "database_user")).get("database_user")
    if not isinstance(asked, dict):
        raise InvalidParams({"database_user": ["must be an object"]})
    fields = cast(dict[str, Any], asked)
    refuse_others(fields, *known)
    return fields


def _chosen(asked: Mapping[str, Any]) -> str | None:
    """Give the password that a client chose and confirmed; None when it chose none.

    Raises: InvalidParams
    """
    password, confirmation = (asked.get(field) or "" for field in ("password", "password_confirmation"))
    if not isinstance(password, str) or not isinstance(confirmation, str):
        raise InvalidParams({"password": ["must be a text"]})
    if password != confirmation:
        raise InvalidParams({"password_confirmation": ["is not the same as the password"]})
    return password or None


def _fields(user: User) -> dict[str, Any]:
    encryption = user.password_encryption
    return {
        "name": user.name,
        "read_only": user.read_only,
        "protected": user.protected,
        "dbms_attributes": None if encryption is None else {"password_encryption": encryption},
    }


def _changed(user: User, password: str | None, status: int) -> Response:
    fields = {**_fields(user), "password": password}
    answer = as_json({**fields, "database_user": fields}, status)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _log(request: Request, event: str, principal: Principal, database: Database, name: str) -> None:
    service_of(request).log.info(event, who=principal.name, database=database.id, user=name)


def install(app: FastAPI) -> None:
    """Put the routes of database users into an app."""
    several, one = "/api/databases/{database_id}/users", "/api/databases/{database_id}/users/{user_name}"
    reads = ("not_supported", "privilege_missing", "not_found", "engine_unavailable", "overloaded", "deadline_exceeded")
    bodied = ("malformed", "too_large", "invalid_params")
    app.add_api_route(
        several,
        list_users,
        **described(
            *reads,
            "invalid_params",
            "too_large",
            query=PAGE_FIELDS,
            response_model=UsersBody,
            tags=["users"],
            operation_id="list_users",
        ),
    )
    app.add_api_route(
        several,
        create,
        **described(
            *reads,
            *bodied,
            "forbidden",
            "already_exists",
            "precondition",
            "conflict",
            task=CREATE_USER,
            method="POST",
            status_code=201,
            body=NewUserBody,
            response_model=ChangedBody,
            gives={"user_name": "/name"},
            tags=["users"],
            operation_id="create_user",
        ),
    )
    app.add_api_route(
        one,
        change,
        **described(
            *reads,
            *bodied,
            "forbidden",
            "protected",
            "conflict",
            task=CHANGE_USER,
            method="PATCH",
            body=NewPasswordBody,
            response_model=ChangedBody,
            tags=["users"],
            operation_id="change_user",
        ),
    )
    app.add_api_route(
        one + "/reset_password",
        reset_password,
        **described(
            *reads,
            "forbidden",
            "protected",
            "conflict",
            task=CHANGE_USER,
            method="POST",
            response_model=ChangedBody,
            tags=["users"],
            operation_id="reset_user_password",
        ),
    )
    app.add_api_route(
        one,
        delete,
        **described(
            *reads,
            "forbidden",
            "protected",
            "conflict",
            task=DELETE_USER,
            method="DELETE",
            status_code=204,
            tags=["users"],
            operation_id="delete_user",
        ),
    )
