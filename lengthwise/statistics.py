"""Intervals beside every mean: an estimate without its spread is not reported.

The file shares its name with a module of the standard library, which is safe inside a package: import it as
`lengthwise.statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An estimate with its uncertainty.

    `stderr`, `low` and `high` are None where one value allows none. `low` and `high` are None also where the
    spread is 0: values that all agree do not say how far the next one may lie, and an interval without width
    would claim that they do.
    """

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
    """Two-sided, for "no difference"; None where one cluster allows no test. Never below `least_p_value`."""
    num_clusters: int
    """Independent groups of items that it rests on; items, where no two share a cluster."""


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

    Returns:
        The mean; without an interval where there is one cluster, or no spread.

    Raises:
        ValueError: if `values` is empty, holds None, NaN or an infinity, or does not fit `clusters`.

    Example:
        >>> interval = mean_interval([1.0, 2.0, 3.0, 4.0])
        >>> interval.estimate, round(interval.low, 3), round(interval.high, 3)
        (2.5, 0.446, 4.554)
    """
    numbers = _checked(values, "values")
    groups = _groups(clusters, len(numbers))
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
    if _is_rounding(stderr, numbers):
        return Interval(estimate=mean, stderr=0.0, low=None, high=None, n=len(numbers), method=method)
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
    values: Sequence[float],
    seed: int,
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    num_resamples: int = 9999,
) -> Interval:
    """Return the median with a bootstrap percentile interval; the same seed gives the same bounds.

    Args:
        values: scores of the items, shape [n].
        seed: of the resampling.
        clusters: as for `mean_interval`; whole clusters are drawn.
        confidence: coverage of the interval.
        num_resamples: draws.

    Returns:
        The median; without an interval where there is one cluster, or every draw has the same median.

    Raises:
        ValueError: if `values` is empty, holds None, NaN or an infinity, or does not fit `clusters`.
    """
    numbers = _checked(values, "values")
    groups = _groups(clusters, len(numbers))
    method = f"bootstrap percentile, {num_resamples} resamples, seed {seed}"
    import numpy as np

    array = np.asarray(numbers)
    if len(set(groups)) < len(groups):
        method += ", clustered"
    draws = _resampled(
        lambda rows: np.median(array[rows], axis=-1), groups, seed, confidence, num_resamples, scale=numbers
    )
    return Interval(
        estimate=float(np.median(array)),
        stderr=draws.stderr,
        low=draws.low,
        high=draws.high,
        n=len(numbers),
        method=method,
    )


def summary_interval(
    replies: Iterable[tuple[Hashable, Hashable, float]],
    summary: Literal["mean", "proportion", "median", "rmse"] = "mean",
    *,
    seed: int = 0,
) -> Interval | None:
    """Return a metric's estimate over the replies of an evaluation, None if there is none.

    The mean of an item's replies is one observation: replies to one prompt resemble each other, and counting
    each alone would make the interval too narrow. For the same reason items with equal prompts are a cluster;
    a share then has the clustered t interval in place of Wilson's, which knows no clusters. Of `rmse`, the root of
    the mean of squared scores, the interval is the root of the one of the mean square, and the standard error
    its first-order propagation, s / (2 rmse).

    Args:
        replies: (item, cluster, score) of each reply.
        summary: how the metric is summed up.
        seed: of the resampling, for medians.

    Example:
        >>> found = summary_interval([("a", "p", 1.0), ("a", "p", 0.0), ("b", "q", 1.0)])
        >>> found.estimate, found.n
        (0.75, 2)
    """
    scores: dict[Hashable, list[float]] = {}
    cluster_of: dict[Hashable, Hashable] = {}
    for item, cluster, score in replies:
        scores.setdefault(item, []).append(score**2 if summary == "rmse" else score)
        cluster_of.setdefault(item, cluster)
    if not scores:
        return None
    values, clusters = [sum(found) / len(found) for found in scores.values()], list(cluster_of.values())
    if summary == "median":
        return median_interval(values, seed, clusters=clusters)
    shared = len(set(clusters)) < len(clusters)
    if summary == "proportion" and not shared and set(values) <= {0.0, 1.0}:
        return wilson_interval(round(sum(values)), len(values))
    interval = mean_interval(values, clusters=clusters if shared else None)
    return _rooted(interval) if summary == "rmse" else interval


def _rooted(square: Interval) -> Interval:
    """Return the root of a mean square; a bound below 0 is 0."""
    root = math.sqrt(square.estimate)
    return Interval(
        estimate=root,
        stderr=square.stderr if square.stderr is None or root == 0 else square.stderr / (2 * root),
        low=None if square.low is None else math.sqrt(max(0.0, square.low)),
        high=None if square.high is None else math.sqrt(square.high),
        n=square.n,
        method=f"{square.method}, of the squares",
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

    No p-value is below `least_p_value`: with few items both rest on a spread that few items do not show, and
    resampling three items that all rose never draws a fall. Where the differences have no spread there is no
    interval, and the p-value is that bound (1 if there is no difference).

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
    groups = _groups(clusters, len(first))
    num_clusters = len(set(groups))
    if summary == "median":
        return _median_difference(first, second, groups, seed, confidence, num_resamples)
    found = mean_interval(
        [x - y for x, y in zip(first, second, strict=True)], clusters=clusters, confidence=confidence
    )
    method, p_value = f"paired {found.method}", None
    if num_clusters == len(first) and {*first, *second} <= {0.0, 1.0}:
        method += ", exact McNemar"
        p_value = mcnemar_p_value([x == 1 for x in first], [y == 1 for y in second])
    elif found.stderr is not None:
        p_value = _t_p_value(found.estimate, found.stderr, num_clusters - 1)
    return PairedDifference(
        estimate=found.estimate,
        stderr=found.stderr,
        low=found.low,
        high=found.high,
        n=found.n,
        method=method,
        p_value=None if p_value is None else max(p_value, least_p_value(num_clusters)),
        num_clusters=num_clusters,
    )


def least_p_value(num_clusters: int) -> float:
    """Return the smallest two-sided p-value that a sign-flip test of so many clusters can reach.

    If there is no difference, each cluster's sign is as likely as its opposite, and all of them agree in two of
    2^C cases.

    Example:
        >>> [least_p_value(n) for n in (1, 3, 6)]
        [1.0, 0.25, 0.03125]
    """
    return min(1.0, 2.0 ** (1 - num_clusters))


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
    return exact_mcnemar(a_only, b_only)


def exact_mcnemar(num_won: int, num_lost: int) -> float:
    """Return McNemar's exact two-sided p-value by how many items only one of two models got right.

    Example:
        >>> exact_mcnemar(5, 0)
        0.0625
    """
    if num_won + num_lost == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(num_won, num_won + num_lost, 0.5).pvalue)


def _median_difference(
    a: list[float],
    b: list[float],
    groups: list[Hashable],
    seed: int,
    confidence: float,
    num_resamples: int,
) -> PairedDifference:
    import numpy as np

    first, second = np.asarray(a), np.asarray(b)

    def difference(rows: Any) -> Any:
        return np.median(first[rows], axis=-1) - np.median(second[rows], axis=-1)

    draws = _resampled(difference, groups, seed, confidence, num_resamples, scale=[*a, *b])
    p_value = None
    if draws.values is not None:
        # One more than counted (Davison and Hinkley 1997, equation 4.11): no draw is proof of p = 0.
        tail = 1 + min(int((draws.values <= 0).sum()), int((draws.values >= 0).sum()))
        p_value = max(min(1.0, 2 * tail / (num_resamples + 1)), least_p_value(len(set(groups))))
    return PairedDifference(
        estimate=float(np.median(first) - np.median(second)),
        stderr=draws.stderr,
        low=draws.low,
        high=draws.high,
        n=len(a),
        method=f"paired bootstrap percentile, {num_resamples} resamples, seed {seed}",
        p_value=p_value,
        num_clusters=len(set(groups)),
    )


@dataclass(frozen=True, slots=True)
class _Draws:
    """What resampling says; nothing, of one cluster."""

    values: Any = None
    stderr: float | None = None
    low: float | None = None
    high: float | None = None


def _resampled(
    statistic: Callable[[Any], Any],
    groups: Sequence[Hashable],
    seed: int,
    confidence: float,
    num_resamples: int,
    *,
    scale: Sequence[float],
) -> _Draws:
    """Draw whole clusters with replacement; `statistic` takes the numbers of the rows drawn, shape [..., n]."""
    import numpy as np
    from scipy.stats import bootstrap

    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    clusters = [np.asarray(rows) for rows in members.values()]
    if len(clusters) < 2:
        return _Draws()
    are_rows = len(clusters) == len(groups)

    def of_rows(drawn: Any, axis: int = -1) -> Any:
        return statistic(drawn)

    def of_clusters(drawn: Any) -> Any:
        return statistic(np.concatenate([clusters[i] for i in drawn]))

    result = bootstrap(
        (np.arange(len(clusters)),),
        of_rows if are_rows else of_clusters,
        vectorized=are_rows,
        confidence_level=confidence,
        n_resamples=num_resamples,
        method="percentile",
        # Batches of about a million numbers: all resamples of a long list at once would fill the memory.
        batch=max(1, 1_000_000 // len(groups)),
        rng=np.random.default_rng(seed),
    )
    stderr = float(result.standard_error)
    if _is_rounding(stderr, scale):
        return _Draws(result.bootstrap_distribution, 0.0)
    bounds: Any = result.confidence_interval
    return _Draws(result.bootstrap_distribution, stderr, float(bounds.low), float(bounds.high))


def _groups(clusters: Sequence[Hashable] | None, num_values: int) -> list[Hashable]:
    """Return the cluster of each value; each its own where none are given."""
    if clusters is None:
        return list(range(num_values))
    if len(clusters) != num_values:
        raise ValueError(
            f"clusters has {len(clusters)} entries for {num_values} values: give one for each value"
        )
    return list(clusters)


def _is_rounding(stderr: float, values: Sequence[float]) -> bool:
    """Tell whether a standard error is 0, up to what floats of the size of the values can tell apart."""
    return stderr <= 1e-9 * max(map(abs, values))


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
