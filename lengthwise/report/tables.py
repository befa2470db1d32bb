"""The page's tables, as plain data for the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lengthwise.length_spread import WITHIN_PROMPT_FRAC
from lengthwise.report.beside import Published
from lengthwise.report.cells import Bar, Change, Estimate, change_of, link, reach_of
from lengthwise.report.collect import Run
from lengthwise.report.comparison import Comparison, Flips, flips
from lengthwise.report.evaluations import Score, Task
from lengthwise.report.prompt_tables import SliceTable, WorstLine, slice_tables, worst_replies
from lengthwise.report.wording import (
    decimal,
    digits_for,
    interval,
    is_pass_at_k,
    judge_of,
    metric_name,
    plain_metric_name,
    whole,
)

MAX_SLICE_CHANGES = 6
"""Runs for which the tables by kind of prompt show changes too; with more, no screen would hold them."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One run in a metric's block."""

    run: Run
    colour: int
    estimate: Estimate | None
    change: Change | None
    flips: Flips | None
    hrefs: dict[str, str]
    """Addresses of the samples it changed, won and lost."""
    notes: list[str]
    """What stands beside its estimate: unscored replies, the correlation with length."""


@dataclass(frozen=True, kw_only=True)
class MetricBlock:
    """One metric: the runs under each other, on one scale."""

    name: str
    judge: str
    """What gave it, where a judge did."""
    about: str
    """Counter, direction, and how items are summed up."""
    ends: tuple[str, str]
    """What the left and the right end of a change mean."""
    rule: str
    """What counts as right for won and lost; empty if nothing does."""
    lines: list[Line]

    @property
    def is_derived(self) -> bool:
        """Whether it is computed over prompts from another metric, so that no reply has it."""
        return is_pass_at_k(self.name) or self.name == WITHIN_PROMPT_FRAC

    @property
    def full_name(self) -> str:
        """Name and judge."""
        return f"{self.name} by {self.judge}" if self.judge else self.name


@dataclass(frozen=True, kw_only=True)
class Account:
    """What became of one run's prompts and replies."""

    run: Run
    colour: int
    prompts: int | None
    scored: int
    unscored: int
    """Prompts that were answered, but that no metric could score."""
    failed: int | None
    cells: list[tuple[str, int | None, str]]
    """(outputs, empty, truncated, ...), its number, and the address of the samples behind it, if any."""

    @property
    def adds_up(self) -> bool:
        """Whether scored, unscored and failed prompts are all there were."""
        return self.prompts is None or self.scored + self.unscored + (self.failed or 0) == self.prompts


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """What others state for a task, below what the runs got; for orientation, as little is ever equal."""

    metrics: list[str]
    ours: list[tuple[Run, int, list[str]]]
    rows: list[tuple[Published, list[str]]]


@dataclass(frozen=True, kw_only=True)
class TaskTable:
    """One task's scores."""

    task: str
    version: str
    metric: str
    """The leading one, as it is printed."""
    runs: list[tuple[Run, int]]
    blocks: list[MetricBlock]
    accounts: list[Account]
    slices: list[SliceTable]
    worst: list[tuple[Run, int, list[WorstLine]]]
    published: PublishedTable | None

    @property
    def shows_slice_changes(self) -> bool:
        """Whether there is room for each run's change in each group of prompts."""
        return len(self.runs) <= MAX_SLICE_CHANGES

    @property
    def href(self) -> str:
        """The address of its samples."""
        return link(task=self.task)

    def worst_href(self, run: Run) -> str:
        """Return the address of a run's samples, worst first."""
        return link(task=self.task, run=run.anchor, sort="worst")


def score_tables(
    evaluations: Sequence[tuple[Run, int]],
    comparisons: Sequence[Comparison],
    anchors: dict[tuple[str, int], str],
) -> list[TaskTable]:
    """Return one table per task.

    Args:
        evaluations: runs with their colours; the first is the base.
        comparisons: of the later ones with it.
        anchors: (run anchor, id of the output object) -> the sample's place on the page.
    """
    names = dict.fromkeys(n for run, _ in evaluations if run.evaluation for n in run.evaluation.tasks)
    return [_task_table(name, evaluations, comparisons, anchors) for name in names]


def _task_table(
    name: str,
    evaluations: Sequence[tuple[Run, int]],
    comparisons: Sequence[Comparison],
    anchors: dict[tuple[str, int], str],
) -> TaskTable:
    runs = [(r, c) for r, c in evaluations if r.evaluation and name in r.evaluation.tasks]
    tasks = [r.evaluation.tasks[name] for r, _ in runs if r.evaluation]
    here = [c for c in comparisons if c.task == name]
    lead = tasks[0].primary
    return TaskTable(
        task=name,
        version=", ".join(dict.fromkeys(task.version for task in tasks)),
        metric=metric_name(lead or ""),
        runs=runs,
        blocks=[
            _block(shown, runs, tasks, here) for shown in dict.fromkeys(m for t in tasks for m in t.scores)
        ],
        accounts=[_account(run, colour, task) for (run, colour), task in zip(runs, tasks, strict=True)],
        slices=slice_tables(name, runs, tasks, [c for c in here if c.metric == lead]),
        worst=[
            (run, colour, worst_replies(run, task, anchors))
            for (run, colour), task in zip(runs, tasks, strict=True)
        ],
        published=_published(runs, tasks),
    )


def _published(runs: Sequence[tuple[Run, int]], tasks: Sequence[Task]) -> PublishedTable | None:
    rows = {(p.model, p.source, tuple(p.metrics)): p for task in tasks for p in task.published}
    if not rows:
        return None
    metrics = list(dict.fromkeys(m for p in rows.values() for m in p.metrics))
    ours = [[s.estimate if (s := task.scores.get(m)) else None for m in metrics] for task in tasks]
    theirs = [[p.metrics.get(m) for m in metrics] for p in rows.values()]
    digits = [digits_for(column) for column in zip(*ours, *theirs, strict=True)]

    def shown(values: Sequence[float | None]) -> list[str]:
        return ["" if v is None else decimal(v, d) for v, d in zip(values, digits, strict=True)]

    return PublishedTable(
        metrics=[metric_name(m) for m in metrics],
        ours=[(run, colour, shown(values)) for (run, colour), values in zip(runs, ours, strict=True)],
        rows=[(p, shown(values)) for p, values in zip(rows.values(), theirs, strict=True)],
    )


def _block(
    shown: str, runs: Sequence[tuple[Run, int]], tasks: Sequence[Task], comparisons: Sequence[Comparison]
) -> MetricBlock:
    scores = [task.scores.get(shown) for task in tasks]
    known = [s for s in scores if s is not None]
    first = known[0]
    found = {c.other.anchor: c for c in comparisons if c.metric == first.metric}
    reach = reach_of(found.values())
    span = [v for s in known for v in (s.estimate, s.low, s.high) if v is not None]
    flipped = {anchor: flips(c) for anchor, c in found.items()}
    direction = {True: "higher is better", False: "lower is better", None: ""}[first.higher_is_better]
    about = ["" if is_pass_at_k(shown) else first.counter or "no counter stated", direction]
    if first.summary == "median":
        about.append("median")
    digits = digits_for(span)
    if first.beside.mdd is not None:
        about.append(f"so few items would show a difference of {decimal(first.beside.mdd, max(digits, 1))}")
    return MetricBlock(
        name=plain_metric_name(shown),
        judge=judge_of(shown),
        about=", ".join(filter(None, about)),
        ends={True: ("worse", "better"), False: ("better", "worse"), None: ("lower", "higher")}[
            first.higher_is_better
        ],
        rule=next((f.rule for f in flipped.values() if f is not None), ""),
        lines=[
            Line(
                run=run,
                colour=colour,
                estimate=None if score is None else _stated(score, digits, span),
                change=change_of(found[run.anchor], reach) if run.anchor in found else None,
                flips=flipped.get(run.anchor),
                hrefs={
                    "change": link(task=tasks[0].name, run=run.anchor, sort="change"),
                    "won": link(task=tasks[0].name, run=run.anchor, flag="won"),
                    "lost": link(task=tasks[0].name, run=run.anchor, flag="lost"),
                },
                notes=_notes(score, digits),
            )
            for (run, colour), score in zip(runs, scores, strict=True)
        ],
    )


def _notes(score: Score | None, digits: int) -> list[str]:
    if score is None:
        return []
    extremes = f"{decimal(score.worst, digits)} to {decimal(score.best, digits)}"
    return [
        *score.beside.notes,
        *([] if score.worst is None else [f"{extremes} with all unscored as worst or best"]),
    ]


def _stated(score: Score, digits: int, span: Sequence[float]) -> Estimate:
    bar = None
    if score.estimate is not None and span:
        air = (max(span) - min(span)) * 0.06 or 1.0
        low, high = min(span) - air, max(span) + air
        places = [None if v is None else 100 * (v - low) / (high - low) for v in (score.low, score.high)]
        bar = Bar(low=places[0], high=places[1], dot=100 * (score.estimate - low) / (high - low))
    return Estimate(
        value=decimal(score.estimate, digits),
        bounds=interval(score.low, score.high, digits),
        n=whole(score.n),
        bar=bar,
    )


def _account(run: Run, colour: int, task: Task) -> Account:
    def samples(flag: str) -> str:
        return link(task=task.name, run=run.anchor, flag=flag)

    seen = {
        flag: sum(getattr(o, flag) for o in task.outputs) for flag in ("empty", "truncated", "repetitive")
    }
    cells: list[tuple[str, int | None, str]] = [
        ("replies", len(task.outputs), link(task=task.name) if task.outputs else "")
    ]
    for key, value in task.accounts.items():
        if key not in ("scored", "failed"):
            cells.append((key, value, samples(key) if value and seen.get(key) else ""))
    answered = {o.id for o in task.outputs}
    scored = {o.id for o in task.outputs if o.scored}
    return Account(
        run=run,
        colour=colour,
        prompts=task.num_effective,
        scored=len(scored),
        unscored=len(answered - scored),
        failed=task.accounts.get("failed"),
        cells=cells,
    )
