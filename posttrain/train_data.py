"""From rows to the token sequences that SFT trains on, with an account of every row.

Nothing is cut or dropped in silence: a row that cannot be read stops the job or is written to dropped.jsonl,
and so is a row over the length limit. Which tokens carry loss is decided in `posttrain.training_mask`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

from lengthwise.row_formats import TrainRow, read_row
from posttrain.over_length import Digest, OverLengthPolicy
from posttrain.prepared_rows import (
    PreparedRows,
    count_lines,
    failed_row,
    int32_dataset,
    limit_lines,
    prepare_rows,
    split_lines,
)
from posttrain.row_scores import read_scored_row
from posttrain.row_sources import DataSource, RefusedRow
from posttrain.training_mask import (
    MaskedConversation,
    RowRefused,
    assistant_spans,
    mask_conversations,
    supervised_tokens,
    trained_turns,
)

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from posttrain.past_generation import PastGeneration
    from posttrain.training_mask import Span

_BATCH_ROWS = 256
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
    past: np.ndarray | None = None
    """Shape [T], 1 where a token is of an earlier draft that may be hidden; None of a row without one."""

    @property
    def sequence(self) -> np.ndarray:
        """Its tokens as the model is given them."""
        return self.input_ids

    @property
    def length(self) -> int:
        """Its number of tokens."""
        return len(self.input_ids)

    @property
    def num_supervised(self) -> int:
        """Tokens that carry loss."""
        return int((self.labels != NOT_SUPERVISED).sum())

    def add_to(self, digest: Digest) -> None:
        """Add what is trained on to a digest of the data."""
        digest.update(len(self.input_ids).to_bytes(8, "little"))
        digest.update(self.input_ids.tobytes())
        digest.update(self.labels.tobytes())
        if self.past is not None:
            digest.update(self.past.tobytes())

    def cut(self, max_length: int) -> Self:
        """Return the row's first `max_length` tokens.

        Raises:
            RowRefused: none of them carries loss.
        """
        row = replace(
            self,
            input_ids=self.input_ids[:max_length],
            labels=self.labels[:max_length],
            past=None if self.past is None else self.past[:max_length],
        )
        if not row.num_supervised:
            raise RowRefused("prompt_over_length")
        return row


@dataclass(slots=True)
class TrainingData(PreparedRows[TokenRow]):
    """Conversations ready for the trainer, and the account of the others."""

    @property
    def num_tokens(self) -> int:
        """Tokens of one epoch, without padding."""
        return sum(r.length for r in self.rows)

    @property
    def num_supervised_tokens(self) -> int:
        """Tokens of one epoch that carry loss."""
        return sum(r.num_supervised for r in self.rows)

    def header_lines(self, *, max_length: int, limit_from: str, policy: str) -> Iterator[str]:
        """Say in a few lines what will be trained on, over-long and unreadable rows first of all."""
        yield from count_lines(self.counts)
        tokens, supervised = self.num_tokens, self.num_supervised_tokens
        yield (
            f"rows        {len(self.rows):,} rows, {tokens:,} tokens, {supervised:,} supervised "
            f"({supervised / tokens:.1%}), longest {self.longest:,}"
        )
        yield from limit_lines(self, max_length=max_length, limit_from=limit_from, policy=policy)
        yield from split_lines(sum(r.num_split_tokens for r in self.rows))

    def to_dataset(self) -> datasets.Dataset:
        """Return the columns input_ids and labels: with both there, TRL neither tokenises nor masks again.

        Where rows hold earlier drafts there is also `past`, of zeros in rows that hold none.
        """
        columns = {"input_ids": [r.input_ids for r in self.rows], "labels": [r.labels for r in self.rows]}
        if any(r.past is not None for r in self.rows):
            import numpy as np

            columns["past"] = [
                np.zeros(len(r.input_ids), dtype=np.int32) if r.past is None else r.past for r in self.rows
            ]
        return int32_dataset(columns)


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
    score_column: str | None = None,
    past_generation: PastGeneration | None = None,
) -> TrainingData:
    """Read, tokenise, mask, apply the length limit, and mix.

    With `score_column`, rows keep the number in it; with `past_generation` they know which tokens may be hidden.

    Raises:
        ConfigError: unreadable or over-long rows where the policy is `raise`, or nothing left to train on.
    """
    return prepare_rows(
        TrainingData,
        sources,
        read=read_row if score_column is None else partial(read_scored_row, column=score_column),
        tokenize=partial(
            tokenize_rows, tokenizer=tokenizer, train_on=train_on, past_generation=past_generation
        ),
        max_length=max_length,
        over_length=over_length,
        on_bad_row=on_bad_row,
        mixture_rows=mixture_rows,
        seed=seed,
    )


def tokenize_rows(
    rows: Sequence[TrainRow],
    tokenizer: PreTrainedTokenizerBase,
    *,
    train_on: Literal["all", "last"],
    past_generation: PastGeneration | None = None,
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
                rendered.append(assistant_spans(tokenizer, row.messages, turns, row.tools))
                batch.append(row)
            except RowRefused as error:
                refused.append(failed_row(row, error))
        if not batch:
            continue
        conversations = mask_conversations(tokenizer, rendered)
        for row, (text, spans), masked in zip(batch, rendered, conversations, strict=True):
            ids = np.array(masked.input_ids, dtype=np.int32)
            labels = np.where(np.array(masked.supervised), ids, NOT_SUPERVISED).astype(np.int32)
            past = None
            if past_generation is not None:
                past = _past_tokens(past_generation.span(text, spans[-1][0]), masked)
            token_rows.append(
                TokenRow(row, ids, labels, masked.num_split_tokens, masked.end_of_turn_ids, past)
            )
    return token_rows, refused


def _past_tokens(span: Span | None, masked: MaskedConversation) -> np.ndarray | None:
    """Return which tokens lie in a span, shape [T], int32: of those, that an answer's loss is on none."""
    import numpy as np

    if span is None:
        return None
    inside, _, _ = supervised_tokens(masked.offsets, [span])
    return (np.array(inside) & ~np.array(masked.supervised)).astype(np.int32)
