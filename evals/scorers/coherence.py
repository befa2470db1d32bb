"""A judge's grade of how well each part of a reply follows from the part before it, 1 to 10.

A reply is cut into equal parts; from the second on the judge sees the request, the part before and the part, one call
each. `coherence` is the mean of a reply's grades, `coherence_p` the curve. What the judge does not see are breaks
within a part and contradictions over a distance. The rubric is ours.

An empty reply and a refusal have the least grade. A reply too short to be cut (see `lengthwise.position`) is left out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from evals.base import Metric, Score
from evals.scorers.base import Reply, mark_of
from lengthwise.config import ConfigError, option
from lengthwise.judge import Judge, Unscored
from lengthwise.position import NUM_PARTS, position_metrics, text_parts
from lengthwise.records import user
from lengthwise.templates import PromptTemplate, load_prompt
from lengthwise.verdicts import Form

NEEDS_JUDGE = True
GRADES = range(1, 11)
FORM: Form = {"analysis": None, "grade": GRADES}


@dataclass(kw_only=True)
class Config:
    """Options of the scorer."""

    num_parts: int = option(NUM_PARTS, help="equal parts that a reply is cut into (at least 2)")

    def __post_init__(self) -> None:
        """Refuse a text in one part: nothing stands before it."""
        if self.num_parts < 2:
            raise ConfigError(f"coherence: num_parts must be at least 2, not {self.num_parts}")


def prompts(config: Config) -> tuple[PromptTemplate, ...]:
    """Return the question, and the number of parts: larger parts are another measure."""
    return load_prompt("evals", "judge/coherence"), PromptTemplate("num_parts", str(config.num_parts))


def metrics(config: Config, judge: str, task_metrics: Collection[str]) -> tuple[Metric, ...]:
    """Return the mean grade, and the grade of each part from the second on."""
    return tuple(
        Metric(name=name, counter="-", worst=1.0, best=10.0, detail=index > 0)
        for index, name in enumerate(_names(config, judge))
    )


async def score(config: Config, reply: Reply, judge: Judge | None) -> Score:
    """Return the grades of one reply; where a part has none, the mean has none either."""
    assert judge is not None
    total, *names = _names(config, judge.id)
    if reply.fault is not None:
        return Score(metrics=dict.fromkeys((total, *names), 1.0), notes={"not_judged": reply.fault})
    if not position_metrics(reply.text, config.num_parts):
        return Score(metrics={}, notes={"not_judged": "short"})
    found, unscored, attempts = {}, {}, {}
    parts = text_parts(reply.text, config.num_parts)
    for name, before, part in zip(names, parts, parts[1:], strict=False):
        step = name.partition("@")[0]
        question = load_prompt("evals", "judge/coherence").render(
            request=reply.request, before=before, part=part, mark=mark_of(reply.request, before, part)
        )
        verdict = await judge.ask(user(question), FORM, step=step)
        attempts[step] = verdict.attempts
        if isinstance(verdict, Unscored):
            unscored |= {name: verdict.reason, total: verdict.reason}
        else:
            found[name] = float(verdict.values["grade"])
    if not unscored:
        found[total] = sum(found.values()) / len(found)
    return Score(metrics=found, unscored=unscored, notes={"attempts": attempts})


def _names(config: Config, judge: str) -> list[str]:
    stems = ["coherence", *(f"coherence_{part}" for part in range(2, config.num_parts + 1))]
    return [f"{stem}@{judge}" for stem in stems]
