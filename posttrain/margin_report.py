"""What a model made of its preference pairs: how often it prefers the chosen answer, and whether by length."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lengthwise.statistics import Interval, mean_interval, share_interval
from posttrain.pair_data import PairData, TokenPair
from posttrain.pair_margins import GapMargin, margins_by_gap

if TYPE_CHECKING:
    from posttrain.trainers.dpo_trainer import LengthDPOTrainer


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginReport:
    """The margins of some pairs under a trained model; intervals are at 95 %, clustered by prompt."""

    is_held_out: bool
    """Whether the pairs are those of eval_data, or were trained on."""
    margin: Interval
    accuracy: Interval
    """Share of the pairs whose margin is above 0."""
    longer_wins: Interval
    """How often the rule "the longer answer is better" is right about the same pairs; a tie counts half."""
    by_gap: tuple[GapMargin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready map."""
        return {
            "is_held_out": self.is_held_out,
            "margin": self.margin.to_dict(),
            "accuracy": self.accuracy.to_dict(),
            "longer_wins": self.longer_wins.to_dict(),
            "by_gap": [part.to_dict() for part in self.by_gap],
        }

    def lines(self) -> Iterator[str]:
        """Say in a line what came out, and in one for each quarter of the length gaps."""
        which = "held-out pairs" if self.is_held_out else "pairs that were trained on"
        yield (
            f"margins     {self.margin.n:,} {which}: {_shown(self.accuracy, '.1%')} prefer the chosen answer ('longer "
            f"wins' is right in {self.longer_wins.estimate:.1%}), mean margin {_shown(self.margin, '.3f')}"
        )
        for part in self.by_gap:
            yield (
                f"margins     chosen longer by {part.smallest_gap:,} to {part.largest_gap:,} tokens: "
                f"{part.accuracy.estimate:.1%}, mean margin {_shown(part.margin, '.3f')}"
            )


def margin_report(pairs: Sequence[TokenPair], margins: Sequence[float], *, is_held_out: bool) -> MarginReport:
    """Return the report on `pairs`, whose margins are given in their order.

    Raises:
        ValueError: there are none, or a margin is not finite.
    """
    gaps = [len(p.chosen_ids) - len(p.rejected_ids) for p in pairs]
    prompts = [p.prompt_ids.tobytes() for p in pairs]
    return MarginReport(
        is_held_out=is_held_out,
        by_gap=tuple(margins_by_gap(margins, gaps, clusters=prompts)),
        margin=mean_interval(margins, clusters=prompts),
        accuracy=share_interval([float(m > 0) for m in margins], clusters=prompts),
        longer_wins=share_interval([0.5 + 0.5 * ((g > 0) - (g < 0)) for g in gaps], clusters=prompts),
    )


def measure_margins(
    trainer: LengthDPOTrainer, data: PairData, eval_data: PairData | None, *, num_pairs: int, seed: int
) -> MarginReport:
    """Measure the margins of at most `num_pairs` pairs, held-out ones if there are any; all processes take part."""
    pairs = data.rows if eval_data is None else eval_data.rows
    dataset: Any = trainer.train_dataset if eval_data is None else trainer.eval_dataset
    rows = sorted(random.Random(seed).sample(range(len(pairs)), min(num_pairs, len(pairs))))
    lengths = (data if eval_data is None else eval_data).lengths
    at_once = trainer.args.per_device_eval_batch_size * sum(lengths) // len(lengths)
    margins = trainer.margins(dataset.select(rows), max_tokens=at_once)
    return margin_report([pairs[row] for row in rows], margins, is_held_out=eval_data is not None)


def _shown(interval: Interval, style: str) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:{style}}"
    return f"{interval.estimate:{style}} ({interval.low:{style}} to {interval.high:{style}})"
