"""From scored completions to numbers: estimates with intervals, counts, the results file and its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evals.base import Measured, Metric, Task
from evals.judged import (
    LENGTH_COUNTER,
    bounds_of,
    length_controlled,
    length_correlations,
    unscored_of,
)
from evals.rounds import round_curves
from evals.spread import WITHIN_FRAC, within_estimate
from lengthwise.degeneration import REPETITIVE_FRAC
from lengthwise.lengths import slice_order
from lengthwise.pass_at_k import pass_at_k, pass_at_k_sizes
from lengthwise.pooled import columns_of, pooled_interval
from lengthwise.power import minimum_detectable_difference
from lengthwise.statistics import Interval
from lengthwise.summaries import summary_interval

BOOTSTRAP_SEED = 0
"""Fixed, so that scoring the same rows again gives the same interval."""


@dataclass(kw_only=True)
class Tally:
    """What the summary needs of each completion; the texts stay on disk."""

    rows: list[Mapping[str, Any]] = field(default_factory=list)
    num_failed: int = 0
    """Prompts that the harness could not finish: unscored, counted apart."""
    num_bad_rows: int = 0
    """Rows of the data that could not be used, and were dropped as the user said."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Take in one scored completion (a row of a samples file).

        Its cluster is the one the task names, else its prompt's digest, else its id.
        """
        kept = {key: row[key] for key in ("id", "metrics", "flags", "slices")}
        kept |= {key: row.get(key) for key in ("num_tokens", "finish_reason")}
        self.rows.append(
            {
                **kept,
                "cluster": row.get("cluster") or row.get("prompt_hash") or row["id"],
                "unscored": row.get("unscored") or {},
                "length": row.get("counts", {}).get(LENGTH_COUNTER),
            }
        )


def count_flags(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many completions were scored, empty, cut, of unknown end, repetitive, and never done thinking."""
    counts = {"scored": 0, "empty": 0, "truncated": 0, "truncated_unknown": 0, "repetitive": 0}
    counts["unfinished_thinking"] = 0
    for row in rows:
        flags = row["flags"]
        counts["scored"] += 1
        counts["empty"] += bool(flags["empty"])
        counts["truncated"] += flags["truncated"] is True
        counts["truncated_unknown"] += flags["truncated"] is None
        counts["repetitive"] += flags["repetition"] >= REPETITIVE_FRAC
        counts["unfinished_thinking"] += bool(flags.get("unfinished_thinking"))
    return counts


def estimate(metric: Metric, rows: Iterable[Mapping[str, Any]]) -> Interval | None:
    """Return a metric's estimate with its 95 % interval, or None if no row has it.

    One prompt id is one observation; ids with the same prompt, or of a cluster that the task names, are one
    cluster. A `ratio` and a `kappa` are made of all rows that have their columns.
    """
    name = metric.name
    if metric.columns:
        sums = ((row, columns_of(row["metrics"], metric.columns)) for row in rows)
        return pooled_interval(
            ((row["id"], row["cluster"], values) for row, values in sums if values is not None),
            metric.summary,
            seed=BOOTSTRAP_SEED,
        )
    return summary_interval(
        ((row["id"], row["cluster"], row["metrics"][name]) for row in rows if name in row["metrics"]),
        metric.summary,
        seed=BOOTSTRAP_SEED,
    )


def pass_estimates(metric: Metric, rows: Iterable[Mapping[str, Any]]) -> dict[str, Interval]:
    """Return pass@k of a 0/1 metric for k = 2, 4, 8 ... and all replies to a prompt; empty with one reply each.

    One prompt is one observation, and clusters are as for `estimate`. Where prompts have different numbers of
    replies, the fewest set the largest k.

    Example:
        Of two prompts with 4 replies each, 1 and 0 of them right, pass@2 is (0.5 + 0) / 2 = 0.25.
    """
    scored = [row for row in rows if metric.name in row["metrics"]]
    tries = Counter(row["id"] for row in scored)
    right = Counter(row["id"] for row in scored if row["metrics"][metric.name] == 1)
    cluster_of = {row["id"]: row["cluster"] for row in scored}
    found = {}
    for k in pass_at_k_sizes(min(tries.values(), default=0)):
        values = [(item, cluster_of[item], pass_at_k(n, right[item], k)) for item, n in tries.items()]
        interval = summary_interval(values, "proportion")
        assert interval is not None
        found[f"pass@{k}"] = interval
    return found


def summarise(task: Measured | Task, tally: Tally) -> dict[str, Any]:
    """Return a task's part of a results file: `overall`, `slices` and `counts`.

    Beside the task's own slices there is `degenerate` (yes: empty, cut or repetitive), so that each score is
    also had without the flagged replies; no reply is left out of `overall`.
    """
    groups: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in tally.rows:
        for kind, value in {**row["slices"], "degenerate": _degenerate(row["flags"])}.items():
            groups.setdefault(kind, {}).setdefault(value, []).append(row)
    slices = {
        kind: {
            value: {"counts": count_flags(rows), **_estimates(task.METRICS, rows)}
            for value, rows in sorted(members.items(), key=lambda entry: slice_order(entry[0]))
        }
        for kind, members in groups.items()
    }
    overall = _estimates(task.METRICS, tally.rows)
    if WITHIN_FRAC in task.METRICS:
        overall |= _entries(WITHIN_FRAC, {WITHIN_FRAC.name: within_estimate(tally.rows)})
    for found in overall.values():
        found["mdd"] = minimum_detectable_difference(found["stderr"], paired=False)
    unscored = unscored_of(task.METRICS, tally.rows)
    for metric in task.METRICS:
        if not tally.num_failed and metric.name not in unscored:
            continue
        bounds = bounds_of(metric, tally.rows, tally.num_failed, BOOTSTRAP_SEED)
        for found in (overall, unscored):
            if bounds is not None and metric.name in found:
                found[metric.name]["bounds"] = bounds
    counts = {
        **count_flags(tally.rows),
        "unscored": sum(bool(row["unscored"]) for row in tally.rows),
        "failed": tally.num_failed,
        "bad_rows": tally.num_bad_rows,
    }
    return {
        "overall": overall,
        "slices": slices,
        "counts": counts,
        "unscored": unscored,
        "length_correlation": length_correlations(task.METRICS, tally.rows),
        "length_controlled": length_controlled(task.METRICS, tally.rows),
        "rounds": round_curves(task.METRICS, tally.rows),
    }


def results_document(tasks: Mapping[str, Measured | Task], summaries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results file's part that does not depend on who ran the model (lm-eval's key names)."""
    results = {}
    for name, summary in summaries.items():
        row: dict[str, Any] = {"alias": name}
        for metric, found in summary["overall"].items():
            row[f"{metric},none"] = found["value"]
            row[f"{metric}_stderr,none"] = found["stderr"]
            row[f"{metric}_ci,none"] = found["ci"]
            row[f"{metric}_n,none"] = found["n"]
            row[f"{metric}_mdd,none"] = found.get("mdd")
            if "bounds" in found:
                row[f"{metric}_bounds,none"] = found["bounds"]
        results[name] = row
    return {
        "schema_version": 1,
        "results": results,
        "slices": {name: summary["slices"] for name, summary in summaries.items()},
        "counts": {name: summary["counts"] for name, summary in summaries.items()},
        "unscored": {name: summary["unscored"] for name, summary in summaries.items()},
        "length_correlation": {name: summary["length_correlation"] for name, summary in summaries.items()},
        "length_controlled": {name: summary["length_controlled"] for name, summary in summaries.items()},
        "rounds": {name: summary["rounds"] for name, summary in summaries.items() if summary["rounds"]},
        "parts": {name: parts for name, task in tasks.items() if (parts := _parts(task.METRICS))},
        "counters": {name: {m.name: m.counter for m in task.METRICS} for name, task in tasks.items()},
        "higher_is_better": {
            name: {m.name: m.higher_is_better for m in task.METRICS} for name, task in tasks.items()
        },
        "summaries": {name: {m.name: m.summary for m in task.METRICS} for name, task in tasks.items()},
        "columns": {
            name: {m.name: list(m.columns) for m in task.METRICS if m.columns} for name, task in tasks.items()
        },
        "versions": {name: task.VERSION for name, task in tasks.items()},
    }


def _parts(metrics: Sequence[Metric]) -> dict[str, list[str]]:
    """Return for each thing that is followed through a text the metrics of its parts, in order."""
    found: dict[str, list[tuple[int, str]]] = {}
    for metric in metrics:
        if metric.part_of is not None:
            found.setdefault(metric.part_of[0], []).append((metric.part_of[1], metric.name))
    return {name: [metric for _, metric in sorted(parts)] for name, parts in found.items()}


def _degenerate(flags: Mapping[str, Any]) -> str:
    flagged = flags["empty"] or flags["truncated"] is True or flags["repetition"] >= REPETITIVE_FRAC
    return "yes" if flagged else "no"


def _estimates(metrics: Sequence[Metric], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = {}
    for metric in metrics:
        intervals = {metric.name: estimate(metric, rows)}
        if metric.pass_at_k:
            intervals |= pass_estimates(metric, rows)
        found |= _entries(metric, intervals)
    return found


def _entries(metric: Metric, intervals: Mapping[str, Interval | None]) -> dict[str, Any]:
    return {
        name: {
            "value": interval.estimate,
            "stderr": interval.stderr,
            "ci": [_clipped(metric, bound) for bound in (interval.low, interval.high)],
            "n": interval.n,
            "method": interval.method,
        }
        for name, interval in intervals.items()
        if interval is not None
    }


def _clipped(metric: Metric, bound: float | None) -> float | None:
    """Keep a bound within what the metric can be: the t interval of a few values does not know it."""
    if bound is None or metric.worst is None or metric.best is None:
        return bound
    least, most = sorted((metric.worst, metric.best))
    return min(max(bound, least), most)
