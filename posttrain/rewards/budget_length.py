"""How near a completion's length is to the budget that its prompt states (arXiv 2508.08940, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from posttrain.length_rewards import band, log_ratio, triangular
from posttrain.rewarded import Rewarded


@dataclass(frozen=True, kw_only=True)
class Config:
    """The shape around the budget."""

    shape: Literal["triangular", "band", "log_ratio"] = "triangular"
    """triangular: largest at the budget; band: as large for all that is shorter; log_ratio: minus the size of
    log(length / budget), for a model that begins far off, where the other two are flat."""
    top: float = 1.0
    """The largest reward."""


SHAPES = {"triangular": triangular, "band": band, "log_ratio": log_ratio}


def score(completion: Rewarded, config: Config) -> float:
    """Return the reward of the length in tokens.

    Raises:
        ValueError: the prompt states no budget.
    """
    if completion.budget is None:
        raise ValueError("budget_length: the prompt states no budget: set budget, or use length_target")
    return SHAPES[config.shape](completion.num_tokens, completion.budget, top=config.top)
