"""Intervals by the bootstrap, for what has no formula: medians, RMSE, and composites such as ratios and products."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from lengthwise.observations import checked, cluster_sums, groups_of, is_rounding, table_of
from lengthwise.resampling import NUM_RESAMPLES, Draws, resample
from lengthwise.statistics import Interval, clustered


def median_interval(
    values: Sequence[float],
    seed: int,
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Return the median of the items, shape [n], with a bootstrap percentile interval.

    Whole clusters are drawn (`clusters` as for `mean_interval`); the same seed gives the same bounds. There are
    none where there is one cluster, or every draw has the same median.

    Raises:
        ValueError: if `values` is empty, holds None, NaN or an infinity, or does not fit `clusters`.

    Example:
        >>> median_interval([1.0, 2.0, 9.0], seed=0).estimate
        2.0
    """
    numbers = checked(values, "values")
    groups = groups_of(clusters, len(numbers))
    import numpy as np

    array = np.asarray(numbers)
    draws = resample(
        lambda rows: np.median(array[rows], axis=-1),
        groups,
        seed,
        confidence=confidence,
        num_resamples=num_resamples,
        smooth=False,
    )
    return interval_of_draws(float(np.median(array)), draws, groups, numbers)


def rmse_interval(
    values: Sequence[float],
    seed: int,
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Return the root of the mean of squared values with a bootstrap BCa interval.

    `values` are the items' errors, shape [n]; of several replies to an item, the root of their mean square. Where a
    few errors make most of the sum, the interval is too narrow (benchmarks/interval_coverage.py prints by how much).
    Otherwise as `median_interval`.

    Raises:
        ValueError: if `values` is empty, holds None, NaN or an infinity, or does not fit `clusters`.

    Example:
        >>> rmse_interval([3.0, -4.0, 0.0, 0.0], seed=0).estimate
        2.5
    """
    numbers = checked(values, "values")
    groups = groups_of(clusters, len(numbers))
    import numpy as np

    sums, sizes = cluster_sums([v * v for v in numbers], groups)
    draws = resample(
        lambda drawn: np.sqrt(sums[drawn].sum(axis=-1) / sizes[drawn].sum(axis=-1)),
        range(len(sums)),
        seed,
        confidence=confidence,
        num_resamples=num_resamples,
        smooth=True,
    )
    return interval_of_draws(float(np.sqrt(sums.sum() / sizes.sum())), draws, groups, numbers)


def bootstrap_interval(
    statistic: Callable[[Any], Any],
    rows: Sequence[Sequence[float]],
    seed: int = 0,
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Return any smooth statistic of rows with a bootstrap BCa interval: for ratios, products and composites.

    A composite's columns are not independent, so their standard errors do not add up to its own; rows are drawn
    whole instead. Draw documents, not their checks: name the document as the cluster. `statistic` takes rows,
    shape [..., n, k], and reduces axis -2; `rows` are the items' k columns. There are no bounds where a draw left
    the statistic undefined, which `method` then says.

    Raises:
        ValueError: if the rows are empty, uneven or hold what is no number, or the statistic of them is none.

    Example:
        The share of checks that pass, over documents of different numbers of checks:

        >>> passed_of = [(3, 4), (1, 2), (5, 5), (0, 3)]
        >>> found = bootstrap_interval(lambda x: x[..., 0].sum(-1) / x[..., 1].sum(-1), passed_of)
        >>> round(found.estimate, 4), found.n
        (0.6429, 4)
    """
    table = table_of(rows, "rows")
    estimate = value_of(statistic, table, "rows")
    groups = groups_of(clusters, len(table))
    draws = resample(
        lambda drawn: statistic(table[drawn]),
        groups,
        seed,
        confidence=confidence,
        num_resamples=num_resamples,
        smooth=True,
    )
    return interval_of_draws(estimate, draws, groups, [estimate])


def interval_of_draws(
    estimate: float, draws: Draws, groups: Sequence[Hashable], scale: Sequence[float]
) -> Interval:
    """Return what resampling says of an estimate; no bounds if every draw agrees, up to rounding."""
    agree = draws.stderr is not None and is_rounding(draws.stderr, scale)
    return Interval(
        estimate=estimate,
        stderr=0.0 if agree else draws.stderr,
        low=None if agree else draws.low,
        high=None if agree else draws.high,
        n=len(groups),
        method=draws.method + clustered(groups, degrees=False),
    )


def value_of(statistic: Callable[[Any], Any], table: Any, name: str) -> float:
    """Return the statistic of all rows.

    Raises:
        ValueError: if it is no finite number.
    """
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = np.asarray(statistic(table))
    if estimate.shape or not np.isfinite(estimate):
        raise ValueError(
            f"statistic({name}) is {estimate.tolist()}, expected one number: reduce axis -2 of [..., n, k], and "
            "ask for no ratio to 0"
        )
    return float(estimate)
