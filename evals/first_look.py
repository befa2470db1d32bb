"""The looks before the first reply: at the model, and for its training data among the prompts.

What they find is said at once and stands beside the scores at the end. A rescored run asks no model: it takes what
the run whose replies it takes had found.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.guards import ModelCheck, check_model
from evals.overlap import OverlapCheck, check_overlap, prompts_of
from evals.plan import PlannedTask
from lengthwise.engines.base import Engine, ShowsModel


@dataclass(frozen=True, kw_only=True)
class FirstLook:
    """What was found before the first reply."""

    model: ModelCheck | None = None
    overlap: OverlapCheck | None = None
    """What of the tasks' prompts the model was trained on; None where its files are not here."""

    @property
    def warnings(self) -> list[str]:
        """What spoils the scores."""
        return list(dict.fromkeys(warning for check in self._checks for warning in check.warnings))

    @property
    def notes(self) -> list[str]:
        """What could not be looked at."""
        return list(dict.fromkeys(note for check in self._checks for note in check.unchecked))

    @property
    def _checks(self) -> list[ModelCheck | OverlapCheck]:
        return [check for check in (self.model, self.overlap) if check is not None]

    def slices(self, task: str, sample_id: str) -> dict[str, str]:
        """Return the slice `overlap` of a sample (yes or no); empty where nothing is known of its task."""
        found = self.overlap and self.overlap.tasks.get(task)
        return {"overlap": found.slice_of(sample_id)} if found else {}

    def to_dict(self) -> dict[str, Any]:
        """Return the results file's keys `guards` and `overlap`."""
        return {
            "guards": self.model and self.model.to_dict(),
            "overlap": self.overlap and self.overlap.to_dict(),
        }


async def look_first(engine: Engine, plan: Sequence[PlannedTask]) -> FirstLook:
    """Look at a started engine and at the plan's prompts."""
    asked = [planned for planned in plan if planned.samples]
    model = check_model(engine, {p.name: p.task.prompt(p.samples[0]) for p in asked})
    if not isinstance(engine, ShowsModel):
        return FirstLook(model=model)
    prompts = {p.name: prompts_of(p.task, p.samples) for p in asked}
    return FirstLook(model=model, overlap=await asyncio.to_thread(check_overlap, prompts, engine.model_ref))


def saved_look(run: Path) -> FirstLook:
    """Return what a finished evaluation had found."""
    (file,) = run.glob("results_*.json")
    saved = json.loads(file.read_text(encoding="utf-8"))
    return FirstLook(
        model=saved["guards"] and ModelCheck(**saved["guards"]),
        overlap=saved["overlap"] and OverlapCheck.from_dict(saved["overlap"]),
    )
