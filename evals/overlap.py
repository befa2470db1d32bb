"""Which prompts of an evaluation the model was trained on, as far as our own manifests tell.

No score changes: the prompts are named and can be left out by the slice `overlap`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evals.base import Task
from lengthwise.contamination import OverlapIndex
from lengthwise.models import ModelRef
from lengthwise.records import Sample
from lengthwise.row_files import read_rows
from lengthwise.rows import BadRow
from lengthwise.training_data import training_runs, training_sources
from lengthwise.value_types import ConfigError

NUM_SHOWN = 5
"""Ids of overlapping prompts that a message lists; the results file has all."""


@dataclass(kw_only=True)
class TaskOverlap:
    """The prompts of one task that the model was trained on."""

    num_prompts: int
    verbatim: set[str]
    """Ids of the prompts that stand in a training row as they are."""
    copied: set[str]
    """Ids of those that share long runs of words with training rows."""

    @property
    def ids(self) -> set[str]:
        """Ids of all that overlap."""
        return self.verbatim | self.copied

    def slice_of(self, sample_id: str) -> str:
        """Return the sample's value of the slice `overlap`: yes or no."""
        return "yes" if sample_id in self.ids else "no"

    def to_dict(self) -> dict[str, Any]:
        """Return the number of prompts, and the ids of those that overlap."""
        return {
            "prompts": self.num_prompts,
            "verbatim": sorted(self.verbatim),
            "copied": sorted(self.copied),
        }


@dataclass(kw_only=True)
class OverlapCheck:
    """The tasks' prompts held against the training data of the model's own runs."""

    tasks: dict[str, TaskOverlap] = field(default_factory=dict)
    """Empty if no training data was found to look into."""
    num_rows: int = 0
    runs: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """One line for each task with overlap."""
        lines = []
        for name, task in self.tasks.items():
            if task.ids:
                lines.append(
                    f"{name}: {len(task.ids)} of {task.num_prompts} prompts are in the model's own training data "
                    f"({len(task.verbatim)} word for word): {', '.join(sorted(task.ids)[:NUM_SHOWN])}"
                    f"{', ...' if len(task.ids) > NUM_SHOWN else ''}; the slice overlap gives the score without them"
                )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready map for the results file."""
        return {
            "tasks": {name: task.to_dict() for name, task in self.tasks.items()},
            "training_rows": self.num_rows,
            "runs": self.runs,
            "unchecked": self.unchecked,
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> OverlapCheck:
        """Return the check that `to_dict` wrote down."""
        return cls(
            tasks={
                name: TaskOverlap(
                    num_prompts=task["prompts"],
                    verbatim=set(task["verbatim"]),
                    copied=set(task["copied"]),
                )
                for name, task in saved["tasks"].items()
            },
            num_rows=saved["training_rows"],
            runs=saved["runs"],
            unchecked=saved["unchecked"],
        )


def check_overlap(prompts: Mapping[str, Mapping[str, Iterable[str]]], ref: ModelRef) -> OverlapCheck:
    """Look for the prompts in the rows that the model's own training runs read.

    Some 400,000 words of training text a second, as measured on a busy core; memory goes with the prompts.

    Args:
        prompts: by task and sample id, the texts of a prompt: first the source's own, then as it is asked.
        ref: the model; of one that none of our runs trained, nothing is known and nothing said.
    """
    found = OverlapCheck()
    runs, notes = training_runs(ref)
    found.runs = [str(run.folder) for run in runs]
    found.unchecked += notes
    sources = []
    for run in runs:
        there, notes = training_sources(run)
        sources += there
        found.unchecked += notes
    if not sources:
        return found
    index = OverlapIndex()
    for task, samples in prompts.items():
        for sample_id, texts in samples.items():
            index.add_prompt((task, sample_id), texts)
    for source in sources:
        try:
            for row in read_rows(source):
                if not isinstance(row, BadRow):
                    found.num_rows += 1
                    index.see_row(row.values)
        except ConfigError as error:
            found.unchecked.append(str(error))
    found.tasks = {
        task: TaskOverlap(
            num_prompts=len(samples), verbatim=_of(task, index.verbatim), copied=_of(task, index.copied)
        )
        for task, samples in prompts.items()
    }
    return found


def _of(task: str, keys: Iterable[tuple[str, str]]) -> set[str]:
    return {sample_id for name, sample_id in keys if name == task}


def prompts_of(task: Task, samples: Iterable[Sample]) -> dict[str, tuple[str, ...]]:
    """Return what `check_overlap` takes of a task: the source's own text of each prompt, and what is asked."""
    return {
        sample.id: (
            sample.instruction,
            *(turn.content for turn in task.prompt(sample)[-1:] if turn.content != sample.instruction),
        )
        for sample in samples
    }
