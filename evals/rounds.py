"""Rounds of refinement in an evaluation: the metrics of a round, the curve in the results, its lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from evals.base import Metric
from lengthwise.refinement.rounds import plateau, round_gains
from lengthwise.summaries import item_value

INDEPENDENT = "independent"
"""What is followed beside refinement: tries that know nothing of each other, of which no loop is made."""


def share(name: str, **more: Any) -> Metric:
    """Return a metric of a program that is 0 or 1 by its tests."""
    return Metric(name=name, counter="tests", summary="proportion", **more)


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


def round_curves(metrics: Sequence[Metric], rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return for each thing that is followed over rounds of refinement what each round came to; see `round_gains`.

    Beside its `rounds` each has `stops_after`: the round after which a loop that stops at the first one without a gain
    would have ended; None where neither direction is better. Empty for a task without rounds.
    """
    followed: dict[str, list[Metric]] = {}
    for metric in metrics:
        if metric.round_of is not None:
            followed.setdefault(metric.round_of[0], []).append(metric)
    clusters = {row["id"]: row["cluster"] for row in rows}
    found = {}
    for name, of_rounds in followed.items():
        first = of_rounds[0]
        higher = first.higher_is_better is not False
        scores = [_scores(metric, rows) for metric in of_rounds]
        curve = round_gains(scores, clusters, first.summary, higher_is_better=higher)
        if not curve:
            continue
        values = [point["value"] for point in curve]
        stops = None if first.higher_is_better is None else plateau(values, higher_is_better=higher)
        found[name] = {"rounds": curve, "stops_after": stops}
    return found


def _scores(metric: Metric, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return what each prompt's replies count as."""
    replies: dict[str, list[float]] = {}
    for row in rows:
        if metric.name in row["metrics"]:
            replies.setdefault(row["id"], []).append(row["metrics"][metric.name])
    return {item: item_value(values, metric.summary) for item, values in replies.items()}


def round_lines(task: str, curves: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each round of each thing that was followed; empty for a task without rounds."""
    return [line for name, curve in curves.items() for line in _lines(f"{task}: {name}", curve)]


def _lines(name: str, curve: Mapping[str, Any]) -> list[str]:
    lines, stops = [], curve["stops_after"]
    for point in curve["rounds"]:
        line = f"{name}, round {point['round']}: {point['value']:.4g}{_interval(point['ci'])}"
        if point["round"] and stops is not None:
            line += f"; gain {point['gain']:+.4g}{_interval(point['gain_ci'])}"
            line += f", {point['improved']} better, {point['worsened']} worse of {point['n']}"
        lines.append(line)
    if stops is not None and len(curve["rounds"]) > 1 and not name.endswith(INDEPENDENT):
        lines.append(
            f"{name}: a loop that stops at the first round without a gain would have ended with round {stops}"
        )
    return lines


def _interval(bounds: Sequence[float | None]) -> str:
    low, high = bounds
    return "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
