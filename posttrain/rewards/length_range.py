"""Full reward within a range of words that the row names (LongWriter-Zero, arXiv 2506.18841, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from lengthwise.lengths import COUNTERS, check_counter
from posttrain.length_rewards import length_range
from posttrain.rewarded import Rewarded


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where the range is, and how words are counted."""

    column: str = "length_range"
    """The column with the range, a list [lower, upper] of words; the paper asks a model for it."""
    limit: int
    """Words at which nothing is left."""
    counter: str = "cjk_alpha"

    def __post_init__(self) -> None:
        """Refuse a counter that there is not."""
        check_counter(self.counter)


def score(completion: Rewarded, config: Config) -> float:
    """Return a number from 0 to 1.

    Raises:
        ValueError: the row has no range.
    """
    bounds = completion.row.get(config.column)
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        raise ValueError(f"length_range: a row has {config.column} {bounds!r}: write [lower, upper] in words")
    length = COUNTERS[config.counter](completion.text)
    return length_range(length, lower=bounds[0], upper=bounds[1], limit=config.limit)
