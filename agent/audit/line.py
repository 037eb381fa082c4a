"""The lines of the audit: how one is written, how the chain of them is checked, and what never stands in one."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import orjson

from agent.log import BLOT

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SECRET = re.compile(r"pass|secret|token|credential|private|authori[sz]ation", re.IGNORECASE)
"""Names of params whose values are secrets."""

_SURROGATE = re.compile("[\ud800-\udfff]")
"""What a text may hold that is not of UTF-8."""

_CUT = "…"
"""Stands where something is left out."""

_LARGEST = 8 * 1024
"""Bytes of the params of a line, as JSON: whoever sends a body of a megabyte must not fill a disk with it."""

_LONGEST_PATH = 1000


@dataclass(frozen=True)
class _Detail:
    """How much of params is shown: a line is for people to read."""

    levels: int
    characters: int
    """Of a text."""
    entries: int
    """Of a list or an object."""


_DETAILS = (_Detail(8, 1000, 100), _Detail(6, 200, 40), _Detail(4, 60, 20), _Detail(3, 30, 10), _Detail(1, 30, 10))
"""The more there is, the less is shown of each part of it. What the last one shows is never too large."""


@dataclass(kw_only=True)
class Change:
    """What a request would change, and who asks for it."""

    request_id: str
    who: str
    address: str | None
    """Of the client, as its connection has it: what a proxy says of others anybody can say."""
    method: str
    path: str
    action: str
    effect: str
    database: str | None
    params: Any = None
    """Without secrets once it is in a line: `redacted`."""
    replayed: bool = False
    """Whether the answer was that of an earlier request with the same key."""
    ended: tuple[int, str] = (200, "ok")
    """Status and code of an answer that is given, not raised."""
    also: Callable[[Connection], None] | None = None
    """What is written in the transaction of its last line."""
    saved: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """The backups that were made of what it destroys, see `agent.backups.named`; the line has their ids."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The last line: what the next one refers to."""

    sequence: int
    digest: str

    def __str__(self) -> str:
        """Write it as `dbvalet audit verify --head` takes it."""
        return f"{self.sequence}:{self.digest}"


class Tampered(Exception):
    """A line was changed, removed or put elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line as it is kept: what somebody else has written there may be of any type."""

    sequence: Any
    database_id: Any
    line: Any
    digest: Any

    def fields(self) -> dict[str, Any]:
        """Give the fields of the line.

        Raises: Tampered, when it has none
        """
        try:
            found = orjson.loads(self.line)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise Tampered(f"{self.name.capitalize()} was changed.")
        return cast("dict[str, Any]", found)

    def shown(self) -> dict[str, Any]:
        """Give the fields of the line, and its digest.

        Raises: Tampered, when it has none
        """
        if not _is_text(self.digest):
            raise Tampered(f"{self.name.capitalize()} was changed.")
        return {**self.fields(), "digest": self.digest}

    @property
    def name(self) -> str:
        """Name it in a sentence."""
        return f"line {self.sequence}" if type(self.sequence) is int else "a line without a number"


class Page(NamedTuple):
    """Lines, and what the state has beside them at the same moment."""

    rows: list[Row]
    heads: list[tuple[Any, Any]]
    """Sequence and digest of what it has as its last line: see `the_last`."""
    lines: int | None
    """How many there are in all; only with the last page, which is not full."""


BEFORE_THE_FIRST = Head(sequence=0, digest="")


def _is_text(value: Any) -> bool:
    """Tell whether it is a text that can be written as UTF-8."""
    return isinstance(value, str) and (value.isascii() or _SURROGATE.search(value) is None)


def the_last(heads: Sequence[tuple[Any, Any]]) -> Head:
    """Give the head of the chain, of all that the state has as such.

    Raises: Tampered, unless there is one
    """
    if len(heads) != 1:
        raise Tampered(f"The state has to have one line as its last, and has {len(heads) or 'none'}.")
    ((sequence, digest),) = heads
    if type(sequence) is not int or not _is_text(digest):
        raise Tampered("What the state has as its last line is none.")
    return Head(sequence=sequence, digest=digest)


def write(change: Change, at: datetime, head: Head, status: int | None, code: str) -> Row:
    """Write the line that comes after `head`; without a status there is no answer, or none yet."""
    fields: dict[str, Any] = {
        "sequence": head.sequence + 1,
        "previous": head.digest,
        "at": at,
        "request_id": change.request_id,
        "who": change.who,
        "address": change.address,
        "method": change.method,
        "path": _short(change.path, _LONGEST_PATH),
        "action": change.action,
        "effect": change.effect,
        "database": change.database,
        "params": change.params,
        "status": status,
        "code": code,
        "replayed": change.replayed,
    }
    if change.saved:
        fields["backups"] = [each["id"] for each in change.saved]
    return row_of(fields)


def row_of(fields: dict[str, Any]) -> Row:
    """Give the row of these fields; the same fields give the same digest, whatever their order."""
    line = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z)
    return Row(
        sequence=fields["sequence"],
        database_id=fields["database"],
        line=line.decode(),
        digest=sha256(line).hexdigest(),
    )


def redacted(value: Any, secrets: Collection[str] = ()) -> Any:
    """Give params without secrets, cut to what a person can read; `secrets` are those that are known, longest first."""
    for detail in _DETAILS:
        value = _cut(value, secrets, detail)
        if len(orjson.dumps(value)) <= _LARGEST:
            break
    return value


def _cut(value: Any, secrets: Collection[str], detail: _Detail, depth: int = 0) -> Any:
    def short(text: str) -> str:
        return _short(reduce(lambda text, secret: text.replace(secret, BLOT), secrets, text), detail.characters)

    if isinstance(value, str):
        return short(value)
    if not isinstance(value, dict | list):
        return value
    if depth == detail.levels:
        return _CUT
    if isinstance(value, list):
        entries = cast("list[Any]", value)
        shown = [_cut(each, secrets, detail, depth + 1) for each in entries[: detail.entries]]
        return shown if len(entries) <= detail.entries else [*shown, _CUT]
    fields = list(cast("dict[str, Any]", value).items())
    shown = {
        short(key): BLOT if _SECRET.search(key) and each is not None else _cut(each, secrets, detail, depth + 1)
        for key, each in fields[: detail.entries]
    }
    return shown if len(fields) <= detail.entries else {**shown, _CUT: _CUT}


def _short(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]}{_CUT}"


class Check:
    """Follows the chain from its first line; each line is handed to `follow`, in the order in which it stands."""

    def __init__(self, before: Head = BEFORE_THE_FIRST) -> None:
        """`before`: the line before the first one that is checked, of which nothing is known but this."""
        self.before = self.head = before

    def follow(self, rows: Iterable[Row], watched: Head | None = None) -> None:
        """Check the next lines; `watched` is a line noted down before, which has to be among them.

        Raises: Tampered
        """
        for row in rows:
            expected = self.head.sequence + 1
            if type(row.sequence) is not int or row.sequence != expected:
                raise Tampered(f"Line {expected} is not where it was: {row.name} follows {expected - 1}.")
            if not _is_text(row.line) or sha256(row.line.encode()).hexdigest() != row.digest:
                raise Tampered(f"Line {expected} was changed.")
            fields = row.fields()
            if not {"sequence", "previous", "database"} <= fields.keys() or type(fields["sequence"]) is not int:
                raise Tampered(f"Line {expected} was changed.")
            if (fields["sequence"], fields["previous"]) != (expected, self.head.digest):
                raise Tampered(f"Line {expected} does not follow the one before it.")
            if fields["database"] != row.database_id:
                raise Tampered(f"Line {expected} is kept under another database.")
            self.head = Head(sequence=row.sequence, digest=row.digest)
            if watched is not None and watched.sequence == expected and watched != self.head:
                raise Tampered(f"Line {expected} is not the one that was noted down.")

    def end(self, *heads: Head | None) -> None:
        """Check that no line is missing at the end; `heads` are lines that have to be there.

        Raises: Tampered
        """
        for head in heads:
            if head is not None and head.sequence < self.before.sequence:
                raise Tampered(f"Line {head.sequence} is not there: the lines begin with {self.before.sequence + 1}.")
            if head is not None and head.sequence == self.before.sequence and head != self.before:
                raise Tampered(f"Line {self.before.sequence + 1} does not follow the one that was noted down.")
            if head is not None and head.sequence > self.head.sequence:
                raise Tampered(f"The lines from {self.head.sequence + 1} to {head.sequence} are missing.")

    def follow_page(self, page: Page, watched: Head | None = None) -> None:
        """Check the next lines of the state, and with the last ones that the chain ends there and is all there is.

        Raises: Tampered
        """
        self.follow(page.rows, watched)
        if page.lines is None:
            return
        kept = the_last(page.heads)
        self.end(kept)
        if kept.sequence < self.head.sequence:
            raise Tampered(
                f"Line {kept.sequence + 1} is not one of dbvalet's: the state has line {kept.sequence} as its last."
            )
        if kept != self.head:
            raise Tampered(f"Line {kept.sequence} is not the one that the state has as its last.")
        if page.lines != self.head.sequence:
            raise Tampered(
                f"The state has {page.lines} lines: not all are of the chain, which has {self.head.sequence}."
            )
        self.end(watched)
