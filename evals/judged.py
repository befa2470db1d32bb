"""What a reader of judged numbers must know beside them: who is unscored, and whether length explains the scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evals.base import Metric
from lengthwise.length_bias import length_controlled_win_rate, score_length_correlation
from lengthwise.summaries import summary_interval

LENGTH_COUNTER = "cjk_ws"
"""Words and Chinese characters: the counter that measures replies in both alike."""
STRONG_CORRELATION = 0.5
"""From here on a judge's scores may well be the length's; the table says so."""
FEWEST_TO_WARN = 10
"""Fewer pairs correlate strongly by chance."""


def is_judged(metric: Metric) -> bool:
    """Tell whether a metric is a judge's alone: its name ends in @ and the judge, and no word counter is in it."""
    return "@" in metric.name and metric.counter == "-"


def unscored_of(metrics: Sequence[Metric], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return, by metric, how many replies the harness could not score, the share they are, and why."""
    found: dict[str, Any] = {}
    for metric in metrics:
        reasons = Counter(row["unscored"][metric.name] for row in rows if metric.name in row["unscored"])
        if reasons:
            num = reasons.total()
            num_scored = sum(metric.name in row["metrics"] for row in rows)
            found[metric.name] = {
                "num": num,
                "frac": num / (num + num_scored),
                "reasons": dict(reasons.most_common()),
            }
    return found


def bounds_of(
    metric: Metric, rows: Sequence[Mapping[str, Any]], num_failed: int, seed: int
) -> list[float] | None:
    """Return the estimate if all that is unscored had the worst and if it had the best score; None: not known.

    Unscored are the replies that the harness failed on and the prompts without a reply. What is made of sums has no
    bounds here: nobody knows what these replies would have added to them.

    Example:
        Of 3 replies with 1, 1 and 0 and one unscored, a proportion lies between 0.5 and 0.75.
    """
    if metric.worst is None or metric.best is None or metric.columns:
        return None
    name, ends = metric.name, []
    for extreme in (metric.worst, metric.best):
        replies: list[tuple[Any, Any, float]] = [
            (row["id"], row["cluster"], row["metrics"].get(name, extreme))
            for row in rows
            if name in row["metrics"] or name in row["unscored"]
        ]
        replies += [(("failed", index), ("failed", index), extreme) for index in range(num_failed)]
        interval = summary_interval(replies, metric.summary, seed=seed)
        if interval is None or interval.estimate is None:
            return None
        ends.append(interval.estimate)
    return ends


def length_correlations(metrics: Sequence[Metric], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return Spearman's correlation of each judged metric with the replies' length, `spearman` None if there is none.

    Composites with a length score (`s_bar`) have none: theirs would say nothing of the judge.
    Empty replies and refusals are left out: no judge saw them, and their floor would look like a bias of its own.
    """
    seen = [row for row in rows if not (row["flags"]["empty"] or row["flags"].get("refusal"))]
    return {m.name: _correlation(m, seen) for m in metrics if is_judged(m)}


def _correlation(metric: Metric, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    used = [row for row in rows if metric.name in row["metrics"] and row["length"] is not None]
    scores, lengths = [row["metrics"][metric.name] for row in used], [row["length"] for row in used]
    found = {"spearman": None, "ci": None, "n": len(used), "counter": LENGTH_COUNTER, "detail": metric.detail}
    if len(set(scores)) < 2 or len(set(lengths)) < 2:
        return found
    interval = score_length_correlation(scores, lengths, clusters=[row["cluster"] for row in used])
    return {**found, "spearman": interval.estimate, "ci": [interval.low, interval.high]}


def length_controlled(metrics: Sequence[Metric], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return each preference's win rate as it would be between replies of equal length, 0..1 (AlpacaEval-LC).

    Of a metric that too few pairs have, or whose pairs all differ by the same length, only `why` says why not.
    """
    found: dict[str, Any] = {}
    for metric in metrics:
        delta = metric.length_delta
        used = [row for row in rows if metric.name in row["metrics"] and delta in row["metrics"]]
        if delta is None or not used:
            continue
        differences = [row["metrics"][delta] for row in used]
        try:
            rates = length_controlled_win_rate(
                [row["metrics"][metric.name] for row in used],
                differences,
                [0.0] * len(used),  # the model knows lengths by their difference only
                clusters=[row["cluster"] for row in used],
            )
        except ValueError as error:
            found[metric.name] = {"value": None, "n": len(used), "why": str(error)}
            continue
        controlled, raw = rates.controlled, rates.raw
        found[metric.name] = {
            "value": controlled.estimate / 100,
            "ci": [None if end is None else end / 100 for end in (controlled.low, controlled.high)],
            "raw": raw.estimate / 100,
            "length_coefficient": rates.length_coefficient,
            "suspicious": rates.suspicious,
            "n": controlled.n,
        }
    return found


def foot_lines(name: str, summary: Mapping[str, Any]) -> list[str]:
    """Return what the table says below of one task: unscored replies, and scores that go with length."""
    lines = []
    for names, found in _alike(summary["unscored"]):
        reasons = ", ".join(f"{num} {reason}" for reason, num in found["reasons"].items())
        line = f"{name}: {found['num']} replies ({found['frac']:.1%}) unscored in {names}: {reasons}"
        if found.get("bounds"):
            low, high = found["bounds"]
            line += f"; with the worst or the best for them it is {low:.4g} or {high:.4g}"
        lines.append(line)
    told = [
        f"{metric} {found['spearman']:+.2f} (n = {found['n']})"
        for metric, found in summary["length_correlation"].items()
        if found["spearman"] is not None and not found["detail"]
    ]
    if told:
        lines.append(f"{name}: rank correlation with the reply's length: {', '.join(told)}")
    for metric, found in summary["length_controlled"].items():
        if found["value"] is not None:
            low, high = ["-" if end is None else f"{end:.3f}" for end in found["ci"]]
            lines.append(
                f"{name}: {metric}: {found['value']:.3f} [{low}, {high}] if both were equally long, "
                f"{found['raw']:.3f} as judged"
            )
    return lines


def warnings_on(name: str, summary: Mapping[str, Any]) -> list[str]:
    """Return the warnings of one task: any unscored reply, and scores that may be the length's."""
    found = []
    if summary["unscored"]:
        told = "; ".join(f"{one['frac']:.1%} in {names}" for names, one in _alike(summary["unscored"]))
        found.append(
            f"{name}: replies are unscored by no fault of the model's ({told}); estimates leave them out, bounds take "
            "them in. --rescore this run with more max_attempts, or with another judge"
        )
    for metric, one in summary["length_correlation"].items():
        is_strong = one["spearman"] is not None and abs(one["spearman"]) >= STRONG_CORRELATION
        if is_strong and one["n"] >= FEWEST_TO_WARN and not one["detail"]:
            found.append(
                f"{name}: {metric} goes with the length of the reply (rank correlation {one['spearman']:+.2f}): the "
                "judge may prefer a length"
            )
    for metric, one in summary["length_controlled"].items():
        if one.get("suspicious"):
            found.append(
                f"{name}: length moves {metric} by {100 * (one['raw'] - one['value']):+.0f} points: this "
                "says more of lengths than of the models"
            )
    return found


def _alike(unscored: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the unscored once for each judge and set of reasons, with the metrics named that share them.

    A judge's fault takes all its metrics of a reply at once: the first stands for the others.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for metric, found in unscored.items():
        groups.setdefault((metric.partition("@")[2] or metric, repr(found["reasons"])), []).append(metric)
    return [
        (
            names[0] + (f" and {len(names) - 1} more of its metrics" if len(names) > 1 else ""),
            unscored[names[0]],
        )
        for names in groups.values()
    ]
