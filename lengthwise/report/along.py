"""Curves along an answer: round by round where a model worked on it, and part by part through a long text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lengthwise.report.collect import Run
from lengthwise.report.drawing import FULL_NUMBER, Drawing, page_style, run_colour
from lengthwise.report.evaluations import Task
from lengthwise.report.wording import decimal, digits_for, interval, metric_name, whole

INDEPENDENT = "independent"
"""What is followed beside refinement: as many independent tries."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One place of a curve."""

    x: float
    value: float
    low: float | None
    high: float | None
    hint: str


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart."""

    run: Run
    colour: int
    points: Sequence[Point]
    is_dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart with its title."""

    title: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class RoundRow:
    """What one round of one run came to, as it is printed."""

    run: Run
    colour: int
    measure: str
    round: int
    value: str
    gain: str
    interval: str
    improved: str
    worsened: str
    stops: bool


@dataclass(frozen=True, kw_only=True)
class Along:
    """One task's charts, and the table of its rounds."""

    task: str
    charts: list[Chart]
    rows: list[RoundRow]


Tasks = list[tuple[Run, int, Task]]


def round_curves(evaluations: Sequence[tuple[Run, int]]) -> list[Along]:
    """Return for each task with rounds a chart of each measure by round, one by tokens, and the table."""
    found = []
    for index, (name, tasks) in enumerate(_by_task(evaluations)):
        tasks = [(run, colour, task) for run, colour, task in tasks if task.rounds]
        if not tasks:
            continue
        measures = _measures(tasks)
        shown = [m for m in measures if m != INDEPENDENT]
        charts = [
            _chart(f"{metric_name(m)} by round", "round", _by_round(tasks, m), f"rounds-{index}-{i}")
            for i, m in enumerate(shown)
        ]
        if shown:
            title = f"{metric_name(shown[0])} by tokens written"
            curves = _by_tokens(tasks, shown[0])
            charts.append(_chart(title, "tokens", curves, f"rounds-{index}-tokens"))
        rows = [row for m in measures for run, colour, task in tasks for row in _rows(run, colour, task, m)]
        found.append(Along(task=name, charts=[c for c in charts if c is not None], rows=rows))
    return found


def part_curves(evaluations: Sequence[tuple[Run, int]]) -> list[Along]:
    """Return for each task whose texts are measured by part a chart of each measure."""
    found = []
    for index, (name, tasks) in enumerate(_by_task(evaluations)):
        measures = dict.fromkeys(m for _, _, task in tasks for m in task.parts)
        charts = [
            _chart(metric_name(m), "part", _by_part(tasks, m), f"parts-{index}-{i}")
            for i, m in enumerate(measures)
        ]
        if measures:
            found.append(Along(task=name, charts=[c for c in charts if c is not None], rows=[]))
    return found


def _by_task(evaluations: Sequence[tuple[Run, int]]) -> list[tuple[str, Tasks]]:
    names = dict.fromkeys(n for run, _ in evaluations if run.evaluation for n in run.evaluation.tasks)
    return [
        (
            name,
            [
                (run, colour, run.evaluation.tasks[name])
                for run, colour in evaluations
                if run.evaluation and name in run.evaluation.tasks
            ],
        )
        for name in names
    ]


def _measures(tasks: Tasks) -> list[str]:
    """Return what is followed and has a direction; what it costs is the other axis."""
    return list(
        dict.fromkeys(
            m for _, _, task in tasks for m, curve in task.rounds.items() if curve["stops_after"] is not None
        )
    )


def _by_round(tasks: Tasks, measure: str) -> list[Curve]:
    return [
        Curve(
            run=run,
            colour=colour,
            points=[_point(p["round"], p, f"round {p['round']}") for p in curve["rounds"]],
        )
        for run, colour, task in tasks
        if (curve := task.rounds.get(measure)) is not None
    ]


def _by_tokens(tasks: Tasks, measure: str) -> list[Curve]:
    found = []
    for run, colour, task in tasks:
        for name, cost, is_dashed in ((measure, "tokens", False), (INDEPENDENT, _cost_of(task), True)):
            curve, costs = task.rounds.get(name), task.rounds.get(cost)
            if curve is None or costs is None:
                continue
            points = [
                _point(
                    c["value"],
                    p,
                    f"{whole(c['value'])} tokens, {'tries' if is_dashed else 'round'} {p['round']}",
                )
                for p, c in zip(curve["rounds"], costs["rounds"], strict=False)
            ]
            found.append(Curve(run=run, colour=colour, points=points, is_dashed=is_dashed))
    return found


def _cost_of(task: Task) -> str:
    """Return what says how many tokens the independent tries took: their own count, or that of the rounds."""
    return "independent_tokens" if "independent_tokens" in task.rounds else "tokens"


def _by_part(tasks: Tasks, measure: str) -> list[Curve]:
    found = []
    for run, colour, task in tasks:
        points = [
            Point(x=place, value=s.estimate, low=s.low, high=s.high, hint=f"part {place}")
            for place, s in enumerate(task.parts.get(measure, []), start=1)
            if s.estimate is not None
        ]
        if points:
            found.append(Curve(run=run, colour=colour, points=points))
    return found


def _point(x: float, entry: dict[str, Any], hint: str) -> Point:
    low, high = entry["ci"]
    return Point(x=x, value=entry["value"], low=low, high=high, hint=hint)


def _rows(run: Run, colour: int, task: Task, measure: str) -> list[RoundRow]:
    curve = task.rounds.get(measure)
    if curve is None:
        return []
    digits = digits_for([p["value"] for p in curve["rounds"]])
    rows = []
    for p in curve["rounds"]:
        low, high = p["gain_ci"]
        is_first = not p["round"]
        rows.append(
            RoundRow(
                run=run,
                colour=colour,
                measure=metric_name(measure),
                round=p["round"],
                value=decimal(p["value"], digits),
                gain="" if is_first else f"{p['gain']:+.{digits}f}",
                interval="" if is_first or low is None or high is None else interval(low, high, digits),
                improved="" if is_first else whole(p["improved"]),
                worsened="" if is_first else whole(p["worsened"]),
                stops=p["round"] == curve["stops_after"] and measure != INDEPENDENT,
            )
        )
    return rows


@page_style()
def _chart(title: str, axis: str, curves: Sequence[Curve], name: str) -> Chart | None:
    """Return the chart of some curves; None where there is no point."""
    if not any(curve.points for curve in curves):
        return None
    from matplotlib.ticker import MaxNLocator

    drawing = Drawing(230)
    (plot,) = drawing.plots
    digits = digits_for([v for curve in curves for p in curve.points for v in (p.value, p.high)])
    for curve in curves:
        colour = run_colour(curve.colour)
        xs, ys = [p.x for p in curve.points], [p.value for p in curve.points]
        for p in curve.points:
            if p.low is not None and p.high is not None:
                plot.vlines(p.x, p.low, p.high, color=colour, linewidth=2.0, alpha=0.3)
        urls = [
            drawing.mark(f"{curve.run.label}, {p.hint}: {decimal(p.value, digits)}") for p in curve.points
        ]
        plot.plot(xs, ys, color=colour, linewidth=1.6, linestyle="--" if curve.is_dashed else "-")
        plot.scatter(xs, ys, s=28, color=colour, linewidths=0, urls=urls, clip_on=False)
    plot.set_xlabel(axis)
    plot.grid(visible=False, axis="x")
    plot.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    plot.xaxis.set_major_formatter(FULL_NUMBER)
    plot.yaxis.set_major_locator(MaxNLocator(5))
    told = "; ".join(
        f"{curve.run.label} {decimal(curve.points[0].value, digits)} to {decimal(curve.points[-1].value, digits)}"
        for curve in curves
        if curve.points
    )
    return Chart(title=title, svg=drawing.svg(name, f"{title}: {told}"))
