"""A judge's word on each check of `golden_thread`, and how far the rule of words agrees with it.

The judge is shown one entry and one event, and says yes or no; entries that are not there are not asked of. STIC-1,
STIC-2 and wAvg are those of the task with the judge's verdicts. `agreement` is the share of the judged checks on which
judge and rule say the same, `kappa` Cohen's, `overreach` the share that the rule affirms and the judge denies, which a
true lower bound would not have; all three over the checks of all documents.

We differ from the released code: it samples at 0.95 and takes any reply with "yes" in it for a yes; here the judge is
greedy and answers in a form, and a check without such an answer leaves its whole reply unscored, never a no. A refusal
holds no event, without a judge. Another judge moves STIC-1 by up to ten points of a hundred: its id is in the names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.base import Metric, Score
from evals.golden_thread_metrics import check_metrics, check_values
from evals.scorers.base import Reply, mark_of
from evals.tasks.golden_thread import Asked, asked_of, entries_of
from lengthwise.config import ConfigError
from lengthwise.event_words import has_event
from lengthwise.golden_thread import Check
from lengthwise.judge import Judge, Unscored, Verdict
from lengthwise.records import user
from lengthwise.summaries import Summary
from lengthwise.templates import PromptTemplate, load_prompt

NEEDS_JUDGE = True

CELLS = ("num_both", "num_judge_only", "num_bound_only", "num_neither")
"""Judged checks by who calls them met: what the agreement is made of."""


@dataclass(kw_only=True)
class Config:
    """The scorer has no options."""


def prompts(config: Config) -> tuple[PromptTemplate, ...]:
    """Return the question."""
    return (load_prompt("evals", "judge/golden_thread"),)


def metrics(config: Config, judge: str, task_metrics: Collection[str]) -> tuple[Metric, ...]:
    """Return the rates by the judge's verdicts, and the agreement.

    Raises:
        ConfigError: the task has no checks.
    """
    if "stic_1_bound" not in task_metrics:
        raise ConfigError(
            "scorers: golden_thread_judge judges the checks of the task golden_thread: name it in that task's own "
            "scorers, {name: golden_thread, scorers: [golden_thread_judge]}"
        )
    return _metrics(judge)


async def score(config: Config, reply: Reply, judge: Judge | None) -> Score:
    """Return one reply's rates by the judge's verdicts; unscored where the judge has none on one of its checks."""
    assert judge is not None
    asked = asked_of(reply.sample.metadata)
    entries = entries_of(asked, reply.text)
    met = [False] * len(asked.checks)
    if reply.fault is not None:
        return Score(metrics=_rates(asked, entries, met, reply, judge.id), notes={"not_judged": reply.fault})
    found = [index for index, check in enumerate(asked.checks) if check.entry in entries]
    verdicts: list[Mapping[str, Any]] = []
    for index in found:
        check = asked.checks[index]
        verdict = await _ask(judge, asked, check, entries[check.entry], index)
        verdicts.append({"entry": check.entry, "event": check.event, "attempts": verdict.attempts})
        if isinstance(verdict, Unscored):
            names = [metric.name for metric in _metrics(judge.id)]
            return Score(
                metrics={}, unscored=dict.fromkeys(names, verdict.reason), notes={"verdicts": verdicts}
            )
        met[index] = verdict.values["answer"] == "yes"
    bound = [has_event(entries[asked.checks[index].entry], asked.checks[index].event) for index in found]
    agreed = agreement_values([met[index] for index in found], bound, judge.id)
    return Score(
        metrics={**_rates(asked, entries, met, reply, judge.id), **agreed}, notes={"verdicts": verdicts}
    )


def _rates(
    asked: Asked, entries: Mapping[int, str], met: Sequence[bool], reply: Reply, judge: str
) -> dict[str, float]:
    return check_values(
        asked.checks,
        entries,
        met,
        num_entries=asked.num_entries,
        rate=reply.metrics["cr"],
        ending=f"@{judge}",
    )


def agreement_values(judged: Sequence[bool], bound: Sequence[bool], judge: str) -> dict[str, float]:
    """Return how many judged checks of a reply are met by whom, and the shares of them; no shares of no check.

    Example:
        >>> values = agreement_values([True, True, False], [True, False, False], "j")
        >>> values["num_judge_only@j"], round(values["agreement@j"], 3), values["overreach@j"]
        (1.0, 0.667, 0.0)
    """
    pairs = list(zip(judged, bound, strict=True))
    cells = [(True, True), (True, False), (False, True), (False, False)]
    values = {f"{name}@{judge}": float(pairs.count(cell)) for name, cell in zip(CELLS, cells, strict=True)}
    num_agreed = float(sum(ours == theirs for ours, theirs in pairs))
    values[f"num_agreed@{judge}"] = num_agreed
    if pairs:
        values[f"agreement@{judge}"] = num_agreed / len(pairs)
        values[f"overreach@{judge}"] = values[f"num_bound_only@{judge}"] / len(pairs)
    return values


async def _ask(judge: Judge, asked: Asked, check: Check, entry: str, index: int) -> Verdict | Unscored:
    (template,) = prompts(Config())
    name = f"{asked.unit} {check.entry}"
    question = template.render(
        entry_name=name, entry=f"{name}{entry}", event=check.event, mark=mark_of(entry, check.event)
    )
    # The index parts equal events of an entry that is asked for twice.
    return await judge.ask(
        user(question), {"reason": None, "answer": ("yes", "no")}, step=f"check {index}: {name}"
    )


def _metrics(judge: str) -> tuple[Metric, ...]:
    shown: tuple[tuple[str, Summary, tuple[str, ...]], ...] = (
        ("agreement", "ratio", (f"num_agreed@{judge}", "num_found")),
        ("overreach", "ratio", (f"num_bound_only@{judge}", "num_found")),
        ("kappa", "kappa", tuple(f"{cell}@{judge}" for cell in CELLS)),
    )
    agreement = (
        Metric(
            name=f"{name}@{judge}",
            counter="-",
            higher_is_better=None,
            summary=summary,
            columns=columns,
            detail=True,
        )
        for name, summary, columns in shown
    )
    return (*check_metrics(f"@{judge}"), *agreement)
