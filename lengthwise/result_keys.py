"""The keys of a results file's rows, which are named as lm-eval names them: `metric,filter` and its companions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMPANIONS = ("_stderr", "_ci", "_n", "_bounds", "_mdd")
"""What is said beside a metric: its standard error, interval, number of items, bounds with what is unscored as
worst and as best, and minimum detectable difference."""


def metric_keys(row: Mapping[str, Any]) -> list[str]:
    """Return the keys of a task's row that state a metric, without those that say more of one.

    A key ends like a companion only if the metric that it would belong to is there too.

    Example:
        >>> metric_keys({"alias": "t", "m,none": 0.5, "m_stderr,none": 0.1, "m_n,none": 9, "top_n,none": 3})
        ['m,none', 'top_n,none']
    """
    return [key for key in row if "," in key and not any(owner in row for owner in _owners(key))]


def metric_values(row: Mapping[str, Any]) -> dict[str, float]:
    """Return a task's estimates by metric, without those that are unknown.

    Example:
        >>> metric_values({"alias": "t", "m,none": 0.5, "m_stderr,none": 0.1, "x,none": None})
        {'m': 0.5}
    """
    return {
        metric if variant == "none" else key: row[key]
        for key in metric_keys(row)
        for metric, _, variant in [key.rpartition(",")]
        if isinstance(row[key], int | float)
    }


def _owners(key: str) -> list[str]:
    metric, _, variant = key.rpartition(",")
    return [f"{metric.removesuffix(end)},{variant}" for end in COMPANIONS if metric.endswith(end)]
