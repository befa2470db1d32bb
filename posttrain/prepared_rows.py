"""From the sources of a training job to its tokenised rows, with an account of every row.

Nothing is cut or dropped in silence: a row that cannot be read stops the job or is written to dropped.jsonl,
and so is a row over the length limit. What a row is, and how it becomes tokens, each job says itself.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from lengthwise.apportion import apportion
from lengthwise.config import ConfigError
from lengthwise.rows import Row
from posttrain.over_length import OverLengthPolicy, RowOrigin, TokenizedRow, limit_length
from posttrain.row_sources import DataSource, LoadedSource, RefusedRow, load_source
from posttrain.training_mask import RowRefused

if TYPE_CHECKING:
    import datasets
    import numpy as np

R = TypeVar("R")
T = TypeVar("T", bound=TokenizedRow)
D = TypeVar("D", bound="PreparedRows[Any]")

_SHOWN = 5


@dataclass(slots=True)
class SourceCount:
    """What became of one source's rows."""

    path: str
    read: int = 0
    failed: int = 0
    over_length: int = 0
    over_length_tokens: int = 0
    usable: int = 0
    """Rows to train on, the truncated among `over_length` included."""
    drawn: int = 0


@dataclass(slots=True)
class PreparedRows(ABC, Generic[T]):
    """Rows ready for the trainer, and the account of the others."""

    rows: list[T]
    refused: list[RefusedRow]
    counts: list[SourceCount]
    sources: list[LoadedSource[Any]] = field(default_factory=list)

    @property
    def lengths(self) -> list[int]:
        """What each row adds to a batch whose longest row it is, in tokens."""
        return [r.length for r in self.rows]

    @property
    def sequences_per_row(self) -> int:
        """The equally padded sequences that a row puts into a batch; `lengths` counts all of them."""
        return 1

    @property
    def sequence_lengths(self) -> list[int]:
        """Tokens of each sequence."""
        return self.lengths

    @property
    def real_lengths(self) -> list[int]:
        """Tokens of each row that are no padding in any batch."""
        return self.lengths

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """Tokens of one epoch, without padding."""

    @property
    @abstractmethod
    def num_supervised_tokens(self) -> int:
        """Tokens of one epoch that carry loss."""

    @abstractmethod
    def to_dataset(self) -> datasets.Dataset:
        """Return the columns of token ids that the trainer takes as they are."""

    @abstractmethod
    def header_lines(self, *, max_length: int, limit_from: str, policy: str) -> Iterator[str]:
        """Say in a few lines what will be trained on, over-long and unreadable rows first of all."""

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max((r.length for r in self.rows), default=0)

    @property
    def over_length(self) -> tuple[int, int]:
        """Rows longer than the limit, and their tokens before any cut."""
        return sum(c.over_length for c in self.counts), sum(c.over_length_tokens for c in self.counts)


def prepare_rows(
    data_class: type[D],
    sources: Sequence[DataSource],
    *,
    read: Callable[[Row], R],
    tokenize: Callable[[Sequence[R]], tuple[list[T], list[RefusedRow]]],
    max_length: int,
    over_length: OverLengthPolicy,
    on_bad_row: Literal["raise", "drop"],
    mixture_rows: int | None,
    seed: int,
) -> D:
    """Read, tokenise, apply the length limit, and mix.

    Args:
        data_class: what to return the rows as.
        sources: where the rows are.
        read: makes a row of a source's columns; its ValueError says why it cannot.
        tokenize: returns the rows as tokens, and those that the chat template refuses.
        max_length: tokens of the longest row.
        over_length: what becomes of longer ones.
        on_bad_row: what becomes of rows that cannot be read or tokenised.
        mixture_rows: rows to draw, where the sources have weights.
        seed: of the drawing.

    Raises:
        ConfigError: unreadable or over-long rows where the policy is `raise`, or nothing left to train on.
    """
    loaded = [load_source(source, read) for source in sources]
    refused: list[RefusedRow] = []
    counts: list[SourceCount] = []
    usable: list[list[T]] = []
    for item in loaded:
        rows, failed = tokenize(item.rows)
        failed = sorted([*item.refused, *failed], key=lambda r: (r.source, r.line))
        if failed and on_bad_row == "raise":
            raise ConfigError(_bad_rows_message(item, failed))
        kept, over_long = limit_length(rows, max_length, over_length)
        refused += [*failed, *over_long]
        usable.append(kept)
        counts.append(_count(item, failed, over_long, kept))
    weights = [s.weight for s in sources if s.weight is not None]
    drawn = draw_mixture(usable, weights, num_rows=mixture_rows, seed=seed) if weights else usable
    for count, rows in zip(counts, drawn, strict=True):
        count.drawn = len(rows)
    data = data_class([row for rows in drawn for row in rows], refused, counts, loaded)
    if not data.rows:
        raise ConfigError(f"data: no row is left to train on: {_summary(counts)}")
    return data


def _count(
    item: LoadedSource[Any],
    failed: Sequence[RefusedRow],
    over_long: Sequence[RefusedRow],
    kept: Sequence[Any],
) -> SourceCount:
    return SourceCount(
        path=item.source.path,
        read=len(item.rows) + len(item.refused),
        failed=len(failed),
        over_length=len(over_long),
        over_length_tokens=sum(record.num_tokens or 0 for record in over_long),
        usable=len(kept),
    )


def failed_row(row: RowOrigin, error: RowRefused) -> RefusedRow:
    """Return the record of a row that the chat template refuses."""
    return RefusedRow(id=row.id, source=row.source, line=row.line, outcome="failed", reason=str(error))


def draw_mixture(
    sources: Sequence[Sequence[Any]], weights: Sequence[float], *, num_rows: int | None, seed: int
) -> list[list[Any]]:
    """Draw rows in proportion to the weights; deterministic by seed.

    A source is used up before any of its rows is repeated, and the order within it is kept (it is shuffled
    later). Without `num_rows` the mixture is as large as all sources together.

    Args:
        sources: the rows of each source.
        weights: one positive weight a source; only their ratios count.
        num_rows: size of the mixture.
        seed: decides which rows are drawn.

    Example:
        >>> [len(rows) for rows in draw_mixture([range(10), range(30)], [3, 1], num_rows=20, seed=0)]
        [15, 5]
    """
    for number, rows in enumerate(sources):
        if not rows:
            raise ConfigError(f"data: source {number + 1} of the mixture has no usable row; remove it")
    total = num_rows or sum(len(rows) for rows in sources)
    drawn = []
    for number, (rows, want) in enumerate(zip(sources, apportion(total, weights), strict=True)):
        passes, rest = divmod(want, len(rows))
        extra = random.Random(f"{seed}/{number}").sample(range(len(rows)), rest)
        order = sorted([*(i for i in range(len(rows)) for _ in range(passes)), *extra])
        drawn.append([rows[i] for i in order])
    return drawn


def int32_dataset(columns: dict[str, list[np.ndarray]]) -> datasets.Dataset:
    """Return a data set whose columns hold token ids, a list of them a row."""
    import datasets
    import pyarrow as pa

    kind = pa.large_list(pa.int32())
    return datasets.Dataset(pa.table({name: pa.array(ids, type=kind) for name, ids in columns.items()}))


def count_lines(counts: Sequence[SourceCount]) -> Iterator[str]:
    """Say what became of each source's rows, in a line each."""
    for count in counts:
        repeats = f" ({count.drawn / count.usable:.2f} times)" if count.drawn > count.usable else ""
        yield (
            f"data        {count.path}: {count.read:,} rows read, {count.failed:,} unreadable, "
            f"{count.over_length:,} over-length, {count.drawn:,} trained on{repeats}"
        )


def limit_lines(data: PreparedRows[Any], *, max_length: int, limit_from: str, policy: str) -> Iterator[str]:
    """Say what the length limit did, and warn of truncated rows."""
    rows_over, tokens_over = data.over_length
    yield (
        f"max_length  {max_length:,} ({limit_from}); over it: {rows_over:,} rows, {tokens_over:,} tokens "
        f"({policy})"
    )
    num_cut = sum(r.outcome == "truncated" for r in data.refused)
    if num_cut:
        yield (
            f"WARNING     {num_cut:,} truncated rows have no end-of-turn token: they teach the model not "
            "to stop. Prefer over_length: drop, or a larger max_length"
        )


def split_lines(num_split_tokens: int) -> Iterator[str]:
    """Warn of tokens that generation would cut differently."""
    if num_split_tokens:
        yield (
            f"WARNING     {num_split_tokens:,} tokens join the end of the generation prompt with the start of an "
            "answer (mostly answers that begin with white space): generation would tokenise these differently"
        )


def _summary(counts: Sequence[SourceCount]) -> str:
    return "; ".join(
        f"{c.path}: {c.read} read, {c.failed} unreadable, {c.over_length} over-length" for c in counts
    )


def _bad_rows_message(item: LoadedSource[Any], refused: Sequence[RefusedRow]) -> str:
    total = len(item.rows) + len(item.refused)
    shown = "".join(f"\n  {r.source}, line {r.line}: {r.reason}" for r in refused[:_SHOWN])
    more = f"\n  and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
    return (
        f"data: {len(refused)} of {total} rows of {item.source.path} cannot be trained on:{shown}{more}\n"
        "Correct them, or set on_bad_row: drop to go on without them (they are then listed in dropped.jsonl)"
    )
