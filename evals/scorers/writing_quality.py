"""A judge's grades of a text: LongBench-Write's S_q and S (LongWriter, 2408.07055), LonGen's quality (2410.23933).

S_q has six dimensions of 1 to 5 and LonGen seven of 1 to 10, each in whole numbers; here both are put on 0..100 by
100 (grade - least) / (most - least), for six dimensions the paper's (grade - 1) * 25, and their mean is the score.
Where the task measures S_l, S = (S_l + S_q) / 2 is given too.

We differ from the released code where that is biased: a verdict that cannot be read leaves the reply unscored and
counted, not dropped; an empty reply and a refusal get the least grades; the judge is greedy. The prompts are our
own, and judges differ, so that the numbers do not compare with the paper's: the metric's name says whose they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from evals.base import Metric, Score
from evals.scorers.base import Reply, mark_of
from lengthwise.config import option
from lengthwise.judge import Judge, Unscored
from lengthwise.records import user
from lengthwise.templates import PromptTemplate, load_prompt
from lengthwise.verdicts import Form

NEEDS_JUDGE = True

Rubric = Literal["longbench_write", "longen"]

FORMS: Mapping[Rubric, Form] = {
    "longbench_write": {
        "Analysis": None,
        **dict.fromkeys(("Relevance", "Accuracy", "Coherence", "Clarity"), range(1, 6)),
        "Breadth and Depth": range(1, 6),
        "Reading Experience": range(1, 6),
    },
    "longen": {
        "Analysis": None,
        **dict.fromkeys(("Relevance", "Coherence", "Accuracy", "Consistency"), range(1, 11)),
        **dict.fromkeys(("Clarity", "Creativity", "Engagement"), range(1, 11)),
    },
}
"""What each rubric grades; the analysis comes first, so that a grade rests on it."""

SCORE_NAMES: Mapping[Rubric, str] = {"longbench_write": "s_q", "longen": "longen_q"}


@dataclass(kw_only=True)
class Config:
    """Options of the scorer."""

    dimensions: Rubric = option(
        "longbench_write", help="longbench_write: six, of 1 to 5 (s_q); longen: seven, of 1 to 10 (longen_q)"
    )


def prompts(config: Config) -> tuple[PromptTemplate, ...]:
    """Return the rubric."""
    return (load_prompt("evals", f"judge/{config.dimensions}"),)


def metrics(config: Config, judge: str, task_metrics: Collection[str]) -> tuple[Metric, ...]:
    """Return the score, each dimension, and S where the task measures S_l."""
    total, *dimensions = score_names(config).values()
    totals = [total, "s_bar"] if _has_mean(config, task_metrics) else [total]
    return tuple(
        Metric(
            name=f"{name}@{judge}",
            counter="cjk_alpha" if name == "s_bar" else "-",  # that of S_l
            worst=0.0,
            best=100.0,
            detail=name in dimensions,
        )
        for name in (*totals, *dimensions)
    )


async def score(config: Config, reply: Reply, judge: Judge | None) -> Score:
    """Return the grades of one reply on 0..100, with the judge's words in the notes."""
    assert judge is not None
    form = FORMS[config.dimensions]
    wanted = score_names(config)
    if reply.fault is not None:
        grades = {key: kind[0] for key, kind in form.items() if isinstance(kind, range)}
        return Score(metrics=_named(config, grades, reply, judge), notes={"not_judged": reply.fault})
    (template,) = prompts(config)
    request = reply.request
    question = template.render(request=request, response=reply.text, mark=mark_of(request, reply.text))
    verdict = await judge.ask(user(question), form, step=SCORE_NAMES[config.dimensions])
    notes = {"attempts": verdict.attempts}
    if isinstance(verdict, Unscored):
        names = [*wanted.values(), *(["s_bar"] if _has_mean(config, reply.metrics) else [])]
        return Score(metrics={}, unscored={f"{n}@{judge.id}": verdict.reason for n in names}, notes=notes)
    return Score(metrics=_named(config, verdict.values, reply, judge), notes=notes)


def scaled(grade: int, scale: range) -> float:
    """Return a grade on 0..100.

    Example:
        >>> scaled(4, range(1, 6)), scaled(1, range(1, 11))
        (75.0, 0.0)
    """
    return 100 * (grade - scale[0]) / (scale[-1] - scale[0])


def score_names(config: Config) -> dict[str, str]:
    """Return the names of the score (key "") and of each dimension, without the judge."""
    total = SCORE_NAMES[config.dimensions]
    keys = [key for key, kind in FORMS[config.dimensions].items() if isinstance(kind, range)]
    return {"": total, **{key: f"{total}_{key.lower().replace(' ', '_')}" for key in keys}}


def _named(config: Config, grades: Mapping[str, int], reply: Reply, judge: Judge) -> dict[str, float]:
    form, names = FORMS[config.dimensions], score_names(config)
    found = {key: scaled(grades[key], kind) for key, kind in form.items() if isinstance(kind, range)}
    total = sum(found.values()) / len(found)
    values = {names[key]: value for key, value in {"": total, **found}.items()}
    if _has_mean(config, reply.metrics):
        values["s_bar"] = (reply.metrics["s_l"] + total) / 2
    return {f"{name}@{judge.id}": value for name, value in values.items()}


def _has_mean(config: Config, names: Collection[str]) -> bool:
    return config.dimensions == "longbench_write" and "s_l" in names
