"""Whether a model trained on pairs prefers by length: its margins by how much longer the chosen answer is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from lengthwise.statistics import Interval, mean_interval, share_interval

NUM_QUANTILES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class GapMargin:
    """The margins of pairs with similar length gaps."""

    smallest_gap: int
    """Tokens by which chosen is longer than rejected; below 0 if it is shorter."""
    largest_gap: int
    margin: Interval
    """Mean margin."""
    accuracy: Interval
    """Share of pairs whose margin is above 0."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready map."""
        return {
            "smallest_gap": self.smallest_gap,
            "largest_gap": self.largest_gap,
            "margin": self.margin.to_dict(),
            "accuracy": self.accuracy.to_dict(),
        }


def margins_by_gap(
    margins: Sequence[float],
    gaps: Sequence[int],
    *,
    clusters: Sequence[Hashable] | None = None,
    num_quantiles: int = NUM_QUANTILES,
) -> list[GapMargin]:
    """Return a model's margins by quantile of the length gap: flat if it does not prefer by length.

    Args:
        margins: reward of the chosen answer less that of the rejected one, shape [n].
        gaps: tokens by which the chosen answer is longer, shape [n]; below 0 where it is shorter.
        clusters: what is equal for pairs that are not independent, mostly the prompt; shape [n].
        num_quantiles: how many groups of about equal size; fewer, if many gaps are equal.

    Raises:
        ValueError: the shapes differ, or there are no pairs, or a margin is NaN or infinite.

    Example:
        >>> found = margins_by_gap([-1, -3, 2, 4], [-5, -6, 7, 8], num_quantiles=2)
        >>> [(m.largest_gap, m.margin.estimate) for m in found]
        [(-5, -2.0), (8, 3.0)]
    """
    names = range(len(margins)) if clusters is None else clusters
    if not len(margins) == len(gaps) == len(names):
        raise ValueError(
            f"{len(margins)} margins, {len(gaps)} gaps, {len(names)} clusters: give one of each a pair"
        )
    if not margins:
        raise ValueError("there are no margins")
    rows = []
    for group in quantile_groups(gaps, num_quantiles):
        found, owners = [margins[i] for i in group], [names[i] for i in group]
        rows.append(
            GapMargin(
                smallest_gap=min(gaps[i] for i in group),
                largest_gap=max(gaps[i] for i in group),
                margin=mean_interval(found, clusters=owners),
                accuracy=share_interval([float(m > 0) for m in found], clusters=owners),
            )
        )
    return rows


def quantile_groups(values: Sequence[float], num_quantiles: int) -> list[list[int]]:
    """Return the indices of values in groups of about equal size, ascending; equal values are never parted.

    Example:
        >>> quantile_groups([5, 1, 1, 1, 9, 7], 2)
        [[1, 2, 3], [0, 5, 4]]
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    groups: list[list[int]] = []
    start = 0
    for k in range(1, num_quantiles + 1):
        end = max(start, len(order) * k // num_quantiles)
        while 0 < end < len(order) and values[order[end]] == values[order[end - 1]]:
            end += 1
        if end > start:
            groups.append(order[start:end])
        start = end
    return groups
