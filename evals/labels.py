"""Rows with people's labels, as `lengthwise calibrate` reads them.

A row has `human`, one score, or `ratings`, those of two or more people. For a judge to be asked it has `prompt` and
`output`, and what the scorer asks for (`checklist`, `criteria`); where the rating is there already it has `prediction`,
a number or a text with one. `decision` and `predicted_decision` say accept or reject.
"""

from __future__ import annotations

import math
from typing import Any

from lengthwise.checklist import read_checklist
from lengthwise.criteria import read_criteria
from lengthwise.records import Sample, user
from lengthwise.review_metrics import bounded_rating
from lengthwise.row_values import row_id, shown
from lengthwise.rows import Row


def read_label(row: Row, scale: tuple[float, float], *, is_judged: bool) -> Sample:
    """Return a row as a sample, its labels in the metadata; `human` is the mean of `ratings` where it is not given.

    Args:
        row: the row.
        scale: the least and the greatest score a person could give.
        is_judged: whether a judge will read its output; else it may hold a prediction alone.

    Raises:
        ValueError: saying what is wrong with it.
    """
    values = row.values
    for key in ("prompt", "output") if is_judged else ():
        if not isinstance(values.get(key), str):
            raise ValueError(f"{key} is {shown(values.get(key))}, expected a text")
    ratings = _ratings(values.get("ratings"), scale)
    human = values.get("human")
    if human is None and ratings:
        human = math.fsum(ratings) / len(ratings)
    if not _is_on(human, scale):
        raise ValueError(
            f"human is {shown(human)}, expected a number from {scale[0]:g} to {scale[1]:g} "
            "(--human_least and --human_most set the scale), or ratings, a list of them"
        )
    readers = {"checklist": read_checklist, "criteria": read_criteria}
    asked = {
        key: [one.to_dict() for one in read(values[key])] for key, read in readers.items() if values.get(key)
    }
    return Sample(
        id=f"{row_id(values.get('id')) or row.place}",
        messages=user(values.get("prompt") or ""),
        metadata={
            "output": values.get("output"),
            "human": human,
            "ratings": ratings,
            "prediction": _prediction(values.get("prediction"), scale),
            **{key: _decision(values.get(key), key) for key in ("decision", "predicted_decision")},
            **asked,
        },
    )


def _ratings(value: Any, scale: tuple[float, float]) -> list[float]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) < 2 or not all(_is_on(one, scale) for one in value):
        raise ValueError(
            f"ratings is {shown(value)}, expected two or more numbers from {scale[0]:g} to {scale[1]:g} "
            "(--human_least and --human_most set the scale)"
        )
    return [float(one) for one in value]


def _prediction(value: Any, scale: tuple[float, float]) -> float | None:
    """Return a rating that is there already; None where there is none on the scale, which is unscored, not 0."""
    if isinstance(value, str):
        return bounded_rating(value, *scale)
    return float(value) if _is_on(value, scale) else None


def _decision(value: Any, key: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    said = value.strip().lower() if isinstance(value, str) else ""
    if not said.startswith(("accept", "reject")):
        raise ValueError(f"{key} is {shown(value)}, expected accept or reject")
    return said.startswith("accept")


def _is_on(value: Any, scale: tuple[float, float]) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and scale[0] <= value <= scale[1]
