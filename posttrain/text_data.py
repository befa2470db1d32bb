"""From plain texts to sequences of 2^i tokens, each of one text (arXiv 2405.13226): data for continued pretraining.

A text ends with the end-of-text token, and every token carries loss, but for the first of each sequence, which nothing
precedes. No other token is added: no beginning-of-text token, and no chat template. The length limit does not apply:
a text of any length is cut, without a gap or an overlap. What is left of a text below the smallest sequence is in no
sequence; it is counted, and written to dropped.jsonl, as is a text that has none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from lengthwise.config import ConfigError
from lengthwise.row_formats import TrainRow
from posttrain.curriculum import DecompositionOptions
from posttrain.prepared_rows import count_lines, prepare_rows
from posttrain.row_sources import DataSource, RefusedRow
from posttrain.text_rows import Document, Documents, end_of_text_id, read_text, tokenize_texts
from posttrain.train_data import TokenRow, TrainingData

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from posttrain.curricula.dataset_decomposition import Decomposition

LARGEST_LOG2 = 13
"""The longest sequences of the paper have 8192 tokens."""
_LARGE_LOSS = 0.05
"""Share of the tokens in no sequence above which a warning is due."""


@dataclass(slots=True)
class TextData(TrainingData):
    """Sequences of decomposed texts, and the account of what is in none."""

    num_texts: int = 0
    num_texts_left_out: int = 0
    num_tokens_left_out: int = 0
    shortest: int = 1
    """Tokens of the smallest sequences that there may be."""

    def header_lines(self, *, max_length: int, limit_from: str, policy: str) -> Iterator[str]:
        """Say what texts became, and what of them is left out; no limit applies to them."""
        yield from count_lines(self.counts)
        lengths = self.lengths
        yield (
            f"rows        {len(lengths):,} sequences of {min(lengths):,} to {max(lengths):,} tokens from "
            f"{self.num_texts:,} texts, {self.num_tokens:,} tokens, all supervised"
        )
        left_out = self.num_tokens_left_out
        if left_out:
            share = left_out / (left_out + self.num_tokens)
            yield (
                f"{'WARNING' if share > _LARGE_LOSS else 'left out':<12}{left_out:,} tokens ({share:.1%}) at the "
                f"texts' ends, below {self.shortest:,} tokens, are in no sequence, among them "
                f"{self.num_texts_left_out:,} whole texts; lower curriculum.min_log2 to train on more"
            )


def largest_log2(options: DecompositionOptions, *, max_length: int, max_tokens: int | None) -> int:
    """Return the power of the longest sequences.

    Args:
        options: the curriculum's options.
        max_length: tokens of the longest row.
        max_tokens: tokens of a batch, where the config says.

    Raises:
        ConfigError: the config's power is beyond them, or the default below the smallest sequence.
    """
    most = min(max_length, max_tokens or max_length)
    by = "max_length" if most == max_length else "batching.max_tokens"
    found = min(LARGEST_LOG2, most.bit_length() - 1) if options.max_log2 is None else options.max_log2
    if 1 << found > most:
        raise ConfigError(
            f"curriculum.max_log2 is {found}, sequences of {1 << found:,} tokens, but {by} is {most:,}: "
            f"set it to {most.bit_length() - 1} at most"
        )
    if found < options.min_log2:
        raise ConfigError(
            f"curriculum.min_log2 is {options.min_log2}, sequences of {1 << options.min_log2:,} tokens, but {by} is "
            f"{most:,}: set it to {found} at most"
        )
    return found


def prepare_texts(
    sources: Sequence[DataSource],
    tokenizer: PreTrainedTokenizerBase,
    options: DecompositionOptions,
    *,
    max_length: int,
    max_tokens: int | None,
    on_bad_row: Literal["raise", "drop"],
    mixture_rows: int | None,
    seed: int,
) -> TextData:
    """Read, tokenise, mix and cut texts.

    Args:
        sources: where they are.
        tokenizer: the model's.
        options: how they are cut.
        max_length: tokens of the longest sequence that the model takes.
        max_tokens: tokens of a batch, where the config says.
        on_bad_row: what becomes of rows without a text.
        mixture_rows: texts to draw, where the sources have weights.
        seed: of the drawing, and of the cuts of over-long texts.

    Raises:
        ConfigError: unreadable rows where the policy is `raise`, no end-of-text token, or nothing to train on.
    """
    from posttrain.curricula.dataset_decomposition import decompose

    max_log2 = largest_log2(options, max_length=max_length, max_tokens=max_tokens)
    data = prepare_rows(
        Documents,
        sources,
        read=read_text,
        tokenize=partial(
            tokenize_texts, tokenizer=tokenizer, end=end_of_text_id(tokenizer, options.end_of_text)
        ),
        max_length=sys.maxsize,
        over_length="raise",
        on_bad_row=on_bad_row,
        mixture_rows=mixture_rows,
        seed=seed,
    )
    cuts = decompose(
        [document.length for document in data.rows],
        min_log2=options.min_log2,
        max_log2=max_log2,
        over_long=options.over_long,
        seed=seed,
    )
    return _sequences(data, cuts, shortest=1 << options.min_log2)


def _sequences(data: Documents, cuts: Decomposition, *, shortest: int) -> TextData:
    """Return the cuts as rows to train on, and the account with what they left out."""
    documents = data.rows
    rows = []
    for document, start, end in cuts.spans.tolist():
        text, ids = documents[document].row, documents[document].input_ids[start:end]
        origin = TrainRow(id=f"{text.id}:{start}", source=text.source, line=text.line, messages=())
        rows.append(TokenRow(origin, ids, ids))
    if not rows:
        raise ConfigError(f"data: no text has {shortest:,} tokens: lower curriculum.min_log2")
    whole = {document for document, start, _ in cuts.left_out.tolist() if start == 0}
    drawn = iter(range(len(documents)))
    for count in data.counts:
        places = [next(drawn) for _ in range(count.drawn)]
        too_short = {
            (documents[place].row.source, documents[place].row.line) for place in places if place in whole
        }
        count.drawn -= sum(place in whole for place in places)
        count.usable -= len(too_short)
    return TextData(
        rows,
        [*data.refused, *_left_out(documents, cuts)],
        data.counts,
        data.sources,
        num_texts=len(documents) - len(whole),
        num_texts_left_out=len(whole),
        num_tokens_left_out=cuts.num_tokens_left_out,
        shortest=shortest,
    )


def _left_out(documents: Sequence[Document], cuts: Decomposition) -> list[RefusedRow]:
    """Return a record of each text whose end is in no sequence, once however often the text was drawn."""
    found: dict[tuple[str, int], RefusedRow] = {}
    for document, start, end in cuts.left_out.tolist():
        text = documents[document].row
        record = RefusedRow(
            id=text.id,
            source=text.source,
            line=text.line,
            outcome="truncated" if start else "rejected",
            reason="below_min_log2",
            num_tokens=end,
            num_supervised_tokens=end,
            num_kept_tokens=start,
        )
        found.setdefault((text.source, text.line), record)
    return list(found.values())
