"""Which of several models are worth their cost: the Pareto front of cost and quality."""

from __future__ import annotations

import math
from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that no other point dominates, cheapest first.

    A point is dominated by one that costs no more and is worth no less, and is better in one of the two. Equal
    points do not dominate each other.

    Args:
        points: (cost, quality); less cost and more quality are better.

    Raises:
        ValueError: a coordinate is NaN, which has no place in an order.

    Example:
        >>> pareto_front([(100, 0.5), (200, 0.7), (300, 0.6), (50, 0.1)])
        [3, 0, 1]
    """
    if any(math.isnan(value) for point in points for value in point):
        raise ValueError("a point has NaN as its cost or quality")
    front: list[int] = []
    best = -math.inf
    before: tuple[float, float] | None = None
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if points[index][1] > best or points[index] == before:
            front.append(index)
            best, before = points[index][1], points[index]
    return front
