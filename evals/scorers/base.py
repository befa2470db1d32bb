"""What a scorer is: a measure that any task can be given, with or without a judge.

A scorer is one file in this folder; the file's name is its name in a config: `scorers: [{name: writing_quality,
dimensions: longen}]`. It runs after all replies are on disk, so that it can also be run on those of a finished
evaluation (`rescore`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from evals.base import Metric, Score
from lengthwise.degeneration import is_refusal
from lengthwise.judge import Judge
from lengthwise.records import Prompt, Sample, digest
from lengthwise.templates import PromptTemplate


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One reply of the measured model, as a scorer sees it."""

    task: str
    """What the task is called in this run."""
    sample: Sample
    prompt: Prompt
    """What the model was asked."""
    index: int
    """The reply's number among those to the same prompt, from 0."""
    text: str
    """Without the thinking part."""
    finish_reason: str | None
    metrics: Mapping[str, float]
    """What the task itself measured."""

    @property
    def request(self) -> str:
        """What was asked, for a judge to read: the user's turn, or all turns with their roles."""
        if len(self.prompt) == 1:
            return self.prompt[0].content
        return "\n\n".join(f"[{turn.role}]\n{turn.content}" for turn in self.prompt)

    @property
    def fault(self) -> str | None:
        """Why the reply is the floor of any judgement: it is empty, or declines the task. No judge is asked then."""
        if not self.text.strip():
            return "empty"
        return "refusal" if is_refusal(self.text) else None


class Scorer(Protocol):
    """The members of a scorer's module.

    One that needs a judge names its metrics `name@judge`; `evals.judged` knows them by the @.
    """

    Config: type
    """A dataclass with the scorer's options."""
    NEEDS_JUDGE: bool

    def prompts(self, config: Any) -> tuple[PromptTemplate, ...]:
        """Return all that a judge is told: its digest is a part of the metrics' names. Only if it needs a judge."""
        ...

    def metrics(self, config: Any, judge: str, task_metrics: Collection[str]) -> tuple[Metric, ...]:
        """Return what it measures.

        Args:
            config: its options.
            judge: the judge's id, see `lengthwise.judge.judge_id`; empty if it needs none.
            task_metrics: names of the metrics that the task has.
        """
        ...

    async def score(self, config: Any, reply: Reply, judge: Judge | None) -> Score:
        """Return the metrics of one reply, or why they are unscored; a metric that leaves it out is absent."""
        ...


def mark_of(*texts: str) -> str:
    """Return 8 hex digits that set off texts in a judge's prompt.

    A text cannot hold the mark of its own end, so that it cannot pretend to end and go on as an instruction.

    Example:
        >>> len(mark_of("Write.", "A text."))
        8
    """
    return digest(list(texts))[:8]
