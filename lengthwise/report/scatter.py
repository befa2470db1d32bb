"""The chart of requested against written length, with a mark for each reply that leads to its text."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lengthwise.report.collect import Run
from lengthwise.report.drawing import MUTED, Drawing, log_ticks, page_style, run_colour
from lengthwise.report.outputs import Output
from lengthwise.report.wording import plural, ratio, target, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 2000
"""Points of a run in the scatter; above, the page draws evenly spaced ones and says so."""
RIGHT_LENGTH = (1 / 1.4, 1.6)
"""Written / requested from which to which S_l is at least 80 (`lengths.longbench_length_score`)."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One run's part of a chart that shows runs side by side on the same axes."""

    run: Run
    colour: int
    svg: str
    note: str


def target_against_actual(
    groups: Sequence[tuple[Run, int, Sequence[Output]]],
    anchors: Mapping[tuple[str, int], str],
    unit: str,
    *,
    band: bool,
) -> list[Panel]:
    """Return requested against actual length on log axes, one panel a run: crosses were cut, rings are empty.

    Args:
        groups: per run its colour and its outputs, all of one unit.
        anchors: (run anchor, id of the output object) -> the sample's place on the page.
        unit: what both axes count.
        band: shade where S_l is at least 80.
    """
    drawn = [(run, c, [o for o in outs if o.requested and o.length is not None]) for run, c, outs in groups]
    values = [v for _, _, outs in drawn for o in outs for v in (_asked(o), o.length) if v]
    if not values:
        return []
    limits = max(min(values) / 1.5, 0.3), max(values) * 1.5
    return [
        Panel(
            run=run,
            colour=colour,
            svg=_scatter(run, run_colour(colour), outputs, anchors, unit, limits, band),
            note=_scatter_note(outputs),
        )
        for run, colour, outputs in drawn
        if outputs
    ]


def thin(outputs: Sequence[Output]) -> Sequence[Output]:
    """Return at most MAX_POINTS outputs, evenly spaced."""
    if len(outputs) <= MAX_POINTS:
        return outputs
    step = len(outputs) / MAX_POINTS
    return [outputs[int(i * step)] for i in range(MAX_POINTS)]


@page_style()
def _scatter(
    run: Run,
    colour: str,
    outputs: Sequence[Output],
    anchors: Mapping[tuple[str, int], str],
    unit: str,
    limits: tuple[float, float],
    band: bool,
) -> str:
    drawing = Drawing(330)
    (plot,) = drawing.plots
    low, high = limits
    _identity(plot, unit, limits, band)
    shown = thin(outputs)
    placed = [
        (o, _asked(o) * (high / low) ** aside, max(o.length or 0, low))
        for o, aside in zip(shown, _asides([_asked(o) for o in shown]), strict=True)
    ]
    looks: dict[str, dict[str, Any]] = {
        "written": {"marker": "o", "color": colour, "linewidths": 0, "alpha": 0.55},
        "cut-off": {"marker": "x", "color": colour, "linewidths": 2},
        "no-text": {"marker": "o", "facecolors": "none", "edgecolors": colour, "linewidths": 1.8},
    }
    for kind, look in looks.items():
        points = [point for point in placed if _kind(point[0]) == kind]
        if points:
            of_kind, xs, ys = zip(*points, strict=True)
            urls = [drawing.mark(_hint(run, o), anchors.get((run.anchor, id(o)), "")) for o in of_kind]
            plot.scatter(xs, ys, s=60, urls=urls, clip_on=False, gid=kind, **look)
    label = f"Requested against written {unit} of {run.label} on log axes: {_scatter_note(outputs)}"
    return drawing.svg(f"{run.anchor}-{unit}", label)


def _identity(plot: Axes, unit: str, limits: tuple[float, float], band: bool) -> None:
    plot.set(xscale="log", yscale="log", xlim=limits, ylim=limits, xlabel=f"requested {unit}")
    plot.set_title(f"written {unit}")
    log_ticks(plot.xaxis, limits)
    log_ticks(plot.yaxis, limits)
    if band:
        below, above = ([factor * v for v in limits] for factor in RIGHT_LENGTH)
        plot.fill_between(limits, below, above, color=run_colour(2), alpha=0.1, linewidth=0)
    plot.plot(limits, limits, color=MUTED, linestyle=(0, (4, 4)), linewidth=1, gid="identity")


def _asked(output: Output) -> float:
    return output.requested.nominal if output.requested else 1.0


def _kind(output: Output) -> str:
    return "no-text" if output.empty else "cut-off" if output.truncated else "written"


def _asides(asked: Sequence[float]) -> list[float]:
    """Return how far each point steps sideways, so that replies to one length do not hide each other.

    Multiples of the golden ratio, cut to 0..1, fill the room evenly for any number of points. The unit is the
    axis' length: at most 0.02 to either side.
    """
    total, seen, steps = Counter(asked), Counter[float](), []
    for value in asked:
        spread = min((total[value] - 1) / 300, 0.04)
        steps.append(spread * ((seen[value] * 0.6180339887 + 0.5) % 1 - 0.5))
        seen[value] += 1
    return steps


def _hint(run: Run, output: Output) -> str:
    unit = output.requested.unit if output.requested else "words"
    end = "cut at the cap" if _kind(output) == "cut-off" else f"finish_reason {output.finish_reason}"
    return (
        f"{run.label}: {output.id}\nasked {target(output.requested)}\nwrote {whole(output.length)} {unit} "
        f"({ratio(output.length, output.requested)})\n{end}"
    )


def _scatter_note(outputs: Sequence[Output]) -> str:
    written = [(o.length or 0) / _asked(o) for o in outputs]
    cut, empty = (sum(_kind(o) == kind for o in outputs) for kind in ("cut-off", "no-text"))
    parts = [
        plural(len(outputs), "reply", "replies"),
        f"median {statistics.median(written):.2f}× the request",
    ]
    parts += [f"{cut} cut"] if cut else []
    parts += [f"{empty} empty"] if empty else []
    return ", ".join(parts)
