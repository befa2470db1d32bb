"""Criteria that were written for one request, each graded 1 to 10, and their means (WritingBench, 2503.05244).

WritingBench has five criteria a query. A criterion may belong to a requirement that the request states: of length,
of style or of format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from lengthwise.row_values import shown

Requirement = Literal["length", "style", "format"]
REQUIREMENTS: tuple[Requirement, ...] = get_args(Requirement)
GRADES = range(1, 11)


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """One thing that the texts on a request are graded by."""

    name: str
    description: str
    requirement: Requirement | None = None
    """What the request states of it; None: the criterion is of no stated requirement."""

    def to_dict(self) -> dict[str, str]:
        """Return the criterion as a row holds it."""
        found = {"name": self.name, "description": self.description}
        return found | ({"requirement": self.requirement} if self.requirement else {})


def read_criteria(value: Any) -> tuple[Criterion, ...]:
    r"""Return the criteria of a row: a list of maps {name, description, requirement}.

    WritingBench's own field `criteria_description` is read too; its further texts, which say what a grade stands
    for, become lines of the description.

    Raises:
        ValueError: saying what is wrong with it.

    Example:
        >>> (one,) = read_criteria([{"name": "Tone", "criteria_description": "Is it kind?", "9-10": "Very."}])
        >>> one.description
        'Is it kind?\n9-10: Very.'
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"criteria is {shown(value)}, expected a list of criteria")
    return tuple(_criterion(entry) for entry in value)


def criteria_score(grades: Sequence[int]) -> float:
    """Return the mean grade of a reply, 1..10.

    Raises:
        ValueError: there is none, or one is no whole number of 1..10.

    Example:
        >>> criteria_score([7, 8, 6, 9, 5])
        7.0
    """
    strange = next((grade for grade in grades if grade not in GRADES), None)
    if strange is not None or not grades:
        raise ValueError(f"grade {strange} is none of 1..10" if grades else "there is no grade to average")
    return math.fsum(grades) / len(grades)


def requirement_scores(criteria: Sequence[Criterion], grades: Sequence[int]) -> dict[str, float]:
    """Return, of each requirement that a reply's criteria name, R and C on 1..10, as `length_r` and `length_c`.

    R is the mean of all the reply's grades: over replies, how well requests with that requirement are served. C is
    the mean of the grades of its own criteria only: how well the requirement is met (WritingBench's two columns).

    Raises:
        ValueError: there are not as many grades as criteria, or a grade is out of range.

    Example:
        >>> criteria = read_criteria([
        ...     {"name": "Plot", "description": "Does it hold?"},
        ...     {"name": "Size", "description": "Is it of 900 words?", "requirement": "length"},
        ... ])
        >>> requirement_scores(criteria, [8, 4])
        {'length_r': 6.0, 'length_c': 4.0}
    """
    if len(criteria) != len(grades):
        raise ValueError(f"{len(grades)} grades for {len(criteria)} criteria: give one for each")
    found: dict[str, float] = {}
    for requirement in REQUIREMENTS:
        own = [g for c, g in zip(criteria, grades, strict=True) if c.requirement == requirement]
        if own:
            found |= {
                f"{requirement}_r": criteria_score(grades),
                f"{requirement}_c": criteria_score(own),
            }
    return found


def _criterion(entry: Any) -> Criterion:
    if not isinstance(entry, Mapping):
        raise ValueError(f"criteria holds {shown(entry)}, expected a map with name and description")
    key = "description" if "description" in entry else "criteria_description"
    for name in ("name", key):
        if not isinstance(entry.get(name), str) or not entry[name].strip():
            raise ValueError(f"criteria: {name} is {shown(entry.get(name))}, expected a text")
    requirement = entry.get("requirement")
    if requirement is not None and requirement not in REQUIREMENTS:
        raise ValueError(
            f"criteria: requirement is {shown(requirement)}, expected one of {', '.join(REQUIREMENTS)}"
        )
    bands = [
        f"{band}: {text}"
        for band, text in entry.items()
        if band not in ("name", key, "requirement") and isinstance(text, str)
    ]
    return Criterion(
        name=entry["name"],
        description="\n".join([entry[key], *bands]),
        requirement=cast("Requirement | None", requirement),
    )
