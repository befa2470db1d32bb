"""Intervals beside every estimate: a number without its spread is not reported.

Here are those that have a formula. `lengthwise.resampling` has the bootstrap, `lengthwise.summaries` picks what a
metric needs, `lengthwise.paired` compares two models on the same items, and `lengthwise.power` says what a number
of items can show. The file shares its name with a module of the standard library, which is safe inside a package:
import it as `lengthwise.statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from lengthwise.observations import check_confidence, checked, groups_of, is_rounding


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


def mean_interval(
    values: Sequence[float], *, clusters: Sequence[Hashable] | None = None, confidence: float = 0.95
) -> Interval:
    """Return the mean with a Student t interval, standard error s / sqrt(n).

    Args:
        values: scores of the items, shape [n].
        clusters: shape [n]; items of one cluster (samples of one prompt, checks of one document) are not
            independent. The variance is then sum over clusters of (sum of deviations)^2 / n^2, times
            C / (C - 1) for C clusters. Miller (2411.00640) leaves out the factor; with it, clusters of one item
            agree with the plain rule. The quantile is t's with C - 1 degrees of freedom for every C, where
            normal ones are common from 40 on: there the two differ by less than 4 %, and t is the one that is
            never too narrow.
        confidence: coverage of the interval.

    Returns:
        The mean; without an interval where there is one cluster, or no spread. `method` says how many clusters
        and degrees of freedom there are, where items share one.

    Raises:
        ValueError: if `values` is empty, holds None, NaN or an infinity, or does not fit `clusters`.

    Example:
        >>> interval = mean_interval([1.0, 2.0, 3.0, 4.0])
        >>> interval.estimate, round(interval.low, 3), round(interval.high, 3)
        (2.5, 0.446, 4.554)
    """
    numbers = checked(values, "values")
    groups = groups_of(clusters, len(numbers))
    method = f"t{clustered(groups)}"
    mean, stderr = _mean_and_stderr(numbers, groups)
    half = None if not stderr else stderr * _t_quantile(confidence, len(set(groups)) - 1)
    return Interval(
        estimate=mean,
        stderr=stderr,
        low=None if half is None else mean - half,
        high=None if half is None else mean + half,
        n=len(numbers),
        method=method,
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
    check_confidence(confidence)
    from scipy.stats import norm

    share = successes / n
    low, high = _score_bounds(share, n, float(norm.ppf((1 + confidence) / 2)))
    stderr = math.sqrt(share * (1 - share) / n)
    return Interval(estimate=share, stderr=stderr, low=low, high=high, n=n, method="wilson")


def share_interval(
    values: Sequence[float], *, clusters: Sequence[Hashable] | None = None, confidence: float = 0.95
) -> Interval:
    """Return the mean of values in 0..1, whose items may share clusters, with an interval that stays inside 0..1.

    Wilson's score interval with the number of items that would be as informative if they were independent,
    n' = p(1 - p) / stderr^2 with the clustered standard error of `mean_interval`, and with t's quantile at C - 1
    degrees of freedom for C clusters (Korn and Graubard, Survey Methodology 24 (1998), 193-201; Dean and Pagano,
    J. Surv. Stat. Methodol. 3 (2015), 484-503). Where all items agree the clusters cannot show how alike their
    items are, and n' is C, as if they were copies. Items that are each 0 or 1 and share no cluster get
    `wilson_interval`.

    Raises:
        ValueError: if a value lies outside 0..1, or as for `mean_interval`.

    Example:
        >>> found = share_interval([1.0, 1.0, 0.0, 1.0, 0.0, 0.0], clusters=list("aabbcc"))
        >>> found.estimate, round(found.low, 3), round(found.high, 3)
        (0.5, 0.036, 0.964)
    """
    numbers = checked(values, "values")
    groups = groups_of(clusters, len(numbers))
    num_clusters = len(set(groups))
    outside = next((v for v in numbers if not 0 <= v <= 1), None)
    if outside is not None:
        raise ValueError(f"values holds {outside}: a share lies in 0..1; mean_interval takes any values")
    if num_clusters == len(numbers) and set(numbers) <= {0.0, 1.0}:
        return wilson_interval(round(sum(numbers)), len(numbers), confidence=confidence)
    share, stderr = _mean_and_stderr(numbers, groups)
    low = high = None
    if stderr or (stderr == 0 and share in (0.0, 1.0)):
        alike = share * (1 - share) / stderr**2 if stderr else num_clusters
        low, high = _score_bounds(share, alike, _t_quantile(confidence, num_clusters - 1))
    return Interval(
        estimate=share,
        stderr=stderr,
        low=low,
        high=high,
        n=len(numbers),
        method=f"wilson{clustered(groups) or ', of mean replies'}",
    )


def clustered(groups: Sequence[Hashable], *, degrees: bool = True) -> str:
    """Return what a method's name says of clusters; nothing where no two items share one."""
    num = len(set(groups))
    if num == len(groups):
        return ""
    told = f"{num} cluster{'s' if num > 1 else ''}"
    if degrees:
        told += f", {num - 1} degree{'' if num == 2 else 's'} of freedom"
    return f", clustered ({told})"


def _mean_and_stderr(numbers: Sequence[float], groups: Sequence[Hashable]) -> tuple[float, float | None]:
    """Return the mean and its clustered standard error; None of one cluster, 0 for what is rounding."""
    mean = math.fsum(numbers) / len(numbers)
    sums: dict[Hashable, float] = {}
    for group, number in zip(groups, numbers, strict=True):
        sums[group] = sums.get(group, 0.0) + number - mean
    if len(sums) < 2:
        return mean, None
    spread = math.fsum(total * total for total in sums.values())
    stderr = math.sqrt(spread * len(sums) / (len(sums) - 1)) / len(numbers)
    return mean, 0.0 if is_rounding(stderr, numbers) else stderr


def _score_bounds(share: float, n: float, z: float) -> tuple[float, float]:
    """Return Wilson's bounds (J. Am. Stat. Assoc. 22 (1927), 209-212), kept in 0..1, where rounding may leave it."""
    middle, shrink = share + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / shrink), min(1.0, (middle + half) / shrink)


def _t_quantile(confidence: float, degrees: int) -> float:
    check_confidence(confidence)
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, degrees))
