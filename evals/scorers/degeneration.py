"""Signs of a text gone wrong, as metrics of any task: loops, refusals, broken ends. No judge is asked.

Each sample's row has the same signs as flags already; as metrics they get intervals, slices and comparisons.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from evals.base import Metric, Score
from evals.scorers.base import Reply
from lengthwise.degeneration import ends_cleanly, is_refusal, repeated_ngram_frac, zlib_ratio
from lengthwise.judge import Judge

NEEDS_JUDGE = False

METRICS = (
    Metric(name="repetition", counter="n-grams", higher_is_better=False, worst=1.0, best=0.0),
    Metric(name="zlib_ratio", counter="bytes", higher_is_better=None),
    Metric(name="refusal", counter="-", higher_is_better=False, summary="proportion"),
    Metric(name="ends_cleanly", counter="-", summary="proportion"),
)


@dataclass(kw_only=True)
class Config:
    """It has no options."""


def metrics(config: Config, judge: str, task_metrics: Collection[str]) -> tuple[Metric, ...]:
    """Return repetition (share of n-grams seen before), zlib ratio, refusals and clean ends."""
    return METRICS


async def score(config: Config, reply: Reply, judge: Judge | None) -> Score:
    """Return the signs of one reply.

    An empty reply repeats nothing, declines nothing and has no clean end; its zlib ratio is left out.
    """
    text = reply.text
    found = {
        "repetition": repeated_ngram_frac(text),
        "refusal": float(is_refusal(text)),
        "ends_cleanly": float(ends_cleanly(text)),
    }
    return Score(metrics=found if not text.strip() else {**found, "zlib_ratio": zlib_ratio(text)})
