"""From rows with a mark to the answers that KTO trains on, with the same account of every row as SFT's."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from lengthwise.config import ConfigError
from lengthwise.row_formats import TrainRow, read_row
from lengthwise.rows import Row
from posttrain.over_length import Digest, OverLengthPolicy
from posttrain.prepared_rows import int32_dataset, prepare_rows
from posttrain.row_sources import DataSource, RefusedRow
from posttrain.train_data import NOT_SUPERVISED, TokenRow, TrainingData, tokenize_rows

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class MarkedRow(TokenRow):
    """A conversation that ends in an answer which is wanted or not: the row's score is 1 or 0."""

    @property
    def is_wanted(self) -> bool:
        """The mark."""
        return self.row.score == 1

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """The ids before the answer, and the answer's."""
        start = int((self.labels != NOT_SUPERVISED).argmax())
        return self.input_ids[:start], self.input_ids[start:]

    def add_to(self, digest: Digest) -> None:
        """Add what is trained on to a digest of the data."""
        TokenRow.add_to(self, digest)
        digest.update(bytes([self.is_wanted]))


@dataclass(slots=True)
class MarkedData(TrainingData):
    """Marked answers ready for the trainer, and the account of the other rows."""

    def header_lines(self, *, max_length: int, limit_from: str, policy: str) -> Iterator[str]:
        """Say in a few lines what will be trained on, and how long the answers of either mark are."""
        yield from TrainingData.header_lines(
            self, max_length=max_length, limit_from=limit_from, policy=policy
        )
        for name, is_wanted in (("wanted", True), ("unwanted", False)):
            lengths = [len(marked(row).parts[1]) for row in self.rows if marked(row).is_wanted == is_wanted]
            if lengths:
                mean = sum(lengths) / len(lengths)
                yield f"marks       {len(lengths):,} {name} answers, of {mean:,.0f} tokens on average"
            else:
                yield f"WARNING     no answer is {name}: there is nothing to tell apart"

    def to_dataset(self) -> datasets.Dataset:
        """Return the columns prompt_ids, completion_ids and label, which TRL's collator takes."""
        parts = [marked(row).parts for row in self.rows]
        columns = {"prompt_ids": [p for p, _ in parts], "completion_ids": [c for _, c in parts]}
        labels = [marked(row).is_wanted for row in self.rows]
        return int32_dataset(columns).add_column("label", labels)  # pyright: ignore[reportCallIssue]


def marked(row: TokenRow) -> MarkedRow:
    """Return the row as what it is in this data set."""
    assert isinstance(row, MarkedRow)
    return row


def read_marked_row(given: Row, *, column: str) -> TrainRow:
    """Return a row as a conversation whose score is 1 if its mark is true, else 0.

    Raises:
        ValueError: there is no mark, or the conversation cannot be read.
    """
    mark = given.values.get(column)
    if not isinstance(mark, bool) and mark not in (0, 1):
        raise ValueError(
            f"{column} is {mark!r}: it must be true for a wanted answer, false for others"
            if column in given.values
            else f"it has no column {column!r} with the mark: name it with label_column"
        )
    return replace(read_row(given), score=float(mark))


def prepare_marked(
    sources: Sequence[DataSource],
    tokenizer: PreTrainedTokenizerBase,
    *,
    label_column: str,
    max_length: int,
    over_length: OverLengthPolicy,
    on_bad_row: Literal["raise", "drop"],
    mixture_rows: int | None,
    seed: int,
) -> MarkedData:
    """Read, tokenise, apply the length limit, mix, and put the rows of all sources in random order.

    Raises:
        ConfigError: unreadable or over-long rows where the policy is `raise`, or too few rows to compare.
    """
    data = prepare_rows(
        MarkedData,
        sources,
        read=partial(read_marked_row, column=label_column),
        tokenize=partial(_tokenize, tokenizer=tokenizer),
        max_length=max_length,
        over_length=over_length,
        on_bad_row=on_bad_row,
        mixture_rows=mixture_rows,
        seed=seed,
    )
    # TRL's trainer goes through them in order, always, and compares neighbours.
    random.Random(f"{seed}/marked").shuffle(data.rows)
    if len(data.rows) < 2:
        raise ConfigError("data: there is one row, and KTO compares the rows of a batch: give more")
    return data


def _tokenize(
    rows: Sequence[TrainRow], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[TokenRow], list[RefusedRow]]:
    """Tokenise; what a template writes behind the answer is left out, since every token of it would be scored."""
    found, refused = tokenize_rows(rows, tokenizer, train_on="last")
    ended: list[TokenRow] = []
    for row in found:
        end = row.length - int((row.labels[::-1] != NOT_SUPERVISED).argmax())
        ended.append(
            MarkedRow(
                row.row, row.input_ids[:end], row.labels[:end], row.num_split_tokens, row.end_of_turn_ids
            )
        )
    return ended, refused
