"""Repetition, variety and cohesion of each part of a reply, from the first to the last. No judge is asked.

`repetition_p` is the share of part p's n-grams that the text had before, `distinct_p` the share of distinct words in
windows of 100, `cohesion_p` the cosine of its word counts with the part before (see `lengthwise.position`). A reply
with fewer than 100 words a part has none of them, rather than a 0 that would look sound: `long_enough` is the share
that has. Two models are comparable by position where both write that long.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from evals.base import Metric, Score
from evals.scorers.base import Reply
from lengthwise.config import ConfigError, option
from lengthwise.judge import Judge
from lengthwise.position import NUM_PARTS, position_metrics

NEEDS_JUDGE = False


@dataclass(kw_only=True)
class Config:
    """Options of the scorer."""

    num_parts: int = option(NUM_PARTS, help="equal parts that a reply is cut into (at least 2)")

    def __post_init__(self) -> None:
        """Refuse a text in one part: it has no position."""
        if self.num_parts < 2:
            raise ConfigError(f"position: num_parts must be at least 2, not {self.num_parts}")


def metrics(config: Config, judge: str, task_metrics: Collection[str]) -> tuple[Metric, ...]:
    """Return the share of replies that are long enough, and the measures of each part."""
    parts = range(1, config.num_parts + 1)
    return (
        Metric(name="long_enough", counter="-", higher_is_better=None, summary="proportion"),
        *(
            Metric(
                name=f"repetition_{part}",
                counter="n-grams",
                higher_is_better=False,
                detail=True,
                worst=1.0,
                best=0.0,
                part_of=("repetition", part),
            )
            for part in parts
        ),
        *(_neutral("distinct", part) for part in parts),
        *(_neutral("cohesion", part) for part in parts[1:]),
    )


def _neutral(name: str, part: int) -> Metric:
    return Metric(
        name=f"{name}_{part}", counter="-", higher_is_better=None, detail=True, part_of=(name, part)
    )


async def score(config: Config, reply: Reply, judge: Judge | None) -> Score:
    """Return the measures of one reply's parts; of a short one only that it is short."""
    found = position_metrics(reply.text, config.num_parts)
    return Score(metrics={"long_enough": float(bool(found)), **found})
