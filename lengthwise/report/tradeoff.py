"""The chart of score against tokens: what a model's answers cost, and which models are worth it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lengthwise.pareto import pareto_front
from lengthwise.report.collect import Run
from lengthwise.report.drawing import INK, MUTED, Drawing, log_ticks, page_style, run_colour
from lengthwise.report.evaluations import Score, Task
from lengthwise.report.files import mapping, number
from lengthwise.report.outputs import TOKENS
from lengthwise.report.wording import decimal, digits_for, interval, metric_name, whole

BUDGET = "budget"
"""The kind of slice whose values are token budgets, as L1 asks for them (arXiv 2503.04697)."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one run got at one cost."""

    run: Run
    colour: int
    number: int
    """Of the run in the chart."""
    budget: str
    """The budget that was asked for; empty: all prompts."""
    tokens: float
    estimate: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class TradeOff:
    """One task's chart."""

    task: str
    metric: str
    svg: str
    legend: list[tuple[int, Run, int, bool]]
    """(number, run, colour, whether it lies on the front)."""
    has_budgets: bool


def trade_offs(evaluations: Sequence[tuple[Run, int]]) -> list[TradeOff]:
    """Return a chart for each task where two points or more can be told apart by cost."""
    names = dict.fromkeys(n for run, _ in evaluations if run.evaluation for n in run.evaluation.tasks)
    found = [_trade_off(name, evaluations, f"cost-{index}") for index, name in enumerate(names)]
    return [one for one in found if one is not None]


def _trade_off(name: str, evaluations: Sequence[tuple[Run, int]], chart: str) -> TradeOff | None:
    runs = [
        (r, c, r.evaluation.tasks[name])
        for r, c in evaluations
        if r.evaluation and name in r.evaluation.tasks
    ]
    metric = runs[0][2].primary or ""
    score = runs[0][2].scores.get(metric)
    if score is None or score.higher_is_better is None:
        return None
    points = [p for n, (run, c, task) in enumerate(runs, 1) for p in points_of(run, c, n, task, metric)]
    if len(points) < 2:
        return None
    sign = 1.0 if score.higher_is_better else -1.0
    front = [points[i] for i in pareto_front([(p.tokens, sign * p.estimate) for p in points])]
    best = {p.number for p in front}
    drawn = {p.number for p in points}
    return TradeOff(
        task=name,
        metric=metric_name(metric),
        svg=_chart(points, front, metric_name(metric), name, chart),
        legend=[(n, run, c, n in best) for n, (run, c, _) in enumerate(runs, 1) if n in drawn],
        has_budgets=any(p.budget for p in points),
    )


def points_of(run: Run, colour: int, number_: int, task: Task, metric: str) -> list[Point]:
    """Return a run's points: one for each budget where there are several, else one for all prompts."""
    cells = {
        budget: (mapping(found.get(TOKENS)), mapping(found.get(metric)))
        for budget, found in mapping(task.slices.get(BUDGET)).items()
    }
    if len(cells) < 2:
        cells = {"": (_cell(task.scores.get(TOKENS)), _cell(task.scores.get(metric)))}
    points = []
    for budget, (cost, value) in cells.items():
        tokens, estimate = number(cost.get("value")), number(value.get("value"))
        low, high = value.get("ci") or (None, None)
        if tokens is None or tokens <= 0 or estimate is None:
            continue
        points.append(
            Point(
                run=run,
                colour=colour,
                number=number_,
                budget=budget,
                tokens=tokens,
                estimate=estimate,
                low=number(low),
                high=number(high),
            )
        )
    return sorted(points, key=lambda p: p.tokens)


def _cell(score: Score | None) -> dict[str, Any]:
    return {} if score is None else {"value": score.estimate, "ci": [score.low, score.high]}


@page_style()
def _chart(points: Sequence[Point], front: Sequence[Point], metric: str, task: str, name: str) -> str:
    drawing = Drawing(300)
    (plot,) = drawing.plots
    tokens = [p.tokens for p in points]
    limits = min(tokens) / 1.35, max(tokens) * 1.35
    ends = [v for p in points for v in (p.low, p.high, p.estimate) if v is not None]
    air = 0.08 * (max(ends) - min(ends)) or 0.05
    plot.set(
        xscale="log", xlim=limits, ylim=(min(ends) - air, max(ends) + air), xlabel="mean tokens of a reply"
    )
    log_ticks(plot.xaxis, limits)
    plot.set_title(metric)
    if len(front) > 1:
        plot.plot(
            [p.tokens for p in front],
            [p.estimate for p in front],
            color=INK,
            linestyle=":",
            linewidth=1.4,
            gid="front",
        )
    on_front = {id(p) for p in front}
    for number_ in dict.fromkeys(p.number for p in points):
        mine = [p for p in points if p.number == number_]
        colour = run_colour(mine[0].colour)
        if len(mine) > 1:
            plot.plot(
                [p.tokens for p in mine], [p.estimate for p in mine], color=colour, linewidth=1.6, gid="curve"
            )
        for p in mine:
            shade = 1.0 if id(p) in on_front else 0.35
            if p.low is not None and p.high is not None:
                plot.vlines(p.tokens, p.low, p.high, color=colour, linewidth=1.6, alpha=shade * 0.7)
            plot.scatter(
                [p.tokens], [p.estimate], s=46, color=colour, alpha=shade, linewidths=0,
                urls=[drawing.mark(_hint(p, metric, id(p) in on_front))], gid="point",
            )  # fmt: skip
    for (x, y), numbers in _labels(points, limits, plot.get_ylim()).items():
        plot.annotate(numbers, (x, y), xytext=(6, 5), textcoords="offset points", color=MUTED, fontsize=10)
    said = "; ".join(f"{p.run.label} {decimal(p.estimate, 3)} at {whole(p.tokens)}" for p in front[:8])
    return drawing.svg(name, f"{metric} on {task} against mean tokens. On the Pareto front: {said}")


def _labels(
    points: Sequence[Point], limits: tuple[float, float], heights: tuple[float, float]
) -> dict[tuple[float, float], str]:
    """Return the runs' numbers by place, those of points that lie on each other together; a curve's at its end."""
    import math

    last = {p.number: p for p in points}  # points of a run come by cost
    found: dict[tuple[int, int], list[Point]] = {}
    for p in last.values():
        across = math.log(p.tokens / limits[0]) / math.log(limits[1] / limits[0])
        up = (p.estimate - heights[0]) / (heights[1] - heights[0])
        found.setdefault((round(across * 12), round(up * 16)), []).append(p)
    return {
        (max(p.tokens for p in group), group[0].estimate): ", ".join(str(p.number) for p in group)
        for group in found.values()
    }


def _hint(p: Point, metric: str, is_best: bool) -> str:
    d = digits_for([p.estimate, p.high])
    asked = f", budget {p.budget}" if p.budget else ""
    end = "" if is_best else "\nanother is at least as good for no more tokens"
    return (
        f"{p.run.label}{asked}\n{metric} {decimal(p.estimate, d)} {interval(p.low, p.high, d)}\n"
        f"{whole(p.tokens)} tokens a reply{end}"
    )
