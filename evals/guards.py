"""What spoils a score without an error: looked for before the first reply, and said beside the numbers.

Nothing here changes a score or stops a run. What could not be checked is said as well, since silence would
read as "checked and fine".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evals.base import Task
from lengthwise.contamination import OverlapIndex
from lengthwise.engines.base import Engine, ShowsModel
from lengthwise.engines.chat_tokenizer import ChatTokenizer, template_digest
from lengthwise.models import ModelRef
from lengthwise.records import Prompt, Sample
from lengthwise.row_files import read_rows
from lengthwise.rows import BadRow
from lengthwise.training_data import (
    TrainingRun,
    trained_template,
    training_runs,
    training_sources,
)
from lengthwise.untrained_tokens import untrained_sign
from lengthwise.value_types import ConfigError

_MAX_RESERVED = 512
"""Tokens whose rows are held against that of the end of a turn; some vocabularies reserve thousands."""

NUM_SHOWN = 5
"""Ids of overlapping prompts that a message and the results file list."""


@dataclass(kw_only=True)
class ModelCheck:
    """What a look at the model's tokenizer, template and weights gave."""

    warnings: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """What could not be looked at, and why."""
    first_prompt: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Each task's first prompt as the model reads it: text and token_ids."""
    chat_template: str | None = None
    """sha256 of the template that renders the prompts."""
    end_token_ids: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready map for the results file."""
        return dict(vars(self))


def check_model(engine: Engine, first_prompts: Mapping[str, Prompt]) -> ModelCheck:
    """Look at how a started engine renders prompts and ends replies.

    Args:
        engine: started.
        first_prompts: the first prompt of each task, by the task's name.
    """
    found = ModelCheck()
    if not isinstance(engine, ShowsModel):
        found.unchecked.append(
            f"{engine.model}: its engine shows neither tokenizer nor weights, so chat template, BOS and end of turn "
            "were not checked; the first prompt is not shown as the model reads it"
        )
        return found
    chat, ref = engine.chat_tokenizer, engine.model_ref
    found.chat_template = template_digest(chat.tokenizer)
    found.end_token_ids = sorted(engine.end_token_ids)
    found.first_prompt = {task: chat.rendered(prompt).to_dict() for task, prompt in first_prompts.items()}
    found.warnings += _double_bos(chat, found.first_prompt)
    runs, notes = training_runs(ref)
    found.unchecked += notes
    _compare_template(found, runs)
    _check_turn_end(found, chat, ref, engine.end_token_ids)
    return found


def _double_bos(chat: ChatTokenizer, rendered: Mapping[str, Mapping[str, Any]]) -> list[str]:
    bos = chat.tokenizer.bos_token_id
    doubled = [
        task for task, prompt in rendered.items() if bos is not None and prompt["token_ids"][:2] == [bos, bos]
    ]
    if not doubled:
        return []
    return [
        f"the prompts of {', '.join(doubled)} begin with two {chat.tokenizer.bos_token!r}: the chat template writes "
        "one and so does the prompt itself or the template again; take it out of one of them"
    ]


def _compare_template(found: ModelCheck, runs: Sequence[TrainingRun]) -> None:
    """Hold the template against that of the last training run; those before it may have had others."""
    if not runs:
        return  # not one of ours: nothing to hold it against
    trained = trained_template(runs[0])
    if trained is None:
        found.unchecked.append(f"{runs[0].folder} does not say with which chat template it was trained")
    elif trained != found.chat_template:
        found.warnings.append(
            f"the chat template that renders the prompts is not the one {runs[0].folder} was trained with: the "
            "model reads prompts of a kind it never saw. Put the run's chat_template.jinja into the folder of the "
            "model (for an adapter: of its base)"
        )


def _check_turn_end(found: ModelCheck, chat: ChatTokenizer, ref: ModelRef, ends: frozenset[int]) -> None:
    """Check that replies can end: the template's end of turn is one the engine stops at, and was ever trained."""
    try:
        end = chat.turn_end()
    except ValueError as error:
        found.unchecked.append(f"the end of a turn: {error}")
        return
    if end.token_id is None:
        shown = f"only {end.text!r}, no special token" if end.text.strip() else "nothing"
        found.warnings.append(
            f"the chat template writes {shown} behind an assistant turn: a model trained with it was not taught to "
            "end its replies"
        )
        return
    if end.token_id not in ends:
        found.warnings.append(
            f"the chat template ends a turn with {end.token!r} ({end.token_id}), but the engine stops only at "
            f"{sorted(ends)}: replies will run to the token cap. Add it to eos_token_id in the model's "
            "generation_config.json"
        )
    if ref.adapter is not None and _trains_rows(ref.adapter):
        found.unchecked.append("whether the end of a turn was trained: the adapter brings rows of its own")
        return
    padding = range(len(chat.tokenizer), len(chat.tokenizer) + 4)  # rows that no token has
    reserved = [*padding, *sorted(chat.tokenizer.get_added_vocab().values())][:_MAX_RESERVED]
    try:
        sign = untrained_sign(ref.path, end.token_id, reserved)
    except ValueError as error:
        found.unchecked.append(f"whether the end of a turn was trained: {error}")
        return
    if sign is not None:
        found.warnings.append(
            f"{end.token!r} ({end.token_id}), which ends a turn, seems never trained: {sign}. A base model with a "
            "chat template does not end its replies; use the instruct model, or train with this template"
        )


def _trains_rows(adapter: Path) -> bool:
    """Tell whether a LoRA adapter changes rows of the embedding or output matrix."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("trainable_token_indices"):
        return True
    named = [config.get("modules_to_save"), config.get("target_modules")]
    return any(part in str(entry) for entry in named for part in ("embed", "lm_head", "wte", "output"))


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
        """Return counts and a few ids."""
        return {
            "prompts": self.num_prompts,
            "verbatim": len(self.verbatim),
            "copied": len(self.copied),
            "overlap": len(self.ids),
            "examples": sorted(self.ids)[:NUM_SHOWN],
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
