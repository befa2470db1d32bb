"""Compares evaluations item by item: paired differences, and what was won and lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lengthwise.lengths import slice_order
from lengthwise.paired import PairedDifference, exact_mcnemar, holm, least_p_value, paired_difference
from lengthwise.pooled import Columns, columns_of, mean_columns, pooled_difference, pooled_value
from lengthwise.power import minimum_detectable_difference
from lengthwise.report.collect import Run
from lengthwise.report.evaluations import Output, Score, Task
from lengthwise.report.wording import decimal, digits_for, metric_name, quoted_interval
from lengthwise.summaries import Summary, item_value, summary_of

Verdict = Literal["better", "worse", "changed", "unclear", "too few"]
SIGNIFICANCE = 0.05
THRESHOLDS = {"s_l": 80.0}
"""From which score on an item counts as right, for metrics that are no yes or no. S_l 80 is what LongWriter-6k
was filtered by (arXiv 2410.10210): 0.71 to 1.6 times the requested length."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """One item that both runs scored; of several replies to it, the mean counts and the first is shown."""

    id: str
    cluster: str
    """The prompt's digest: items with the same prompt are not independent."""
    before: float
    after: float
    base: Output
    other: Output
    sums_before: tuple[float, ...] = ()
    sums_after: tuple[float, ...] = ()
    """Of a metric that is made of sums: the item's columns in both runs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Flips:
    """Items by whether they were right under the first model and under the second."""

    rule: str
    """What counts as right."""
    won: list[Pair]
    lost: list[Pair]
    both_right: list[Pair]
    both_wrong: list[Pair]

    @property
    def p_value(self) -> float | None:
        """Exact McNemar: whether more were won than lost; None where items share a prompt, which it does not know."""
        pairs = [*self.won, *self.lost, *self.both_right, *self.both_wrong]
        if len({p.cluster for p in pairs}) < len(pairs):
            return None
        return exact_mcnemar(len(self.won), len(self.lost))

    @property
    def sentence(self) -> str:
        """The four counts."""
        return (
            f"{len(self.won)} won, {len(self.lost)} lost, {len(self.both_right)} both right, "
            f"{len(self.both_wrong)} both wrong"
        )


@dataclass(kw_only=True, eq=False)
class Comparison:
    """One metric of one task, on the items that two runs share."""

    task: str
    metric: str
    base: Run
    other: Run
    before: float
    after: float
    """Over the shared items, so that their difference is the paired one."""
    difference: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    method: str
    p_value: float | None
    num_clusters: int
    """Different prompts among the items."""
    p_holm: float | None = None
    """Corrected for all comparisons that are shown together."""
    higher_is_better: bool | None
    summary: Summary
    pairs: list[Pair]
    notes: list[str] = field(default_factory=list)
    """What keeps items out of the pairing."""

    @property
    def verdict(self) -> Verdict:
        """Which way the difference goes, if test and interval call it one."""
        return verdict_of(
            self.difference, (self.low, self.high), self.p_value, self.num_clusters, self.higher_is_better
        )

    @property
    def survives(self) -> bool:
        """Whether the verdict still holds after Holm's correction."""
        return self.p_holm is None or self.p_holm < SIGNIFICANCE

    @property
    def detectable(self) -> float | None:
        """The true paired difference that these items would have shown in 4 of 5 such comparisons."""
        return minimum_detectable_difference(self.stderr, paired=True)

    @property
    def digits(self) -> int:
        """Decimals for this metric."""
        return digits_for([self.before, self.after])

    @property
    def tally(self) -> str:
        """How many items went which way; the others stayed."""
        changes = [p.after - p.before for p in self.pairs]
        up, down = sum(c > 0 for c in changes), sum(c < 0 for c in changes)
        return f"{up} up, {down} down"

    @property
    def figures(self) -> str:
        """The numbers, as a verdict quotes them."""
        d = self.digits
        bounds = quoted_interval(self.low, self.high, d)
        return (
            f"{metric_name(self.metric)} {decimal(self.before, d)} → {decimal(self.after, d)} "
            f"(paired difference {decimal(self.difference, d, signed=True)}, {bounds}, n = {self.n})"
        )

    def by_change(self) -> list[Pair]:
        """Return the pairs from the largest loss to the largest win; a metric without direction: by size."""
        if self.higher_is_better is None:
            return sorted(self.pairs, key=lambda p: -abs(p.after - p.before))
        sign = 1 if self.higher_is_better else -1
        return sorted(self.pairs, key=lambda p: sign * (p.after - p.before))


def verdict_of(
    difference: float,
    bounds: tuple[float | None, float | None],
    p_value: float | None,
    num_clusters: int,
    higher_is_better: bool | None,
) -> Verdict:
    """Return what a paired difference may be called.

    "Too few" are items that no test could tell apart, however they came out. A difference is one if its p-value
    is below 0.05 and its interval leaves 0 out; where there is no interval, as all items differ by the same, the
    p-value decides.

    Example:
        >>> verdict_of(2.0, (0.5, 3.5), 0.03, 9, True), verdict_of(2.0, (0.5, 3.5), 0.25, 3, True)
        ('better', 'too few')
    """
    low, high = bounds
    if p_value is None or least_p_value(num_clusters) >= SIGNIFICANCE:
        return "too few"
    holds_zero = low is not None and high is not None and low <= 0 <= high
    if p_value >= SIGNIFICANCE or holds_zero or difference == 0:
        return "unclear"
    if higher_is_better is None:
        return "changed"
    return "better" if (difference > 0) == higher_is_better else "worse"


def compare_all(base: Run, others: Sequence[Run]) -> list[Comparison]:
    """Return every comparison of the runs with the base, with Holm's correction over those that ask a question.

    A metric without a better direction, such as the number of tokens, is context and takes no part in it.
    """
    found = [c for other in others for c in compare(base, other)]
    asked = [c for c in found if c.higher_is_better is not None]
    for comparison, corrected in zip(asked, holm([c.p_value for c in asked]), strict=True):
        comparison.p_holm = corrected
    return found


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
            one = _compare_metric(base, other, task, theirs, score) if shown in theirs.scores else None
            if one is not None:
                found.append(one)
    return found


def _compare_metric(base: Run, other: Run, task: Task, theirs: Task, score: Score) -> Comparison | None:
    pairs = pair(task, theirs, score.metric, score.summary, score.columns)
    found = _difference(pairs, score.summary) if pairs else None
    if found is None:
        return None
    return Comparison(
        task=task.name,
        metric=score.metric,
        base=base,
        other=other,
        before=_value([p.before for p in pairs], [p.sums_before for p in pairs], score.summary),
        after=_value([p.after for p in pairs], [p.sums_after for p in pairs], score.summary),
        difference=found.estimate,
        stderr=found.stderr,
        low=found.low,
        high=found.high,
        n=len(pairs),
        method=found.method,
        p_value=found.p_value,
        num_clusters=found.num_clusters,
        higher_is_better=score.higher_is_better,
        summary=score.summary,
        pairs=pairs,
        notes=unpaired(task, theirs, (base.label, other.label), score.metric, pairs),
    )


def pair(
    task: Task, theirs: Task, metric: str, summary: Summary = "mean", columns: Columns = ()
) -> list[Pair]:
    """Align two runs' items by id and prompt: the same id with another prompt is another item.

    Several replies to an item count as `item_value` says for this summary; of `columns`, as their mean.
    """
    mine, others = _by_item(task, metric), _by_item(theirs, metric)
    return [
        Pair(
            id=key[0],
            cluster=mine[key][0][0].cluster,
            before=item_value([v for _, v in mine[key]], summary),
            after=item_value([v for _, v in others[key]], summary),
            base=mine[key][0][0],
            other=others[key][0][0],
            sums_before=_sums(mine[key], columns),
            sums_after=_sums(others[key], columns),
        )
        for key in mine
        if key in others
    ]


def unpaired(
    task: Task, theirs: Task, labels: tuple[str, str], metric: str, pairs: Sequence[Pair]
) -> list[str]:
    """Return what keeps items out of the pairing, in words; empty if nothing does."""
    mine, others = _prompts(task), _prompts(theirs)
    notes = [
        f"{len(only)} item(s) only in {label}"
        for label, only in zip(
            labels, (mine.keys() - others.keys(), others.keys() - mine.keys()), strict=True
        )
        if only
    ]
    both = [key for key in mine if key in others]
    changed = [key for key in both if not mine[key] & others[key]]
    if changed:
        named = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
        notes.append(f"{len(changed)} item(s) in both left out: asked with another prompt ({named})")
    unscored = len(both) - len(changed) - len({p.id for p in pairs})
    if unscored > 0:
        notes.append(
            f"{unscored} item(s) in both left out: {metric_name(metric)} unscored in one of the runs"
        )
    return notes


def flips(comparison: Comparison, thresholds: Mapping[str, float] = THRESHOLDS) -> Flips | None:
    """Sort the items into won, lost, both right and both wrong; None where no rule says what is right.

    A metric that is always 0 or 1 needs no rule: 1 is right. Others need their entry in `thresholds`, which
    the score must reach (or stay below, where lower is better).
    """
    pairs, metric = comparison.pairs, comparison.metric
    threshold = thresholds.get(metric)
    if threshold is None:
        if not all(v in (0.0, 1.0) for p in pairs for v in (p.before, p.after)):
            return None
        threshold = 1.0 if comparison.higher_is_better is not False else 0.0
    lower = comparison.higher_is_better is False
    groups: dict[tuple[bool, bool], list[Pair]] = defaultdict(list)
    for p in pairs:
        old, new = ((v <= threshold) if lower else (v >= threshold) for v in (p.before, p.after))
        groups[old, new].append(p)
    return Flips(
        rule=f"{metric_name(metric)} {'≤' if lower else '≥'} {threshold:g}",
        won=groups[False, True],
        lost=groups[True, False],
        both_right=groups[True, True],
        both_wrong=groups[False, False],
    )


def by_slice(comparison: Comparison) -> list[tuple[str, str, PairedDifference]]:
    """Return (property, value, paired difference) for each group of prompts, where there are several."""
    groups: dict[str, dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for p in comparison.pairs:
        for kind, value in p.base.slices.items():
            groups[kind][value].append(p)
    return [
        (kind, value, found)
        for kind, values in groups.items()
        if len(values) > 1
        for value, members in sorted(values.items(), key=lambda entry: slice_order(entry[0]))
        if (found := _difference(members, comparison.summary)) is not None
    ]


def _difference(pairs: Sequence[Pair], summary: Summary) -> PairedDifference | None:
    """Return new - old; None of sums that define no value, such as a share of no checks."""
    if all(p.sums_before and p.sums_after for p in pairs):
        return pooled_difference(
            [p.sums_after for p in pairs],
            [p.sums_before for p in pairs],
            summary,
            clusters=[p.cluster for p in pairs],
        )
    # Given as (new, old), the difference is new - old.
    return paired_difference(
        [p.after for p in pairs],
        [p.before for p in pairs],
        clusters=[p.cluster for p in pairs],
        summary=summary,
    )


def _value(values: Sequence[float], sums: Sequence[tuple[float, ...]], summary: Summary) -> float:
    pooled = pooled_value(sums, summary) if all(sums) else None
    return summary_of(values, summary) if pooled is None else pooled


def _sums(replies: Sequence[tuple[Output, float]], columns: Columns) -> tuple[float, ...]:
    found = [columns_of(output.metrics, columns) for output, _ in replies]
    known = [values for values in found if values]
    return mean_columns(known) if known else ()


def _by_item(task: Task, metric: str) -> dict[tuple[str, str], list[tuple[Output, float]]]:
    found: dict[tuple[str, str], list[tuple[Output, float]]] = defaultdict(list)
    for output in task.outputs:
        value = output.metrics.get(metric)
        if value is not None:
            found[output.id, output.prompt_hash].append((output, value))
    return found


def _prompts(task: Task) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for output in task.outputs:
        found[output.id].add(output.prompt_hash)
    return found
