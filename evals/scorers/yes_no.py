"""A question about each reply that a judge answers with yes or no: the share of yes is the metric.

An empty reply and a refusal count as the wrong answer, without a judge.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from evals.base import Metric, Score
from evals.scorers.base import Reply, mark_of
from lengthwise.config import ConfigError, option
from lengthwise.judge import Judge, Unscored
from lengthwise.records import user
from lengthwise.templates import PromptTemplate, load_prompt

NEEDS_JUDGE = True


@dataclass(kw_only=True)
class Config:
    """Options of the scorer."""

    question: str = option(help="what to ask of each reply, to be answered with yes or no")
    metric: str = option("yes", help="what the share of right answers is called")
    right: Literal["yes", "no"] = option("yes", help="the answer that counts")

    def __post_init__(self) -> None:
        """Refuse names that break a metric's."""
        if not re.fullmatch(r"\w+", self.metric):
            raise ConfigError(f"yes_no: metric is {self.metric!r}: use letters, digits and _")


def prompts(config: Config) -> tuple[PromptTemplate, ...]:
    """Return the frame and the question in it."""
    return load_prompt("evals", "judge/yes_no"), PromptTemplate("question", config.question)


def metrics(config: Config, judge: str, task_metrics: Collection[str]) -> tuple[Metric, ...]:
    """Return the share of right answers."""
    return (Metric(name=f"{config.metric}@{judge}", counter="-", summary="proportion"),)


async def score(config: Config, reply: Reply, judge: Judge | None) -> Score:
    """Return 1 where the judge gives the right answer, else 0."""
    assert judge is not None
    name = f"{config.metric}@{judge.id}"
    if reply.fault is not None:
        return Score(metrics={name: 0.0}, notes={"not_judged": reply.fault})
    request = reply.request
    question = load_prompt("evals", "judge/yes_no").render(
        request=request,
        response=reply.text,
        question=config.question,
        mark=mark_of(request, reply.text),
    )
    verdict = await judge.ask(user(question), {"reason": None, "answer": ("yes", "no")}, step=config.metric)
    notes = {"attempts": verdict.attempts}
    if isinstance(verdict, Unscored):
        return Score(metrics={}, unscored={name: verdict.reason}, notes=notes)
    return Score(metrics={name: float(verdict.values["answer"] == config.right)}, notes=notes)
