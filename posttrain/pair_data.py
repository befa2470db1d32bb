"""From preference rows to the token sequences that DPO trains on, with an account of every row.

A pair's tokens are those that `posttrain.train_data` gives for the same two conversations. What carries loss there,
an answer with its end-of-turn token, is the answer here; the white space that many templates write behind it carries
none there and is left out here, since DPO scores every token of an answer. No logit depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

from posttrain.over_length import Digest, OverLengthPolicy
from posttrain.pair_formats import PairRow, read_pair
from posttrain.prepared_rows import (
    PreparedRows,
    count_lines,
    failed_row,
    int32_dataset,
    limit_lines,
    prepare_rows,
    split_lines,
)
from posttrain.row_sources import DataSource, RefusedRow
from posttrain.training_mask import (
    MaskedConversation,
    RowRefused,
    TemplateRefused,
    assistant_spans,
    mask_conversations,
)

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from posttrain.training_mask import Span

_BATCH_PAIRS = 128


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A pair as token ids, all of one dimension and int32."""

    pair: PairRow
    prompt_ids: np.ndarray
    """Up to and with the generation prompt."""
    chosen_ids: np.ndarray
    """With its end-of-turn token, unless cut."""
    rejected_ids: np.ndarray
    num_split_tokens: int = 0
    """Tokens that begin in the prompt and end in an answer; they count as the answer's."""
    end_of_turn_ids: frozenset[int] = frozenset()

    @property
    def row(self) -> PairRow:
        """The pair as it was read."""
        return self.pair

    @property
    def sequence(self) -> np.ndarray:
        """The prompt with the chosen answer, then with the rejected one."""
        import numpy as np

        return np.concatenate([self.prompt_ids, self.chosen_ids, self.prompt_ids, self.rejected_ids])

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longer answer: both answers are padded to it."""
        return len(self.prompt_ids) + self.num_supervised

    @property
    def num_supervised(self) -> int:
        """Tokens of the longer answer."""
        return max(len(self.chosen_ids), len(self.rejected_ids))

    def add_to(self, digest: Digest) -> None:
        """Add what is trained on to a digest of the data."""
        for ids in (self.prompt_ids, self.chosen_ids, self.rejected_ids):
            digest.update(len(ids).to_bytes(8, "little"))
            digest.update(ids.tobytes())

    def cut(self, max_length: int) -> Self:
        """Return the pair with both answers cut to what `max_length` tokens leave them.

        Raises:
            RowRefused: no token of an answer is left, or none by which they differ.
        """
        room = max_length - len(self.prompt_ids)
        if room <= 0:
            raise RowRefused("prompt_over_length")
        chosen, rejected = self.chosen_ids[:room], self.rejected_ids[:room]
        if chosen.tolist() == rejected.tolist():
            raise RowRefused("equal_when_cut")
        return replace(self, chosen_ids=chosen, rejected_ids=rejected)


@dataclass(slots=True)
class PairData(PreparedRows[TokenPair]):
    """Pairs ready for the trainer, and the account of the others."""

    @property
    def lengths(self) -> list[int]:
        """What each pair adds to a batch whose longest it is, in tokens: a row for either answer."""
        return [2 * p.length for p in self.rows]

    @property
    def sequences_per_row(self) -> int:
        """Two: the prompt with either answer."""
        return 2

    @property
    def sequence_lengths(self) -> list[int]:
        """Tokens of each prompt with either answer."""
        return [len(p.prompt_ids) + len(ids) for p in self.rows for ids in (p.chosen_ids, p.rejected_ids)]

    @property
    def real_lengths(self) -> list[int]:
        """Tokens of each pair that are no padding in any batch."""
        return [2 * len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids) for p in self.rows]

    @property
    def num_tokens(self) -> int:
        """Tokens of one epoch, without padding; each prompt counts twice, as it is read with both answers."""
        return sum(self.real_lengths)

    @property
    def num_supervised_tokens(self) -> int:
        """Tokens of both answers of one epoch."""
        return sum(len(p.chosen_ids) + len(p.rejected_ids) for p in self.rows)

    def header_lines(self, *, max_length: int, limit_from: str, policy: str) -> Iterator[str]:
        """Say in a few lines what will be trained on, over-long and unreadable rows first of all."""
        from posttrain.pair_bias import length_bias

        yield from count_lines(self.counts)
        yield (
            f"pairs       {len(self.rows):,} pairs, {self.num_tokens:,} tokens, {self.num_supervised_tokens:,} of them "
            f"answers ({self.num_supervised_tokens / self.num_tokens:.1%}), longest prompt with answer {self.longest:,}"
        )
        yield from limit_lines(self, max_length=max_length, limit_from=limit_from, policy=policy)
        yield from split_lines(sum(p.num_split_tokens for p in self.rows))
        yield from length_bias(self.rows).lines()

    def to_dataset(self) -> datasets.Dataset:
        """Return the columns prompt_ids, chosen_ids and rejected_ids, which TRL's DPO collator takes.

        TRL's DPO trainer has no test for data that come as tokens: its `_prepare_dataset` looks for texts, so the
        trainer of this data set has to return it from there as it is.
        """
        return int32_dataset(
            {
                "prompt_ids": [p.prompt_ids for p in self.rows],
                "chosen_ids": [p.chosen_ids for p in self.rows],
                "rejected_ids": [p.rejected_ids for p in self.rows],
            }
        )


def prepare_pairs(
    sources: Sequence[DataSource],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    over_length: OverLengthPolicy,
    on_bad_row: Literal["raise", "drop"],
    mixture_rows: int | None,
    seed: int,
) -> PairData:
    """Read, tokenise, apply the length limit to prompt and longer answer, and mix.

    Raises:
        ConfigError: unreadable or over-long rows where the policy is `raise`, or nothing left to train on.
    """
    return prepare_rows(
        PairData,
        sources,
        read=read_pair,
        tokenize=partial(tokenize_pairs, tokenizer=tokenizer),
        max_length=max_length,
        over_length=over_length,
        on_bad_row=on_bad_row,
        mixture_rows=mixture_rows,
        seed=seed,
    )


def tokenize_pairs(
    pairs: Sequence[PairRow], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[TokenPair], list[RefusedRow]]:
    """Render and tokenise pairs; returns the readable ones and those that the template refuses or makes equal.

    Raises:
        TemplateRefused: the template suits neither answer of a pair, as for `assistant_spans`.
    """
    token_pairs: list[TokenPair] = []
    refused: list[RefusedRow] = []
    for start in range(0, len(pairs), _BATCH_PAIRS):
        batch: list[PairRow] = []
        rendered: list[tuple[str, list[Span]]] = []
        for pair in pairs[start : start + _BATCH_PAIRS]:
            try:
                rendered += _rendered(tokenizer, pair)
                batch.append(pair)
            except RowRefused as error:
                refused.append(failed_row(pair, error))
        masked = mask_conversations(tokenizer, rendered) if rendered else []
        for pair, chosen, rejected in zip(batch, masked[::2], masked[1::2], strict=True):
            try:
                token_pairs.append(_token_pair(tokenizer, pair, chosen, rejected))
            except RowRefused as error:
                refused.append(failed_row(pair, error))
    return token_pairs, refused


def _rendered(tokenizer: PreTrainedTokenizerBase, pair: PairRow) -> list[tuple[str, list[Span]]]:
    """Return both conversations as text, each with the span of its answer.

    A template that suits neither answer is the config's fault, and stops the job as it stops SFT; one that suits
    only one of them makes the prompt depend on the answer.
    """
    rendered: list[tuple[str, list[Span]]] = []
    failures: list[tuple[str, TemplateRefused]] = []
    for name, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        try:
            rendered.append(assistant_spans(tokenizer, (*pair.prompt, *answer), [len(pair.prompt)]))
        except TemplateRefused as error:
            failures.append((name, error))
    if len(failures) == 2:
        raise failures[0][1]
    if failures:
        name, error = failures[0]
        raise RowRefused(f"the prompt is rendered differently before the {name} answer: {error}")
    return rendered


def _token_pair(
    tokenizer: PreTrainedTokenizerBase,
    pair: PairRow,
    chosen: MaskedConversation,
    rejected: MaskedConversation,
) -> TokenPair:
    prompt, chosen_ids = _parted(chosen)
    other, rejected_ids = _parted(rejected)
    if prompt.tolist() != other.tolist():
        first, second = (tokenizer.decode(ids[-4:]) for ids in (prompt, other))
        raise RowRefused(
            f"its prompt has {len(prompt)} tokens before chosen (they end {first!r}), {len(other)} before rejected "
            f"({second!r}): the start of an answer, mostly white space, joins the end of the generation prompt in "
            "one token"
        )
    if chosen_ids.tolist() == rejected_ids.tolist():
        raise RowRefused("the chat template renders chosen and rejected alike: the pair prefers nothing")
    num_split = chosen.num_split_tokens + rejected.num_split_tokens
    return TokenPair(
        pair, prompt, chosen_ids, rejected_ids, num_split, chosen.end_of_turn_ids | rejected.end_of_turn_ids
    )


def _parted(masked: MaskedConversation) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids before the answer, and the answer's."""
    import numpy as np

    ids = np.array(masked.input_ids, dtype=np.int32)
    answer = np.flatnonzero(masked.supervised)
    return ids[: answer[0]], ids[answer[0] : answer[-1] + 1]
