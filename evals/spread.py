"""How much the lengths of several replies to one prompt differ, beside any task's scores (CASTILLO, 2505.16881).

With `num_samples` above 1 every task gives it. The spread is the prompt's: each of its replies has it as a metric, so
that it is summed up, sliced and compared with another model's like any score, one value a prompt. The mean length is
`num_tokens`. Lengths are generated tokens, the thinking part included, for that is what the prompt costs: of a reply
that several calls led to, those of all.

`runaway` is of each reply, not of the prompt: it hit the token cap, or CASTILLO's rule takes it out (see
`lengthwise.length_spread`). The rule needs to know the cap: where `sampling.max_tokens` is not set, replies that were
cut are all that counts. It is no name for the slice `degenerate`, which is made of other signs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals.base import Metric
from lengthwise.length_spread import WITHIN_PROMPT_FRAC, length_spread, runaways, within_prompt_frac
from lengthwise.statistics import Interval

WITHIN_FRAC = Metric(name=WITHIN_PROMPT_FRAC, counter="tokens", higher_is_better=None, detail=True)
"""Share of the variance of lengths that lies within prompts: of all prompts together, so that no reply has it."""

SPREAD_METRICS = (
    Metric(name="tokens_std", counter="tokens", higher_is_better=None, detail=True),
    Metric(name="tokens_cv", counter="tokens", higher_is_better=None, detail=True),
    Metric(name="tokens_iqr", counter="tokens", higher_is_better=None, detail=True),
    Metric(name="tokens_p99", counter="tokens", higher_is_better=None, detail=True),
    Metric(name="runaway", counter="tokens", higher_is_better=False, summary="proportion", detail=True),
    WITHIN_FRAC,
)


def with_spread(rows: Sequence[Mapping[str, Any]], cap: int | None) -> list[dict[str, Any]]:
    """Return the scored replies to one prompt with the spread of their lengths among their metrics.

    A single reply has none, and there is none where the number of tokens of a reply is unknown. The coefficient of
    variation is left out where all replies have no token.

    Args:
        rows: of one prompt; they need `num_tokens`, `finish_reason` and `metrics`.
        cap: the most tokens a reply may have, None if unknown.

    Example:
        >>> rows = [{"num_tokens": n, "finish_reason": "stop", "metrics": {}} for n in (100, 200, 300, 400)]
        >>> found = with_spread(rows, 1000)[0]["metrics"]
        >>> round(found["tokens_std"], 2), round(found["tokens_cv"], 3), found["tokens_iqr"], found["runaway"]
        (111.8, 0.447, 150.0, 0.0)
    """
    sizes = [row["num_tokens"] for row in rows]
    costs = [cost for row in rows if (cost := _cost(row)) is not None]
    if len(sizes) < 2 or None in sizes or len(costs) < len(sizes):
        return [dict(row) for row in rows]
    spread = length_spread(costs)
    shared = {"tokens_std": spread.std, "tokens_iqr": spread.iqr, "tokens_p99": spread.p99}
    if spread.cv is not None:
        shared["tokens_cv"] = spread.cv
    ran_away = [False] * len(sizes) if cap is None or cap < 2 else runaways(sizes, cap)
    found = []
    for row, is_runaway in zip(rows, ran_away, strict=True):
        own = {} if row["finish_reason"] is None else _runaway(row, is_runaway)
        found.append({**row, "metrics": {**row["metrics"], **shared, **own}})
    return found


def with_spreads(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], tuple[Metric, ...]]:
    """Return the replies to many prompts, those of one together, with their spread, and the metrics it adds.

    Nothing is added where each prompt has one reply. The cap is unknown.
    """
    by_prompt: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_prompt.setdefault(row["id"], []).append(row)
    if len(by_prompt) == len(rows):
        return list(rows), ()
    return [row for found in by_prompt.values() for row in with_spread(found, None)], SPREAD_METRICS


def within_estimate(rows: Sequence[Mapping[str, Any]]) -> Interval | None:
    """Return the share of the variance of lengths that lies within prompts; None where nothing varies.

    Prompts with fewer than two replies of known length are left out; clusters are those of every other metric.
    """
    sizes: dict[str, list[int]] = {}
    cluster_of = {}
    for row in rows:
        cost = _cost(row)
        if cost is not None:
            sizes.setdefault(row["id"], []).append(cost)
            cluster_of[row["id"]] = row["cluster"]
    several = {item: found for item, found in sizes.items() if len(found) > 1}
    return within_prompt_frac(list(several.values()), clusters=[cluster_of[item] for item in several])


def _cost(row: Mapping[str, Any]) -> int | None:
    """Return the tokens that led to a reply; None where they are unknown."""
    found = row["metrics"].get("num_tokens", row["num_tokens"])
    return None if found is None else int(found)


def _runaway(row: Mapping[str, Any], by_rule: bool) -> dict[str, float]:
    return {"runaway": float(by_rule or row["finish_reason"] == "length")}
