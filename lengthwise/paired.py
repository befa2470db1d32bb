"""Two models on the same items: the difference, its interval, and whether chance explains it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lengthwise.bootstrap_intervals import interval_of_draws, value_of
from lengthwise.observations import checked, cluster_sums, groups_of, table_of
from lengthwise.resampling import NUM_RESAMPLES, Draws, resample
from lengthwise.statistics import Interval, mean_interval
from lengthwise.summaries import Summary, summary_of


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDifference(Interval):
    """A difference between two models on the same items."""

    p_value: float | None
    """Two-sided, for "no difference"; None where one cluster allows no test. Never below `least_p_value`."""
    num_clusters: int
    """Independent groups of items that it rests on; items, where no two share a cluster."""


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    summary: Summary = "mean",
    seed: int = 0,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> PairedDifference:
    """Return summary(a) - summary(b) over the same items in the same order, shape [n] each.

    Means and shares get a t interval on the differences and its p-value; where every value is 0 or 1 and no two
    items share a cluster, the p-value is McNemar's exact one. Medians and RMSE get an interval by
    resampling whole clusters with both values of each item (`num_resamples` draws from `seed`), and the p-value
    from the same draws. `clusters` are as for `mean_interval`.

    No p-value is below `least_p_value`: with few items all rest on a spread that few items do not show, and
    resampling three items that all rose never draws a fall. Where the differences have no spread there is no
    interval, and the p-value is that bound (1 if there is no difference).

    Raises:
        ValueError: if the shapes differ, or the values are empty or hold None, NaN or an infinity.

    Example:
        >>> paired_difference([3, 5, 4], [2, 3, 3]).estimate
        1.3333333333333333
    """
    _check_pairing(a, b)
    first, second = checked(a, "a"), checked(b, "b")
    groups = groups_of(clusters, len(first))
    if summary in ("median", "rmse"):
        draws = _summary_draws(summary, first, second, groups, seed, confidence, num_resamples)
        estimate = summary_of(first, summary) - summary_of(second, summary)
        return _resampled_difference(estimate, draws, groups, [*first, *second])
    return _mean_difference(first, second, groups, confidence)


def paired_bootstrap(
    statistic: Callable[[Any], Any],
    a: Sequence[Sequence[float]],
    b: Sequence[Sequence[float]],
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> PairedDifference:
    """Return statistic(a) - statistic(b) over the same items, for ratios, products and other composites.

    `statistic` takes rows, shape [..., n, k], and reduces axis -2, as for `bootstrap_interval`; `a` and `b` are the
    items' k columns under each model, shape [n, k]. Each draw takes whole clusters, with both models' rows.
    The difference has no bounds and no p-value where a draw left the statistic undefined; `method` says so.

    Raises:
        ValueError: if the shapes differ, or the statistic of all rows is no number.

    Example:
        Completion times accuracy, and the share of passed checks over documents of different sizes:

        >>> product = lambda x: x[..., 0].mean(-1) * x[..., 1].mean(-1)
        >>> paired_bootstrap(product, [(1, 0.5), (1, 1.0)], [(1, 0.5), (0, 0.5)], num_resamples=99).estimate
        0.5
        >>> ratio = lambda x: x[..., 0].sum(-1) / x[..., 1].sum(-1)
        >>> paired_bootstrap(ratio, [(3, 4), (2, 2)], [(2, 4), (1, 2)], num_resamples=99).n
        2
    """
    _check_pairing(a, b)
    first, second = table_of(a, "a"), table_of(b, "b")
    before, after = value_of(statistic, second, "b"), value_of(statistic, first, "a")
    groups = groups_of(clusters, len(first))
    draws = resample(
        lambda rows: statistic(first[rows]) - statistic(second[rows]),
        groups,
        seed,
        confidence=confidence,
        num_resamples=num_resamples,
        smooth=True,
    )
    return _resampled_difference(after - before, draws, groups, [before, after])


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


def _check_pairing(a: Sequence[Any], b: Sequence[Any]) -> None:
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} values and b has {len(b)}: pair them item by item first")


def _mean_difference(
    a: Sequence[float], b: Sequence[float], groups: Sequence[Hashable], confidence: float
) -> PairedDifference:
    num_clusters = len(set(groups))
    changes = [x - y for x, y in zip(a, b, strict=True)]
    found = mean_interval(changes, clusters=groups, confidence=confidence)
    method, p_value = found.method, None
    if num_clusters == len(a) and {*a, *b} <= {0.0, 1.0}:
        method += ", exact McNemar"
        p_value = mcnemar_p_value([x == 1 for x in a], [y == 1 for y in b])
    elif found.stderr is not None:
        p_value = _t_p_value(found.estimate, found.stderr, num_clusters - 1)
    return _paired(replace(found, method=method), p_value, num_clusters)


def _summary_draws(
    summary: Summary,
    a: Sequence[float],
    b: Sequence[float],
    groups: Sequence[Hashable],
    seed: int,
    confidence: float,
    num_resamples: int,
) -> Draws:
    """Return draws of the difference of medians or of RMSE."""
    import numpy as np

    if summary == "median":
        first, second = np.asarray(a), np.asarray(b)

        def difference(rows: Any) -> Any:
            return np.median(first[rows], axis=-1) - np.median(second[rows], axis=-1)

        return resample(
            difference, groups, seed, confidence=confidence, num_resamples=num_resamples, smooth=False
        )
    ours, sizes = cluster_sums([v * v for v in a], groups)
    theirs, _ = cluster_sums([v * v for v in b], groups)

    def roots(drawn: Any) -> Any:
        num = sizes[drawn].sum(axis=-1)
        return np.sqrt(ours[drawn].sum(axis=-1) / num) - np.sqrt(theirs[drawn].sum(axis=-1) / num)

    return resample(
        roots, range(len(sizes)), seed, confidence=confidence, num_resamples=num_resamples, smooth=True
    )


def _resampled_difference(
    estimate: float, draws: Draws, groups: Sequence[Hashable], scale: Sequence[float]
) -> PairedDifference:
    p_value = None
    if draws.values is not None and not draws.num_undefined:
        # One more than counted (Davison and Hinkley 1997, equation 4.11): no draw is proof of p = 0.
        tail = 1 + min(int((draws.values <= 0).sum()), int((draws.values >= 0).sum()))
        p_value = min(1.0, 2 * tail / (len(draws.values) + 1))
    return _paired(interval_of_draws(estimate, draws, groups, scale), p_value, len(set(groups)))


def _paired(found: Interval, p_value: float | None, num_clusters: int) -> PairedDifference:
    return PairedDifference(
        estimate=found.estimate,
        stderr=found.stderr,
        low=found.low,
        high=found.high,
        n=found.n,
        method=f"paired {found.method}",
        p_value=None if p_value is None else max(p_value, least_p_value(num_clusters)),
        num_clusters=num_clusters,
    )


def _t_p_value(estimate: float, stderr: float, degrees: int) -> float:
    if stderr == 0:
        return 1.0 if estimate == 0 else 0.0
    from scipy.stats import t

    return float(2 * t.sf(abs(estimate / stderr), degrees))
