"""The page's charts, as plotly figures in plain data.

A figure is what `plotly.graph_objects.Figure.to_dict` would return. Colours are names such as "@series-0",
which the page's script replaces by the palette of the light or the dark scheme. Texts that come from data are
escaped here, since plotly reads a few HTML tags in hover texts.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence
from typing import Any

from lengthwise.report.collect import Run
from lengthwise.report.evaluations import Output
from lengthwise.report.files import number
from lengthwise.report.wording import decimal, digits_for, interval, metric_name, ratio, target, whole

Figure = dict[str, Any]

PALETTE = {
    "light": {
        "series-0": "#5b6f8c",
        "series-1": "#b4531c",
        "series-2": "#14766b",
        "series-3": "#7a4fb0",
        "series-4": "#a3386b",
        "series-5": "#6b6a1e",
        "ink": "#1d2430",
        "muted": "#5d6675",
        "line": "#dde1e7",
        "panel": "#ffffff",
    },
    "dark": {
        "series-0": "#9db2d1",
        "series-1": "#f0935c",
        "series-2": "#52c7b8",
        "series-3": "#c2a2ee",
        "series-4": "#ee8fb8",
        "series-5": "#cfcd6f",
        "ink": "#e6e9ee",
        "muted": "#9aa4b4",
        "line": "#333b48",
        "panel": "#1a1f28",
    },
}
"""The first two, slate and orange, also differ to eyes that tell red from green badly."""
MAX_POINTS = 3000
"""Points of a run in the scatter; above, the page draws evenly spaced ones and says so."""


def series_colour(index: int) -> str:
    """Return the colour name of the run at `index` (they repeat after six)."""
    return f"@series-{index % 6}"


def _layout(**changes: Any) -> dict[str, Any]:
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "@muted", "size": 12.5},
        "margin": {"l": 8, "r": 14, "t": 36, "b": 8},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"color": "@ink"}},
        "hoverlabel": {
            "bgcolor": "@panel",
            "bordercolor": "@line",
            "font": {"color": "@ink"},
            "align": "left",
        },
        "dragmode": False,
        **changes,
    }


def _axis(title: str, **changes: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 10},
        "automargin": True,
        "gridcolor": "@line",
        "linecolor": "@line",
        "zeroline": False,
        "tickcolor": "@line",
        **changes,
    }


def _log_axis(title: str, low: float, high: float, **changes: Any) -> dict[str, Any]:
    """Return a log axis with ticks at 1, 3, 10, 30 ... written out in full."""
    ticks = [m * 10**k for k in range(-1, 7) for m in (1, 3) if low / 1.3 <= m * 10**k <= high * 1.3]
    return _axis(
        title,
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=ticks,
        ticktext=[f"{t:,.0f}" if t >= 1 else f"{t:g}" for t in ticks],
        **changes,
    )


def intervals(evaluations: Sequence[tuple[Run, int]], task: str) -> Figure | None:
    """Return one panel per metric, each on its own scale: a dot and its 95 % interval for every run."""
    present = [(run, i) for run, i in evaluations if run.evaluation and task in run.evaluation.tasks]
    scores = {run.anchor: run.evaluation.tasks[task].scores for run, _ in present if run.evaluation}
    names = list(
        dict.fromkeys(m for found in scores.values() for m, s in found.items() if s.estimate is not None)
    )
    if not names:
        return None
    panel = 26 * len(present) + 56
    height = panel * len(names) + 40
    layout = _layout(height=height, annotations=[])
    data: list[dict[str, Any]] = []
    for row, name in enumerate(names):
        suffix = "" if row == 0 else str(row + 1)
        top = 1 - row * panel / (panel * len(names))
        bottom = top - (panel - 46) / (panel * len(names))
        layout[f"yaxis{suffix}"] = _axis(
            "",
            domain=[max(bottom, 0), top],
            range=[-0.6, len(present) - 0.4],
            showticklabels=False,
            showgrid=False,
            anchor=f"x{suffix}",
            fixedrange=True,
            ticks="",
            showline=False,
        )
        layout[f"xaxis{suffix}"] = _axis(
            "", anchor=f"y{suffix}", nticks=6, fixedrange=True, tickformat=",~f", **_span(scores, name)
        )
        layout["annotations"].append(
            {
                "text": f"<b>{html.escape(metric_name(name))}</b>",
                "xref": "paper",
                "yref": "paper",
                "x": 0,
                "y": top,
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"color": "@ink"},
            }
        )
        for place, (run, colour) in enumerate(present):
            score = scores[run.anchor].get(name)
            if score is not None and score.estimate is not None:
                data.append(_whisker(run, colour, score, len(present) - 1 - place, suffix, first=row == 0))
    layout["legend"] = {**layout["legend"], "y": 1 + 26 / max(height - 44, 1)}
    layout["margin"] = {**layout["margin"], "t": 64}
    layout["height"] = height + 28
    return {"data": data, "layout": layout}


def _span(scores: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a range that holds every interval with a little air."""
    ends = [
        v
        for found in scores.values()
        if (s := found.get(name)) is not None
        for v in (s.estimate, s.low, s.high)
        if v is not None
    ]
    low, high = min(ends), max(ends)
    air = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    return {"range": [low - air, high + air]}


def _whisker(run: Run, colour: int, score: Any, y: int, suffix: str, *, first: bool) -> dict[str, Any]:
    digits = digits_for([score.estimate, score.high])
    low = score.estimate if score.low is None else score.low
    high = score.estimate if score.high is None else score.high
    hover = (
        f"<b>{html.escape(run.label)}</b><br>{html.escape(metric_name(score.metric))} "
        f"{decimal(score.estimate, digits)}<br>95 % {interval(score.low, score.high, digits)}"
        f"<br>n = {whole(score.n)}"
    )
    return {
        "type": "scatter",
        "mode": "markers",
        "name": html.escape(run.label),
        "legendgroup": run.anchor,
        "showlegend": first,
        "x": [score.estimate],
        "y": [y],
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [high - score.estimate],
            "arrayminus": [score.estimate - low],
            "color": series_colour(colour),
            "thickness": 2,
            "width": 5,
        },
        "marker": {"size": 10, "color": series_colour(colour)},
        "hovertext": [hover],
        "hoverinfo": "text",
    }


def target_against_actual(
    groups: Sequence[tuple[Run, int, Sequence[Output]]], anchors: dict[tuple[str, int], str], unit: str
) -> Figure | None:
    """Return requested against actual length on log axes: crosses were cut, rings are empty.

    Args:
        groups: per run its colour and its outputs, all of one unit.
        anchors: (run anchor, id of the output object) -> the sample's place on the page.
        unit: what both axes count.
    """
    points = [(run, c, o) for run, c, outs in groups for o in outs if o.requested and o.length is not None]
    if not points:
        return None
    values = [v for _, _, o in points for v in (o.requested.nominal if o.requested else 1, o.length) if v]
    low, high = max(min(values) / 1.6, 0.3), max(values) * 1.6
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "as asked",
            "x": [low, high],
            "y": [low, high],
            "line": {"color": "@muted", "width": 1, "dash": "dot"},
            "hoverinfo": "skip",
        }
    ]
    for run, colour, outputs in groups:
        shown = [o for o in _thin(outputs) if o.requested and o.length is not None]
        # Equal requests lie on one vertical: the runs stand beside each other there, 4 % apart.
        apart = 1.04 ** (groups.index((run, colour, outputs)) - (len(groups) - 1) / 2)
        for mark in ("", "cut", "empty"):
            some = [o for o in shown if _mark(o) == mark]
            if some:
                data.append(_points(run, colour, some, anchors, (low, apart), mark))
    layout = _layout(
        height=470,
        xaxis=_log_axis(f"requested ({unit})", low, high),
        yaxis=_log_axis(f"written ({unit})", low, high),
        hovermode="closest",
        dragmode="zoom",
    )
    return {"data": data, "layout": layout}


def _thin(outputs: Sequence[Output]) -> Sequence[Output]:
    if len(outputs) <= MAX_POINTS:
        return outputs
    step = len(outputs) / MAX_POINTS
    return [outputs[int(i * step)] for i in range(MAX_POINTS)]


def _mark(output: Output) -> str:
    return "empty" if output.empty else "cut" if output.truncated else ""


def _points(
    run: Run,
    colour: int,
    outputs: Sequence[Output],
    anchors: dict[tuple[str, int], str],
    foot_and_shift: tuple[float, float],
    mark: str,
) -> dict[str, Any]:
    foot, shift = foot_and_shift
    hover, places = [], []
    for o in outputs:
        place = anchors.get((run.anchor, id(o)), "")
        places.append(place)
        lines = [f"<b>{html.escape(_brief(o.id))}</b> · {html.escape(run.label)}"]
        lines.append(f"asked {target(o.requested)}")
        unit = o.requested.unit if o.requested else "words"
        lines.append(f"wrote {whole(o.length)} {unit} ({ratio(o.length, o.requested)})")
        lines.append("cut at the cap" if mark == "cut" else f"finish_reason {html.escape(o.finish_reason)}")
        lines.append("<i>click to read it</i>" if place else "<i>not among the samples shown</i>")
        hover.append("<br>".join(lines))
    marker: dict[str, Any] = {"color": series_colour(colour), "size": 8, "opacity": 0.75}
    if mark == "cut":
        marker |= {
            "symbol": "x-thin",
            "size": 9,
            "opacity": 1,
            "line": {"color": series_colour(colour), "width": 2.2},
        }
    elif mark == "empty":
        marker |= {"symbol": "circle-open", "size": 9, "opacity": 1, "line": {"width": 2}}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": html.escape(run.label) + (f" ({mark})" if mark else ""),
        "x": [o.requested.nominal * shift for o in outputs if o.requested],
        "y": [max(o.length or 0, foot * 1.12) for o in outputs],
        "marker": marker,
        "hovertext": hover,
        "hoverinfo": "text",
        "customdata": places,
    }


def _brief(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def length_histogram(
    series: Sequence[tuple[str, str, Sequence[int], bool]], unit: str, *, height: int = 300
) -> Figure | None:
    """Return the share of texts by length, in bins of a factor of the square root of 2.

    Args:
        series: (name, colour, lengths, dashed) for each line; empty texts (length 0) have no place on a log
            axis and are left to the tables.
        unit: what the axis counts.
        height: pixels.
    """
    positive = [v for _, _, values, _ in series for v in values if v > 0]
    if not positive:
        return None
    first, last = math.floor(2 * math.log2(min(positive))) - 1, math.ceil(2 * math.log2(max(positive))) + 2
    edges = [2 ** (k / 2) for k in range(first, last)]
    centres = [math.sqrt(a * b) for a, b in itertools.pairwise(edges)]
    data = []
    for name, colour, values, dashed in series:
        if not values:
            continue
        counts = [sum(a <= v < b for v in values) for a, b in itertools.pairwise(edges)]
        hover = [
            f"<b>{html.escape(name)}</b><br>{a:,.0f} to {b:,.0f} {unit}<br>{n} of {len(values)}"
            for a, b, n in zip(edges, edges[1:], counts, strict=False)
        ]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{html.escape(name)} (n = {len(values):,})",
                "x": centres,
                "y": [100 * n / len(values) for n in counts],
                "hovertext": hover,
                "hoverinfo": "text",
                "line": {"color": colour, "width": 2, "shape": "hvh", "dash": "dash" if dashed else "solid"},
            }
        )
    layout = _layout(
        height=height,
        xaxis=_log_axis(unit, edges[0], edges[-1], showgrid=False),
        yaxis=_axis("% of texts", rangemode="tozero", nticks=6),
        hovermode="closest",
    )
    return {"data": data, "layout": layout}


def training_curve(
    curve: Sequence[dict[str, Any]], keys: Sequence[str] = ("loss", "eval_loss")
) -> Figure | None:
    """Return the loss against the optimiser's step."""
    data = []
    for index, key in enumerate(keys):
        rows = [(r["step"], v, r.get("epoch")) for r in curve if (v := number(r.get(key))) is not None]
        if not rows:
            continue
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(rows) <= 60 else "lines",
                "name": {"loss": "training loss", "eval_loss": "validation loss"}.get(key, key),
                "x": [s for s, _, _ in rows],
                "y": [v for _, v, _ in rows],
                "hovertext": [
                    f"step {whole(s)}"
                    + (f" · epoch {e:.2f}" if number(e) is not None else "")
                    + f"<br>{key} {v:.4f}"
                    for s, v, e in rows
                ],
                "hoverinfo": "text",
                "line": {"color": series_colour(1 - index), "width": 2},
                "marker": {"size": 5},
            }
        )
    if not data:
        return None
    layout = _layout(height=320, xaxis=_axis("step", showgrid=False), yaxis=_axis("loss", nticks=6))
    return {"data": data, "layout": layout}
