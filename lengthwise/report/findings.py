"""Compares evaluations on the items they share, and says what that shows in one sentence."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lengthwise.report.collect import Run
from lengthwise.report.evaluations import Task
from lengthwise.report.files import mapping
from lengthwise.report.wording import decimal, digits_for, interval, metric_name, whole
from lengthwise.statistics import paired_difference

Verdict = Literal["better", "worse", "changed", "unclear", "too few"]
_MODEL_KEYS = {"model", "model_identity", "adapter", "name", "output_dir", "max_concurrent_samples"}
"""What two evaluations may differ in and still measure the same thing: which model answered, and how fast."""


@dataclass(kw_only=True, eq=False)
class Comparison:
    """One metric of one task, on the items that two runs share."""

    task: str
    metric: str
    base: Run
    other: Run
    before: float
    after: float
    """Means over the shared items, so that their difference is the paired one."""
    difference: float
    low: float | None
    high: float | None
    n: int
    verdict: Verdict
    higher_is_better: bool | None
    num_up: int
    num_down: int
    num_same: int
    notes: list[str] = field(default_factory=list)
    """What keeps items out of the pairing."""

    @property
    def digits(self) -> int:
        """Decimals for this metric."""
        return digits_for([self.before, self.after])

    @property
    def figures(self) -> str:
        """The numbers, as a verdict quotes them."""
        d = self.digits
        bounds = "no interval" if self.low is None else f"95 % interval {interval(self.low, self.high, d)}"
        return (
            f"{metric_name(self.metric)} {decimal(self.before, d)} → {decimal(self.after, d)} "
            f"(paired difference {decimal(self.difference, d, signed=True)}, {bounds}, n = {self.n})"
        )


def compare(base: Run, other: Run) -> list[Comparison]:
    """Return one comparison for each task and metric that both evaluations scored on shared items."""
    if base.evaluation is None or other.evaluation is None:
        return []
    found = []
    for name, task in base.evaluation.tasks.items():
        theirs = other.evaluation.tasks.get(name)
        if theirs is None:
            continue
        for shown, score in task.scores.items():
            if shown in theirs.scores:
                one = _compare_metric(base, other, task, theirs, score.metric, score.higher_is_better)
                if one is not None:
                    found.append(one)
    return found


def _compare_metric(
    base: Run, other: Run, task: Task, theirs: Task, metric: str, higher_is_better: bool | None
) -> Comparison | None:
    before, after = _means_by_item(task, metric), _means_by_item(theirs, metric)
    shared = [key for key in before if key in after]
    if not shared:
        return None
    old, new = [before[key] for key in shared], [after[key] for key in shared]
    changes = [b - a for a, b in zip(old, new, strict=True)]
    low = high = None
    if len(shared) > 1:
        # Given as (new, old), the difference is new - old.
        found = paired_difference(new, old)
        low, high = found.low, found.high
    return Comparison(
        task=task.name,
        metric=metric,
        base=base,
        other=other,
        before=sum(old) / len(old),
        after=sum(new) / len(new),
        difference=sum(changes) / len(changes),
        low=low,
        high=high,
        n=len(shared),
        verdict=_verdict(low, high, higher_is_better),
        higher_is_better=higher_is_better,
        num_up=sum(c > 0 for c in changes),
        num_down=sum(c < 0 for c in changes),
        num_same=sum(c == 0 for c in changes),
        notes=_unpaired(task, theirs, base, other, len(shared), metric),
    )


def _means_by_item(task: Task, metric: str) -> dict[tuple[str, str], float]:
    """Return each item's mean, keyed by id and prompt digest: another prompt is another item."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for output in task.outputs:
        value = output.metrics.get(metric)
        if value is not None:
            values[output.id, output.prompt_hash].append(value)
    return {key: sum(v) / len(v) for key, v in values.items()}


def _unpaired(task: Task, theirs: Task, base: Run, other: Run, num_shared: int, metric: str) -> list[str]:
    notes = []
    ids = [{o.id for o in t.outputs} for t in (task, theirs)]
    for run, mine, others in ((base, *ids), (other, ids[1], ids[0])):
        if mine - others:
            notes.append(f"{len(mine - others)} item(s) only in {run.label}")
    unpaired = len(ids[0] & ids[1]) - num_shared
    if unpaired > 0:
        notes.append(
            f"{unpaired} item(s) in both left out: {metric_name(metric)} unscored in one of the runs, "
            "or asked with another prompt"
        )
    return notes


def _verdict(low: float | None, high: float | None, higher_is_better: bool | None) -> Verdict:
    if low is None or high is None:
        return "too few"
    if low <= 0 <= high:
        return "unclear"
    if higher_is_better is None:
        return "changed"
    return "better" if (low > 0) == higher_is_better else "worse"


@dataclass(kw_only=True)
class Headline:
    """The page's first sentence and what a reader must know beside it."""

    tone: Verdict | Literal["none"]
    opening: str
    figures: str
    asides: list[str]
    comparison: Comparison | None = None

    @property
    def sentence(self) -> str:
        """The whole verdict."""
        return f"{self.opening}: {self.figures}"


def headline(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> Headline:
    """Return the sentence that the data supports: better, worse, or no clear difference."""
    evaluations = [run for run in runs if run.evaluation and run.evaluation.tasks]
    if not comparisons:
        return _without_comparison(evaluations)
    leads = [_primary(comparisons, other) for other in dict.fromkeys(c.other for c in comparisons)]
    first = leads[-1]
    asides = _accounts(first) + list(first.notes)
    asides += [f"{_opening(lead)}: {lead.figures}." for lead in leads[:-1]]
    rest = [c for c in comparisons if c not in leads]
    if rest:
        asides.append(_others(rest))
    return Headline(
        tone=first.verdict,
        opening=_opening(first),
        figures=first.figures + ".",
        asides=asides,
        comparison=first,
    )


def _opening(lead: Comparison) -> str:
    base, other, task = lead.base.label, lead.other.label, lead.task
    return {
        "better": f"{other} is better than {base} on {task}",
        "worse": f"{other} is worse than {base} on {task}",
        "changed": f"{other} differs from {base} on {task}",
        "unclear": f"No clear difference between {base} and {other} on {task}",
        "too few": f"One shared item cannot tell {base} and {other} apart on {task}",
    }[lead.verdict]


def _primary(comparisons: Sequence[Comparison], other: Run) -> Comparison:
    """Return a run's comparison to lead with: its S_l, else its first task's leading metric."""
    candidates = [c for c in comparisons if c.other is other]
    for candidate in candidates:
        if candidate.metric == "s_l":
            return candidate
    evaluation = candidates[0].base.evaluation
    assert evaluation is not None
    leading = evaluation.tasks[candidates[0].task].primary
    return next((c for c in candidates if c.metric == leading), candidates[0])


def _accounts(first: Comparison) -> list[str]:
    """Return what changed in empty, cut and repetitive outputs: a score alone can hide them."""
    assert first.base.evaluation is not None and first.other.evaluation is not None
    old = first.base.evaluation.tasks[first.task]
    new = first.other.evaluation.tasks[first.task]
    parts = []
    for key in ("truncated", "empty", "repetitive", "failed"):
        a, b = old.accounts.get(key), new.accounts.get(key)
        parts.append(f"{key} {'unknown' if a is None else a} → {'unknown' if b is None else b}")
    sizes = f"of {len(old.outputs)} and {len(new.outputs)} outputs"
    return [f"{', '.join(parts).capitalize()} ({sizes})."]


def _others(others: Sequence[Comparison]) -> str:
    counted = {
        kind: sum(c.verdict == kind for c in others) for kind in ("better", "worse", "changed", "unclear")
    }
    words = {
        "better": "better",
        "worse": "worse",
        "changed": "different, with no better direction",
        "unclear": "without a clear difference",
    }
    parts = [f"{counted[kind]} {words[kind]}" for kind in words if counted[kind]]
    rest = len(others) - sum(counted.values())
    if rest:
        parts.append(f"{rest} with too few items")
    noun = "comparison" if len(others) == 1 else "comparisons"
    return (
        f"{len(others)} further {noun}: {', '.join(parts)}. Intervals are not corrected for their number: "
        "of twenty without any true difference, one would look clear by chance."
    )


def _without_comparison(evaluations: Sequence[Run]) -> Headline:
    if not evaluations:
        return Headline(
            tone="none",
            opening="No evaluation yet",
            figures="there are no scores to show for these runs.",
            asides=["Evaluate the model, then name its run folder too: lengthwise report BASE TUNED"],
        )
    run = evaluations[0]
    assert run.evaluation is not None
    task = next((t for t in run.evaluation.tasks.values() if "s_l" in t.scores), None)
    task = task or next(iter(run.evaluation.tasks.values()))
    score = task.scores.get(task.primary or "")
    if score is None or score.estimate is None:
        figures = "no score is known."
    else:
        d = digits_for([score.estimate, score.high])
        figures = (
            f"{metric_name(score.metric)} {decimal(score.estimate, d)} "
            f"(95 % interval {interval(score.low, score.high, d)}, n = {whole(score.n)})."
        )
    aside = (
        "Nothing to compare with: name a second evaluation of the same task after this one."
        if len(evaluations) == 1
        else "These evaluations share no scored items, so no difference can be stated."
    )
    return Headline(tone="none", opening=f"{run.label} on {task.name}", figures=figures, asides=[aside])


def setting_differences(base: Run, other: Run) -> list[str]:
    """Return the settings, apart from the model, in which two evaluations differ.

    A difference in them may explain a difference in scores as well as the model does.
    """
    if base.evaluation is None or other.evaluation is None:
        return []
    mine, theirs = _flatten(base.evaluation.settings), _flatten(other.evaluation.settings)
    found = [
        f"{key}: {_shown(mine.get(key))} in {base.label}, {_shown(theirs.get(key))} in {other.label}"
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key) and key not in _MODEL_KEYS
    ]
    for name, task in base.evaluation.tasks.items():
        twin = other.evaluation.tasks.get(name)
        if twin is None:
            continue
        old = {"version": task.version, "counter": task.counter, **_flatten(task.settings)}
        new = {"version": twin.version, "counter": twin.counter, **_flatten(twin.settings)}
        found += [
            f"{name}, {key}: {_shown(old.get(key))} in {base.label}, {_shown(new.get(key))} in {other.label}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
    return found


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        if mapping(entry):
            flat.update(_flatten(entry, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = entry
    return flat


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
