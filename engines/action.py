"""The action record: everything that is known of an action, declared once beside the function that does it.

Validation, roles, OpenAPI, the catalogue, the command line, the reference, `doctor` and `grants` are derived from it.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from engines import deadline as deadlines
from engines import errors
from engines.aftermath import UNTOLD, Aftermath
from engines.neighbours import refuse_others
from engines.preview import Preview


class Effect(StrEnum):
    """What an action does to the server; roles are made of these."""

    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"


class Params(BaseModel):
    """Base of every params model: no coercion, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NoParams(Params):
    """The action takes no params: absent, null and {} are one case."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """One named thing to do on a server."""

    name: str
    effect: Effect
    function: Callable[..., Awaitable[Any]]
    privileges: tuple[str, ...] = ()
    """Names in the engine's `requirements`, all needed by the account."""
    settings: tuple[str, ...] = ()
    """Names in the engine's `requirements`, all needed of the server's configuration."""
    minimum_version: tuple[int, ...] = ()
    deadline: float
    """Seconds until the work is stopped in the engine."""
    example_params: Any = None
    example_result: Any = None
    aftermath: Aftermath = UNTOLD
    """How to tell whether it was carried out when nobody has its answer."""
    preview: Callable[..., Awaitable[Preview]] | None = None
    """Called as the action: what it would do, by the same checks, and it raises what the action would raise. It changes
    nothing. None where there is no dry run."""

    logical_database: Callable[[Any], str] | None = None
    """Of a destructive one: from which logical database it takes something, by its params; None: the deployment's
    own. That of another deployment is refused before the function is called."""

    async def __call__(self, server: Any, params: Any = None) -> Any:
        """Do it, without the deadline and the privilege texts that `engines.engine.perform` adds."""
        self._refuse_others(server, params)
        if self.takes_params:
            return await self.function(server, params)
        return await self.function(server)

    async def tried(self, server: Any, params: Any = None) -> Preview:
        """Tell what it would do, without what `engines.engine.preview` adds.

        Raises: Precondition, when it has no preview
        """
        if self.preview is None:
            raise errors.Precondition(f"{self.name} cannot be tried without doing it.")
        self._refuse_others(server, params)
        if self.takes_params:
            return await self.preview(server, params)
        return await self.preview(server)

    @cached_property
    def takes_params(self) -> bool:
        """Tell whether the function has a second argument."""
        return len(inspect.signature(self.function).parameters) > 1

    @cached_property
    def params(self) -> TypeAdapter[Any]:
        """The params model, from the function's second argument."""
        return TypeAdapter(self._annotation(1) if self.takes_params else NoParams)

    @cached_property
    def result(self) -> TypeAdapter[Any]:
        """The result model, from the function's return annotation."""
        return TypeAdapter(self._annotation(None))

    @cached_property
    def gives_list(self) -> bool:
        """Tell whether the result is a list, which may be long."""
        return get_origin(self._annotation(None)) is list

    @cached_property
    def summary(self) -> str:
        """The docstring's first line."""
        return self._docstring.splitlines()[0]

    @cached_property
    def description(self) -> str:
        """The docstring without its first line and without `Raises:`."""
        rest = "\n".join(self._docstring.splitlines()[1:])
        return re.split(r"^Raises:", rest, maxsplit=1, flags=re.MULTILINE)[0].strip()

    @cached_property
    def raises(self) -> tuple[type[errors.EngineError], ...]:
        """The causes its docstring lists after `Raises:`, beside those that any action can meet."""
        match = re.search(r"^Raises:\s*(.+?)(?:\n\n|\Z)", self._docstring, flags=re.MULTILINE | re.DOTALL)
        names = re.findall(r"\w+", match[1]) if match else []
        return tuple(getattr(errors, name) for name in names)

    def validate(self, params: object) -> Any:
        """Check params against the model.

        Raises: InvalidParams
        """
        try:
            return self.params.validate_python({} if params is None else params)
        except ValidationError as invalid:
            raise errors.InvalidParams(texts_by_field(invalid)) from None

    def _refuse_others(self, server: Any, params: Any) -> None:
        if self.logical_database is not None:
            refuse_others(server, self.logical_database(params))

    @property
    def _docstring(self) -> str:
        return inspect.getdoc(self.function) or self.name

    def _annotation(self, position: int | None) -> Any:
        """Evaluate one annotation alone: that of the server names a class which is imported for typing only."""
        if position is None:
            annotation: Any = self.function.__annotations__["return"]
        else:
            name = list(inspect.signature(self.function).parameters)[position]
            annotation = self.function.__annotations__[name]
        if isinstance(annotation, str):
            module = sys.modules[self.function.__module__]
            annotation = eval(annotation, vars(module))  # noqa: S307 - source text of our own module
        return annotation


def action(
    name: str,
    *,
    effect: Effect,
    privileges: tuple[str, ...] = (),
    settings: tuple[str, ...] = (),
    minimum_version: tuple[int, ...] = (),
    deadline: float | None = None,
    example_params: Any = None,
    example_result: Any = None,
    aftermath: Aftermath = UNTOLD,
    preview: Callable[..., Awaitable[Preview]] | None = None,
    logical_database: Callable[[Any], str] | None = None,
) -> Callable[[Callable[..., Awaitable[Any]]], Action]:
    """Declare a coroutine function `(server[, params]) -> result` to be the action `name`.

    The annotations are the params and result models; the docstring is summary, description and `Raises:`.
    Reads may take 10 s and the others 20 s unless `deadline` says otherwise.
    """
    if deadline is None:
        deadline = 10.0 if effect is Effect.READ else 20.0
    if not 0 < deadline <= deadlines.LONGEST:
        raise ValueError(f"{name}: a deadline lies between 0 and {deadlines.LONGEST} s")
    if preview is not None and effect is Effect.READ:
        raise ValueError(f"{name}: what only reads has no preview")

    def declare(function: Callable[..., Awaitable[Any]]) -> Action:
        return Action(
            name=name,
            effect=effect,
            function=function,
            privileges=privileges,
            settings=settings,
            minimum_version=minimum_version,
            deadline=deadline,
            example_params=example_params,
            example_result=example_result,
            aftermath=aftermath,
            preview=preview,
            logical_database=logical_database,
        )

    return declare


def texts_by_field(invalid: ValidationError, whole: str = "params") -> dict[str, list[str]]:
    """Turn a validation error into `{field: [text]}`; what concerns the whole value stands under `whole`.

    The input itself is never quoted: it may hold a secret.
    """
    found: dict[str, list[str]] = {}
    for error in invalid.errors(include_url=False, include_context=False, include_input=False):
        field = ".".join(str(part) for part in error["loc"]) or whole
        text = {
            "extra_forbidden": "is not known",
            "missing": "is required",
        }.get(error["type"], error["msg"].removeprefix("Value error, "))
        found.setdefault(field, []).append(text)
    return found
