"""Which of two replies a judge prefers: the measured model's or that of a baseline's finished evaluation.

The judge is asked twice, with each reply first once, since judges like the first or the last. A win is 1, a tie
0.5, a loss 0; two verdicts that differ are a tie, and counted in `order_disagreement`. `length_delta_chars` is how
much longer the reply is than the baseline's, from which the results have the length-controlled win rate.

An empty reply or a refusal loses without a judge, or ties with another one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from evals.base import Metric, Score
from evals.replies import SavedReplies
from evals.scorers.base import Reply, mark_of
from lengthwise.config import ConfigError, option
from lengthwise.degeneration import is_refusal
from lengthwise.judge import Judge, Unscored
from lengthwise.outcomes import Failed
from lengthwise.records import user
from lengthwise.templates import PromptTemplate, load_prompt

NEEDS_JUDGE = True


@dataclass(kw_only=True)
class Config:
    """Options of the scorer."""

    baseline: str = option(help="run folder of a finished evaluation of one model on the same prompts")
    label: str | None = option(None, help="what the baseline is called in metrics; null: its folder's name")

    def __post_init__(self) -> None:
        """Refuse a folder without replies, before any model loads."""
        _replies(self.baseline)
        if not re.fullmatch(r"[\w.+-]+", self.baseline_name):
            raise ConfigError(
                f"pairwise: label {self.label!r} is a part of a metric's name: use letters, digits, . - + _"
            )

    @property
    def baseline_name(self) -> str:
        """What the baseline is called."""
        folder = re.sub(r"[^\w.+-]+", "-", Path(self.baseline).resolve().name)
        return folder if self.label is None else self.label


def prompts(config: Config) -> tuple[PromptTemplate, ...]:
    """Return the question."""
    return (load_prompt("evals", "judge/pairwise"),)


def metrics(config: Config, judge: str, task_metrics: Collection[str]) -> tuple[Metric, ...]:
    """Return the win rate, the share of pairs on which the order decided, and the difference in length."""
    return (
        Metric(
            name=f"win_rate_vs_{config.baseline_name}@{judge}",
            counter="-",
            length_delta=delta_name(config),
            worst=0.0,
            best=1.0,
        ),
        Metric(
            name=f"order_disagreement_vs_{config.baseline_name}@{judge}",
            counter="-",
            higher_is_better=False,
            summary="proportion",
            detail=True,
        ),
        Metric(name=delta_name(config), counter="characters", higher_is_better=None),
    )


async def score(config: Config, reply: Reply, judge: Judge | None) -> Score:
    """Return one reply's win, tie or loss against the baseline's reply of the same number."""
    assert judge is not None
    win, disagreement = (metric.name for metric in metrics(config, judge.id, ())[:2])
    found = await _replies(config.baseline).of_prompt(reply.task, reply.sample, reply.prompt)
    if isinstance(found, Failed) or reply.index >= len(found):
        reason = found.reason if isinstance(found, Failed) else "no such reply"
        return Score(metrics={}, unscored=dict.fromkeys((win, disagreement), f"baseline: {reason}"))
    baseline = found[reply.index].text
    delta = {delta_name(config): float(len(reply.text) - len(baseline))}
    faults = reply.fault is not None, not baseline.strip() or is_refusal(baseline)
    if any(faults):
        notes = {"not_judged": reply.fault or "the baseline's reply is empty or a refusal"}
        return Score(metrics={win: (1 - faults[0] + faults[1]) / 2, disagreement: 0.0, **delta}, notes=notes)
    preferences, attempts = [], {}
    for order in ("first", "second"):
        verdict = await judge.ask(
            user(_question(config, reply, baseline, order)),
            {"analysis": None, "winner": ("A", "B", "tie")},
            step=f"pairwise_{config.baseline_name}_{order}",
        )
        attempts[order] = verdict.attempts
        if isinstance(verdict, Unscored):
            reasons = dict.fromkeys((win, disagreement), verdict.reason)
            return Score(metrics=delta, unscored=reasons, notes={"attempts": attempts})
        preferences.append(preference(verdict.values["winner"], order))
    value, disagree = both_orders(*preferences)
    notes = {"attempts": attempts, "preferences": preferences}
    return Score(metrics={win: value, disagreement: float(disagree), **delta}, notes=notes)


def preference(winner: str, order: str) -> float:
    """Return 1 if the measured reply, which stood `first` or `second`, was preferred, 0.5 of a tie, else 0.

    Example:
        >>> preference("A", "first"), preference("A", "second"), preference("tie", "second")
        (1.0, 0.0, 0.5)
    """
    if winner == "tie":
        return 0.5
    return float((winner == "A") == (order == "first"))


def both_orders(first: float, second: float) -> tuple[float, bool]:
    """Return what two verdicts on one pair say together, and whether they differ: then it is a tie.

    Example:
        >>> both_orders(1.0, 1.0), both_orders(1.0, 0.0), both_orders(0.5, 0.0)
        ((1.0, False), (0.5, True), (0.5, True))
    """
    return (first, False) if first == second else (0.5, True)


def delta_name(config: Config) -> str:
    """Return the metric of the difference in length, which no judge has a part in."""
    return f"length_delta_chars_vs_{config.baseline_name}"


def _question(config: Config, reply: Reply, baseline: str, order: str) -> str:
    texts = (reply.text, baseline) if order == "first" else (baseline, reply.text)
    (template,) = prompts(config)
    request = reply.request
    return template.render(request=request, first=texts[0], second=texts[1], mark=mark_of(request, *texts))


@cache
def _replies(folder: str) -> SavedReplies:
    """Return a baseline's replies; the index of a large run takes seconds, so each is made once."""
    return SavedReplies(Path(folder), field="pairwise: baseline")
