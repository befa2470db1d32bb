"""Documents cut into sequences of 2^i tokens, each of one document.

This is Dataset Decomposition (arXiv 2405.13226, section 3.1). A document's length is written in binary, and the
document is cut from its front, the largest power of two first. The sequences of 2^i tokens are bucket i.
Nothing is concatenated and nothing padded; a sequence is the three numbers (document, start, end), so tokens
are not copied.

The released code differs in one thing: it takes 2^i + 1 tokens, the last of which is only predicted. Here a
sequence has 2^i tokens and 2^i - 1 targets, as the section describes it, for models that shift the labels
themselves. As there, whoever calls counts the end-of-text token as the document's last one.

This is for documents. A conversation must not be cut: an answer would lose its question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from posttrain.curricula.choices import OverLong


@dataclass(frozen=True, kw_only=True, eq=False)
class Decomposition:
    """The sequences that documents were cut into, and what is in none of them."""

    spans: NDArray[np.int64]
    """Shape [N, 3]: document, first token, one past the last token; in the documents' order, front to back."""
    left_out: NDArray[np.int64]
    """Shape [M, 3]: the same for what remained of a document below the smallest power; at most one a document."""

    @property
    def log2(self) -> NDArray[np.int64]:
        """Shape [N]: the bucket i of each sequence, which has 2^i tokens."""
        _, exponents = np.frexp(self.spans[:, 2] - self.spans[:, 1])
        return exponents.astype(np.int64) - 1

    @property
    def buckets(self) -> dict[int, NDArray[np.int64]]:
        """The row numbers in `spans` of each bucket's sequences, shortest bucket first."""
        log2 = self.log2
        return {int(power): np.flatnonzero(log2 == power) for power in np.unique(log2)}

    @property
    def num_tokens(self) -> int:
        """Tokens of all sequences."""
        return int((self.spans[:, 2] - self.spans[:, 1]).sum())

    @property
    def num_tokens_left_out(self) -> int:
        """Tokens that are in no sequence."""
        return int((self.left_out[:, 2] - self.left_out[:, 1]).sum())

    @property
    def num_documents_left_out(self) -> int:
        """Documents that no sequence has a token of, each shorter than the smallest sequence."""
        return int((self.left_out[:, 1] == 0).sum())


def decompose(
    lengths: Sequence[int],
    *,
    min_log2: int = 8,
    max_log2: int = 13,
    over_long: OverLong = "randomized",
    seed: int = 0,
) -> Decomposition:
    """Cut documents into sequences of powers of two.

    The paper's description gives each token a bucket; its code leaves out what remains below 2^min_log2, and
    short documents whole. So do we, and list it in `left_out`; min_log2 = 0 leaves out nothing.

    Args:
        lengths: tokens of each document, at least 0.
        min_log2: the smallest sequences have 2^min_log2 tokens; at least 0.
        max_log2: the largest have 2^max_log2.
        over_long: how documents of 2^(max_log2+1) tokens and more are cut (see `split_length`).
        seed: for `randomized`; with the document's number it decides a document's cuts, whatever the other
            documents are.

    Returns:
        The sequences and what was left out; together they have each token of each document once.

    Raises:
        ValueError: if the powers are not in order or `over_long` is unknown.

    Example:
        >>> decompose([7, 1], min_log2=1, max_log2=2).spans.tolist()
        [[0, 0, 4], [0, 4, 6]]
    """
    if not 0 <= min_log2 <= max_log2:
        raise ValueError(
            f"min_log2 is {min_log2} and max_log2 is {max_log2}: they must be 0 <= min_log2 <= max_log2"
        )
    if over_long not in get_args(OverLong):
        raise ValueError(f"over_long is {over_long!r}: choose one of {', '.join(get_args(OverLong))}")
    spans: list[tuple[int, int, int]] = []
    left_out: list[tuple[int, int, int]] = []
    for document, length in enumerate(lengths):
        is_drawn = over_long == "randomized" and length >> (max_log2 + 1)
        stream = np.random.default_rng([seed, document]) if is_drawn else None
        start = 0
        for power in split_length(length, min_log2, max_log2, stream):
            spans.append((document, start, start + (1 << power)))
            start += 1 << power
        if start < length:
            left_out.append((document, start, length))
    return Decomposition(
        spans=np.array(spans, dtype=np.int64).reshape(-1, 3),
        left_out=np.array(left_out, dtype=np.int64).reshape(-1, 3),
    )


def split_length(
    length: int, min_log2: int, max_log2: int, stream: np.random.Generator | None = None
) -> list[int]:
    """Return the powers i of the sequences of 2^i tokens that one document is cut into, front to back.

    While 2^(max_log2+1) tokens or more remain, the next power is drawn from `stream` by `over_long_chances`, or
    is max_log2 without a stream. Then the largest power of two that fits is taken, as long as it is at least
    2^min_log2.

    Args:
        length: tokens of the document.
        min_log2: smallest power.
        max_log2: largest power.
        stream: what the powers of an over-long document are drawn from; it is advanced.

    Example:
        >>> split_length(0b1011, 0, 13)
        [3, 1, 0]
        >>> split_length(0b1011, 1, 2)
        [2, 2, 1]
    """
    powers: list[int] = []
    while (power := length.bit_length() - 1) >= min_log2:
        if power > max_log2:
            power = max_log2
            if stream is not None:
                chances = over_long_chances(min_log2, max_log2)
                power = int(stream.choice(np.arange(min_log2, max_log2 + 1), p=chances))
        powers.append(power)
        length -= 1 << power
    return powers


def over_long_chances(min_log2: int, max_log2: int) -> NDArray[np.float64]:
    """Return the chance of each power in an over-long document, smallest first.

    It is in proportion to 2^(max_log2 - i). Chance times tokens is then the same for all powers,
    so each bucket can expect equally many tokens of such documents. This is the rule of the released code.

    Returns:
        Shape [max_log2 - min_log2 + 1]; the sum is 1.

    Example:
        >>> (over_long_chances(8, 10) * 7).round(6)
        array([4., 2., 1.])
    """
    falling = 2.0 ** np.arange(max_log2 - min_log2, -1, -1)
    return falling / falling.sum()
