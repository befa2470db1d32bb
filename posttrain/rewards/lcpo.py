"""Correctness and length in one number: L1's two forms (arXiv 2503.04697, equations 1 and 2).

The length that is wanted is the budget of the prompt. A wrong answer of the exact form still gains by its length, as in
the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from posttrain.length_rewards import lcpo_exact, lcpo_max
from posttrain.rewarded import Rewarded
from posttrain.rewards import answer_correct


@dataclass(frozen=True, kw_only=True)
class Config(answer_correct.Config):
    """The form, and how much a token costs."""

    form: Literal["exact", "max"] = "exact"
    alpha: float = 3e-4
    """For each token off the wanted length."""
    delta: float = 0.5
    """Of the form max: the share that is left at the limit."""


def score(completion: Rewarded, config: Config) -> float | None:
    """Return the reward; None where nobody could compare the answers.

    Raises:
        ValueError: the prompt states no budget, or the row has no answer.
    """
    if completion.budget is None:
        raise ValueError("lcpo: the prompt states no budget: set budget")
    correct = answer_correct.score(completion, config)
    if correct is None:
        return None
    if config.form == "exact":
        return lcpo_exact(completion.num_tokens, completion.budget, correct=correct, alpha=config.alpha)
    return lcpo_max(
        completion.num_tokens, completion.budget, correct=correct, alpha=config.alpha, delta=config.delta
    )
