"""Checklists of a text: what a request wants, item by item, and the score of the answers (HelloBench, 2409.16191).

HelloBench asks five to seven questions of each reply, which a judge answers with 0, 0.25, 0.5, 0.75 or 1, and adds
them up with weights that were fitted to people's scores for each kind of task. Items here may also say where in the
text they are to be met, so that success with the instruction has a position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from lengthwise.row_values import shown

Place = Literal["beginning", "middle", "end"]
PLACES: tuple[Place, ...] = get_args(Place)
STEPS = 4
"""Grades are whole numbers from 0 to 4, quarters of an item that is met."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChecklistItem:
    """One thing that a text is to have or to do."""

    item: str
    """A question that is answered with yes where it is met, or the demand itself."""
    weight: float = 1.0
    """Above 0; only its share of all weights counts."""
    place: Place | None = None
    """Where in the text it is to be met; None: anywhere."""

    def to_dict(self) -> dict[str, Any]:
        """Return the item as a row holds it."""
        return {"item": self.item, "weight": self.weight} | ({"place": self.place} if self.place else {})


def read_checklist(value: Any) -> tuple[ChecklistItem, ...]:
    """Return the items of a row: a list of texts, or of maps {item, weight, place}.

    Raises:
        ValueError: saying what is wrong with it.

    Example:
        >>> read_checklist(["Is it a letter?"])[0].weight
        1.0
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"checklist is {shown(value)}, expected a list of items")
    return tuple(_item(entry) for entry in value)


def checklist_score(items: Sequence[ChecklistItem], grades: Sequence[int]) -> float:
    """Return the weighted share of what is met, 0..100: 100 sum(w s) / sum(w), with s the grade / 4.

    HelloBench (2409.16191) writes weights that add up to 100; dividing by their sum makes any weights serve.

    Raises:
        ValueError: there are not as many grades as items, none, or one is no whole number of 0..4.

    Example:
        >>> items = read_checklist([{"item": "Is it a letter?", "weight": 3}, {"item": "Is it signed?"}])
        >>> checklist_score(items, [4, 2])
        87.5
    """
    if len(items) != len(grades) or not items:
        raise ValueError(f"{len(grades)} grades for {len(items)} items: give one for each")
    strange = next((grade for grade in grades if grade not in range(STEPS + 1)), None)
    if strange is not None:
        raise ValueError(f"grade {strange} is none of 0..{STEPS}")
    met = math.fsum(item.weight * grade / STEPS for item, grade in zip(items, grades, strict=True))
    return 100 * met / math.fsum(item.weight for item in items)


def rescaled(score: float) -> float:
    """Return a score of 0..100 as HelloBench prints it: (score - 75) * 4, -300..100, 0 for three quarters met.

    Example:
        >>> rescaled(87.5), rescaled(50.0)
        (50.0, -100.0)
    """
    return (score - 75) * 4


def _item(entry: Any) -> ChecklistItem:
    given = {"item": entry} if isinstance(entry, str) else entry
    if not isinstance(given, Mapping) or not isinstance(given.get("item"), str) or not given["item"].strip():
        raise ValueError(f"checklist holds {shown(entry)}, expected a text or a map with item, a text")
    weight: Any = 1.0 if given.get("weight") is None else given["weight"]
    place = given.get("place")
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not 0 < weight < math.inf:
        raise ValueError(f"checklist: weight is {shown(weight)}, expected a number above 0")
    if place is not None and place not in PLACES:
        raise ValueError(f"checklist: place is {shown(place)}, expected one of {', '.join(PLACES)}")
    return ChecklistItem(item=given["item"], weight=float(weight), place=cast("Place | None", place))
