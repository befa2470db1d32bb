"""What a reader of judged numbers must know beside them: who is unscored, and whether length explains the scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evals.base import Metric
from lengthwise.length_bias import score_length_correlation
from lengthwise.summaries import summary_interval

LENGTH_COUNTER = "cjk_ws"
"""Words and Chinese characters: the counter that measures replies in both alike."""
STRONG_CORRELATION = 0.5
"""From here on a judge's scores may well be the length's; the table says so."""


def is_judged(metric: Metric) -> bool:
    """Tell whether a judge gives a metric: then its name ends in @ and the judge."""
    return "@" in metric.name


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

    Unscored are the replies that the harness failed on and the prompts without a reply.

    Example:
        Of 3 replies with 1, 1 and 0 and one unscored, a proportion lies between 0.5 and 0.75.
    """
    if metric.worst is None or metric.best is None:
        return None
    name, ends = metric.name, []
    for extreme in (metric.worst, metric.best):
        replies: list[tuple[Any, Any, float]] = [
            (row["id"], row["prompt_hash"], row["metrics"].get(name, extreme))
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
    """Return Spearman's correlation of each judged metric with the replies' length, where there is one.

    Empty replies and refusals are left out: no judge saw them, and their floor would look like a bias of its own.
    """
    found: dict[str, Any] = {}
    for metric in metrics:
        if not is_judged(metric):
            continue
        pairs = [
            (row["metrics"][metric.name], row["length"])
            for row in rows
            if metric.name in row["metrics"]
            and row["length"] is not None
            and not (row["flags"]["empty"] or row["flags"].get("refusal"))
        ]
        value = score_length_correlation([score for score, _ in pairs], [length for _, length in pairs])
        found[metric.name] = {"spearman": value, "n": len(pairs), "counter": LENGTH_COUNTER}
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
        if found["spearman"] is not None
    ]
    if told:
        lines.append(f"{name}: rank correlation with the reply's length: {', '.join(told)}")
    return lines


def warnings_on(name: str, summary: Mapping[str, Any]) -> list[str]:
    """Return the warnings of one task: any unscored reply, and scores that may be the length's."""
    found = []
    if summary["unscored"]:
        told = "; ".join(f"{one['frac']:.1%} in {names}" for names, one in _alike(summary["unscored"]))
        found.append(
            f"{name}: replies are unscored by no fault of the model's ({told}); estimates leave them out, bounds take "
            "them in. --rescore this run to ask again"
        )
    for metric, one in summary["length_correlation"].items():
        if one["spearman"] is not None and abs(one["spearman"]) >= STRONG_CORRELATION:
            found.append(
                f"{name}: {metric} goes with the length of the reply (rank correlation {one['spearman']:+.2f}): the "
                "judge may prefer a length"
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
