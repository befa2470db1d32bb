"""Less for a text that repeats itself: minus the share of its n-grams that occurred before."""

from __future__ import annotations

from dataclasses import dataclass

from lengthwise.degeneration import repeated_ngram_frac
from posttrain.rewarded import Rewarded


@dataclass(frozen=True, kw_only=True)
class Config:
    """How long an n-gram is."""

    n: int | None = None
    """Words, in Chinese characters; by default as for `lengthwise eval`: 10 words, 13 characters."""


def score(completion: Rewarded, config: Config) -> float:
    """Return a number from -1 to 0.

    Example:
        >>> score(Rewarded(text="a b a b a b", num_tokens=6), Config(n=2))
        -0.6
    """
    return -repeated_ngram_frac(completion.text, config.n)
