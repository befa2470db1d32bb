"""The page's tables, as plain data for the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lengthwise.report.cells import Bar, Change, Estimate, change_of, link, reach_of
from lengthwise.report.collect import Run
from lengthwise.report.comparison import Comparison, Flips, flips
from lengthwise.report.evaluations import Score, Task
from lengthwise.report.prompt_tables import SliceTable, WorstLine, slice_tables, worst_replies
from lengthwise.report.wording import decimal, digits_for, interval, metric_name, whole


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


@dataclass(frozen=True, kw_only=True)
class MetricBlock:
    """One metric: the runs under each other, on one scale."""

    name: str
    about: str
    """Counter, direction, and how items are summed up."""
    ends: tuple[str, str]
    """What the left and the right end of a change mean."""
    rule: str
    """What counts as right for won and lost; empty if nothing does."""
    lines: list[Line]


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
    about = [first.counter or "no counter stated", direction]
    if first.summary == "median":
        about.append("median")
    digits = digits_for(span)
    return MetricBlock(
        name=metric_name(shown),
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
            )
            for (run, colour), score in zip(runs, scores, strict=True)
        ],
    )


def _stated(score: Score, digits: int, span: Sequence[float]) -> Estimate:
    extremes = (
        "" if score.worst is None else f"{decimal(score.worst, digits)} to {decimal(score.best, digits)}"
    )
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
        extremes=extremes,
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
    scored = {o.id for o in task.outputs if any(v is not None for v in o.metrics.values())}
    return Account(
        run=run,
        colour=colour,
        prompts=task.num_effective,
        scored=len(scored),
        unscored=len(answered - scored),
        failed=task.accounts.get("failed"),
        cells=cells,
    )
