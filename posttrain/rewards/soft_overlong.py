"""Less for a completion that comes near the token limit (DAPO, arXiv 2503.14476, equation 13)."""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.length_rewards import soft_overlong
from posttrain.rewarded import Rewarded


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where the punishment begins and ends, in tokens."""

    limit: int
    """Mostly max_completion_length."""
    buffer: int
    """Tokens before the limit over which it grows."""

    def __post_init__(self) -> None:
        """Refuse a buffer that is none."""
        if not 0 < self.buffer <= self.limit:
            raise ValueError(f"buffer is {self.buffer}: it must be above 0 and at most limit, {self.limit}")


def score(completion: Rewarded, config: Config) -> float:
    """Return a number from -1 to 0."""
    return soft_overlong(completion.num_tokens, limit=config.limit, buffer=config.buffer)
