"""The part of the configuration that says where backups are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from agent.settings_values import Section


class KeepSettings(Section):
    """Which backups are kept when a new one is done. The last good one is kept whatever stands here."""

    count: Annotated[int, Field(ge=1)] = 14
    """How many of a logical database: of those by the schedule the last ones and the first one of each of so many days
    (UTC), of those that each token has asked for so many, and as many that were made before it destroyed something."""
    days: Annotated[int, Field(ge=1)] | None = None
    """For how long. Without a value for as long as `count` says."""


class BackupSettings(Section):
    """Where backups are kept, and how many."""

    storage: Annotated[str, Field(min_length=1)] | None = None
    """A folder, `file:///var/lib/dbvalet/backups`, or another place that fsspec reaches: `s3://bucket/folder` needs
    `dbvalet[s3]`. `dbvalet-backups` beside the state file unless given."""
    options: dict[str, Any] = Field(default_factory=dict[str, Any])
    """What fsspec needs for that place: `{key: …, secret: ${S3_SECRET}, endpoint_url: https://…}`. Texts in it count as
    secrets."""
    spool: Path | None = None
    """A folder with room for a dump and, while it is restored, for its archive too. `dbvalet-spool` beside the state
    file unless given."""
    keep: KeepSettings = KeepSettings()
    """How many backups of each database are kept: see below."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        scheme, found, _ = (self.storage or "").partition("://")
        if found and scheme != "file":
            _check_storage_scheme(scheme)
        return self


def _check_storage_scheme(scheme: str) -> None:
    """Find out at the start whether a storage can be used; what reaches it is imported when it is first used."""
    from importlib.util import find_spec

    from fsspec.registry import known_implementations

    if scheme not in known_implementations:
        raise ValueError("storage: begins with a scheme that fsspec does not know")
    module = str(known_implementations[scheme]["class"]).partition(".")[0]
    if find_spec(module) is None:
        raise ValueError(f"storage: {scheme}:// needs the package {module}, which is not installed")
