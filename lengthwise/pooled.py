"""Metrics that are made of sums over all documents, not of one value each: ratios, their products, and kappa.

A document's checks are not independent, and documents have different numbers of them: the share of all checks that
are met is a ratio of sums, not the mean of the documents' shares, and its spread comes from documents. What is summed
stands in other columns of the same rows; whole clusters of documents are drawn for the interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from lengthwise.bootstrap_intervals import bootstrap_interval
from lengthwise.paired import PairedDifference, paired_bootstrap
from lengthwise.statistics import Interval

Columns = Sequence[str | None]
"""Names of what is summed, in the order that the statistic takes; None is 1 for each document."""


def ratio_product(table: Any) -> Any:
    """Return the product of sum / sum over pairs of columns, shape [..., n, 2 p] to [...].

    Example:
        Two documents with 3 of 4 and 1 of 2 checks met; then times their mean completion, 1 and 0.5:

        >>> import numpy as np
        >>> float(ratio_product(np.array([[3, 4], [1, 2]])))
        0.6666666666666666
        >>> float(ratio_product(np.array([[3, 4, 1, 1], [1, 2, 0.5, 1]])))
        0.5
    """
    sums = table.sum(axis=-2)
    return (sums[..., 0::2] / sums[..., 1::2]).prod(axis=-1)


def kappa_of_cells(table: Any) -> Any:
    """Return Cohen's kappa of two raters by the sums of four columns: both yes, only the first, only the second, none.

    The same number as `lengthwise.agreement.cohen_kappa` of the single labels; undefined where both give one label.

    Example:
        >>> import numpy as np
        >>> round(float(kappa_of_cells(np.array([[20, 5, 10, 15]]))), 3)
        0.4
    """
    both, first, second, none = (table.sum(axis=-2)[..., column] for column in range(4))
    total = both + first + second + none
    agreed = (both + none) / total
    by_chance = ((both + first) * (both + second) + (none + first) * (none + second)) / total**2
    return (agreed - by_chance) / (1 - by_chance)


STATISTICS: Mapping[str, Callable[[Any], Any]] = {"ratio": ratio_product, "kappa": kappa_of_cells}
"""The summaries that are made of sums, see `lengthwise.summaries.Summary`."""


def columns_of(metrics: Mapping[str, float | None], columns: Columns) -> tuple[float, ...] | None:
    """Return a row's values of some columns; None if it lacks one, as a row does that was not scored.

    Example:
        >>> columns_of({"num_met": 3.0}, ("num_met", None)), columns_of({}, ("num_met", None))
        ((3.0, 1.0), None)
    """
    found = [1.0 if name is None else metrics.get(name) for name in columns]
    known = tuple(value for value in found if value is not None)
    return known if len(known) == len(found) else None


def pooled_value(rows: Sequence[Sequence[float]], summary: str) -> float | None:
    """Return the statistic of all rows; None where it is not defined, such as a share of no checks.

    Example:
        >>> pooled_value([(3, 4), (1, 2)], "ratio"), pooled_value([(0, 0)], "ratio")
        (0.6666666666666666, None)
    """
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(STATISTICS[summary](np.asarray(rows, dtype=float)))
    return value if math.isfinite(value) else None


def pooled_interval(
    replies: Iterable[tuple[Hashable, Hashable, Sequence[float]]], summary: str, *, seed: int = 0
) -> Interval | None:
    """Return a pooled metric's estimate, with the BCa interval of `bootstrap_interval` over clusters of items.

    Args:
        replies: (item, cluster, values of the columns) of each reply; several replies to an item count as their mean.
        summary: a key of `STATISTICS`.
        seed: of the resampling.

    Returns:
        None where there is no reply, or the statistic is not defined.

    Example:
        >>> found = pooled_interval([("a", "a", (3, 4)), ("b", "b", (1, 2))], "ratio")
        >>> round(found.estimate, 3), found.n
        (0.667, 2)
    """
    rows: dict[Hashable, list[Sequence[float]]] = {}
    cluster_of: dict[Hashable, Hashable] = {}
    for item, cluster, values in replies:
        rows.setdefault(item, []).append(values)
        cluster_of.setdefault(item, cluster)
    means = [mean_columns(found) for found in rows.values()]
    if not means or pooled_value(means, summary) is None:
        return None
    return bootstrap_interval(STATISTICS[summary], means, seed, clusters=list(cluster_of.values()))


def pooled_difference(
    a: Sequence[Sequence[float]],
    b: Sequence[Sequence[float]],
    summary: str,
    *,
    clusters: Sequence[Hashable] | None = None,
) -> PairedDifference | None:
    """Return the statistic of `a` less that of `b` over the same documents, as `paired_bootstrap` does.

    Returns:
        None where it is not defined for one of them.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> round(pooled_difference([(3, 4), (2, 2)], [(2, 4), (1, 2)], "ratio").estimate, 3)
        0.333
    """
    if pooled_value(a, summary) is None or pooled_value(b, summary) is None:
        return None
    return paired_bootstrap(STATISTICS[summary], a, b, clusters=clusters)


def mean_columns(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the mean of each column: what several replies to one item count as.

    Example:
        >>> mean_columns([(3, 4), (1, 4)])
        (2.0, 4.0)
    """
    return tuple(math.fsum(column) / len(rows) for column in zip(*rows, strict=True))
