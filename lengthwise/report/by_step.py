"""Scores against the training's step: evaluations of several checkpoints of one training, and its own curve."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.config import ConfigError
from lengthwise.report.collect import Run, checkpoint_of
from lengthwise.report.drawing import FULL_NUMBER, Drawing, page_style, run_colour
from lengthwise.report.evaluations import Score, Task
from lengthwise.report.files import mapping, number
from lengthwise.report.outputs import TOKENS
from lengthwise.report.rl_curves import OWN_METRICS
from lengthwise.report.wording import decimal, digits_for, interval, metric_name, whole
from lengthwise.run_dir import RunDir

MAX_CHARTS = 6
"""Charts of one task, its leading metric first."""
_LOGGED = re.compile(r"eval_(?P<task>.+)/(?P<metric>[^/]+)")


@dataclass(frozen=True, kw_only=True)
class StepPoint:
    """What one checkpoint got."""

    step: int
    estimate: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class StepChart:
    """One metric of one task along a training."""

    title: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class Course:
    """The evaluated checkpoints of one training."""

    training: str
    """Its folder."""
    steps: list[int]
    has_base: bool
    """Whether the model that training began from was evaluated too, and stands at step 0."""
    charts: list[StepChart]


def courses(runs: Sequence[Run]) -> list[Course]:
    """Return the trainings of which two checkpoints, or one and the base model, were evaluated."""
    trainings: dict[str, dict[int, Run]] = {}
    for run in runs:
        place = checkpoint_of(run)
        if place is not None and run.evaluation is not None:
            trainings.setdefault(place[0], {})[place[1]] = run
    found = []
    for index, (training, by_step) in enumerate(trainings.items()):
        base = _base_run(training, runs)
        steps = {**({0: base} if base is not None else {}), **dict(sorted(by_step.items()))}
        if len(steps) < 2:
            continue
        found.append(
            Course(
                training=training,
                steps=list(steps),
                has_base=base is not None,
                charts=_charts(steps, f"course-{index}"),
            )
        )
    return found


def _base_run(training: str, runs: Sequence[Run]) -> Run | None:
    """Return the evaluation of the model that a training began from, if it is on the page."""
    place = Path(training).resolve()
    begun_from = next((r.training.base_model for r in runs if r.training and r.path.resolve() == place), "")
    if not begun_from and place.is_dir():
        try:
            begun_from = str(RunDir.load(place).config.get("model") or "")
        except (ConfigError, ValueError, KeyError):
            return None
    for run in runs:
        model = mapping(run.manifest.get("model"))
        if (
            run.evaluation is not None
            and begun_from
            and model.get("name") == begun_from
            and not model.get("adapter")
        ):
            return run
    return None


def _charts(steps: Mapping[int, Run], name: str) -> list[StepChart]:
    charts = []
    tasks = dict.fromkeys(t for run in steps.values() if run.evaluation for t in run.evaluation.tasks)
    for task in tasks:
        known = {
            s: t for s, r in steps.items() if r.evaluation and (t := r.evaluation.tasks.get(task)) is not None
        }
        for metric in _metrics(known.values()):
            points = [point for step, t in known.items() if (point := _point(step, t.scores.get(metric)))]
            if len(points) > 1:
                title = f"{metric_name(metric)} on {task}"
                charts.append(StepChart(title=title, svg=step_chart(points, title, f"{name}-{len(charts)}")))
    return charts


def _metrics(tasks: Iterable[Task]) -> list[str]:
    """Return a task's metrics in the order in which they are drawn: the leading one, the others, the tokens."""
    found = list(tasks)
    names = dict.fromkeys(m for t in found for m in [t.primary or "", *t.scores] if m and m != TOKENS)
    return [*list(names)[: MAX_CHARTS - 1], TOKENS]


def _point(step: int, score: Score | None) -> StepPoint | None:
    if score is None or score.estimate is None:
        return None
    return StepPoint(step=step, estimate=score.estimate, low=score.low, high=score.high)


def logged_charts(curve: Sequence[Mapping[str, Any]], name: str) -> list[StepChart]:
    """Return what a training's own log says of its checkpoints: a chart for each `eval_<task>/<metric>`."""
    found: dict[str, dict[int, StepPoint]] = {}
    for row in curve:
        for key, value in row.items():
            is_own = key.removeprefix("eval_").partition("/")[0] in OWN_METRICS
            if _LOGGED.fullmatch(key) and not is_own and (estimate := number(value)) is not None:
                step = int(row["step"])
                found.setdefault(key, {})[step] = StepPoint(step=step, estimate=estimate)
    charts = []
    for key, by_step in found.items():
        parts = _LOGGED.fullmatch(key)
        assert parts is not None
        title = f"{metric_name(parts['metric'])} on {parts['task']}"
        points = [by_step[step] for step in sorted(by_step)]
        charts.append(StepChart(title=title, svg=step_chart(points, title, f"{name}-{len(charts)}")))
    return charts


@page_style()
def step_chart(points: Sequence[StepPoint], title: str, name: str) -> str:
    """Return a line through the estimates, by step, with their intervals."""
    drawing = Drawing(210)
    (plot,) = drawing.plots
    colour = run_colour(1)
    steps, values = [p.step for p in points], [p.estimate for p in points]
    for p in points:
        if p.low is not None and p.high is not None:
            plot.vlines(p.step, p.low, p.high, color=colour, linewidth=2.4, alpha=0.35)
    d = digits_for([v for p in points for v in (p.estimate, p.high)])
    urls = [
        drawing.mark(f"step {p.step:,}: {decimal(p.estimate, d)} {_bounds(p, d)}".strip()) for p in points
    ]
    plot.plot(steps, values, color=colour, linewidth=1.6)
    plot.scatter(steps, values, s=30, color=colour, linewidths=0, urls=urls, clip_on=False, gid="steps")
    span = max(steps) - min(steps) or 1
    plot.set_xlim(min(steps) - 0.03 * span, max(steps) + 0.03 * span)
    plot.set_xlabel("step")
    plot.grid(visible=False, axis="x")
    plot.xaxis.set_major_formatter(FULL_NUMBER)
    _whole_steps(plot)
    first, last = points[0], points[-1]
    return drawing.svg(
        name,
        f"{title} by step: {decimal(first.estimate, d)} at step {whole(first.step)}, "
        f"{decimal(last.estimate, d)} at step {whole(last.step)}",
    )


def _whole_steps(plot: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    plot.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    plot.yaxis.set_major_locator(MaxNLocator(5))


def _bounds(p: StepPoint, digits: int) -> str:
    return "" if p.low is None else interval(p.low, p.high, digits)
