"""The bootstrap: what an estimate would have been with other items drawn from the same source.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13: percentile intervals. What is drawn are
clusters, not values: items that are not independent are drawn together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from lengthwise.observations import (
    check_confidence,
    checked,
    cluster_sums,
    groups_of,
    is_rounding,
    table_of,
)
from lengthwise.statistics import Interval, clustered

NUM_RESAMPLES = 10_000
"""Draws where nothing else is asked for: the bounds of a 95 % interval then rest on 250 draws each."""
_BATCH_NUMBERS = 1_000_000
"""How many numbers are drawn at once: all draws of a long list together would fill the memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """A statistic on resampled clusters; all None if there is one cluster."""

    values: Any = None
    """Array, shape [num_resamples]; NaN where the statistic is undefined (a ratio whose denominator is 0)."""
    stderr: float | None = None
    low: float | None = None
    high: float | None = None
    num_undefined: int = 0
    """Draws without a value. If there is one, there are no bounds: leaving it out would choose among the draws."""


def median_interval(
    values: Sequence[float],
    seed: int,
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
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
    )
    return interval_of_draws(
        float(np.median(array)), draws, groups, seed, num_resamples=num_resamples, scale=numbers
    )


def rmse_interval(
    values: Sequence[float],
    seed: int,
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Return the root of the mean of squared values with a bootstrap percentile interval.

    Args:
        values: errors of the items, shape [n]; of several replies to an item, the root of their mean square.
        seed: of the resampling.
        clusters: as for `mean_interval`; whole clusters are drawn.
        confidence: coverage of the interval. Squares have heavy tails: where a few errors make most of the
            sum, the interval is too narrow (benchmarks/interval_coverage.py prints by how much).
        num_resamples: draws.

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
    )
    root = float(np.sqrt(sums.sum() / sizes.sum()))
    return interval_of_draws(root, draws, groups, seed, num_resamples=num_resamples, scale=numbers)


def bootstrap_interval(
    statistic: Callable[[Any], Any],
    rows: Sequence[Sequence[float]],
    seed: int = 0,
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Return any statistic of rows with a bootstrap percentile interval: for ratios, products and composites.

    A composite's columns are not independent, so their standard errors do not add up to its own; rows are drawn
    whole instead. Draw documents, not their checks: name the document as the cluster.

    Args:
        statistic: takes rows, shape [..., n, k], and returns its values, shape [...]: reduce axis -2.
        rows: the items' columns, shape [n, k].
        seed: of the resampling.
        clusters: as for `mean_interval`; whole clusters are drawn.
        confidence: coverage of the interval.
        num_resamples: draws.

    Returns:
        The estimate; without bounds where a draw left the statistic undefined, which `method` then says.

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
    groups = groups_of(clusters, len(table))
    draws = resample(
        lambda drawn: statistic(table[drawn]),
        groups,
        seed,
        confidence=confidence,
        num_resamples=num_resamples,
    )
    estimate = value_of(statistic, table, "rows")
    return interval_of_draws(estimate, draws, groups, seed, num_resamples=num_resamples, scale=[estimate])


def resample(
    statistic: Callable[[Any], Any],
    groups: Sequence[Hashable],
    seed: int,
    *,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> Draws:
    """Draw whole clusters with replacement, as many as there are; the same seed gives the same draws.

    Args:
        statistic: takes an array of row numbers, shape [..., n], and returns its values, shape [...]. Where
            clusters differ in size, one draw comes at a time, as n then differs from draw to draw.
        groups: the cluster of each row.
        seed: of the draws.
        confidence: coverage of the percentile interval.
        num_resamples: draws.

    Returns:
        The draws, their standard deviation, and their quantiles at (1 - confidence) / 2 from both ends.

    Raises:
        ValueError: if `confidence` is no share or `num_resamples` is below 2.

    Example:
        >>> import numpy as np
        >>> values = np.array([1.0, 2.0, 3.0, 9.0])
        >>> resample(lambda rows: values[rows].mean(axis=-1), range(4), 0, num_resamples=99).values.shape
        (99,)
    """
    check_confidence(confidence)
    if num_resamples < 2:
        raise ValueError(f"num_resamples is {num_resamples}: two draws are the least that have a spread")
    import numpy as np

    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    if len(members) < 2:
        return Draws()
    values = _draw(statistic, [np.asarray(rows) for rows in members.values()], seed, num_resamples)
    num_undefined = int(np.count_nonzero(~np.isfinite(values)))
    if num_undefined:
        return Draws(values=values, num_undefined=num_undefined)
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Draws(values=values, stderr=float(values.std(ddof=1)), low=float(low), high=float(high))


def interval_of_draws(
    estimate: float,
    draws: Draws,
    groups: Sequence[Hashable],
    seed: int,
    *,
    num_resamples: int,
    scale: Sequence[float],
) -> Interval:
    """Return what resampling says of an estimate; no bounds if every draw agrees, up to rounding."""
    method = f"bootstrap percentile, {num_resamples} resamples, seed {seed}{clustered(groups, degrees=False)}"
    if draws.num_undefined:
        method += f", no bounds: undefined in {draws.num_undefined} resamples"
    agree = draws.stderr is not None and is_rounding(draws.stderr, scale)
    return Interval(
        estimate=estimate,
        stderr=0.0 if agree else draws.stderr,
        low=None if agree else draws.low,
        high=None if agree else draws.high,
        n=len(groups),
        method=method,
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


def _draw(statistic: Callable[[Any], Any], clusters: Sequence[Any], seed: int, num_resamples: int) -> Any:
    """Return the statistic of each draw; draws of equal size are taken together, which is far faster."""
    import numpy as np

    stream = np.random.default_rng(seed)
    num_rows = sum(len(rows) for rows in clusters)
    batch = max(1, _BATCH_NUMBERS // num_rows)
    even = np.stack(clusters) if len({len(rows) for rows in clusters}) == 1 else None
    found = []
    with np.errstate(divide="ignore", invalid="ignore"):  # an undefined draw is counted, not warned of
        for start in range(0, num_resamples, batch):
            size = min(batch, num_resamples - start)
            drawn = stream.integers(0, len(clusters), (size, len(clusters)))
            if even is not None:
                found.append(np.asarray(statistic(even[drawn].reshape(size, -1)), dtype=float))
            else:
                each = [statistic(np.concatenate([clusters[i] for i in line])) for line in drawn]
                found.append(np.asarray(each, dtype=float))
    return np.concatenate(found)
