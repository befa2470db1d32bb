"""The charts of lengths, of sections and of the loss."""

from __future__ import annotations

import itertools
import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lengthwise.report.builds import SectionLengths
from lengthwise.report.drawing import FULL_NUMBER, INK, Drawing, log_ticks, page_style, run_colour
from lengthwise.report.files import number
from lengthwise.report.wording import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WRITTEN = run_colour(2)
"""The colour of what a build wrote."""


@page_style()
def length_strips(series: Sequence[tuple[str, str, Sequence[int]]], unit: str, name: str) -> str | None:
    """Return one histogram above the other on one log axis, in bins of a factor of the square root of 2.

    Args:
        series: (name, colour, lengths); empty texts (length 0) have no place on a log axis and are left to
            the tables.
        unit: what the axis counts.
        name: unlike that of any other chart of the page.
    """
    shown = [(title, colour, [v for v in values if v > 0]) for title, colour, values in series]
    positive = [v for _, _, values in shown for v in values]
    if not positive:
        return None
    first, last = math.floor(2 * math.log2(min(positive))), math.floor(2 * math.log2(max(positive))) + 2
    edges = [2 ** (k / 2) for k in range(first, last)]
    drawing = Drawing(84 * len(shown) + 40, rows=len(shown))
    highest = max(
        _strip(drawing, plot, *one, edges, unit) for plot, one in zip(drawing.plots, shown, strict=True)
    )
    # The headroom is for the line under each title.
    drawing.plots[-1].set(xlim=(edges[0], edges[-1]), ylim=(0, highest * 1.5), xlabel=unit)
    log_ticks(drawing.plots[-1].xaxis, (edges[0], edges[-1]))
    names = "; ".join(f"{title}: {whole(len(values))} texts" for title, _, values in shown)
    return drawing.svg(name, f"Lengths in {unit}. {names}")


def _strip(
    drawing: Drawing,
    plot: Axes,
    title: str,
    colour: str,
    values: Sequence[int],
    edges: Sequence[float],
    unit: str,
) -> float:
    """Draw the histogram of one series; return the largest share of its texts in a bin."""
    import numpy

    plot.set(xscale="log", yticks=[])
    plot.spines["left"].set_visible(False)
    plot.set_title(textwrap.fill(title, 44), color=INK, fontweight="bold")
    middle = f"median {statistics.median(values):,.0f}" if values else "no text"
    plot.text(0, 1, f"{middle}, n = {len(values):,}", transform=plot.transAxes, va="top")
    counts = numpy.histogram(values, edges)[0].tolist()
    shares = [count / max(len(values), 1) for count in counts]
    gap = 1.02  # of the factor 1.41 that a bin spans, on either side
    lower, widths = [a * gap for a in edges[:-1]], [b / gap - a * gap for a, b in itertools.pairwise(edges)]
    bars = plot.bar(lower, shares, widths, align="edge", color=colour)
    for (a, b), count, bar in zip(itertools.pairwise(edges), counts, bars, strict=True):
        bar.set_url(drawing.mark(f"{title}: {count} of {len(values)} from {a:,.0f} to {b:,.0f} {unit}"))
        bar.set_visible(count > 0)
    return max(shares)


@page_style()
def section_lengths(sections: Sequence[SectionLengths], name: str) -> str | None:
    """Return planned and written words by the section's place in its text: a bar each, and the middle half."""
    from matplotlib.ticker import MaxNLocator

    known = [s for s in sections if s.written is not None]
    if not known:
        return None
    drawing = Drawing(260)
    (plot,) = drawing.plots
    places, wide = [s.index for s in known], 0.5
    bars = plot.bar(places, [s.written or 0 for s in known], wide, color=WRITTEN, alpha=0.45, gid="bar")
    for s, bar in zip(known, bars, strict=True):
        hint = (
            f"section {s.index}: planned {whole(s.planned)}, written {whole(s.written)} (median of {s.num_texts} "
            f"texts, half of them {whole(s.lower)} to {whole(s.upper)})"
        )
        bar.set_url(drawing.mark(hint))
    lower, upper = [s.lower or 0 for s in known], [s.upper or 0 for s in known]
    plot.vlines(places, lower, upper, color=WRITTEN, linewidth=1.8)
    planned = [(s.index, s.planned) for s in known if s.planned is not None]
    left, right = ([i + side * wide * 0.75 for i, _ in planned] for side in (-1, 1))
    plot.hlines([v for _, v in planned], left, right, color=INK, linewidth=2.4, gid="plan")
    plot.set(xlim=(0.4, places[-1] + 0.6), xlabel="place of the section")
    plot.set_title("words of a section")
    plot.grid(visible=False, axis="x")
    plot.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    plot.yaxis.set_major_formatter(FULL_NUMBER)
    label = "Words by section, planned against written: " + "; ".join(
        f"section {s.index} {whole(s.planned)} against {whole(s.written)}" for s in known[:12]
    )
    return drawing.svg(name, label)


@page_style()
def training_curve(curve: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """Return the loss, and the validation loss where there is one, against the optimiser's step."""
    series = (
        ("loss", "training", run_colour(1), "-"),
        ("eval_loss", "validation", run_colour(2), "--"),
    )
    lines = [
        (title, colour, style, points)
        for key, title, colour, style in series
        if (points := [(float(r["step"]), v) for r in curve if (v := number(r.get(key))) is not None])
    ]
    if not lines:
        return None
    drawing = Drawing(260)
    (plot,) = drawing.plots
    for title, colour, style, points in lines:
        steps, losses = zip(*points, strict=True)
        name_and_end = f"{title} {losses[-1]:.3f}"
        plot.plot(steps, losses, color=colour, linestyle=style, linewidth=1.8, label=name_and_end)
        if len(points) <= 100:
            urls = [drawing.mark(f"step {s:,.0f}: {v:.4f}") for s, v in points]
            plot.scatter(
                steps, losses, s=22, color=colour, linewidths=0, urls=urls, clip_on=False, gid="steps"
            )
    plot.set_xlim(left=0)
    plot.set_xlabel("step")
    plot.set_title("loss")
    plot.grid(visible=False, axis="x")
    plot.xaxis.set_major_formatter(FULL_NUMBER)
    plot.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2, handlelength=1.6)
    label = "; ".join(f"{title} loss from {p[0][1]:.3f} to {p[-1][1]:.3f}" for title, _, _, p in lines)
    last = max(step for *_, points in lines for step, _ in points)
    return drawing.svg(name, f"{label}, over {whole(last)} steps")
