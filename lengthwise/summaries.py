"""One number for a metric: mean, share, median or RMSE over items that may have several replies each."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Literal, cast, get_args

from lengthwise.bootstrap_intervals import median_interval, rmse_interval
from lengthwise.statistics import Interval, mean_interval, share_interval

Summary = Literal["mean", "proportion", "median", "rmse", "ratio", "kappa"]
"""How the values of a metric become one number. `rmse` is the root of the mean of squared values. `ratio` and `kappa`
are made of sums of other columns (`lengthwise.pooled`); where those are not at hand, they are means here."""


def summary_interval(
    replies: Iterable[tuple[Hashable, Hashable, float]], summary: Summary = "mean", *, seed: int = 0
) -> Interval | None:
    """Return a metric's estimate over the replies of an evaluation, None if there is none.

    The mean of an item's replies is one observation (`item_value`): replies to one prompt resemble each other,
    and counting each alone would make the interval too narrow. For the same reason items with equal prompts are
    a cluster.

    Args:
        replies: (item, cluster, score) of each reply.
        summary: how the metric is summed up.
        seed: of the resampling, for medians and RMSE.

    Example:
        >>> found = summary_interval([("a", "p", 1.0), ("a", "p", 0.0), ("b", "q", 1.0)])
        >>> found.estimate, found.n
        (0.75, 2)
    """
    scores: dict[Hashable, list[float]] = {}
    cluster_of: dict[Hashable, Hashable] = {}
    for item, cluster, score in replies:
        scores.setdefault(item, []).append(score)
        cluster_of.setdefault(item, cluster)
    if not scores:
        return None
    values, clusters = [item_value(found, summary) for found in scores.values()], list(cluster_of.values())
    if summary == "median":
        return median_interval(values, seed, clusters=clusters)
    if summary == "rmse":
        return rmse_interval(values, seed, clusters=clusters)
    if summary == "proportion" and all(0 <= v <= 1 for v in values):
        return share_interval(values, clusters=clusters)
    return mean_interval(values, clusters=clusters)


def as_summary(name: Any) -> Summary:
    """Return the summary of this name; the mean, where a file of another tool names none that we know.

    Example:
        >>> as_summary("median"), as_summary(None)
        ('median', 'mean')
    """
    return cast(Summary, name) if name in get_args(Summary) else "mean"


def item_value(replies: Sequence[float], summary: Summary) -> float:
    """Return what the replies to one item count as: their mean, for RMSE the root of their mean square.

    Example:
        >>> item_value([1.0, 7.0], "mean"), item_value([1.0, -7.0], "rmse")
        (4.0, 5.0)
    """
    return root_mean_square(replies) if summary == "rmse" else math.fsum(replies) / len(replies)


def summary_of(values: Sequence[float], summary: Summary) -> float:
    """Return the items' values as one number.

    Example:
        >>> summary_of([1.0, 2.0, 9.0], "median"), summary_of([1.0, 7.0], "rmse")
        (2.0, 5.0)
    """
    if summary == "median":
        import numpy as np

        return float(np.median(values))
    return item_value(values, summary)


def root_mean_square(values: Sequence[float]) -> float:
    """Return sqrt(sum of v^2 / n).

    Example:
        >>> root_mean_square([1.0, 7.0])
        5.0
    """
    return math.sqrt(math.fsum(v * v for v in values) / len(values))
