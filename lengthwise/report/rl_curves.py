"""What a training by reinforcement logs besides its loss: right answers, their length, and where the time went."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lengthwise.report.drawing import FULL_NUMBER, MUTED, Drawing, page_style, run_colour
from lengthwise.report.files import number
from lengthwise.report.wording import decimal, digits_for, whole

_STYLES = ("-", "--", ":", "-.")
ALARMS = {
    "alarm/cut": "too many answers ran into max_completion_length",
    "alarm/collapse": "accuracy fell while answers got shorter",
}
"""Keys of the log that are 1 while something is wrong, in words."""
OWN_METRICS = frozenset({"rewards", "completions", "shaping", "sampling", "clip_ratio", "time", "alarm"})
"""First parts of the names that a training by reinforcement logs, also of its evaluation loss."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart."""

    title: str
    svg: str


def rl_panels(curve: Sequence[Mapping[str, Any]], correctness: str, name: str) -> list[Panel]:
    """Return the charts of a training by reinforcement; none for another.

    Args:
        curve: the lines of its metrics.jsonl.
        correctness: the reward that tells right from wrong.
        name: unlike that of any other chart of the page.
    """
    rewards = sorted({key for row in curve for key in row if re.fullmatch(r"rewards/[^/]+/mean", key)})
    if not rewards:
        return []
    times = sorted({key for row in curve for key in row if key.startswith("time/")})
    wanted: list[tuple[str, dict[str, str]]] = [
        (
            "right answers, and the share of prompts whose length is penalised",
            {f"rewards/{correctness}/mean": "right", "shaping/selected_frac": "penalised"},
        ),
        (
            "tokens of an answer",
            {
                "completions/mean_length": "mean",
                "shaping/right_tokens": "right ones",
                "token_budget": "asked for",
            },
        ),
        ("rewards", {"reward": "sum", **{key: key.split("/")[1] for key in rewards}}),
        (
            "cut and repeating answers",
            {"completions/clipped_ratio": "cut", "completions/repeated_frac": "repeated"},
        ),
        ("entropy, nats a token", {"entropy": "entropy"}),
        ("seconds of a step", {key: key.removeprefix("time/").replace("_", " ") for key in times}),
        (
            "log-probabilities: vLLM's off the trainer's",
            {
                "sampling/sampling_logp_difference/mean": "mean",
                "sampling/sampling_logp_difference/max": "max",
            },
        ),
    ]
    found = []
    for title, keys in wanted:
        lines = {shown: points for key, shown in keys.items() if (points := _points(curve, key))}
        if lines:
            svg = line_chart(lines, title, f"{name}-{len(found)}", alarms=alarm_steps(curve))
            found.append(Panel(title=title, svg=svg))
    return found


def alarm_steps(curve: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Return the steps of each alarm, in words, those without any left out."""
    found = {words: [int(row["step"]) for row in curve if row.get(key) == 1] for key, words in ALARMS.items()}
    return {words: steps for words, steps in found.items() if steps}


def _points(curve: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(float(row["step"]), value) for row in curve if (value := number(row.get(key))) is not None]


@page_style()
def line_chart(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    name: str,
    *,
    alarms: Mapping[str, Sequence[int]],
) -> str:
    """Return lines by step, with a mark at the foot for each step of an alarm."""
    from matplotlib.ticker import MaxNLocator

    drawing = Drawing(210 + 18 * (len(lines) // 2))
    (plot,) = drawing.plots
    digits = digits_for([value for points in lines.values() for _, value in points])
    for index, (shown, points) in enumerate(lines.items()):
        steps, values = zip(*points, strict=True)
        colour = run_colour(1 + index)
        plot.plot(
            steps,
            values,
            color=colour,
            linestyle=_STYLES[index % len(_STYLES)],
            linewidth=1.6,
            label=f"{shown} {decimal(values[-1], digits)}",
        )
        if len(points) <= 100:
            urls = [drawing.mark(f"{shown}, step {s:,.0f}: {decimal(v, digits)}") for s, v in points]
            plot.scatter(
                steps, values, s=14, color=colour, linewidths=0, urls=urls, clip_on=False, gid="steps"
            )
    if not any(value for points in lines.values() for _, value in points):
        plot.set_ylim(0, 1)  # else a line of zeros would have an axis of a few hundredths on either side
    for words, steps in alarms.items():
        urls = [drawing.mark(f"step {step:,}: {words}") for step in steps]
        foot = [plot.get_ylim()[0]] * len(steps)
        plot.scatter(steps, foot, marker="^", s=26, color=MUTED, linewidths=0, urls=urls, clip_on=False)
    plot.set_xlim(left=0)
    plot.set_xlabel("step")
    plot.grid(visible=False, axis="x")
    plot.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    plot.xaxis.set_major_formatter(FULL_NUMBER)
    plot.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handlelength=1.4, columnspacing=1
    )
    last = max(step for points in lines.values() for step, _ in points)
    ends = "; ".join(
        f"{shown} from {decimal(points[0][1], digits)} to {decimal(points[-1][1], digits)}"
        for shown, points in lines.items()
    )
    return drawing.svg(name, f"{title}: {ends}, over {whole(last)} steps")
