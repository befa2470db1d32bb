"""Plain texts as tokens, before they are cut: a text, then the end-of-text token, and no other one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from lengthwise.config import ConfigError
from lengthwise.records import digest
from lengthwise.row_values import row_id, shown_keys
from lengthwise.rows import Row
from posttrain.over_length import Digest
from posttrain.prepared_rows import PreparedRows, count_lines, int32_dataset
from posttrain.row_sources import RefusedRow

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from transformers import PreTrainedTokenizerBase

_BATCH_ROWS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRow:
    """A plain text, and where it came from."""

    id: str
    source: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """A text as tokens, the end-of-text token last."""

    row: TextRow
    input_ids: np.ndarray
    """Shape [T], int32."""

    @property
    def sequence(self) -> np.ndarray:
        """Its tokens."""
        return self.input_ids

    @property
    def length(self) -> int:
        """Its number of tokens."""
        return len(self.input_ids)

    @property
    def num_supervised(self) -> int:
        """Tokens that carry loss: all."""
        return len(self.input_ids)

    def add_to(self, digest: Digest) -> None:
        """Add the tokens to a digest of the data."""
        digest.update(self.input_ids.tobytes())

    def cut(self, max_length: int) -> Self:
        """Return the first `max_length` tokens; no text is over a limit, so nobody asks."""
        return replace(self, input_ids=self.input_ids[:max_length])


@dataclass(slots=True)
class Documents(PreparedRows[Document]):
    """Texts before they are cut, and the account of the other rows."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all texts."""
        return sum(document.length for document in self.rows)

    @property
    def num_supervised_tokens(self) -> int:
        """Tokens that carry loss: all."""
        return self.num_tokens

    def to_dataset(self) -> datasets.Dataset:
        """Return the texts uncut; a training takes `TextData`."""
        return int32_dataset({"input_ids": [document.input_ids for document in self.rows]})

    def header_lines(self, *, max_length: int, limit_from: str, policy: str) -> Iterator[str]:
        """Say what became of each source's rows."""
        return count_lines(self.counts)


def read_text(given: Row) -> TextRow:
    """Turn a row with a column `text` into a plain text.

    Raises:
        ValueError: it has none.
    """
    text = given.values.get("text")
    if not isinstance(text, str):
        raise ValueError(
            f"it has no text (its columns: {shown_keys(given.values)}), and dataset_decomposition cuts plain texts "
            "only: a conversation would lose its question; for conversations set curriculum: {name: length_buckets}"
        )
    return TextRow(
        id=row_id(given.values.get("id")) or digest(text)[:16],
        source=given.place.source,
        line=given.place.number,
        text=text,
    )


def tokenize_texts(
    rows: Sequence[TextRow], tokenizer: PreTrainedTokenizerBase, *, end: int
) -> tuple[list[Document], list[RefusedRow]]:
    """Return the texts as tokens, with the end-of-text token; none is refused."""
    import numpy as np

    found = []
    for start in range(0, len(rows), _BATCH_ROWS):
        part = rows[start : start + _BATCH_ROWS]
        encoded: Any = tokenizer([row.text for row in part], add_special_tokens=False, verbose=False)
        found += [
            Document(row, np.array([*ids, end], dtype=np.int32))
            for row, ids in zip(part, encoded["input_ids"], strict=True)
        ]
    return found, []


def end_of_text_id(tokenizer: PreTrainedTokenizerBase, token: str | None) -> int:
    """Return the id of the token that ends a text.

    Raises:
        ConfigError: the tokenizer does not know it, or has no end of sequence.
    """
    if token is None:
        found: Any = tokenizer.eos_token_id
        if found is None:
            raise ConfigError(
                "curriculum.end_of_text: the tokenizer has no end-of-sequence token: name the token that ends a text"
            )
        return int(found)
    vocabulary = tokenizer.get_vocab()
    if token not in vocabulary:
        raise ConfigError(
            f"curriculum.end_of_text is {token!r}, which is no token of the model's vocabulary: name one, or leave it "
            f"out for {tokenizer.eos_token!r}"
        )
    return vocabulary[token]
