"""Long lists in pages: which part of a list is asked for, and where that part stands in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

PER_PAGE = 20
LARGEST = 100_000

LARGEST_RESULT = 16 * 1024 * 1024
"""Bytes of an answer. A longer list is given in pages."""

PAGE_FIELDS: dict[str, dict[str, Any]] = {
    "page": {
        "type": "integer",
        "minimum": 1,
        "maximum": LARGEST,
        "description": "Give a part of the list, from 1, and say in `meta` where it stands; without it the whole list.",
    },
    "per_page": {
        "type": "integer",
        "minimum": 1,
        "maximum": LARGEST,
        "description": f"Entries of a page: {PER_PAGE} unless given.",
    },
}

T = TypeVar("T")


class Pagination(BaseModel):
    """Where a page stands in a list."""

    current_page: int
    """From 1."""
    next_page: int | None
    """Null on the last page."""
    prev_page: int | None
    """Null on the first page."""
    total_pages: int
    """1 at least."""
    total_count: int
    """Entries of the whole list, at the moment of the answer."""
    per_page: int
    """As asked for."""


class ListMeta(BaseModel):
    """What is said of a list of which a page is given."""

    pagination: Pagination


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: the `number`th, from 1, of `size` entries each."""

    number: int
    size: int

    def of(self, whole: Sequence[T]) -> Sequence[T]:
        """Give the entries of this page; none behind the end."""
        begin = (self.number - 1) * self.size
        return whole[begin : begin + self.size]

    def place_in(self, total: int) -> dict[str, Any]:
        """Tell where it stands in a list of `total` entries, in the fields of `ListMeta`."""
        pages = max(1, -(-total // self.size))
        return {
            "pagination": {
                "current_page": self.number,
                "next_page": self.number + 1 if self.number < pages else None,
                "prev_page": self.number - 1 if self.number > 1 else None,
                "total_pages": pages,
                "total_count": total,
                "per_page": self.size,
            }
        }


def page_asked_for(given: Mapping[str, Any], errors: dict[str, list[str]]) -> Page | None:
    """Read `page` and `per_page`; None when neither is there. What is wrong is put into `errors`, by field."""
    if "page" not in given and "per_page" not in given:
        return None
    numbers: list[int] = []
    for name, default in (("page", 1), ("per_page", PER_PAGE)):
        value = given.get(name, default)
        if type(value) is not int or not 1 <= value <= LARGEST:
            errors[name] = [f"must be a whole number from 1 to {LARGEST}"]
            value = default
        numbers.append(value)
    return Page(*numbers)
