"""A judge's answers to a request's own checklist: HelloBench's score (arXiv 2409.16191), on rows that have one.

The judge grades every item of the row's `checklist` with 0 to 4 quarters in one call. `checklist` is the weighted share
that is met, 0..100, `checklist_rescaled` the same as HelloBench prints it, (score - 75) * 4, and `checklist_beginning`,
`_middle` and `_end` are made of the items that name that place. The task `writing` has such rows.

We differ from the released code: it cuts a reply of more than 15,000 tokens to 16,000 before it is judged, and nothing
is cut here (what does not fit the judge's context is unscored); it drops a verdict that cannot be read, which is
unscored and counted here. An empty reply and a refusal meet nothing. The prompt is our own, and the published weights,
which were fitted to people for each of its categories, are no part of its rows: its numbers do not compare with these.
A reply to a request without a checklist is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from evals.base import Metric, Score
from evals.scorers.base import Reply, mark_of
from lengthwise.checklist import PLACES, STEPS, ChecklistItem, checklist_score, read_checklist, rescaled
from lengthwise.judge import Judge, Unscored
from lengthwise.records import user
from lengthwise.templates import PromptTemplate, load_prompt
from lengthwise.verdicts import Form

NEEDS_JUDGE = True


@dataclass(kw_only=True)
class Config:
    """It has no options: the rows say what is asked."""


def prompts(config: Config) -> tuple[PromptTemplate, ...]:
    """Return the question."""
    return (load_prompt("evals", "judge/checklist"),)


def metrics(config: Config, judge: str, task_metrics: Collection[str]) -> tuple[Metric, ...]:
    """Return the score, the score as HelloBench prints it, and that of each place."""
    return (
        Metric(name=f"checklist@{judge}", counter="-", worst=0.0, best=100.0),
        Metric(name=f"checklist_rescaled@{judge}", counter="-", worst=-300.0, best=100.0, detail=True),
        *(
            Metric(name=f"checklist_{place}@{judge}", counter="-", worst=0.0, best=100.0, detail=True)
            for place in PLACES
        ),
    )


async def score(config: Config, reply: Reply, judge: Judge | None) -> Score:
    """Return what one reply meets of its request's checklist."""
    assert judge is not None
    if not reply.sample.metadata.get("checklist"):
        return Score(metrics={}, notes={"not_judged": "the request has no checklist"})
    items = read_checklist(reply.sample.metadata["checklist"])
    if reply.fault is not None:
        return Score(metrics=_scores(items, [0] * len(items), judge), notes={"not_judged": reply.fault})
    keys = [f"item_{number}" for number, _ in enumerate(items, start=1)]
    form: Form = {"analysis": None, **dict.fromkeys(keys, range(STEPS + 1))}
    (template,) = prompts(config)
    question = template.render(
        request=reply.request,
        response=reply.text,
        items="\n".join(f"{key}: {item.item}" for key, item in zip(keys, items, strict=True)),
        keys=", ".join(f'"{key}": n' for key in keys),
        mark=mark_of(reply.request, reply.text),
    )
    verdict = await judge.ask(user(question), form, step="checklist")
    notes = {"attempts": verdict.attempts}
    if isinstance(verdict, Unscored):
        names = _scores(items, [0] * len(items), judge)
        return Score(metrics={}, unscored=dict.fromkeys(names, verdict.reason), notes=notes)
    return Score(metrics=_scores(items, [verdict.values[key] for key in keys], judge), notes=notes)


def _scores(items: Sequence[ChecklistItem], grades: Sequence[int], judge: Judge) -> dict[str, float]:
    total = checklist_score(items, grades)
    found = {"checklist": total, "checklist_rescaled": rescaled(total)}
    for place in PLACES:
        own = [(item, grade) for item, grade in zip(items, grades, strict=True) if item.place == place]
        if own:
            found[f"checklist_{place}"] = checklist_score(*zip(*own, strict=True))
    return {f"{name}@{judge.id}": value for name, value in found.items()}
