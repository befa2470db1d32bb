"""The page's tables, as plain data for the template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lengthwise.report.collect import Run
from lengthwise.report.evaluations import Output, Task
from lengthwise.report.files import count, mapping, number
from lengthwise.report.findings import Comparison
from lengthwise.report.wording import decimal, digits_for, interval, metric_name, whole


@dataclass(kw_only=True)
class Estimate:
    """One cell of the score table."""

    value: str
    bounds: str
    n: str
    extremes: str = ""
    """Where the estimate would lie if the failed prompts had scored the worst or the best."""


@dataclass(kw_only=True)
class Change:
    """A paired difference, with its place on a number line around zero (percent)."""

    run: Run
    text: str
    bounds: str
    n: int
    verdict: str
    tally: str
    low: float | None
    high: float | None
    dot: float


@dataclass(kw_only=True)
class ScoreRow:
    """One metric."""

    metric: str
    counter: str
    direction: str
    cells: list[Estimate | None]
    changes: list[Change | None]


@dataclass(kw_only=True)
class TaskTable:
    """One task's scores."""

    task: str
    version: str
    runs: list[tuple[Run, int]]
    rows: list[ScoreRow]
    accounts: list[tuple[Run, int, list[tuple[str, int | None]]]]
    """Per run: (outputs, scored, empty, ...) with their numbers."""
    slices: list[SliceTable]


@dataclass(kw_only=True)
class SliceTable:
    """The leading metric by one property of the prompts."""

    name: str
    metric: str
    rows: list[tuple[str, list[Estimate | None]]]


def change_of(comparison: Comparison) -> Change:
    """Return a comparison as a table cell."""
    c = comparison
    reach = 1.12 * max(abs(v) for v in (c.low or 0.0, c.high or 0.0, c.difference, 1e-12))

    def place(value: float) -> float:
        return 50 + 50 * value / reach

    return Change(
        run=c.other,
        text=decimal(c.difference, c.digits, signed=True),
        bounds=interval(c.low, c.high, c.digits),
        n=c.n,
        verdict=c.verdict,
        tally=f"{c.num_up} up, {c.num_down} down, {c.num_same} same",
        low=None if c.low is None else place(c.low),
        high=None if c.high is None else place(c.high),
        dot=place(c.difference),
    )


def score_tables(
    evaluations: Sequence[tuple[Run, int]], comparisons: Sequence[Comparison]
) -> list[TaskTable]:
    """Return one table per task, with the runs that have it as columns."""
    names = dict.fromkeys(n for run, _ in evaluations if run.evaluation for n in run.evaluation.tasks)
    return [_score_table(name, evaluations, comparisons) for name in names]


def _score_table(
    name: str, evaluations: Sequence[tuple[Run, int]], comparisons: Sequence[Comparison]
) -> TaskTable:
    runs = [(r, c) for r, c in evaluations if r.evaluation and name in r.evaluation.tasks]
    tasks = [r.evaluation.tasks[name] for r, _ in runs if r.evaluation]
    rows = []
    for shown in dict.fromkeys(m for task in tasks for m in task.scores):
        scores = [task.scores.get(shown) for task in tasks]
        known = [s for s in scores if s is not None]
        digits = digits_for([v for s in known for v in (s.estimate, s.high)])
        found = {c.other.anchor: c for c in comparisons if c.task == name and c.metric == known[0].metric}
        better = known[0].higher_is_better
        rows.append(
            ScoreRow(
                metric=metric_name(shown),
                counter=known[0].counter or "",
                direction={True: "higher is better", False: "lower is better", None: ""}[better],
                cells=[
                    None
                    if s is None
                    else Estimate(
                        value=decimal(s.estimate, digits),
                        bounds=interval(s.low, s.high, digits),
                        n=whole(s.n),
                        extremes=""
                        if s.worst is None
                        else f"{decimal(s.worst, digits)} to {decimal(s.best, digits)}",
                    )
                    for s in scores
                ],
                changes=[change_of(found[r.anchor]) if r.anchor in found else None for r, _ in runs[1:]],
            )
        )
    columns = list(dict.fromkeys(key for task in tasks for key in task.accounts))
    accounts = [
        (run, colour, [("outputs", len(task.outputs)), *((k, task.accounts.get(k, 0)) for k in columns)])
        for (run, colour), task in zip(runs, tasks, strict=True)
    ]
    version = ", ".join(dict.fromkeys(task.version for task in tasks))
    return TaskTable(
        task=name, version=version, runs=runs, rows=rows, accounts=accounts, slices=_slice_tables(name, runs)
    )


def _slice_tables(name: str, runs: Sequence[tuple[Run, int]]) -> list[SliceTable]:
    tasks = [run.evaluation.tasks[name] for run, _ in runs if run.evaluation]
    metric = tasks[0].primary
    if metric is None:
        return []
    tables = []
    kinds = dict.fromkeys(k for t in tasks for k in [*t.slices, *(k for o in t.outputs for k in o.slices)])
    for kind in kinds:
        values = dict.fromkeys(
            v
            for t in tasks
            for v in [*mapping(t.slices.get(kind)), *(o.slices[kind] for o in t.outputs if kind in o.slices)]
        )
        if len(values) < 2:
            continue
        rows = [
            (v, [_slice_cell(task, kind, v, metric) for task in tasks])
            for v in sorted(values, key=_slice_order)
        ]
        tables.append(SliceTable(name=kind.replace("_", " "), metric=metric_name(metric), rows=rows))
    return tables


def _slice_order(value: str) -> tuple[float, str]:
    """Sort bins such as "[500,2000)" by their lower bound, other names by alphabet."""
    start = value.lstrip("[(").partition(",")[0].strip()
    try:
        return float(start), value
    except ValueError:
        return float("inf"), value


def _slice_cell(task: Task, kind: str, value: str, metric: str) -> Estimate | None:
    """Return a slice's estimate as the results file states it, else the mean over its outputs."""
    from lengthwise.statistics import mean_interval

    stated = mapping(mapping(mapping(task.slices.get(kind)).get(value)).get(metric))
    estimate = number(stated.get("value"))
    if estimate is not None:
        ci = stated.get("ci") or (None, None)
        return _estimate(estimate, number(ci[0]), number(ci[1]), count(stated.get("n")))
    outputs: list[Output] = [o for o in task.outputs if o.slices.get(kind) == value]
    scores = [v for o in outputs if (v := o.metrics.get(metric)) is not None]
    if not scores:
        return None
    found = mean_interval(scores)
    return _estimate(found.estimate, found.low, found.high, found.n)


def _estimate(value: float, low: float | None, high: float | None, n: int | None) -> Estimate:
    digits = digits_for([value])
    return Estimate(value=decimal(value, digits), bounds=interval(low, high, digits), n=whole(n))


def package_table(runs: Sequence[Run]) -> list[tuple[str, list[str], bool]]:
    """Return (package, version per run, whether they differ), differing ones first."""
    versions = [
        r.manifest.get("packages") if isinstance(r.manifest.get("packages"), dict) else {} for r in runs
    ]
    rows = []
    for package in sorted({p for v in versions for p in v or {}}):
        found = [str((v or {}).get(package, "")) for v in versions]
        rows.append((package, found, len({f for f in found if f}) > 1))
    return sorted(rows, key=lambda row: not row[2])


def settings_rows(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return a config as (dotted key, value) lines.

    Example:
        >>> settings_rows({"engine": {"name": "vllm"}, "seed": 1})
        [('engine.name', 'vllm'), ('seed', '1')]
    """
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            rows += settings_rows(value, f"{prefix}{key}.")
        else:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            rows.append((f"{prefix}{key}", shown if len(shown) <= 2000 else shown[:2000] + " … (cut)"))
    return rows
