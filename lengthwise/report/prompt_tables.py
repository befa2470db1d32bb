"""Tables of prompts: the leading metric by kind of prompt, and the worst replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lengthwise.lengths import slice_order
from lengthwise.paired import PairedDifference
from lengthwise.report.cells import Change, Estimate, difference_bar, link, reach_of
from lengthwise.report.collect import Run
from lengthwise.report.comparison import Comparison, by_slice, verdict_of
from lengthwise.report.evaluations import Task, estimate_of
from lengthwise.report.files import count, mapping, number
from lengthwise.report.outputs import Output
from lengthwise.report.wording import decimal, digits_for, interval, p_value, ratio, target, whole

NUM_WORST = 5
"""Replies of a run in the table of the worst."""


@dataclass(frozen=True, kw_only=True)
class SliceLine:
    """One group of prompts."""

    value: str
    href: str
    n: str
    """Scored prompts; of each run, where they differ."""
    cells: list[Estimate | None]
    changes: list[Change | None]


@dataclass(frozen=True, kw_only=True)
class SliceTable:
    """The leading metric by one property of the prompts."""

    name: str
    lines: list[SliceLine]


@dataclass(frozen=True, kw_only=True)
class WorstLine:
    """One of a run's worst replies."""

    href: str
    id: str
    asked: str
    wrote: str
    ratio: str
    score: str
    marks: list[str]
    prompt: str


def slice_tables(
    name: str, runs: Sequence[tuple[Run, int]], tasks: Sequence[Task], comparisons: Sequence[Comparison]
) -> list[SliceTable]:
    """Return a table for each property that splits the prompts; `comparisons` are of the leading metric."""
    metric = tasks[0].primary
    if metric is None:
        return []
    changes = {(c.other.anchor, kind, value): (c, d) for c in comparisons for kind, value, d in by_slice(c)}
    digits = digits_for(s.estimate for t in tasks if (s := t.scores.get(metric)) is not None)
    kinds = dict.fromkeys(k for t in tasks for k in [*t.slices, *(k for o in t.outputs for k in o.slices)])
    tables = []
    for kind in kinds:
        values = dict.fromkeys(
            v
            for t in tasks
            for v in [*mapping(t.slices.get(kind)), *(o.slices[kind] for o in t.outputs if kind in o.slices)]
        )
        if len(values) < 2:
            continue
        filtered = any(kind in o.slices for t in tasks for o in t.outputs)
        lines = []
        for value in sorted(values, key=slice_order):
            cells = [_slice_cell(task, kind, value, metric, digits) for task in tasks]
            lines.append(
                SliceLine(
                    value=value,
                    href=link(task=name, **{f"slice.{kind}": value}) if filtered else "",
                    n=" / ".join(dict.fromkeys(cell.n if cell else "0" for cell in cells)),
                    cells=cells,
                    changes=[_slice_change(changes.get((run.anchor, kind, value))) for run, _ in runs[1:]],
                )
            )
        tables.append(SliceTable(name=kind.replace("_", " "), lines=lines))
    return tables


def _slice_change(found: tuple[Comparison, PairedDifference] | None) -> Change | None:
    if found is None:
        return None
    comparison, difference = found
    d = comparison.digits
    return Change(
        run=comparison.other,
        text=decimal(difference.estimate, d, signed=True),
        bounds=interval(difference.low, difference.high, d),
        n=difference.n,
        p=p_value(difference.p_value),
        verdict=verdict_of(
            difference.estimate,
            (difference.low, difference.high),
            difference.p_value,
            difference.num_clusters,
            comparison.higher_is_better,
        ),
        words="",
        tally="",
        method=difference.method,
        bar=difference_bar(difference.estimate, difference.low, difference.high, reach_of([comparison]) * 2),
    )


def _slice_cell(task: Task, kind: str, value: str, metric: str, digits: int) -> Estimate | None:
    """Return a slice's estimate as the results file states it, else that of its outputs."""
    stated = mapping(mapping(mapping(task.slices.get(kind)).get(value)).get(metric))
    estimate = number(stated.get("value"))
    if estimate is not None:
        low, high = stated.get("ci") or (None, None)
        return Estimate(
            value=decimal(estimate, digits),
            bounds=interval(number(low), number(high), digits),
            n=whole(count(stated.get("n"))),
        )
    score = task.scores.get(metric)
    members = (o for o in task.outputs if o.slices.get(kind) == value)
    found = (
        estimate_of(members, metric, "mean")
        if score is None
        else estimate_of(members, metric, score.summary, score.columns)
    )
    if found is None:
        return None
    return Estimate(
        value=decimal(found.estimate, digits),
        bounds=interval(found.low, found.high, digits),
        n=whole(found.n),
    )


def worst_replies(run: Run, task: Task, anchors: dict[tuple[str, int], str]) -> list[WorstLine]:
    """Return the replies with the worst of the leading metric, and of equals those farthest from the request."""
    metric = task.primary or ""
    score = task.scores.get(metric)
    sign = -1 if score is not None and score.higher_is_better is False else 1
    scored = [(v, o) for o in task.outputs if (v := o.metrics.get(metric)) is not None]
    ordered = sorted(scored, key=lambda entry: (sign * entry[0], -abs(entry[1].log_ratio or 0.0)))
    digits = digits_for([v for v, _ in scored])
    return [
        _worst_line(run, output, decimal(value, digits), anchors) for value, output in ordered[:NUM_WORST]
    ]


def _worst_line(run: Run, o: Output, score: str, anchors: dict[tuple[str, int], str]) -> WorstLine:
    place = anchors.get((run.anchor, id(o)))
    return WorstLine(
        href=f"#{place}" if place else "",
        id=o.id,
        asked=target(o.requested),
        wrote=whole(o.length),
        ratio=ratio(o.length, o.requested),
        score=score,
        marks=o.marks,
        prompt=o.prompt[:140] + ("…" if len(o.prompt) > 140 else ""),
    )
