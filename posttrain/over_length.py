"""The length limit of training rows: refuse the job, drop the row, or cut it; each cut or dropped row is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeVar

from lengthwise.config import ConfigError
from posttrain.row_sources import RefusedRow
from posttrain.training_mask import RowRefused

if TYPE_CHECKING:
    import numpy as np

OverLengthPolicy = Literal["raise", "drop", "truncate"]
_SHOWN = 5


class RowOrigin(Protocol):
    """A row as it was read: whose it is and where it stands."""

    @property
    def id(self) -> str:
        """The row's id."""
        ...

    @property
    def source(self) -> str:
        """The file, or the hub id."""
        ...

    @property
    def line(self) -> int:
        """Its line or row number."""
        ...


class Digest(Protocol):
    """One of hashlib's."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""
        ...


class TokenizedRow(Protocol):
    """A row as tokens, whatever it trains."""

    @property
    def row(self) -> RowOrigin:
        """The row as it was read."""
        ...

    @property
    def sequence(self) -> np.ndarray:
        """Its tokens as the model is given them, one sequence behind the other."""
        ...

    @property
    def length(self) -> int:
        """Tokens of its (longest) sequence, which the limit and the batches go by."""
        ...

    @property
    def num_supervised(self) -> int:
        """Tokens of that sequence that carry loss."""
        ...

    def add_to(self, digest: Digest) -> None:
        """Add what is trained on to a digest of the data."""
        ...

    def cut(self, max_length: int) -> Self:
        """Return the row without what is behind `max_length` tokens; RowRefused says why it is then of no use."""
        ...


T = TypeVar("T", bound=TokenizedRow)


def limit_length(
    rows: Sequence[T], max_length: int, policy: OverLengthPolicy
) -> tuple[list[T], list[RefusedRow]]:
    """Apply the limit of `max_length` tokens; returns the rows to train on and one record per over-long row.

    `truncate` cuts the end, so the row loses its end-of-turn token and teaches the model not to stop; a row
    that would keep nothing to learn from is dropped.

    Raises:
        ConfigError: a row is over-long and the policy is `raise`.
    """
    too_long = [r for r in rows if r.length > max_length]
    if too_long and policy == "raise":
        raise ConfigError(_message(too_long, len(rows), max_length))
    kept: list[T] = []
    records: list[RefusedRow] = []
    for row in rows:
        if row.length <= max_length:
            kept.append(row)
            continue
        is_kept, reason = False, "over_length"
        if policy == "truncate":
            try:
                kept.append(row.cut(max_length))
                is_kept = True
            except RowRefused as error:
                reason = str(error)
        records.append(
            RefusedRow(
                id=row.row.id,
                source=row.row.source,
                line=row.row.line,
                outcome="truncated" if is_kept else "rejected",
                reason=reason,
                num_tokens=row.length,
                num_supervised_tokens=row.num_supervised,
                num_kept_tokens=max_length if is_kept else 0,
            )
        )
    return kept, records


def _message(rows: Sequence[TokenizedRow], total: int, max_length: int) -> str:
    longest = sorted(rows, key=lambda r: -r.length)
    shown = "".join(
        f"\n  {r.row.source}, line {r.row.line}: {r.length:,} tokens ({r.num_supervised:,} supervised)"
        for r in longest[:_SHOWN]
    )
    return (
        f"max_length: {len(rows)} of {total} rows are longer than {max_length:,} "
        f"tokens; the longest:{shown}\nSet max_length to at least {longest[0].length} if the model "
        "and the memory allow it, or over_length: drop to leave these rows out, or over_length: truncate "
        "to cut their ends (which teaches the model not to stop)"
    )
