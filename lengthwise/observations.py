"""What every statistic asks of its values: that they are numbers, and which of them belong together."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any


def checked(values: Sequence[float], name: str) -> list[float]:
    """Return the values as floats.

    Raises:
        ValueError: if there is none, or one is no number, by its place.
    """
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


def groups_of(clusters: Sequence[Hashable] | None, num_values: int) -> list[Hashable]:
    """Return the cluster of each value; each its own where none are given.

    Raises:
        ValueError: if there are not as many as values.
    """
    if clusters is None:
        return list(range(num_values))
    if len(clusters) != num_values:
        raise ValueError(
            f"clusters has {len(clusters)} entries for {num_values} values: give one for each value"
        )
    return list(clusters)


def cluster_sums(values: Sequence[float], groups: Sequence[Hashable]) -> tuple[Any, Any]:
    """Return the sum and the size of each cluster, as arrays: all that a mean over whole clusters needs."""
    import numpy as np

    found: dict[Hashable, tuple[float, int]] = {}
    for group, value in zip(groups, values, strict=True):
        total, size = found.get(group, (0.0, 0))
        found[group] = (total + value, size + 1)
    sums, sizes = zip(*found.values(), strict=True)
    return np.asarray(sums), np.asarray(sizes)


def table_of(rows: Sequence[Sequence[float]], name: str) -> Any:
    """Return rows as an array, shape [n, k].

    Raises:
        ValueError: if there is none, they are uneven, or one holds what is no number.
    """
    import numpy as np

    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"{name} has rows of different lengths: give each item the same columns")
    return np.asarray(
        [checked(row, f"{name}[{index}]") for index, row in enumerate(rows)] or checked([], name)
    )


def is_rounding(stderr: float, values: Sequence[float]) -> bool:
    """Tell whether a standard error is 0, up to what floats of the size of the values can tell apart."""
    return stderr <= 1e-9 * max(map(abs, values))


def check_confidence(confidence: float) -> None:
    """Refuse a coverage that is no share.

    Raises:
        ValueError: saying what is usual.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}: 0.95 is usual")
