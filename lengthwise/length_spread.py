"""How much the lengths of several replies to one prompt differ (CASTILLO, arXiv 2505.16881).

CASTILLO samples K = 10 replies of at most 15,000 tokens to each prompt. Its numbers and its rule for runaway
generation are here as functions of the K sizes, in whatever unit these are; the paper's are tokens, and its code
counts the end token, which `Completion.num_tokens` may or may not hold.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from lengthwise.bootstrap_intervals import bootstrap_interval
from lengthwise.statistics import Interval

PAPER_CAP = 15_000
"""The most tokens a reply may have in the paper."""
WITHIN_PROMPT_FRAC = "tokens_within_frac"
"""What `within_prompt_frac` of generated tokens is called in results."""
_LONG_FRAC = (17, 30)
"""A reply from this share of the cap on is long: from 8,500 of 15,000, which the paper writes as above 8,499."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthSpread:
    """The lengths of one prompt's replies in short. Units are those of the sizes."""

    mean: float
    std: float
    """Population standard deviation, as the paper's data have it."""
    cv: float | None
    """std / mean; None where the mean is 0."""
    p25: float
    p50: float
    p75: float
    p99: float

    @property
    def iqr(self) -> float:
        """The distance of the quartiles, p75 - p25."""
        return self.p75 - self.p25


def length_spread(sizes: Sequence[int]) -> LengthSpread:
    """Return mean, spread and percentiles of K sizes; percentiles are interpolated linearly, as NumPy's default.

    Raises:
        ValueError: there is no size, or a negative one.

    Example:
        >>> spread = length_spread([100, 200, 300, 400])
        >>> spread.mean, round(spread.std, 2), round(spread.cv, 3), spread.iqr
        (250.0, 111.8, 0.447, 150.0)
    """
    _check(sizes)
    mean = math.fsum(sizes) / len(sizes)
    std = math.sqrt(math.fsum((size - mean) ** 2 for size in sizes) / len(sizes))
    ordered = sorted(sizes)
    return LengthSpread(
        mean=mean,
        std=std,
        cv=std / mean if mean else None,
        p25=_percentile(ordered, 0.25),
        p50=_percentile(ordered, 0.50),
        p75=_percentile(ordered, 0.75),
        p99=_percentile(ordered, 0.99),
    )


def is_degenerate(sizes: Sequence[int], cap: int = PAPER_CAP) -> bool:
    """Tell whether at least one of K replies ran away: the paper's rule, with its numbers as shares of the cap.

    Either the longest has cap - 1 or more, or std > 2 mean and the longest has 17/30 of the cap or more. Std
    can be above 2 mean only with six replies or more.

    Raises:
        ValueError: there is no size, a negative one, or `cap` is below 2.

    Example:
        >>> is_degenerate([200] * 9 + [14_999]), is_degenerate([200] * 9 + [8_499])
        (True, False)
    """
    return _runaway_from(sizes, cap) is not None


def sanitised(sizes: Sequence[int], cap: int = PAPER_CAP) -> list[int]:
    """Return the sizes without those that ran away; an empty list where nothing is left.

    The first rule takes sizes of cap - 1 and more; where the second holds, sizes of 17/30 of the cap and more
    go. Most degenerate rows keep some: what runs away is a reply, not a prompt.

    Raises:
        ValueError: as for `is_degenerate`.

    Example:
        >>> sanitised([300, 14_999, 9_000, 200])
        [300, 9000, 200]
    """
    least = _runaway_from(sizes, cap)
    return list(sizes) if least is None else [size for size in sizes if size < least]


def runaways(sizes: Sequence[int], cap: int = PAPER_CAP) -> list[bool]:
    """Tell of each reply whether it ran away, by the rule of `is_degenerate`: what `sanitised` takes out.

    Raises:
        ValueError: as for `is_degenerate`.

    Example:
        >>> runaways([300, 14_999, 9_000, 200])
        [False, True, False, False]
    """
    least = _runaway_from(sizes, cap)
    return [least is not None and size >= least for size in sizes]


def within_prompt_frac(
    replies: Sequence[Sequence[int]], *, clusters: Sequence[Hashable] | None = None, seed: int = 0
) -> Interval | None:
    """Return the share of the lengths' variance that lies within prompts, 0..1, with a bootstrap interval.

    1 says that length is chance and the prompt decides nothing, 0 that the prompt decides it all. It is
    w / (w + b) with the variance components of a one-way layout, 1 minus the intraclass correlation ICC(1) of Shrout
    and Fleiss (Psychol. Bull. 86 (1979), 420-428): w is the mean of the prompts' sample variances, b the sample
    variance of their means without what chance adds to it, the mean of variance / K, and at least 0. CASTILLO names
    no formula of its own.

    Args:
        replies: the sizes of each prompt's replies, two or more; prompts may have different numbers of them.
        clusters: prompts that are not independent.
        seed: of the resampling.

    Returns:
        None with fewer than two prompts, and where all sizes are equal.

    Raises:
        ValueError: a prompt has fewer than two replies, or a size is negative.

    Example:
        Both prompts have variance 20,000, and their means 200 and 600 have 80,000, of which chance explains 10,000.

        >>> found = within_prompt_frac([[100, 300], [500, 700]])
        >>> round(found.estimate, 4)
        0.2222
    """
    rows = []
    for sizes in replies:
        _check(sizes)
        if len(sizes) < 2:
            raise ValueError("a prompt has one reply only: a variance within prompts needs two or more each")
        variance = length_spread(sizes).std ** 2 * len(sizes) / (len(sizes) - 1)
        rows.append((math.fsum(sizes) / len(sizes), variance, variance / len(sizes)))
    if len(rows) < 2 or len({size for sizes in replies for size in sizes}) < 2:
        return None
    return bootstrap_interval(_within_frac, rows, seed, clusters=clusters)


def _within_frac(rows: Any) -> Any:
    """Return w / (w + b) of rows of mean, variance and variance / K, shape [..., n, 3]."""
    import numpy as np

    num = rows.shape[-2]
    within = rows[..., 1].mean(axis=-1)
    # One prompt alone, which the jackknife of two leaves, has no variance between.
    of_means = rows[..., 0].var(axis=-1) * num / max(1, num - 1)
    between = np.maximum(0.0, of_means - rows[..., 2].mean(axis=-1))
    return within / (within + between)


def _runaway_from(sizes: Sequence[int], cap: int) -> float | None:
    """Return the size from which on a reply counts as runaway, None where the sizes are sound."""
    _check(sizes)
    if cap < 2:
        raise ValueError(f"cap must be at least 2, not {cap}: give the most tokens that a reply may have")
    spread, long = length_spread(sizes), cap * _LONG_FRAC[0] / _LONG_FRAC[1]
    if spread.std > 2 * spread.mean and max(sizes) >= long:
        return min(long, cap - 1)
    return cap - 1 if max(sizes) >= cap - 1 else None


def _check(sizes: Sequence[int]) -> None:
    if not sizes:
        raise ValueError("no sizes: give the lengths of at least one reply")
    if min(sizes) < 0:
        raise ValueError(f"a length must not be negative, not {min(sizes)}")


def _percentile(ordered: Sequence[int], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
