"""A judge's grades by criteria that were written for the request: WritingBench's score (2503.05244), on rows with them.

Each criterion of the row's `criteria` is asked for in a call of its own, as the benchmark does, and graded 1 to 10.
`criteria` is the mean of a reply's grades (the leaderboard prints ten times that). Of requests that state a length, a
style or a format, `criteria_length_r` is the same mean over those requests alone, and `criteria_length_c` is of their
criteria about the length only; `style` and `format` likewise. The task `writing` has such rows.

The overall score is the mean over replies of their means; the paper's, over all grades, is the same where each request
has equally many criteria, as its five. The judge is greedy (the paper's has temperature 1), the prompt our own, a
verdict that cannot be read unscored; an empty reply and a refusal have the least grades. A reply to a request without
criteria is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from evals.base import Metric, Score
from evals.scorers.base import Reply, mark_of
from lengthwise.criteria import (
    GRADES,
    REQUIREMENTS,
    Criterion,
    criteria_score,
    read_criteria,
    requirement_scores,
)
from lengthwise.judge import Judge, Unscored
from lengthwise.records import user
from lengthwise.templates import PromptTemplate, load_prompt
from lengthwise.verdicts import FaultKind, Form

NEEDS_JUDGE = True
FORM: Form = {"reason": None, "score": GRADES}


@dataclass(kw_only=True)
class Config:
    """It has no options: the rows say what is graded."""


def prompts(config: Config) -> tuple[PromptTemplate, ...]:
    """Return the question."""
    return (load_prompt("evals", "judge/criterion"),)


def metrics(config: Config, judge: str, task_metrics: Collection[str]) -> tuple[Metric, ...]:
    """Return the mean grade, and R and C of each requirement."""
    parts = [f"{requirement}_{kind}" for requirement in REQUIREMENTS for kind in ("r", "c")]
    return tuple(
        Metric(name=f"{name}@{judge}", counter="-", worst=1.0, best=10.0, detail=name != "criteria")
        for name in ("criteria", *(f"criteria_{part}" for part in parts))
    )


async def score(config: Config, reply: Reply, judge: Judge | None) -> Score:
    """Return the mean grades of one reply; a criterion without a verdict leaves all of them unscored."""
    assert judge is not None
    if not reply.sample.metadata.get("criteria"):
        return Score(metrics={}, notes={"not_judged": "the request has no criteria"})
    criteria = read_criteria(reply.sample.metadata["criteria"])
    least = _scores(criteria, [GRADES[0]] * len(criteria), judge)
    if reply.fault is not None:
        return Score(metrics=least, notes={"not_judged": reply.fault})
    (template,) = prompts(config)
    grades: list[int] = []
    faults: list[FaultKind] = []
    attempts = {}
    for number, criterion in enumerate(criteria, start=1):
        question = template.render(
            request=reply.request,
            response=reply.text,
            name=criterion.name,
            description=criterion.description,
            mark=mark_of(reply.request, reply.text),
        )
        verdict = await judge.ask(user(question), FORM, step=f"criterion_{number}")
        attempts[criterion.name] = verdict.attempts
        if isinstance(verdict, Unscored):
            faults.append(verdict.reason)
        else:
            grades.append(verdict.values["score"])
    notes = {"attempts": attempts}
    if faults:
        return Score(metrics={}, unscored=dict.fromkeys(least, faults[0]), notes=notes)
    return Score(metrics=_scores(criteria, grades, judge), notes=notes)


def _scores(criteria: Sequence[Criterion], grades: Sequence[int], judge: Judge) -> dict[str, float]:
    parts = requirement_scores(criteria, grades)
    found = {"criteria": criteria_score(grades)} | {f"criteria_{key}": value for key, value in parts.items()}
    return {f"{name}@{judge.id}": value for name, value in found.items()}
