"""Intervals beside every mean: an estimate without its spread is not reported.

The file shares its name with a module of the standard library, which is safe inside a package: import it as
`lengthwise.statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDifference(Interval):
    """A difference between two models on the same items."""

    p_value: float | None
    """Two-sided, for "no difference"; None where one cluster allows no test."""


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


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    summary: Literal["mean", "median"] = "mean",
    seed: int = 0,
    confidence: float = 0.95,
    num_resamples: int = 9999,
) -> PairedDifference:
    """Return summary(a) - summary(b) over the same items in the same order.

    Means get a t interval on the differences and its p-value; where every value is 0 or 1 and no two items
    share a cluster, the p-value is McNemar's exact one. Medians get a percentile interval by resampling
    whole clusters with both values of each item, and the p-value from the same draws.

    Args:
        a: scores of the items under one model, shape [n].
        b: scores of the same items under the other, shape [n].
        clusters: as for `mean_interval`; None: each item is its own.
        summary: how the metric is summed up.
        seed: of the resampling.
        confidence: coverage of the interval.
        num_resamples: draws, for medians.

    Raises:
        ValueError: if the shapes differ, or the values are empty or hold None, NaN or an infinity.

    Example:
        >>> paired_difference([3, 5, 4], [2, 3, 3]).estimate
        1.3333333333333333
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} values and b has {len(b)}: pair them item by item first")
    first, second = _checked(a, "a"), _checked(b, "b")
    if summary == "median":
        groups: Sequence[Hashable] = range(len(first)) if clusters is None else clusters
        return _median_difference(first, second, groups, seed, confidence, num_resamples)
    found = mean_interval(
        [x - y for x, y in zip(first, second, strict=True)], clusters=clusters, confidence=confidence
    )
    method, p_value = f"paired {found.method}", None
    singles = clusters is None or len(set(clusters)) == len(first)
    if singles and {*first, *second} <= {0.0, 1.0}:
        method += ", exact McNemar"
        p_value = mcnemar_p_value([x == 1 for x in first], [y == 1 for y in second])
    elif found.stderr is not None:
        degrees = (len(first) if clusters is None else len(set(clusters))) - 1
        p_value = _t_p_value(found.estimate, found.stderr, degrees)
    return PairedDifference(
        estimate=found.estimate,
        stderr=found.stderr,
        low=found.low,
        high=found.high,
        n=found.n,
        method=method,
        p_value=p_value,
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values after Holm's correction for their number; None (no test) stays and does not count.

    Example:
        >>> holm([0.01, None, 0.04])
        [0.02, None, 0.04]
    """
    known = [p for p in p_values if p is not None]
    if not known:
        return list(p_values)
    from statsmodels.stats.multitest import multipletests

    adjusted: Any = multipletests(known, method="holm")[1]
    corrected = iter(adjusted)
    return [None if p is None else float(next(corrected)) for p in p_values]


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


def _median_difference(
    a: list[float],
    b: list[float],
    clusters: Sequence[Hashable],
    seed: int,
    confidence: float,
    num_resamples: int,
) -> PairedDifference:
    import numpy as np
    from scipy.stats import bootstrap

    if len(clusters) != len(a):
        raise ValueError(f"clusters has {len(clusters)} entries for {len(a)} values: give one for each value")
    first, second = np.asarray(a), np.asarray(b)
    members: dict[Hashable, list[int]] = {}
    for index, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(index)
    items = [np.asarray(indices) for indices in members.values()]

    def difference(drawn: Any) -> float:
        rows = drawn if len(items) == len(a) else np.concatenate([items[i] for i in drawn])
        return float(np.median(first[rows]) - np.median(second[rows]))

    estimate = float(np.median(first) - np.median(second))
    method = f"paired bootstrap percentile, {num_resamples} resamples, seed {seed}"
    if len(items) < 2:
        return PairedDifference(
            estimate=estimate, stderr=None, low=None, high=None, n=len(a), method=method, p_value=None
        )
    result = bootstrap(
        (np.arange(len(items)),),
        difference,
        vectorized=False,
        confidence_level=confidence,
        n_resamples=num_resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    draws: Any = result.bootstrap_distribution
    # One more than counted (Davison and Hinkley 1997, equation 4.11): no draw is proof of p = 0.
    tail = 1 + min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    bounds: Any = result.confidence_interval
    return PairedDifference(
        estimate=estimate,
        stderr=float(result.standard_error),
        low=float(bounds.low),
        high=float(bounds.high),
        n=len(a),
        method=method,
        p_value=min(1.0, 2 * tail / (num_resamples + 1)),
    )


def _t_p_value(estimate: float, stderr: float, degrees: int) -> float:
    if stderr == 0:
        return 1.0 if estimate == 0 else 0.0
    from scipy.stats import t

    return float(2 * t.sf(abs(estimate / stderr), degrees))


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
