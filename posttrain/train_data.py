"""From rows to the token sequences that SFT trains on, with an account of every row.

Nothing is cut or dropped in silence: a row that cannot be read stops the job or is written to dropped.jsonl,
and so is a row over the length limit. Which tokens carry loss is decided in `posttrain.training_mask`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from lengthwise.apportion import apportion
from lengthwise.config import ConfigError
from posttrain.row_formats import TrainRow
from posttrain.row_sources import DataSource, LoadedSource, RefusedRow, load_source
from posttrain.training_mask import RowRefused, assistant_spans, mask_conversations, trained_turns

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from posttrain.training_mask import Span

OverLengthPolicy = Literal["raise", "drop", "truncate"]
_BATCH_ROWS = 256
_SHOWN = 5
NOT_SUPERVISED = -100
"""The label that the loss of torch and TRL ignores."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A row as token ids; T is its number of tokens."""

    row: TrainRow
    input_ids: np.ndarray
    """Shape [T], int32."""
    labels: np.ndarray
    """Shape [T]: the token's id, or -100 where it carries no loss."""
    num_split_tokens: int = 0
    end_of_turn_ids: frozenset[int] = frozenset()

    @property
    def num_supervised(self) -> int:
        """Tokens that carry loss."""
        return int((self.labels != NOT_SUPERVISED).sum())


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
class TrainingData:
    """Rows ready for the trainer, and the account of the others."""

    rows: list[TokenRow]
    refused: list[RefusedRow]
    counts: list[SourceCount]
    sources: list[LoadedSource] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Tokens of one epoch, without padding."""
        return sum(len(r.input_ids) for r in self.rows)

    @property
    def num_supervised_tokens(self) -> int:
        """Tokens of one epoch that carry loss."""
        return sum(r.num_supervised for r in self.rows)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max((len(r.input_ids) for r in self.rows), default=0)

    @property
    def over_length(self) -> tuple[int, int]:
        """Rows longer than the limit, and their tokens before any cut."""
        return sum(c.over_length for c in self.counts), sum(c.over_length_tokens for c in self.counts)

    def to_dataset(self) -> datasets.Dataset:
        """Return the columns input_ids and labels: with both there, TRL neither tokenises nor masks again."""
        import datasets
        import pyarrow as pa

        def column(values: list[np.ndarray]) -> pa.Array:
            return pa.array(values, type=pa.large_list(pa.int32()))

        table = pa.table(
            {
                "input_ids": column([r.input_ids for r in self.rows]),
                "labels": column([r.labels for r in self.rows]),
            }
        )
        return datasets.Dataset(table)


def prepare(
    sources: Sequence[DataSource],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    over_length: OverLengthPolicy,
    on_bad_row: Literal["raise", "drop"],
    train_on: Literal["all", "last"],
    mixture_rows: int | None,
    seed: int,
) -> TrainingData:
    """Read, tokenise, mask, apply the length limit, and mix.

    Raises:
        ConfigError: unreadable or over-long rows where the policy is `raise`, or nothing left to train on.
    """
    loaded = [load_source(source) for source in sources]
    refused: list[RefusedRow] = []
    counts: list[SourceCount] = []
    usable: list[list[TokenRow]] = []
    for item in loaded:
        rows, failed = tokenize_rows(item.rows, tokenizer, train_on=train_on)
        failed = sorted([*item.refused, *failed], key=lambda r: (r.source, r.line))
        if failed and on_bad_row == "raise":
            raise ConfigError(_bad_rows_message(item, failed))
        kept, over_long = limit_length(rows, max_length, over_length)
        refused += [*failed, *over_long]
        usable.append(kept)
        counts.append(
            SourceCount(
                path=item.source.path,
                read=len(item.rows) + len(item.refused),
                failed=len(failed),
                over_length=len(over_long),
                over_length_tokens=sum(c.num_tokens or 0 for c in over_long),
                usable=len(kept),
            )
        )
    weights = [s.weight for s in sources if s.weight is not None]
    drawn = draw_mixture(usable, weights, num_rows=mixture_rows, seed=seed) if weights else usable
    for count, rows in zip(counts, drawn, strict=True):
        count.drawn = len(rows)
    data = TrainingData([row for rows in drawn for row in rows], refused, counts, loaded)
    if not data.rows:
        raise ConfigError(f"data: no row is left to train on: {_summary(counts)}")
    return data


def tokenize_rows(
    rows: Sequence[TrainRow], tokenizer: PreTrainedTokenizerBase, *, train_on: Literal["all", "last"]
) -> tuple[list[TokenRow], list[RefusedRow]]:
    """Render, tokenise and mask rows; returns the readable ones and those that the template refuses."""
    import numpy as np

    token_rows: list[TokenRow] = []
    refused: list[RefusedRow] = []
    for start in range(0, len(rows), _BATCH_ROWS):
        batch: list[TrainRow] = []
        rendered: list[tuple[str, list[Span]]] = []
        for row in rows[start : start + _BATCH_ROWS]:
            turns = trained_turns(row.messages, train_on=train_on, num_context=row.num_context)
            try:
                rendered.append(assistant_spans(tokenizer, row.messages, turns))
                batch.append(row)
            except RowRefused as error:
                refused.append(
                    RefusedRow(
                        id=row.id, source=row.source, line=row.line, outcome="failed", reason=str(error)
                    )
                )
        if not batch:
            continue
        for row, masked in zip(batch, mask_conversations(tokenizer, rendered), strict=True):
            ids = np.array(masked.input_ids, dtype=np.int32)
            labels = np.where(np.array(masked.supervised), ids, NOT_SUPERVISED).astype(np.int32)
            token_rows.append(TokenRow(row, ids, labels, masked.num_split_tokens, masked.end_of_turn_ids))
    return token_rows, refused


def limit_length(
    rows: Sequence[TokenRow], max_length: int, policy: OverLengthPolicy
) -> tuple[list[TokenRow], list[RefusedRow]]:
    """Apply the limit of `max_length` tokens; returns the rows to train on and one record per over-long row.

    `truncate` cuts the end, so the row loses its end-of-turn token and teaches the model not to stop; a row
    that would keep no supervised token is dropped.

    Raises:
        ConfigError: a row is over-long and the policy is `raise`.
    """
    too_long = [r for r in rows if len(r.input_ids) > max_length]
    if too_long and policy == "raise":
        raise ConfigError(_over_length_message(too_long, len(rows), max_length))
    kept: list[TokenRow] = []
    records: list[RefusedRow] = []
    for row in rows:
        if len(row.input_ids) <= max_length:
            kept.append(row)
            continue
        cut = replace(row, input_ids=row.input_ids[:max_length], labels=row.labels[:max_length])
        is_kept = policy == "truncate" and cut.num_supervised > 0
        if is_kept:
            kept.append(cut)
        records.append(
            RefusedRow(
                id=row.row.id,
                source=row.row.source,
                line=row.row.line,
                outcome="truncated" if is_kept else "rejected",
                reason="over_length" if policy == "drop" or is_kept else "prompt_over_length",
                num_tokens=len(row.input_ids),
                num_supervised_tokens=row.num_supervised,
                num_kept_tokens=max_length if is_kept else 0,
            )
        )
    return kept, records


def draw_mixture(
    sources: Sequence[Sequence[Any]], weights: Sequence[float], *, num_rows: int | None, seed: int
) -> list[list[Any]]:
    """Draw rows in proportion to the weights; deterministic by seed.

    A source is used up before any of its rows is repeated, and the order within it is kept (the trainer
    shuffles). Without `num_rows` the mixture is as large as all sources together.

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


def header_lines(data: TrainingData, *, max_length: int, limit_from: str, policy: str) -> Iterator[str]:
    """Say in a few lines what will be trained on, over-long and unreadable rows first of all."""
    for count in data.counts:
        repeats = f" ({count.drawn / count.usable:.2f} times)" if count.drawn > count.usable else ""
        yield (
            f"data        {count.path}: {count.read:,} rows read, {count.failed:,} unreadable, "
            f"{count.over_length:,} over-length, {count.drawn:,} trained on{repeats}"
        )
    tokens, supervised = data.num_tokens, data.num_supervised_tokens
    yield (
        f"rows        {len(data.rows):,} rows, {tokens:,} tokens, {supervised:,} supervised "
        f"({supervised / tokens:.1%}), longest {data.longest:,}"
    )
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
    split = sum(r.num_split_tokens for r in data.rows)
    if split:
        yield (
            f"WARNING     {split:,} tokens join the end of the generation prompt with the start of an "
            "answer (mostly answers that begin with white space): generation would tokenise these differently"
        )


def _summary(counts: Sequence[SourceCount]) -> str:
    return "; ".join(
        f"{c.path}: {c.read} read, {c.failed} unreadable, {c.over_length} over-length" for c in counts
    )


def _bad_rows_message(item: LoadedSource, refused: Sequence[RefusedRow]) -> str:
    total = len(item.rows) + len(item.refused)
    shown = "".join(f"\n  {r.source}, line {r.line}: {r.reason}" for r in refused[:_SHOWN])
    more = f"\n  and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
    return (
        f"data: {len(refused)} of {total} rows of {item.source.path} cannot be trained on:{shown}{more}\n"
        "Correct them, or set on_bad_row: drop to go on without them (they are then listed in dropped.jsonl)"
    )


def _over_length_message(rows: Sequence[TokenRow], total: int, max_length: int) -> str:
    longest = sorted(rows, key=lambda r: -len(r.input_ids))
    shown = "".join(
        f"\n  {r.row.source}, line {r.row.line}: {len(r.input_ids):,} tokens ({r.num_supervised:,} supervised)"
        for r in longest[:_SHOWN]
    )
    return (
        f"max_length: {len(rows)} of {total} rows are longer than {max_length:,} "
        f"tokens; the longest:{shown}\nSet max_length to at least {len(longest[0].input_ids)} if the model "
        "and the memory allow it, or over_length: drop to leave these rows out, or over_length: truncate "
        "to cut their ends (which teaches the model not to stop)"
    )
