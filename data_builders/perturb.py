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
from typing import Literal, NamedTuple

from data_builders.rows import length_entry, scores_of, turns
from data_builders.sources import Refusal
from data_builders.thought_changes import (
    change_digits,
    delete_steps,
    drop_reflections,
    insert_steps,
    shuffle_steps,
)
from data_builders.thoughts import Marks, NoThought, Thought, marks_of, read_thought, steps
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, option
from lengthwise.degeneration import language
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
    marks: Marks | None = option(
        None, help="how thought and solution are marked: think or sky_t1; default: as they are"
    )
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
    others = steps_of_others(perturbation.pool, sample.instruction, len(steps(before.thinking)), stream)
    if config.operation == "insert" and not others:
        return Rejected("no step of another problem", {"messages": turns(sample)})
    after, changed = perturbed(before, config, others, stream)
    marks = config.marks or marks_of(sample.completion or "")
    text = after.marked(marks) if after.thinking else after.solution
    row = replace(sample, completion=text)
    return Kept(
        {
            **{
                key: value for key, value in sample.metadata.items() if key != "num_tokens"
            },  # of another text
            "id": sample.id,
            "builder": sample.metadata.get("builder") or "perturb",
            "messages": turns(row),
            "language": language(text),
            "length": length_entry(text, requested=sample.length, tokens=None),
            "scores": scores_of(sample),
            "perturbation": {
                "operation": config.operation,
                "share": config.share,
                "steps": len(steps(before.thinking)),
                "changed": changed,
            },
            "lineage": [*sample.lineage, f"perturb:{config.operation}:{config.share:g}"],
        }
    )


def steps_of_others(
    pool: Sequence[tuple[str, str]], prompt: str, number: int, stream: random.Random
) -> list[str]:
    """Draw steps of other problems from a pool, at random and with repetition; none where the pool has no other."""
    if all(other == prompt for other, _ in pool):
        return []
    found: list[str] = []
    while len(found) < number:
        other, step = stream.choice(pool)
        if other != prompt:
            found.append(step)
    return found


class Perturbed(NamedTuple):
    """A thought after an operation."""

    thought: Thought
    changed: int
    """Steps that are gone, replaced or elsewhere; with digits the characters or numbers that differ; with reflections
    the sentences that are gone."""


def perturbed(thought: Thought, config: Config, others: Sequence[str], stream: random.Random) -> Perturbed:
    """Return a thought after one operation.

    Example:
        >>> perturbed(Thought("2 is 2.", "2."), Config(operation="delete"), (), random.Random(0))
        Perturbed(thought=Thought(thinking='', solution='2.'), changed=1)
    """
    if config.operation == "digits":
        return _digits(thought, config, stream)
    if config.operation == "reflections":
        thinking, gone = drop_reflections(thought.thinking, config.share, stream)
        return Perturbed(Thought(thinking.strip(), thought.solution), gone)
    if config.share == 0:
        return Perturbed(thought, 0)
    before = steps(thought.thinking)
    if config.operation == "delete":
        after = delete_steps(before, config.share, stream)
        changed = len(before) - len(after)
    else:
        if config.operation == "insert":
            after = insert_steps(before, config.share, others, stream)
        else:
            after = shuffle_steps(before, config.share, stream)
        changed = sum(a != b for a, b in zip(before, after, strict=True))
    return Perturbed(Thought("\n\n".join(after), thought.solution), changed)


def _digits(thought: Thought, config: Config, stream: random.Random) -> Perturbed:
    thinking, changed = change_digits(thought.thinking, config.share, stream, config.unit)
    if config.scope == "thought":
        return Perturbed(Thought(thinking, thought.solution), changed)
    solution, more = change_digits(thought.solution, config.share, stream, config.unit)
    return Perturbed(Thought(thinking, solution), changed + more)
