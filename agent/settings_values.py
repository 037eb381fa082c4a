"""What the parts of the configuration are made of: their base, names, rates, and secrets that may stand in a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, and no value is quoted."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def like(pattern: str, text: str) -> AfterValidator:
    """Check a text against a pattern; pydantic's own message would show the pattern alone."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(text)
        return value

    return AfterValidator(check)


DatabaseId = Annotated[
    str,
    like(r"ad-[A-Za-z0-9][A-Za-z0-9_-]{0,60}", "must be ad- and up to 61 ASCII letters, digits, _ and -"),
]
"""Clients take an id for an addon's only if it starts with `ad-`."""

Name = Annotated[str, like(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "must be up to 64 ASCII letters, digits, ., _ and -")]

Rate = Annotated[
    str, like(r"[1-9][0-9]{0,8}/(second|minute|hour|day)", "must be a number a second, minute, hour or day: 10/minute")
]


def secret_of(value: SecretStr | None, file: Path | None) -> SecretStr:
    """Give a secret that stands in the configuration or in a file of its own (one final newline is not part of it)."""
    if file is None:
        return value or SecretStr("")
    try:
        return SecretStr(file.read_text("utf-8").removesuffix("\n").removesuffix("\r"))
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8"
        raise ValueError(f"the file {file} cannot be read: {reason}") from None
