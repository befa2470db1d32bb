"""What a completion's length adds to its reward, where that depends on the other completions of its prompt.

GRPO-λ here is "Stable Reinforcement Learning for Efficient Reasoning" (arXiv 2505.18086), which penalises length only
where most answers are right; two other papers have the same name. A group is the completions of one prompt, and the
batch is all groups of one generation, on all processes. What is returned is added to a reward of 0 or 1: the rewards
of the paper are their sum, and correctness stays to be seen by itself.

Where the paper is silent, its reading is an option with the reading named here as the default:
- how many groups are the top λ: rounded up; equal ratios go by the order of the batch;
- a group without a right answer is never among them: it has nothing to shorten;
- a cut completion counts as wrong when groups are chosen, its length is not one of the lengths to compare with, and if
  its answer is right nonetheless it is penalised most;
- the deviation of lengths is the biased one; `std_floor` bounds it from below. Without a floor, lengths 700 and 701
  are told apart as if they were 10 and 1,000. GRPO's own division by the deviation of a group's rewards undoes most of
  the floor: it holds where rewards are scaled by the batch, or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Rounding = Literal["ceil", "floor", "round"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """What the length shaping knows of a completion."""

    correct: float | None
    """1 if its answer is right, 0 if it is wrong; None where nothing could judge it."""
    length: int
    """Tokens."""
    is_cut: bool = False
    """Whether it ran into the token limit."""

    @property
    def is_right(self) -> bool:
        """Whether its answer is right and its own end."""
        return self.correct == 1 and not self.is_cut


Group = Sequence[Rollout]


def correct_ratio(group: Group) -> float | None:
    """Return the share of right answers of a group; None where no completion was judged (rho of section 3.1).

    Example:
        >>> correct_ratio([Rollout(1, 9), Rollout(0, 9), Rollout(None, 9), Rollout(1, 9, is_cut=True)])
        0.3333333333333333
    """
    judged = [rollout for rollout in group if rollout.correct is not None]
    if not judged:
        return None
    return sum(rollout.is_right for rollout in judged) / len(judged)


def num_selected(num_groups: int, top: float, rounding: Rounding = "ceil") -> int:
    """Return how many groups of a batch are its top λ; the paper does not say how λ · n becomes a number.

    Example:
        >>> [num_selected(3, 0.2, rounding) for rounding in ("ceil", "floor", "round")]
        [1, 0, 1]
    """
    share = top * num_groups
    # 0.1 * 30 is 3.0000000000000004
    return {"ceil": math.ceil(share - 1e-9), "floor": math.floor(share + 1e-9), "round": round(share)}[
        rounding
    ]


def select_top(
    ratios: Sequence[float | None], top: float, *, rounding: Rounding = "ceil", least_ratio: float = 0.0
) -> list[bool]:
    """Return for each group of a batch whether it is among the top share by its ratio (Rank <= λ, section 3.2).

    Args:
        ratios: share of right answers of each group, shape [n].
        top: λ, from 0 to 1.
        rounding: how λ · n becomes a number of groups.
        least_ratio: groups that are not above it are never selected, and others do not take their places.

    Raises:
        ValueError: λ is not within 0 and 1.

    Example:
        >>> select_top([0.5, 1.0, 0.25, 1.0, 0.0], 0.4)
        [False, True, False, True, False]
    """
    if not 0 <= top <= 1:
        raise ValueError(f"lambda is {top}: it must lie between 0 and 1")
    number = num_selected(len(ratios), top, rounding)
    order = sorted(
        range(len(ratios)), key=lambda i: -1.0 if (ratio := ratios[i]) is None else ratio, reverse=True
    )
    chosen = {i for i in order[:number] if (ratio := ratios[i]) is not None and ratio > least_ratio}
    return [i in chosen for i in range(len(ratios))]


@dataclass(frozen=True, kw_only=True, slots=True)
class StdFloor:
    """The least deviation of lengths that counts; 0 and 0 is the paper."""

    frac: float = 0.05
    """Of the mean length."""
    tokens: float = 1.0


PAPER_FLOOR = StdFloor(frac=0.0, tokens=0.0)


def length_penalty(group: Group, alpha: float, *, floor: StdFloor = PAPER_FLOOR) -> list[float]:
    """Return the penalties of a group: -α · σ((L - μ) / s) for right answers, 0 for wrong ones.

    μ and s are mean and deviation of the lengths of the group's right answers (Arora and Zanette, arXiv 2502.04463,
    equation 3). Where all of these are equal, or there is but one, the penalty is the limit, -α / 2. A right answer
    that was cut would have been longer than any: it gets all of -α, and no say in μ and s.

    Args:
        group: the completions of one prompt, shape [m].
        alpha: from 0 to below 1, so that a right answer is worth more than a wrong one.
        floor: the least s.

    Example:
        >>> [round(p, 3) for p in length_penalty([Rollout(1, 100), Rollout(1, 300), Rollout(0, 10)], 0.2)]
        [-0.054, -0.146, 0.0]
    """
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha is {alpha}: it must be at least 0 and below 1, or a wrong answer could win")
    lengths = [rollout.length for rollout in group if rollout.is_right]
    if not lengths:
        return [0.0] * len(group)
    mean = sum(lengths) / len(lengths)
    std = math.sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths))
    std = max(std, floor.frac * mean, floor.tokens)
    shares = [
        _sigmoid((rollout.length - mean) / std if std else 0.0)
        if rollout.is_right
        else float(rollout.correct == 1)
        for rollout in group
    ]
    return [-alpha * share if share else 0.0 for share in shares]


@dataclass(frozen=True, slots=True)
class Shaped:
    """What a batch's lengths add to its rewards."""

    added: list[list[float]]
    """Shape [n, m]."""
    selected: list[bool]
    """Which groups are shaped, shape [n]."""
    ratios: list[float | None]
    """Share of right answers, shape [n]."""


def grpo_lambda(
    batch: Sequence[Group],
    *,
    top: float = 0.2,
    alpha: float = 0.2,
    rounding: Rounding = "ceil",
    least_ratio: float = 0.0,
    floor: StdFloor = PAPER_FLOOR,
) -> Shaped:
    """Penalise length in the top λ of a batch's groups, by their share of right answers (arXiv 2505.18086, section 3).

    λ 0 adds nothing, which is GRPO; λ 1 penalises length wherever an answer is right, as Arora and Zanette do.

    Example:
        >>> easy, hard = [Rollout(1, 10), Rollout(1, 30)], [Rollout(1, 10), Rollout(0, 30)]
        >>> shaped = grpo_lambda([hard, easy], top=0.5)
        >>> shaped.selected, shaped.added[0]
        ([False, True], [0.0, 0.0])
    """
    ratios = [correct_ratio(group) for group in batch]
    selected = select_top(ratios, top, rounding=rounding, least_ratio=least_ratio)
    added = [
        length_penalty(group, alpha, floor=floor) if is_selected else [0.0] * len(group)
        for group, is_selected in zip(batch, selected, strict=True)
    ]
    return Shaped(added, selected, ratios)


def kimi(batch: Sequence[Group], *, weight: float = 1.0) -> Shaped:
    """Reward the shorter and penalise the longer completions of a group (Kimi k1.5, arXiv 2501.12599, section 2.3.3).

    With s = 1/2 - (L - min) / (max - min) over all completions of the group, a right answer gets s, a wrong one
    min(0, s); where all are equally long, nothing. The paper turns it on after a time of training without it.

    Example:
        >>> kimi([[Rollout(1, 10), Rollout(0, 10), Rollout(0, 30), Rollout(1, 20)]]).added
        [[0.5, 0.0, -0.5, 0.0]]
    """
    return Shaped(
        [_kimi_group(group, weight) for group in batch],
        [True] * len(batch),
        [correct_ratio(group) for group in batch],
    )


def _kimi_group(group: Group, weight: float) -> list[float]:
    shortest, longest = (of(rollout.length for rollout in group) for of in (min, max))
    if shortest == longest:
        return [0.0] * len(group)
    scores = [0.5 - (rollout.length - shortest) / (longest - shortest) for rollout in group]
    return [
        weight * (score if rollout.is_right else min(0.0, score))
        for rollout, score in zip(group, scores, strict=True)
    ]


def _sigmoid(z: float) -> float:
    """Return 1 / (1 + exp(-z)) without overflow."""
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
