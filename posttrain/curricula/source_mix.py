"""Whether rows of different lengths come from different sources: a curriculum by length is then one by source too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

LARGE = 0.3
"""Cramér's V above which a curriculum by length is largely one by source, and a run should say so."""

S = TypeVar("S")


def contingency(buckets: Sequence[int], sources: Sequence[S]) -> tuple[list[S], NDArray[np.int64]]:
    """Count the rows of each source and bucket.

    Args:
        buckets: shape [N], the bucket of each row, from 0.
        sources: shape [N], where each row is from.

    Returns:
        The sources in the order of their first rows, and shape [sources, buckets]: the numbers of rows.

    Example:
        >>> names, table = contingency([0, 1, 1], ["a", "a", "b"])
        >>> names, table.tolist()
        (['a', 'b'], [[1, 1], [0, 1]])
    """
    names = list(dict.fromkeys(sources))
    places = {name: place for place, name in enumerate(names)}
    table = np.zeros((len(names), max(buckets) + 1), dtype=np.int64)
    np.add.at(table, ([places[name] for name in sources], list(buckets)), 1)
    return names, table


def cramers_v(table: ArrayLike) -> float | None:
    """Return how strongly two labels of the same rows go together: the root of chi^2 / (n (min(r, c) - 1)).

    Args:
        table: shape [r, c], numbers of rows; empty rows and columns do not count.

    Returns:
        0 (not at all) to 1 (one tells the other); None where either label has one value only.

    Example:
        >>> cramers_v([[30, 10], [10, 30]])
        0.5
    """
    counts = np.asarray(table, dtype=np.float64)
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    if min(counts.shape) < 2:
        return None
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    chi2 = ((counts - expected) ** 2 / expected).sum()
    return float(np.sqrt(chi2 / (counts.sum() * (min(counts.shape) - 1))))
