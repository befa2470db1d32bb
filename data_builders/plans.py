"""Writing plans: what a valid one is, its faults, and how it is fitted to the wanted length (pure).

AgentWrite (arXiv 2408.07055, section 3) plans a long text as sections of 200 to 1,000 words. The released
code takes every line of the reply as a section, so preambles and cut plans become text. Here a plan is a
value that is checked before a word is written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from lengthwise.records import LengthTarget

DUPLICATE_JACCARD = 0.8
"""Two main points that share this much of their words are one point said twice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedSection:
    """One section to write. `num_words` is None until it is known."""

    index: int
    """1-based position, as the plan itself numbers it."""
    main_point: str
    num_words: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready map."""
        return {"index": self.index, "main_point": self.main_point, "num_words": self.num_words}


Plan = tuple[PlannedSection, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanBounds:
    """What a valid plan looks like."""

    min_sections: int
    max_sections: int
    min_words: int
    max_words: int
    """Words of one section."""
    total_words: int | None = None
    """The sum to reach; None leaves it to the plan."""
    tolerance: float = 0.15
    """Largest |sum - total| / total that is left as it is."""

    @property
    def feasible(self) -> bool:
        """Whether any plan can meet these bounds."""
        return self.min_sections <= self.max_sections


@dataclass(frozen=True, slots=True)
class PlanFault:
    """What is wrong with a plan: a name (also a key of the phrase files) and the values to say it with."""

    name: str
    values: Mapping[str, Any]

    def __str__(self) -> str:
        """Return the fault for a reject reason: the name and its values."""
        return self.name + "".join(f" {key}={value}" for key, value in self.values.items())


def aim(target: LengthTarget) -> float:
    """Return the length to plan for: inside an open-ended wish rather than on its edge.

    Example:
        >>> aim(LengthTarget.about(2000)), round(aim(LengthTarget(min=2000, relation="at_least")))
        (2000.0, 2200)
    """
    return target.nominal * {"at_least": 1.1, "at_most": 0.9}.get(target.relation, 1.0)


def plan_bounds(
    total_words: int | None,
    *,
    min_sections: int,
    max_sections: int,
    min_words: int,
    max_words: int,
    tolerance: float = 0.15,
) -> PlanBounds:
    """Narrow the general bounds to what `total_words` leaves possible.

    A text shorter than `min_sections` sections of `min_words` gets shorter sections rather than none; one
    longer than `max_sections` sections of `max_words` has no plan (`PlanBounds.feasible`).

    Example:
        >>> bounds = plan_bounds(2000, min_sections=2, max_sections=50, min_words=200, max_words=1000)
        >>> bounds.min_sections, bounds.max_sections, bounds.min_words
        (2, 10, 200)
    """
    if total_words is not None:
        min_words = max(1, min(min_words, total_words // min_sections))
        min_sections = max(min_sections, math.ceil(total_words * (1 - tolerance) / max_words))
        max_sections = min(max_sections, total_words // min_words)
    return PlanBounds(
        min_sections=min_sections,
        max_sections=max_sections,
        min_words=min_words,
        max_words=max_words,
        total_words=total_words,
        tolerance=tolerance,
    )


def plan_schema(bounds: PlanBounds) -> dict[str, Any]:
    """Return the JSON schema of a plan reply.

    No `maxLength` on the text: it makes xgrammar compile for seconds (measured 4.0 s against 0.1 s).
    """
    return {
        "type": "array",
        "minItems": bounds.min_sections,
        "maxItems": bounds.max_sections,
        "items": {
            "type": "object",
            "properties": {
                "main_point": {"type": "string"},
                "num_words": {"type": "integer", "minimum": bounds.min_words, "maximum": bounds.max_words},
            },
            "required": ["main_point", "num_words"],
            "additionalProperties": False,
        },
    }


def fit_plan(plan: Plan, bounds: PlanBounds) -> tuple[Plan, float | None, list[PlanFault]]:
    """Fill in missing word counts, rescale a plan whose sum is off, and name what is still wrong.

    Returns:
        The plan, the factor it was scaled by (None if it was not), and its faults (empty: valid).

    Example:
        >>> bounds = plan_bounds(1000, min_sections=2, max_sections=50, min_words=200, max_words=1000)
        >>> plan = (PlannedSection(index=1, main_point="storm", num_words=250),
        ...         PlannedSection(index=2, main_point="rescue", num_words=250))
        >>> fitted, factor, faults = fit_plan(plan, bounds)
        >>> [s.num_words for s in fitted], factor, faults
        ([500, 500], 2.0, [])
    """
    plan, factor = share_out(plan, bounds.total_words), None
    planned = total_words(plan)
    if bounds.total_words and planned and _off(planned, bounds.total_words) > bounds.tolerance:
        factor = round(bounds.total_words / planned, 4)
        plan = rescale(plan, bounds)
    return plan, factor, validate_plan(plan, bounds)


def validate_plan(plan: Plan, bounds: PlanBounds) -> list[PlanFault]:
    """Return every fault of a plan against `bounds`, gravest first."""
    if not plan:
        return [PlanFault("unreadable", {})]
    faults: list[PlanFault] = []
    if not bounds.min_sections <= len(plan) <= bounds.max_sections:
        values = {"count": len(plan), "low": bounds.min_sections, "high": bounds.max_sections}
        faults.append(PlanFault("section_count", values))
    if [s.index for s in plan] != list(range(1, len(plan) + 1)):
        faults.append(PlanFault("numbering", {"found": ",".join(str(s.index) for s in plan)}))
    for section in plan:
        if not re.search(r"\w", section.main_point):
            faults.append(PlanFault("no_main_point", {"index": section.index}))
        if section.num_words is None:
            faults.append(PlanFault("no_word_count", {"index": section.index}))
        elif not bounds.min_words <= section.num_words <= bounds.max_words:
            values = {"index": section.index, "words": section.num_words}
            faults.append(
                PlanFault("section_words", {**values, "low": bounds.min_words, "high": bounds.max_words})
            )
    faults += [PlanFault("same_point", {"first": a, "second": b}) for a, b in duplicate_points(plan)]
    planned = total_words(plan)
    if bounds.total_words and planned and _off(planned, bounds.total_words) > bounds.tolerance:
        faults.append(PlanFault("sum", {"planned": planned, "total": bounds.total_words}))
    return faults


def total_words(plan: Plan) -> int:
    """Return the words of the whole plan; sections without a count add nothing."""
    return sum(s.num_words or 0 for s in plan)


def share_out(plan: Plan, total: int | None) -> Plan:
    """Give the sections without a word count equal parts of what `total` leaves for them."""
    open_sections = sum(s.num_words is None for s in plan)
    if not total or not open_sections:
        return plan
    share = (total - total_words(plan)) // open_sections
    if share <= 0:
        return plan
    return tuple(replace(s, num_words=share) if s.num_words is None else s for s in plan)


def rescale(plan: Plan, bounds: PlanBounds) -> Plan:
    """Scale the word counts to the wanted sum, each kept within the bounds of one section."""
    planned = total_words(plan)
    if not planned or not bounds.total_words:
        return plan

    def scaled(words: int | None) -> int | None:
        if words is None or bounds.total_words is None:
            return words
        return min(bounds.max_words, max(bounds.min_words, round(words * bounds.total_words / planned)))

    return tuple(replace(s, num_words=scaled(s.num_words)) for s in plan)


def duplicate_points(plan: Plan) -> list[tuple[int, int]]:
    """Return pairs of section numbers whose main points say the same (word Jaccard >= 0.8)."""
    seen: list[tuple[int, frozenset[str]]] = []
    pairs: list[tuple[int, int]] = []
    for section in plan:
        words = _point_units(section.main_point)
        first = next((index for index, other in seen if _jaccard(words, other) >= DUPLICATE_JACCARD), None)
        if words and first is not None:
            pairs.append((first, section.index))
        seen.append((section.index, words))
    return pairs


def plan_lines(plan: Plan, unit: str) -> str:
    """Return the plan as the writer sees it, one section a line.

    Example:
        >>> plan_lines((PlannedSection(index=1, main_point="The storm", num_words=300),), "words")
        '1. The storm (300 words)'
    """
    space = " " if unit.isascii() else ""
    return "\n".join(f"{s.index}. {s.main_point} ({s.num_words}{space}{unit})" for s in plan)


def _point_units(point: str) -> frozenset[str]:
    """The words of a main point; for Chinese its pairs of characters."""
    han = re.findall(r"[\u4e00-\u9fff]", point)
    words = re.findall(r"[^\W\u4e00-\u9fff]+", point.lower())
    return frozenset(words) | frozenset(a + b for a, b in pairwise(han))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a and b else 0.0


def _off(planned: int, total: int) -> float:
    return abs(planned - total) / total
