"""An evaluation's results as people read them: a plain table, and what must be known before its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evals.base import HARNESS_METRICS, Measured, Metric, Task
from evals.judged import foot_lines, warnings_on
from evals.rounds import round_lines

TRUNCATED_WARNING_FRAC = 0.01
"""Above this share of replies cut at the cap, a length score says more about the cap than about the model."""
MOST_REACHES = 3
"""Metrics of a task whose least difference the table names; the results file has all."""


def format_table(tasks: Mapping[str, Measured | Task], summaries: Mapping[str, Any]) -> str:
    """Return the results as a plain table, one line per task, slice and metric, then each task's counts and reach."""
    header = ["task", "slice", "metric", "estimate", "stderr", "95 % interval", "n", "empty", "truncated"]
    lines = [[*header, "counter"]]
    for name, summary in summaries.items():
        groups = [("all", {**summary["overall"], "counts": summary["counts"]})]
        for kind, members in summary["slices"].items():
            if len(members) == 1:
                continue  # the same rows as "all"
            groups += [(f"{kind} {value}", found) for value, found in members.items()]
        for label, found in groups:
            for metric in [*tasks[name].METRICS, *_pass_metrics(tasks[name].METRICS, found)]:
                if (metric.detail or metric in HARNESS_METRICS) and label != "all":
                    continue
                if metric.round_of is not None or _is_unused(metric, summary):
                    continue
                lines.append([name, label, *_cells(metric, found)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    counts = [_counts_line(name, summary["counts"]) for name, summary in summaries.items()]
    reach = [line for name, summary in summaries.items() if (line := _reach_line(name, summary["overall"]))]
    judged = [line for name, summary in summaries.items() for line in foot_lines(name, summary)]
    rounds = [line for name, summary in summaries.items() for line in round_lines(name, summary["rounds"])]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:], "", *rounds, *counts, *judged, *reach])


def warnings_of(summaries: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know before the numbers: cut, unscored and empty replies."""
    found = []
    for name, summary in summaries.items():
        counts = summary["counts"]
        num = counts["scored"]
        if num and counts["truncated"] > TRUNCATED_WARNING_FRAC * num:
            found.append(
                f"{name}: {counts['truncated']} of {num} replies ({counts['truncated'] / num:.1%}) were cut "
                "at the token cap; their lengths are the cap's, not the model's. Raise sampling.max_tokens "
                "or the engine's context length"
            )
        if counts.get("unfinished_thinking"):
            found.append(
                f"{name}: {counts['unfinished_thinking']} of {num} replies hit the token cap while the model was "
                "still thinking; they have no answer and score as empty. Raise sampling.max_tokens"
            )
        if counts["truncated_unknown"]:
            found.append(
                f"{name}: {counts['truncated_unknown']} of {num} replies have no finish_reason; "
                "whether they were cut is unknown"
            )
        if counts["bad_rows"]:
            found.append(f"{name}: {counts['bad_rows']} bad rows of the data were dropped and are not scored")
        if counts.get("failed"):
            found.append(
                f"{name}: {counts['failed']} prompts failed and are not scored; dropped.jsonl says why"
            )
        found += warnings_on(name, summary)
    return found


def _is_unused(metric: Metric, summary: Mapping[str, Any]) -> bool:
    """Tell whether no reply of a task could have the metric, such as those of a budget where none was set."""
    missed = metric.name in (summary.get("unscored") or {})
    return (
        bool(summary["counts"]["scored"])
        and metric.name not in summary["overall"]
        and not missed
        and (not metric.name.startswith("pass@"))
    )


def _pass_metrics(metrics: Sequence[Metric], found: Mapping[str, Any]) -> list[Metric]:
    """Return the pass@k that a group has, as metrics of the table."""
    names = [name for name in found if name.startswith("pass@")]
    return [replace(metric, name=name) for metric in metrics if metric.pass_at_k for name in names]


def _counts_line(name: str, counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in counts.items())
    return f"{name}: {shown}"


def _reach_line(name: str, overall: Mapping[str, Any]) -> str:
    """Say what another model's run would have to differ by to be told apart; empty if no metric has a spread."""
    known = [(metric, found) for metric, found in overall.items() if found.get("mdd")]
    if not known:
        return ""
    sizes = {found["n"] for _, found in known}
    told = [
        f"{found['mdd']:.2g} in {metric}" + (f" (n = {found['n']})" if len(sizes) > 1 else "")
        for metric, found in known[:MOST_REACHES]
    ]
    more = f" ({len(known) - MOST_REACHES} more in the results file)" if len(known) > MOST_REACHES else ""
    of_items = f"with n = {sizes.pop()}, " if len(sizes) == 1 else ""
    return (
        f"{name}: {of_items}two models must differ by about {', '.join(told)}{more} "
        "to be told apart (80 % power, 5 % level, unpaired)"
    )


def _cells(metric: Metric, group: Mapping[str, Any]) -> list[str]:
    counts = group["counts"]
    truncated = str(counts["truncated"])
    if counts["truncated_unknown"]:
        truncated += f" (+{counts['truncated_unknown']} unknown)"
    tail = [str(counts["empty"]), truncated, metric.counter]
    found = group.get(metric.name)
    if found is None:
        return [metric.name, "-", "-", "-", "0", *tail]
    low, high = found["ci"]
    cells = [_number(found["value"]), _number(found["stderr"]), f"[{_number(low)}, {_number(high)}]"]
    return [metric.name, *cells, str(found["n"]), *tail]


def _number(value: float | None) -> str:
    # Wilson's lower bound of no success is 1e-17 by rounding.
    return "-" if value is None else f"{0.0 if abs(value) < 1e-12 else value:.4g}"
