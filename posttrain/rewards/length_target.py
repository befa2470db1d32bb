"""How near a text is to the length that its row asks for, in words, characters or tokens, English or Chinese."""

from __future__ import annotations

from dataclasses import dataclass

from lengthwise.length_wishes import parse_length_wish
from lengthwise.lengths import COUNTERS, check_counter
from lengthwise.records import LengthTarget
from lengthwise.row_values import length_target
from posttrain.length_rewards import two_sided
from posttrain.rewarded import Rewarded


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where the target is, how it is counted, and how much off is right."""

    column: str = "length"
    """The column with the target: a number of words, a text such as "about 300 words", or a map of min, max, unit."""
    counter: str = "cjk_alpha"
    """How words are counted, as in evaluations."""
    tolerance: float = 0.1
    """Share of the target that is right either way."""
    zero_at: float = 1.0
    """Share of the target at which nothing is left."""

    def __post_init__(self) -> None:
        """Refuse a counter that there is not, and shares that leave nothing between them."""
        check_counter(self.counter)
        if not 0 <= self.tolerance < self.zero_at:
            raise ValueError(
                f"tolerance is {self.tolerance}: it must be at least 0 and below zero_at, {self.zero_at}"
            )


def score(completion: Rewarded, config: Config) -> float:
    """Return 1 where the length is right, less on both sides of it.

    Raises:
        ValueError: the row has no target.
    """
    wish = completion.row.get(config.column)
    target = parse_length_wish(wish) if isinstance(wish, str) else length_target(wish)
    if target is None:
        raise ValueError(
            f"length_target: a row has no length in {config.column!r}: name its column with column"
        )
    found = produced(completion, target, config.counter)
    low, high = target.min, target.max
    if (low is None or found >= low) and (high is None or found <= high) and low != high:
        return 1.0
    nearest = low if high is None or (low is not None and found < low) else high
    assert nearest is not None
    tolerance = config.tolerance if low == high else 0.0
    return two_sided(found, nearest, tolerance=tolerance, zero_at=config.zero_at)


def produced(completion: Rewarded, target: LengthTarget, counter: str) -> int:
    """Return the length of the completion in the target's unit."""
    if target.unit == "tokens":
        return completion.num_tokens
    if target.unit == "characters":
        return len("".join(completion.text.split()))
    return COUNTERS[counter](completion.text)
