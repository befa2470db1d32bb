"""The page's charts. Texts that come from data are escaped in `lengthwise.report.svg`."""

from __future__ import annotations

import html
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lengthwise.report.builds import SectionLengths
from lengthwise.report.collect import Run
from lengthwise.report.evaluations import Output
from lengthwise.report.files import number
from lengthwise.report.svg import WIDTH, Axis, Frame, drawing, group, line, mark, n, path, rect, text
from lengthwise.report.wording import plural, ratio, target, whole

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


def colour_class(index: int) -> str:
    """Return the class that has the colour of the run at `index` (they repeat after six)."""
    return f"c{index % 6}"


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
    low, high = max(min(values) / 1.5, 0.3), max(values) * 1.5
    side = WIDTH - 66
    axis = Axis(low=low, high=high, length=side, log=True)
    frame = Frame(x=axis, y=Axis(low=low, high=high, length=side * 0.8, log=True), top=26)
    background = _identity(frame, unit, low, high, band)
    panels = []
    for run, colour, outputs in drawn:
        if not outputs:
            continue
        shown = thin(outputs)
        points = "".join(
            _point(run, o, frame, anchors.get((run.anchor, id(o)), ""), aside)
            for o, aside in zip(shown, _asides([_asked(o) for o in shown]), strict=True)
        )
        note = _scatter_note(outputs)
        panels.append(
            Panel(
                run=run,
                colour=colour,
                svg=drawing(
                    background + group(points, colour_class(colour)),
                    frame.bottom + 42,
                    f"Requested against written {unit} of {run.label} on log axes: {note}",
                ),
                note=note,
            )
        )
    return panels


def thin(outputs: Sequence[Output]) -> Sequence[Output]:
    """Return at most MAX_POINTS outputs, evenly spaced."""
    if len(outputs) <= MAX_POINTS:
        return outputs
    step = len(outputs) / MAX_POINTS
    return [outputs[int(i * step)] for i in range(MAX_POINTS)]


def _asked(output: Output) -> float:
    return output.requested.nominal if output.requested else 1.0


def _identity(frame: Frame, unit: str, low: float, high: float, band: bool) -> str:
    shade = ""
    if band:
        below, above = RIGHT_LENGTH
        corners = [(low, low * below), (high, high * below), (high, high * above), (low, low * above)]
        d = "L".join(f"{n(frame.px(x))},{n(frame.py(y))}" for x, y in corners)
        shade = f'<path class="band" d="M{d}Z"/>'
    grid = frame.grid(f"requested {unit}", f"written {unit}")
    return shade + grid + line(frame.px(low), frame.py(low), frame.px(high), frame.py(high), "identity")


def _asides(asked: Sequence[float]) -> list[float]:
    """Return how far each point steps sideways, so that replies to one length do not hide each other.

    Multiples of the golden ratio, cut to 0..1, fill the room evenly for any number of points.
    """
    total, seen, steps = Counter(asked), Counter[float](), []
    for value in asked:
        spread = min(total[value] - 1, 12)
        steps.append(spread * ((seen[value] * 0.6180339887 + 0.5) % 1 - 0.5))
        seen[value] += 1
    return steps


def _point(run: Run, output: Output, frame: Frame, place: str, aside: float) -> str:
    kind = "empty" if output.empty else "cut" if output.truncated else ""
    unit = output.requested.unit if output.requested else "words"
    end = "cut at the cap" if kind == "cut" else f"finish_reason {output.finish_reason}"
    hint = html.escape(
        f"{run.label}: {output.id}\nasked {target(output.requested)}\nwrote {whole(output.length)} {unit} "
        f"({ratio(output.length, output.requested)})\n{end}"
    )
    shown = (
        f"<title>{hint}</title>{mark(frame.px(_asked(output)) + aside, frame.py(output.length or 0), kind)}"
    )
    # The samples below are the keyboard's way to the same place: thousands of tab stops help nobody.
    return f'<a href="#{place}" tabindex="-1">{shown}</a>' if place else group(shown, "")


def _scatter_note(outputs: Sequence[Output]) -> str:
    written = [(o.length or 0) / _asked(o) for o in outputs]
    cut, empty = sum(o.truncated and not o.empty for o in outputs), sum(o.empty for o in outputs)
    parts = [
        plural(len(outputs), "reply", "replies"),
        f"median {statistics.median(written):.2f}× the request",
    ]
    parts += [f"{cut} cut"] if cut else []
    parts += [f"{empty} empty"] if empty else []
    return ", ".join(parts)


def length_strips(series: Sequence[tuple[str, str, Sequence[int]]], unit: str) -> str | None:
    """Return one histogram above the other on one log axis, in bins of a factor of the square root of 2.

    Args:
        series: (name, class of its colour, lengths); empty texts (length 0) have no place on a log axis and
            are left to the tables.
        unit: what the axis counts.
    """
    positive = [v for _, _, values in series for v in values if v > 0]
    if not positive:
        return None
    first, last = math.floor(2 * math.log2(min(positive))), math.floor(2 * math.log2(max(positive))) + 2
    edges = [2 ** (k / 2) for k in range(first, last)]
    shown = [(name, colour, [v for v in values if v > 0]) for name, colour, values in series]
    counted = [[sum(a <= v < b for v in vs) for a, b in itertools.pairwise(edges)] for _, _, vs in shown]
    most = max(k / max(len(vs), 1) for (_, _, vs), counts in zip(shown, counted, strict=True) for k in counts)
    strip, bar = 74, 44
    axis = Axis(low=edges[0], high=edges[-1], length=WIDTH - 24, log=True)
    bottom = strip * len(shown) + 4
    content = "".join(line(8 + axis.at(v), 14, 8 + axis.at(v), bottom, "grid") for v in axis.ticks())
    for row, ((name, colour, values), counts) in enumerate(zip(shown, counted, strict=True)):
        base = strip * row + strip
        bars = ""
        for (a, b), count in zip(itertools.pairwise(edges), counts, strict=True):
            height = bar * count / max(len(values), 1) / most
            hint = f"{name}: {count} of {len(values)} from {a:,.0f} to {b:,.0f} {unit}"
            bars += rect(9 + axis.at(a), base - height, axis.at(b) - axis.at(a) - 2, height, hint=hint) * (
                count > 0
            )
        middle = f"median {statistics.median(values):,.0f}" if values else "no text"
        content += text(8, base - bar - 10, name, kind="name") + text(
            WIDTH - 16, base - bar - 10, f"{middle}, n = {len(values):,}", "end"
        )
        content += group(bars, colour) + line(8, base, WIDTH - 16, base, "axis")
    content += "".join(text(8 + axis.at(v), bottom + 14, f"{v:,.0f}", "middle") for v in axis.ticks())
    content += text(WIDTH - 16, bottom + 32, unit, "end", "title")
    names = "; ".join(f"{name}: {whole(len(values))} texts" for name, _, values in shown)
    return drawing(content, bottom + 40, f"Lengths in {unit}. {names}")


def section_lengths(sections: Sequence[SectionLengths]) -> str | None:
    """Return planned and written words by the section's place in its text: a bar each, and the middle half."""
    known = [s for s in sections if s.written is not None]
    if not known:
        return None
    high = max(v for s in known for v in (s.planned or 0, s.upper or 0, s.written or 0)) * 1.08
    frame = Frame(
        x=Axis(low=0.4, high=known[-1].index + 0.6, length=WIDTH - 66),
        y=Axis(low=0, high=max(high, 1), length=190),
        top=26,
    )
    step = frame.x.length / (known[-1].index + 0.2)
    wide = min(step * 0.5, 26)
    planned, written = "", ""
    for s in known:
        middle = frame.px(s.index)
        hint = (
            f"section {s.index}: planned {whole(s.planned)}, written {whole(s.written)} (median of {s.num_texts} "
            f"texts, half of them {whole(s.lower)} to {whole(s.upper)})"
        )
        top = frame.py(s.written or 0)
        written += rect(middle - wide / 2, top, wide, frame.bottom - top, "fill soft", hint)
        written += line(middle, frame.py(s.lower or 0), middle, frame.py(s.upper or 0))
        if s.planned is not None:
            planned += line(
                middle - wide * 0.75, frame.py(s.planned), middle + wide * 0.75, frame.py(s.planned), "plan"
            )
    spaced = max(1, math.ceil(len(known) / 12))
    numbers = "".join(
        text(frame.px(s.index), frame.bottom + 16, str(s.index), "middle")
        for s in known
        if (s.index - 1) % spaced == 0
    )
    grid = "".join(
        line(frame.left, frame.py(v), frame.right, frame.py(v), "grid")
        + text(frame.left - 6, frame.py(v) + 4, f"{v:,.0f}", "end")
        for v in frame.y.ticks()
    )
    titles = text(frame.left, 12, "words of a section", kind="title") + text(
        frame.right, frame.bottom + 34, "place of the section", "end", "title"
    )
    label = "Words by section, planned against written: " + "; ".join(
        f"section {s.index} {whole(s.planned)} against {whole(s.written)}" for s in known[:12]
    )
    return drawing(grid + group(written, "c2") + planned + numbers + titles, frame.bottom + 42, label)


def training_curve(curve: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the loss, and the validation loss where there is one, against the optimiser's step."""
    lines = [
        (name, kind, [(float(r["step"]), v) for r in curve if (v := number(r.get(key))) is not None])
        for key, name, kind in (("loss", "training", "c1"), ("eval_loss", "validation", "c2"))
    ]
    lines = [(name, kind, points) for name, kind, points in lines if points]
    if not lines:
        return None
    steps = [s for _, _, points in lines for s, _ in points]
    losses = [v for _, _, points in lines for _, v in points]
    air = (max(losses) - min(losses)) * 0.06 or 0.1
    frame = Frame(
        x=Axis(low=min(0.0, min(steps)), high=max(max(steps), 1), length=WIDTH - 66),
        y=Axis(low=min(losses) - air, high=max(losses) + air, length=190),
        top=26,
    )
    content = frame.grid("step", "loss", vertical=False)
    for place, (name, kind, points) in enumerate(lines):
        spots = [(frame.px(s), frame.py(v)) for s, v in points]
        dots = "".join(
            f'<circle class="dot" cx="{n(x)}" cy="{n(y)}" r="2.5"><title>step {s:,.0f}: {v:.4f}</title></circle>'
            for (x, y), (s, v) in zip(spots, points, strict=True)
        )
        shape = "stroke dashed" if name == "validation" else "stroke"
        key = text(frame.right, 12 + 15 * place, f"{name} {points[-1][1]:.3f}", "end", "key")
        content += group(path(spots, shape) + (dots if len(points) <= 100 else "") + key, kind)
    label = "; ".join(f"{name} loss from {p[0][1]:.3f} to {p[-1][1]:.3f}" for name, _, p in lines)
    return drawing(content, frame.bottom + 42, f"{label}, over {whole(max(steps))} steps")
