"""Training on a part of the rows that swells and shrinks, drawn by a score (arXiv 2202.05531).

An epoch is replaced by mini-epochs. The share of the rows in each goes up and down between two bounds in equal
factors; which rows a small one has is drawn by their scores, without replacement. The shares add up to the
number of epochs it replaces, so as many rows are seen. Only in the small mini-epochs does the score matter: at
a share of 1 all rows are used.

Caution: the published gains are those of small classifiers, by the best of more mini-epochs than the baseline
had epochs. Nothing is known of language models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posttrain.curricula.choices import Preference


@dataclass(frozen=True, kw_only=True)
class CyclicalCurriculum:
    """How scored rows become mini-epochs.

    Raises:
        ValueError: naming the field, its value and the remedy (`size_schedule`, `selection_chances`).

    Example:
        >>> curriculum = CyclicalCurriculum(values=[3.0, 9.0, 1.0, 5.0], preference="easy", num_epochs=2)
        >>> [len(curriculum.mini_epoch(seed=0, number=n)) for n in range(curriculum.num_mini_epochs)]
        [1, 2, 4, 2]
    """

    values: Sequence[float]
    """How hard each row is: its loss, its length, or a column of the user's; at least 0."""
    preference: Preference
    num_epochs: float
    """Epochs that it replaces."""
    start: float = 0.25
    end: float = 1.0
    alpha: float = 0.5
    clip: tuple[float, float] | None = (0.2, 5.0)

    def __post_init__(self) -> None:
        """Compute both once, so that a wrong field is refused now."""
        _ = self.sizes, self.chances

    @cached_property
    def sizes(self) -> list[float]:
        """The share of the rows in each mini-epoch."""
        return size_schedule(self.num_epochs, start=self.start, end=self.end, alpha=self.alpha)

    @cached_property
    def chances(self) -> NDArray[np.float64]:
        """Shape [N]: what rows are drawn by; the sum is 1."""
        return selection_chances(self.values, self.preference, clip=self.clip)

    @property
    def num_mini_epochs(self) -> int:
        """Mini-epochs of the whole run."""
        return len(self.sizes)

    def mini_epoch(self, seed: int, number: int) -> list[int]:
        """Return the row numbers of one mini-epoch, shuffled; they depend on the arguments and fields only.

        Args:
            seed: at least 0.
            number: of the mini-epoch, from 0.
        """
        num_rows = max(1, int(len(self.values) * self.sizes[number]))
        return draw_rows(self.chances, num_rows, np.random.default_rng([seed, number]))

    def never_drawn(self, seed: int) -> list[int]:
        """Return the rows that no mini-epoch has; none where a share reaches 1."""
        drawn = {row for number in range(self.num_mini_epochs) for row in self.mini_epoch(seed, number)}
        return sorted(set(range(len(self.values))) - drawn)


def size_schedule(
    num_epochs: float, *, start: float = 0.25, end: float = 1.0, alpha: float = 0.5
) -> list[float]:
    """Return the share of the rows in each mini-epoch.

    From `start` each share is the last one divided by `alpha` until it reaches `end`, then times `alpha` until
    it is back at `start`, and so on, until the shares add up to `num_epochs`; the last one may go beyond.

    Args:
        num_epochs: epochs of all rows that the schedule replaces; above 0.
        start: smallest share, above 0.
        end: largest share, from `start` to 1.
        alpha: factor from one share to the next, between 0 and 1.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> size_schedule(3)
        [0.25, 0.5, 1.0, 0.5, 0.25, 0.5]
    """
    if not 0 < start <= end <= 1:
        raise ValueError(f"start is {start} and end is {end}: they must be 0 < start <= end <= 1")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}: it must lie between 0 and 1, as 0.5 does")
    if not 0 < num_epochs < math.inf:
        raise ValueError(f"num_epochs is {num_epochs}: it must be above 0 and finite")
    size, is_rising = start, True
    sizes = [size]
    while math.fsum(sizes) < num_epochs:
        is_rising = size == start or (is_rising and size != end)
        size = min(size / alpha, end) if is_rising else max(size * alpha, start)
        sizes.append(size)
    return sizes


def selection_chances(
    values: ArrayLike, preference: Preference, *, clip: tuple[float, float] | None = None
) -> NDArray[np.float64]:
    """Return each row's chance: its score over the sum of all scores.

    The score is 1 / value for `easy`, the value for `hard` and 1 for `random`. Values of 0 count as the
    smallest positive one, so that each row can be drawn. `clip` is ours: losses of a language model and lengths
    have a long tail, and a few rows would be in all mini-epochs.

    Args:
        values: shape [N], how hard each row is: losses, lengths or others; at least 0.
        preference: which rows are more likely.
        clip: least and most that a chance may be, in units of the uniform chance 1 / N; scores between the two
            keep their proportions. None: as published.

    Returns:
        Shape [N]; the sum is 1.

    Raises:
        ValueError: if there are no values, one is negative or not finite, or an option is out of its range.

    Example:
        >>> selection_chances([1, 2, 4, 0], "easy").round(3).tolist()
        [0.364, 0.182, 0.091, 0.364]
    """
    hardness = np.asarray(values, dtype=np.float64)
    if preference not in get_args(Preference):
        raise ValueError(f"preference is {preference!r}: choose one of {', '.join(get_args(Preference))}")
    wrong = np.flatnonzero(~(np.isfinite(hardness) & (hardness >= 0)))
    if not hardness.size or wrong.size:
        found = f"row {wrong[0]} has {hardness[wrong[0]]}" if wrong.size else "there are none"
        raise ValueError(
            f"values must be finite and at least 0, but {found}: score each row, or choose random"
        )
    if preference == "random" or not hardness.any():
        scores = np.ones_like(hardness)
    else:
        clamped = np.where(hardness > 0, hardness, hardness[hardness > 0].min())
        scores = clamped / clamped.max() if preference == "hard" else clamped.min() / clamped
        scores = np.maximum(scores, np.finfo(np.float64).tiny)
    chances = scores / scores.sum()
    return chances if clip is None else _clipped(chances, *clip)


def _clipped(chances: NDArray[np.float64], least: float, most: float) -> NDArray[np.float64]:
    """Return the chances times one factor, within `least` to `most` of the uniform chance; the sum is 1."""
    if not 0 < least <= 1 <= most:
        raise ValueError(f"clip is ({least}, {most}): it must hold 0 < least <= 1 <= most")
    low, high = least / len(chances), most / len(chances)
    # The sum grows with the factor, from N low <= 1 to N high >= 1. Logarithms: chances may lie far apart.
    logs = np.log(chances)
    left, right = np.log(low) - logs.max(), np.log(high) - logs.min()
    for _ in range(100):
        middle = (left + right) / 2
        if np.exp(np.clip(logs + middle, np.log(low), np.log(high))).sum() < 1:
            left = middle
        else:
            right = middle
    found = np.exp(np.clip(logs + right, np.log(low), np.log(high)))
    return found / found.sum()


def draw_rows(chances: NDArray[np.float64], num_rows: int, stream: np.random.Generator) -> list[int]:
    """Return different rows drawn one after the other by their chances, then shuffled.

    The rows with the largest log chance plus Gumbel noise are distributed as such draws are. They are shuffled,
    so that the score decides which rows come, not in which order.

    Args:
        chances: shape [N], positive.
        num_rows: at most N.
        stream: what is drawn from; it is advanced.

    Example:
        >>> sorted(draw_rows(np.array([0.2, 0.3, 0.5]), 3, np.random.default_rng(0)))
        [0, 1, 2]
    """
    keys = np.log(chances) + stream.gumbel(size=len(chances))
    return stream.permutation(np.argsort(-keys, kind="stable")[:num_rows]).tolist()
