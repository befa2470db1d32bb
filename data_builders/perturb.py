"""Rows whose thinking is perturbed, to see what a model learns from a chain of thought (arXiv 2502.07374, table 2).

    lengthwise build --config configs/data/perturb.yaml --data outputs/build/NAME --builder.operation shuffle

Each row keeps its id and its place, so that the variants of a data set compare row by row; the changes are drawn from
a stream of the row's own. `steps` and `changed` of the row's `perturbation` say how much there was to change, and how
much did. A row without a thought is refused: there is nothing to perturb.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from data_builders.rows import turns
from data_builders.sources import Refusal
from data_builders.thought_changes import (
    change_digits,
    delete_steps,
    drop_reflections,
    insert_steps,
    shuffle_steps,
)
from data_builders.thoughts import Marks, NoThought, Thought, read_thought, steps
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, option
from lengthwise.degeneration import language
from lengthwise.lengths import count_cjk_alpha, count_cjk_ws
from lengthwise.outcomes import Kept, Outcome, Rejected
from lengthwise.records import Sample, digest

ROLES: tuple[str, ...] = ()
WITH_ANSWERS = True

Operation = Literal["delete", "insert", "shuffle", "digits", "reflections"]


@dataclass(kw_only=True)
class Config:
    """Options of a perturbation."""

    operation: Operation = option(
        "shuffle",
        help="delete, insert (steps of other rows) or shuffle: steps of the thought; digits: for random ones; "
        "reflections: sentences that open with wait, but, alternatively, ... are removed",
    )
    share: float = option(
        1.0, help="of the steps, digits or sentences; the paper: 0.33, 0.67, 1 of steps, 0.2 to 1 of digits"
    )
    unit: Literal["digit", "number"] = option(
        "digit", help="digits: each digit (the paper), or each number (its released code)"
    )
    scope: Literal["thought", "all"] = option(
        "thought", help="digits: in the thought alone, or in the solution too (the released code)"
    )
    marks: Marks = option("think", help="how the rows mark thought and solution: think, or sky_t1")
    draw_seed: int = option(0, help="of the changes")

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share is {self.share}: it must lie between 0 and 1")


@dataclass(frozen=True)
class Perturbation:
    """The options, and the steps that may be inserted."""

    config: Config
    pool: Sequence[tuple[str, str]]
    """Prompt and step of every row."""


def refused(samples: Sequence[Sample], config: Config) -> dict[str, Refusal]:
    """Return the rows without a thought."""
    found = {}
    for sample in samples:
        try:
            read_thought(sample.completion or "")
        except NoThought as error:
            found[sample.id] = Refusal("no thought", str(error))
    return found


def settled(samples: Sequence[Sample], config: Config) -> Perturbation:
    """Return the options with what other rows lend."""
    if config.operation != "insert":
        return Perturbation(config, ())
    without = refused(samples, config)
    return Perturbation(
        config,
        [
            (sample.instruction, step)
            for sample in samples
            if sample.id not in without
            for step in steps(read_thought(sample.completion or "").thinking)
        ],
    )


async def build(sample: Sample, callers: Mapping[str, Caller], perturbation: Perturbation) -> Outcome:
    """Return the row with its thought perturbed."""
    config = perturbation.config
    before = read_thought(sample.completion or "")
    stream = random.Random(digest([config.draw_seed, sample.id]))
    others = [step for prompt, step in perturbation.pool if prompt != sample.instruction]
    if config.operation == "insert" and not others:
        return Rejected("no step of another problem", {"messages": turns(sample)})
    after = perturbed(before, config, others, stream)
    text = after.marked(config.marks) if after.thinking else after.solution
    row = replace(sample, completion=text)
    return Kept(
        {
            **sample.metadata,
            "id": sample.id,
            "builder": sample.metadata.get("builder") or "perturb",
            "messages": turns(row),
            "language": language(text),
            "length": {
                "requested": None if sample.length is None else sample.length.to_dict(),
                "words_longbench": count_cjk_alpha(text),
                "words_longen": count_cjk_ws(text),
                "tokens": None,
            },
            "scores": dict(sample.metadata.get("scores") or {}),
            "perturbation": _account(before, after, config),
            "lineage": [*sample.lineage, f"perturb:{config.operation}:{config.share:g}"],
        }
    )


def perturbed(thought: Thought, config: Config, others: Sequence[str], stream: random.Random) -> Thought:
    """Return a thought after one operation.

    Example:
        >>> perturbed(Thought("2 is 2.", "2."), Config(operation="delete"), (), random.Random(0))
        Thought(thinking='', solution='2.')
    """
    if config.operation == "digits":
        thinking = change_digits(thought.thinking, config.share, stream, config.unit)
        if config.scope == "thought":
            return Thought(thinking, thought.solution)
        return Thought(thinking, change_digits(thought.solution, config.share, stream, config.unit))
    if config.operation == "reflections":
        return Thought(drop_reflections(thought.thinking, config.share, stream).strip(), thought.solution)
    if config.share == 0:
        return thought
    found = steps(thought.thinking)
    if config.operation == "delete":
        found = delete_steps(found, config.share, stream)
    elif config.operation == "insert":
        found = insert_steps(found, config.share, others, stream)
    else:
        found = shuffle_steps(found, config.share, stream)
    return Thought("\n\n".join(found), thought.solution)


def _account(before: Thought, after: Thought, config: Config) -> dict[str, Any]:
    old, new = steps(before.thinking), steps(after.thinking)
    moved = sum(a != b for a, b in zip(old, new, strict=False)) + abs(len(old) - len(new))
    return {"operation": config.operation, "share": config.share, "steps": len(old), "changed": moved}
