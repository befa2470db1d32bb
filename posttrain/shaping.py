"""The fields `shaping` and `budget` of a GRPO job: how length enters its rewards and its prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from lengthwise.config import ConfigError, build_choice, option
from posttrain.budget_prompts import SENTENCE, check_sentence
from posttrain.length_shaping import Group, Rounding, Shaped, StdFloor, grpo_lambda, kimi, num_selected
from posttrain.token_budgets import BudgetSchedule, Kind

Shape = Callable[[Sequence[Group]], Shaped]


@dataclass(kw_only=True)
class LambdaOptions:
    """GRPO-λ (arXiv 2505.18086): a length penalty where most answers are right."""

    top: float = option(
        0.2, help="lambda: the share of a batch's groups, by correctness, whose length is penalised"
    )
    alpha: float = option(0.2, help="the largest penalty")
    rounding: Rounding = option("ceil", help="how lambda of the groups becomes a number of groups")
    least_ratio: float = option(0.0, help="groups with no larger share of right answers are never penalised")
    std_floor_frac: float = option(
        0.05,
        help="lengths closer than this share of their mean are not told apart; 0, with std_floor_tokens 0: the paper",
    )
    std_floor_tokens: float = option(1.0, help="likewise in tokens")

    def __post_init__(self) -> None:
        """Refuse what is no share, and a penalty that a wrong answer would profit by."""
        for name in ("top", "least_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must lie between 0 and 1")
        if not 0 <= self.alpha < 1:
            raise ValueError(
                f"alpha is {self.alpha}: it must be at least 0 and below 1, or a wrong answer could win"
            )
        if self.std_floor_frac < 0 or self.std_floor_tokens < 0:
            raise ValueError("std_floor_frac and std_floor_tokens must not be below 0")

    def check_groups(self, number: int) -> list[str]:
        """Return a warning where a generation has too few groups for the top λ of them to be that share.

        Raises:
            ConfigError: the top λ would be none of the groups, or all of them.
        """
        selected = num_selected(number, self.top, self.rounding)
        said = (
            f"shaping.top is {self.top:g}, and a generation has {number} prompt{'s' if number > 1 else ''}, of which "
            f"{selected} would be penalised"
        )
        remedy = (
            "raise gradient_accumulation_steps or per_device_train_batch_size, lower num_generations, or set "
            "shaping.top to what you mean"
        )
        if 0 < self.top < 1 and selected in (0, number):
            raise ConfigError(f"{said}: too few prompts for a choice among them; {remedy}")
        if abs(selected - self.top * number) > 0.5 * self.top * number:
            return [f"WARNING     {said}, {selected / number:.0%}: {remedy}"]
        return []

    def shape(self) -> Shape:
        """Return the function of a batch's groups."""
        return partial(
            grpo_lambda,
            top=self.top,
            alpha=self.alpha,
            rounding=self.rounding,
            least_ratio=self.least_ratio,
            floor=StdFloor(frac=self.std_floor_frac, tokens=self.std_floor_tokens),
        )


@dataclass(kw_only=True)
class KimiOptions:
    """Kimi k1.5 (arXiv 2501.12599): the shorter half of a group gains, the longer half loses."""

    weight: float = option(1.0, help="of what is gained and lost, at most half of it either way")

    def __post_init__(self) -> None:
        """Refuse a reward for length."""
        if not 0 < self.weight < 2:
            raise ValueError(
                f"weight is {self.weight}: it must be above 0, and below 2, or a wrong answer could be worth more"
            )

    def check_groups(self, number: int) -> list[str]:
        """Return nothing: every group is shaped by itself."""
        return []

    def shape(self) -> Shape:
        """Return the function of a batch's groups."""
        return partial(kimi, weight=self.weight)


SHAPINGS: dict[str, type[Any]] = {"grpo_lambda": LambdaOptions, "kimi": KimiOptions}


def read_shaping(given: Mapping[str, Any] | None) -> Any:
    """Return the shaping that a config's field describes; None where there is none.

    Raises:
        ConfigError: an unknown name, or an option that is wrong or another shaping's.

    Example:
        >>> read_shaping({"name": "grpo_lambda", "top": 0.3}).top
        0.3
    """
    return None if given is None else build_choice(SHAPINGS, given, where="shaping")


@dataclass(kw_only=True)
class Budget:
    """A budget of tokens that every prompt states, and that shrinks (arXiv 2508.08940)."""

    kind: Kind = option(
        "exponential",
        help="how it shrinks: constant, exponential, linear, or by piecewise steps; uniform: drawn for each prompt",
    )
    initial: int = option(256, help="tokens at the start; the paper: 256")
    gamma: float | None = option(None, help="exponential: factor of a decay; the paper: 0.7")
    interval: int | None = option(
        None, help="exponential, with gamma: optimizer steps between decays; the paper: 150"
    )
    final: int | None = option(
        None, help="tokens after the last decay, instead of gamma, the paper: 87; uniform: the least"
    )
    num_decays: int | None = option(None, help="with final: decays; the paper: 3")
    num_steps: int | None = option(None, help="with final: optimizer steps of the schedule; the paper: 600")
    steps: list[list[int]] = option(
        default_factory=list, help="piecewise: pairs [step, tokens from there on]"
    )
    multiple_of: int | None = option(
        None, help="uniform: only multiples of it, between final and initial; default: 1"
    )
    sentence: str = option(SENTENCE, help="what states it in the prompt; {token_budget} is the number")
    role: Literal["user", "system"] = option("user", help="whose message states it")
    at_evaluation: int | None = option(
        None,
        help="tokens in evaluation's prompts; default: the last step's budget, or with uniform drawn likewise",
    )

    def __post_init__(self) -> None:
        """Refuse what is no schedule."""
        check_sentence(self.sentence)
        if self.at_evaluation is not None and self.at_evaluation < 1:
            raise ValueError(f"budget.at_evaluation is {self.at_evaluation}: it must be at least 1 token")
        if any(len(pair) != 2 for pair in self.steps):
            raise ValueError(f"budget.steps is {self.steps}: write pairs [step, tokens]")
        self.schedule()

    def schedule(self) -> BudgetSchedule:
        """Return the function of the step."""
        return BudgetSchedule(
            kind=self.kind,
            initial=self.initial,
            gamma=self.gamma,
            interval=self.interval,
            final=self.final,
            num_decays=self.num_decays,
            num_steps=self.num_steps,
            steps=tuple((start, tokens) for start, tokens in self.steps),
            multiple_of=self.multiple_of,
        )
