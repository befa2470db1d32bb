"""What each round of refinement came to, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lengthwise.refinement.rounds import plateau


def round_lines(task: str, rounds: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return a line for each round of each thing that was followed; empty for a task without rounds."""
    return [line for name, curve in rounds.items() for line in _lines(f"{task}: {name}", curve)]


def _lines(name: str, curve: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for point in curve:
        line = f"{name}, round {point['round']}: {point['value']:.4g}{_interval(point['ci'])}"
        if point["round"]:
            line += f"; gain {point['gain']:+.4g}{_interval(point['gain_ci'])}"
            line += f", {point['improved']} better, {point['worsened']} worse of {point['n']}"
        lines.append(line)
    if "tokens" not in name and len(curve) > 1:
        stop = plateau([point["value"] for point in curve])
        lines.append(
            f"{name}: a loop that stops at the first round without a gain would have ended with round {stop}"
        )
    return lines


def _interval(bounds: Sequence[float | None]) -> str:
    low, high = bounds
    return "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
