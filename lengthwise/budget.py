"""What a run has spent, and the limits at which it stops: generated tokens, US dollars, minutes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lengthwise.config import ConfigError, option
from lengthwise.records import Completion, Usage


class LimitReached(Exception):
    """A limit of the config is reached: nothing new starts, and a larger limit goes on from here.

    Not an `EngineError`: the sample that meets it has not failed, it has not ended.
    """

    def __init__(self, name: str, spent: str) -> None:
        """Say which limit it is, and what was spent against it."""
        super().__init__(name, spent)
        self.name = name
        self.spent = spent
        self.how_far = ""
        """A sentence of the job's on how many inputs have ended."""

    def __str__(self) -> str:
        """Return what happened, how far the run got and what goes on from there."""
        remedy = f"start the same command with a larger {self.name} to go on"
        if self.name == "max_minutes":
            remedy = "start the same command again to go on; max_minutes counts from each start"
        parts = [
            f"{self.name} is reached: {self.spent}.",
            self.how_far,
            f"What is finished is saved: {remedy}",
        ]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True)
class Prices:
    """US dollars for a million tokens, as the providers of models list them."""

    prompt_per_million: float = option(help="USD per million prompt tokens")
    cached_per_million: float | None = option(
        None, help="USD per million prompt tokens that a prefix cache served; null: as any prompt token"
    )
    completion_per_million: float = option(help="USD per million generated tokens, thinking included")

    def __post_init__(self) -> None:
        """Refuse negative prices."""
        for name, price in vars(self).items():
            if price is not None and price < 0:
                raise ConfigError(f"prices.{name} is {price:g}: it must be at least 0")

    def cost_usd(self, usage: Usage) -> float:
        """Return what some calls cost, in US dollars.

        Example:
            >>> prices = Prices(prompt_per_million=1.0, cached_per_million=0.1, completion_per_million=4.0)
            >>> prices.cost_usd(Usage(prompt_tokens=900, cached_tokens=500, completion_tokens=1000))
            0.00445
        """
        cached = self.prompt_per_million if self.cached_per_million is None else self.cached_per_million
        fresh = usage.prompt_tokens - usage.cached_tokens
        parts = (
            fresh * self.prompt_per_million,
            usage.cached_tokens * cached,
            usage.completion_tokens * self.completion_per_million,
        )
        return sum(parts) / 1e6


@dataclass(kw_only=True)
class Limits:
    """Where a run stops: the base of each config that can cost something.

    What is under way at a limit may finish, so a run ends a little above it.
    """

    max_generated_tokens: int | None = option(
        None, help="stop the run (earlier starts included) at this many generated tokens", operational=True
    )
    max_cost_usd: float | None = option(
        None, help="stop the run (earlier starts included) at this cost; needs prices", operational=True
    )
    max_minutes: float | None = option(
        None, help="stop this start after so long, loading included: a queue's time limit", operational=True
    )
    prices: Prices | None = option(
        None,
        help="{prompt_per_million, cached_per_million, completion_per_million} in USD, the same for all roles",
        operational=True,
    )

    def __post_init__(self) -> None:
        """Refuse limits under which nothing can run."""
        for name in ("max_generated_tokens", "max_cost_usd", "max_minutes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} is {value}: it must be above 0, or null for no limit")
        if self.max_cost_usd is not None and self.prices is None:
            raise ConfigError(
                f"max_cost_usd is {self.max_cost_usd:g}, but there are no prices: add "
                "prices: {prompt_per_million: ..., completion_per_million: ...}"
            )

    def spending_reached(self, usage: Usage) -> LimitReached | None:
        """Return the limit on tokens or cost that the calls of the run, all starts together, have used up."""
        tokens, dollars = self.max_generated_tokens, self.max_cost_usd
        if tokens is not None and usage.completion_tokens >= tokens:
            spent = f"{usage.completion_tokens:,} of {tokens:,} tokens were generated"
            return LimitReached("max_generated_tokens", spent)
        if dollars is not None and self.prices is not None and self.prices.cost_usd(usage) >= dollars:
            spent = f"{self.prices.cost_usd(usage):.4f} of {dollars:.4f} US dollars were spent"
            return LimitReached("max_cost_usd", spent)
        return None

    def time_reached(self, seconds: float) -> LimitReached | None:
        """Return the limit on time if so many seconds since this start are too many."""
        if self.max_minutes is None or seconds < 60 * self.max_minutes:
            return None
        return LimitReached("max_minutes", f"{seconds / 60:.1f} of {self.max_minutes:g} minutes have passed")


@dataclass(kw_only=True)
class Meter:
    """What a run has spent so far.

    A resumed run starts with what its journal holds, so tokens and cost add up over all starts, and a replayed
    call, paid once, is counted once. Calls that failed, or that a kill cut off, have left no count.
    """

    usage: Usage = field(default_factory=Usage)
    num_calls: int = 0
    limits: Limits = field(default_factory=Limits)
    num_cached_calls: int = 0
    """Answers that a response cache had: not among `num_calls`, and at no cost."""
    fresh_tokens: int = 0
    """Tokens generated since this start."""
    clock: Callable[[], float] = time.monotonic
    """Seconds; monotonic, since a computer's date may jump."""
    _began: float = field(init=False)
    _first_sample: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Note the time of the start."""
        self._began = self.clock()

    def add(self, completions: Sequence[Completion]) -> None:
        """Account for one call that an engine has just answered."""
        self.num_calls += 1
        for completion in completions:
            self.usage += completion.usage
            self.fresh_tokens += completion.num_tokens

    def begin_samples(self) -> None:
        """Note that the model is loaded: loading is no part of its speed."""
        if self._first_sample is None:
            self._first_sample = self.clock()

    def reached(self) -> LimitReached | None:
        """Return the limit that forbids a further call, or None."""
        return self.limits.spending_reached(self.usage) or self.time_reached()

    def time_reached(self) -> LimitReached | None:
        """Return the limit on time if it is used up; calls under way have to be told of it."""
        return self.limits.time_reached(self.clock() - self._began)

    @property
    def seconds_left(self) -> float:
        """Seconds until `max_minutes` is reached, at least 0; infinite without that limit."""
        if self.limits.max_minutes is None:
            return math.inf
        return max(0.0, 60 * self.limits.max_minutes - (self.clock() - self._began))

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens a second since the first sample of this start, replays left out."""
        if self._first_sample is None:
            return 0.0
        return self.fresh_tokens / max(self.clock() - self._first_sample, 1e-9)

    @property
    def cost_usd(self) -> float | None:
        """What the run cost so far in US dollars; None without prices."""
        return None if self.limits.prices is None else self.limits.prices.cost_usd(self.usage)

    def to_dict(self) -> dict[str, int]:
        """Return the totals for a manifest (tokens and calls of all starts)."""
        cached_calls = {"num_cached_calls": self.num_cached_calls} if self.num_cached_calls else {}
        return {
            "prompt_tokens": self.usage.prompt_tokens,
            "cached_tokens": self.usage.cached_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "num_calls": self.num_calls,
            **cached_calls,
        }

    def cost_dict(self, num_kept: int) -> dict[str, float | None] | None:
        """Return the cost for a manifest, in US dollars, or None without prices.

        Args:
            num_kept: kept rows (build) or scored replies (eval), over which the whole cost is spread.
        """
        cost = self.cost_usd
        if cost is None:
            return None
        return {"usd": round(cost, 6), "usd_per_kept": round(cost / num_kept, 6) if num_kept else None}

    def summary(self, num_kept: int, unit: str) -> str:
        """Return what the run has spent, for its last line.

        Args:
            num_kept: rows or replies that came of it.
            unit: what one of them is called.
        """
        text = f"{self.usage.completion_tokens:,} generated tokens in {self.num_calls:,} calls"
        if self.num_cached_calls:
            text += f", {self.num_cached_calls:,} answers from the cache"
        if self.cost_usd is None:
            return text
        text += f", {self.cost_usd:.4f} US dollars"
        return f"{text} ({self.cost_usd / num_kept:.6f} per {unit})" if num_kept else text
