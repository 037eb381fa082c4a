"""The rule for names of new logical databases, and how an existing one is named: one for every engine."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints
from typing_extensions import TypedDict

from engines.action import Params

PATTERN = "[A-Za-z_][A-Za-z0-9_-]{0,63}"

RULE = "ASCII letters, digits, _ and -, not starting with a digit or -, at most 64 characters"


def _check(name: str) -> str:
    # Not pydantic's own pattern: its message shows the expression alone.
    if re.fullmatch(PATTERN, name) is None:
        raise ValueError(f"must be {RULE}")
    return name


LogicalDatabaseName = Annotated[
    str,
    AfterValidator(_check),
    Field(description=RULE, json_schema_extra={"pattern": f"^{PATTERN}$"}),
]


class NewLogicalDatabase(Params):
    """The name of a logical database to be created."""

    database_name: LogicalDatabaseName


class ExistingLogicalDatabase(Params):
    """The name of a logical database that is there, however odd."""

    database_name: Annotated[str, StringConstraints(min_length=1), Field(description="as list-databases gives it")]


def named(params: ExistingLogicalDatabase) -> str:
    """Give the logical database that params are about."""
    return params.database_name


class LogicalDatabase(TypedDict):
    """A logical database as the documented API shows it; `protected` marks the own one of a deployment."""

    name: str
    protected: bool
