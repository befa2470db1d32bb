"""The metrics of tasks with rounds: what is followed, and what each round costs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from evals.base import Metric


def share(name: str, **more: Any) -> Metric:
    """Return a metric that is 0 or 1 of each reply."""
    return Metric(name=name, counter="-", summary="proportion", **more)


def token_round(name: str, number: int) -> Metric:
    """Return the metric of all tokens that were written up to a round."""
    return Metric(
        name=f"{name}_round_{number}",
        counter="tokens",
        higher_is_better=None,
        detail=True,
        round_of=(name, number),
    )


def curve_metrics(name: str, values: Sequence[float | bool | None], max_rounds: int) -> dict[str, float]:
    """Return the metrics of all rounds; a chain that ended early stays where it was.

    Example:
        >>> curve_metrics("passed", [False, True], 2)
        {'passed_round_0': 0.0, 'passed_round_1': 1.0, 'passed_round_2': 1.0}
    """
    return {f"{name}_round_{k}": float(values[min(k, len(values) - 1)] or 0) for k in range(max_rounds + 1)}


def running_sums(values: Sequence[int]) -> list[int]:
    """Return the sums of the first one, two, ... values.

    Example:
        >>> running_sums([5, 2, 1])
        [5, 7, 8]
    """
    return list(accumulate(values))
