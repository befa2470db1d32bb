"""How Self-Lengthen samples, in all of its steps, and how it thins out short texts (arXiv 2410.23933)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lengthwise.config import ConfigError, option
from lengthwise.engines.base import Sampling


@dataclass(kw_only=True)
class SamplingOptions:
    """The options of a call; the defaults are the released code's, without its stop strings."""

    temperature: float = option(0.7, help="sampling temperature")
    top_p: float = option(0.8, help="nucleus")
    top_k: int | None = option(20, help="tokens to choose among")
    repetition_penalty: float = option(1.1, help="above 1 it also distorts long texts")
    max_tokens: int | None = option(16384, help="most tokens of a text; one that was cut is refused")
    tries: int = option(5, help="how often a text is tried until it passes the check; the released code: 20")

    def __post_init__(self) -> None:
        """Refuse what asks nothing."""
        if self.tries < 1:
            raise ConfigError(f"tries is {self.tries}: it must be at least 1")

    def sampling(self, *, stop: tuple[str, ...] = (), max_tokens: int | None = None) -> Sampling:
        """Return the options as an engine takes them."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            max_tokens=self.max_tokens if max_tokens is None else max_tokens,
            stop=stop,
        )


def length_ranks(lengths: Sequence[int]) -> list[float]:
    """Return r of each length: 0 for the longest, towards 1 for the shortest; equal lengths share the larger one.

    With the lengths in ascending order, r = 1 - i / n for the first place i that a length has; in O(n log n).

    Example:
        >>> length_ranks([5, 9, 5, 7])
        [1.0, 0.25, 1.0, 0.5]
    """
    first, place = {}, 0
    for length, number in sorted(Counter(lengths).items()):
        first[length] = 1 - place / len(lengths)
        place += number
    return [first[length] for length in lengths]


def keeps_long(lengths: Sequence[int], seed: int) -> list[bool]:
    """Return whether each text stays, with probability max(0, 1 - 2 r^3): long ones do, the shortest fifth does not.

    Args:
        lengths: in characters.
        seed: of the draws, one for each text in order.
    """
    stream = random.Random(seed)
    return [stream.random() > 2 * rank**3 for rank in length_ranks(lengths)]
