"""Splits a whole number in proportion to weights, as seats are given to parties."""

from __future__ import annotations

from collections.abc import Sequence


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Return whole shares of `total`, in proportion to the weights (the method of the largest remainders).

    Args:
        total: what is split.
        weights: shape [n], positive; the first of equal remainders gets what rounding left.

    Returns:
        Shape [n]; the sum is `total`.

    Example:
        >>> apportion(40, [26, 36, 31, 27])
        [9, 12, 10, 9]
    """
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [int(value) for value in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares
