"""A row of somebody's data with its place, a row that cannot be used, and what a job does about those.

Nothing is guessed or mended, and nothing is lost: a bad row stops the job, or is counted and written to
dropped.jsonl, as its `on_bad_row` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from lengthwise.value_types import ConfigError

T = TypeVar("T")

BadRowPolicy = Literal["raise", "drop"]

BAD_ROW = "input: bad row"
"""The reason under which dropped.jsonl and the counts hold a row that could not be used."""

MAX_NAMED_ROWS = 5
"""Bad rows that a message names; a wrong file has thousands."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands."""

    source: str
    """The file, or the hub id."""
    number: int
    """Its line in a JSONL file, blank ones counted, else its row; the first is 1."""
    unit: Literal["line", "row"] = "line"

    def __str__(self) -> str:
        """Return the place for a message."""
        return f"{self.source}, {self.unit} {self.number}"


@dataclass(frozen=True, slots=True)
class Row:
    """A row that could be read."""

    place: Place
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why."""

    place: Place
    reason: str

    def __str__(self) -> str:
        """Return place and reason for a message."""
        return f"{self.place}: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """Return the row's line in dropped.jsonl; the row itself is in the user's file."""
        return {
            "id": None,
            "source": self.place.source,
            "line": self.place.number,
            "outcome": "rejected",
            "reason": BAD_ROW,
            "detail": self.reason,
        }


def converted(rows: Iterable[Row | BadRow], convert: Callable[[Row], T]) -> Iterator[T | BadRow]:
    """Yield what `convert` makes of each row; a `ValueError` of it says what is wrong with that row."""
    for row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            yield convert(row)
        except ValueError as error:
            yield BadRow(row.place, str(error))


def accepted(
    entries: Iterable[T | BadRow], on_bad_row: BadRowPolicy, *, data: str, field: str = "data"
) -> tuple[list[T], list[BadRow]]:
    """Return the usable entries and the bad rows, both in their order.

    Raises:
        ConfigError: there is no row, no usable one, or a bad one that may not be dropped.
    """
    usable: list[T] = []
    bad: list[BadRow] = []
    for entry in entries:
        if isinstance(entry, BadRow):
            bad.append(entry)
        else:
            usable.append(entry)
    total = len(usable) + len(bad)
    if not total:
        raise ConfigError(f"{field}: {data} holds no rows: give at least one")
    if not usable:
        raise ConfigError(f"{field}: none of the {total} rows of {data} can be used:{named(bad)}")
    if bad and on_bad_row == "raise":
        raise ConfigError(
            f"{field}: {len(bad)} of {total} rows of {data} cannot be used:{named(bad)}\nCorrect them, or set "
            "on_bad_row: drop to go on without them, counted and listed"
        )
    return usable, bad


def named(bad: Sequence[BadRow]) -> str:
    """Return the first bad rows as the lines of a message."""
    more = len(bad) - MAX_NAMED_ROWS
    lines = "".join(f"\n  {row}" for row in bad[:MAX_NAMED_ROWS])
    return f"{lines}\n  and {more} more" if more > 0 else lines
