"""Intervals beside every mean: an estimate without its spread is not reported.

The file shares its name with a module of the standard library, which is safe inside a package: import it as
`lengthwise.statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An estimate with its uncertainty. `stderr`, `low` and `high` are None where one value allows none."""

    estimate: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    """How many values (items, not clusters) the estimate rests on."""
    method: str

    def to_dict(self) -> dict[str, float | int | str | None]:
        """Return a JSON-ready map."""
        return {
            "estimate": self.estimate,
            "stderr": self.stderr,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "method": self.method,
        }


def mean_interval(
    values: Sequence[float], *, clusters: Sequence[Hashable] | None = None, confidence: float = 0.95
) -> Interval:
    """Return the mean with a Student t interval, standard error s / sqrt(n).

    Args:
        values: scores of the items, shape [n].
        clusters: shape [n]; items of one cluster (samples of one prompt, checks of one document) are not
            independent. The variance is then sum over clusters of (sum of deviations)^2 / n^2, times
            C / (C - 1) for C clusters, with C - 1 degrees of freedom. Miller (2411.00640) leaves out the
            factor; with it, clusters of one item agree with the plain rule.
        confidence: coverage of the interval.

    Raises:
        ValueError: if `values` is empty, holds None, NaN or an infinity, or does not fit `clusters`.

    Example:
        >>> interval = mean_interval([1.0, 2.0, 3.0, 4.0])
        >>> interval.estimate, round(interval.low, 3), round(interval.high, 3)
        (2.5, 0.446, 4.554)
    """
    numbers = _checked(values, "values")
    groups = list(range(len(numbers))) if clusters is None else list(clusters)
    if len(groups) != len(numbers):
        raise ValueError(
            f"clusters has {len(groups)} entries for {len(numbers)} values: give one for each value"
        )
    mean = math.fsum(numbers) / len(numbers)
    sums: dict[Hashable, float] = {}
    for group, number in zip(groups, numbers, strict=True):
        sums[group] = sums.get(group, 0.0) + number - mean
    method = "t" if clusters is None else "t, clustered"
    if len(sums) < 2:
        return Interval(estimate=mean, stderr=None, low=None, high=None, n=len(numbers), method=method)
    spread = math.fsum(total * total for total in sums.values())
    stderr = math.sqrt(spread * len(sums) / (len(sums) - 1)) / len(numbers)
    half = stderr * _t_quantile(confidence, len(sums) - 1)
    return Interval(
        estimate=mean, stderr=stderr, low=mean - half, high=mean + half, n=len(numbers), method=method
    )


def wilson_interval(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Return a share with its Wilson score interval, which stays inside 0..1; stderr is sqrt(p(1 - p)/n).

    Raises:
        ValueError: if `n` is not positive or `successes` is outside 0..n.

    Example:
        >>> interval = wilson_interval(8, 10)
        >>> interval.estimate, round(interval.low, 3), round(interval.high, 3)
        (0.8, 0.49, 0.943)
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}: a share of no items does not exist")
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0..{n}, not {successes}")
    from statsmodels.stats.proportion import proportion_confint

    bounds: Any = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    share = successes / n
    # Rounding can leave the bound a hair outside 0..1.
    low, high = max(0.0, float(bounds[0])), min(1.0, float(bounds[1]))
    stderr = math.sqrt(share * (1 - share) / n)
    return Interval(estimate=share, stderr=stderr, low=low, high=high, n=n, method="wilson")


def median_interval(
    values: Sequence[float], seed: int, *, confidence: float = 0.95, num_resamples: int = 9999
) -> Interval:
    """Return the median with a bootstrap percentile interval; the same seed gives the same bounds.

    Raises:
        ValueError: if `values` is empty or holds None, NaN or an infinity.
    """
    numbers = _checked(values, "values")
    method = f"bootstrap percentile, {num_resamples} resamples, seed {seed}"
    import numpy as np

    median = float(np.median(numbers))
    if len(numbers) < 2:
        return Interval(estimate=median, stderr=None, low=None, high=None, n=len(numbers), method=method)
    from scipy.stats import bootstrap

    # Batches of about a million numbers: all resamples of a long list at once would fill the memory.
    batch = max(1, 1_000_000 // len(numbers))
    result = bootstrap(
        (np.asarray(numbers),),
        np.median,
        confidence_level=confidence,
        n_resamples=num_resamples,
        method="percentile",
        batch=batch,
        rng=np.random.default_rng(seed),
    )
    bounds: Any = result.confidence_interval
    return Interval(
        estimate=median,
        stderr=float(result.standard_error),
        low=float(bounds.low),
        high=float(bounds.high),
        n=len(numbers),
        method=method,
    )


def paired_difference(a: Sequence[float], b: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Return the mean of a - b over the same items in the same order, with a t interval on the differences.

    Raises:
        ValueError: if the two differ in length, are empty, or hold None, NaN or an infinity.

    Example:
        >>> paired_difference([3, 5, 4], [2, 3, 3]).estimate
        1.3333333333333333
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} values and b has {len(b)}: pair them item by item first")
    differences = [x - y for x, y in zip(_checked(a, "a"), _checked(b, "b"), strict=True)]
    interval = mean_interval(differences, confidence=confidence)
    return Interval(
        estimate=interval.estimate,
        stderr=interval.stderr,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        method="paired t",
    )


def mcnemar_p_value(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Return the exact two-sided McNemar p-value for two models' successes on the same items.

    Only the items where the two differ count: p = min(1, 2 P(Bin(n, 1/2) <= min(wins of a, wins of b))).

    Raises:
        ValueError: if the two differ in length.

    Example:
        >>> mcnemar_p_value([True] * 6, [False] * 5 + [True])
        0.0625
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} values and b has {len(b)}: pair them item by item first")
    a_only = sum(bool(x) and not y for x, y in zip(a, b, strict=True))
    b_only = sum(bool(y) and not x for x, y in zip(a, b, strict=True))
    if a_only + b_only == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(a_only, a_only + b_only, 0.5).pvalue)


def _t_quantile(confidence: float, degrees: int) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}: 0.95 is usual")
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, degrees))


def _checked(values: Sequence[float], name: str) -> list[float]:
    """Return the values as floats, or say which one is no number."""
    numbers: list[float] = []
    for index, value in enumerate(values):
        if value is None or not math.isfinite(value):
            raise ValueError(
                f"{name}[{index}] is {value}: give an item that failed its metric's floor, and leave an "
                "unscored one out, before asking for an interval"
            )
        numbers.append(float(value))
    if not numbers:
        raise ValueError(f"{name} is empty: there is nothing to estimate")
    return numbers
