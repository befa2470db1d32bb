"""What a completion of a given length is worth, by itself: the formulas of the papers, without their surroundings.

All take lengths in one unit, mostly tokens, and return a number. What depends on the other completions of a prompt is
in `posttrain.length_shaping`.
"""

from __future__ import annotations

import math


def triangular(length: float, budget: float, *, top: float = 1.0) -> float:
    """Return a reward that rises to the budget and falls to 0 at twice the budget (arXiv 2508.08940, section 3.2).

    Args:
        length: of the completion.
        budget: where the reward is largest; above 0.
        top: the largest reward.

    Example:
        >>> [triangular(length, 100) for length in (0, 50, 100, 150, 200, 300)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    _check_positive("budget", budget)
    return top * max(0.0, 1 - abs(length - budget) / budget)


def band(length: float, budget: float, *, top: float = 1.0) -> float:
    """Return the full reward up to the budget, then the fall of `triangular` (the paper's variant: flat, then decay).

    Example:
        >>> [band(length, 100) for length in (0, 100, 150, 300)]
        [1.0, 1.0, 0.5, 0.0]
    """
    return triangular(max(length, budget), budget, top=top)


def log_ratio(length: float, budget: float, *, top: float = 1.0) -> float:
    """Return minus the size of the logarithm of length over budget: half as long costs as much as twice as long.

    It has no bound, so that it tells the way from afar, where `triangular` is flat.

    Args:
        length: of the completion; 0 counts as 1.
        budget: where the reward is 0, its largest.
        top: what a factor of e costs.

    Example:
        >>> [round(log_ratio(length, 100), 3) for length in (50, 100, 200, 800)]
        [-0.693, 0.0, -0.693, -2.079]
    """
    _check_positive("budget", budget)
    return 0.0 - top * abs(math.log(max(1.0, length) / budget))


def lcpo_exact(length: float, wanted: float, *, correct: float, alpha: float = 3e-4) -> float:
    """Return correctness less a penalty for each token off the wanted length (L1, arXiv 2503.04697, equation 1).

    Example:
        >>> round(lcpo_exact(1_500, 1_000, correct=1), 4)
        0.85
    """
    return correct - alpha * abs(wanted - length)


def lcpo_max(
    length: float, limit: float, *, correct: float, alpha: float = 3e-4, delta: float = 0.5
) -> float:
    """Return correctness times a factor that falls around a limit (L1, arXiv 2503.04697, equation 2).

    Example:
        >>> [round(lcpo_max(length, 1_000, correct=1), 3) for length in (0, 1_000, 2_000, 4_000)]
        [0.8, 0.5, 0.2, 0.0]
    """
    return correct * min(1.0, max(0.0, alpha * (limit - length) + delta))


def soft_overlong(length: float, *, limit: float, buffer: float) -> float:
    """Return 0 below a buffer before the limit, -1 above the limit, a line in between.

    DAPO's (arXiv 2503.14476, equation 13).

    Args:
        length: of the completion.
        limit: the paper: 20,480 tokens.
        buffer: the paper: 4,096 tokens.

    Example:
        >>> [soft_overlong(length, limit=100, buffer=20) for length in (80, 90, 100, 101)]
        [0.0, -0.5, -1.0, -1.0]
    """
    if not 0 < buffer <= limit:
        raise ValueError(f"buffer is {buffer}: it must be above 0 and at most the limit, {limit}")
    return max(-1.0, min(0.0, (limit - buffer - length) / buffer))


def length_range(length: float, *, lower: float, upper: float, limit: float) -> float:
    """Return 1 within a range, less in proportion below it, and less in a line to 0 at the limit above it.

    LongWriter-Zero's length reward (arXiv 2506.18841, section 3.1), whose range a model predicts for each prompt.

    Args:
        length: of the completion, in the unit of the range (the paper: words).
        lower: the shortest that is right; above 0.
        upper: the longest that is right.
        limit: the longest that can be; above `upper`.

    Example:
        >>> [length_range(n, lower=100, upper=200, limit=600) for n in (50, 100, 200, 400, 700)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    _check_positive("lower", lower)
    if not lower <= upper < limit:
        raise ValueError(f"lower is {lower}, upper {upper}, limit {limit}: they must rise")
    if length < lower:
        return length / lower
    return 1.0 if length <= upper else max(0.0, (limit - length) / (limit - upper))


def two_sided(length: float, target: float, *, tolerance: float = 0.1, zero_at: float = 1.0) -> float:
    """Return 1 within a tolerance of the target, then less in a line on both sides.

    Args:
        length: of the completion.
        target: the length that was asked for; above 0.
        tolerance: share of the target that is right either way.
        zero_at: share of the target at which the reward is 0; above the tolerance.

    Example:
        >>> [round(two_sided(n, 100), 3) for n in (95, 110, 155, 200, 45, 0)]
        [1.0, 1.0, 0.5, 0.0, 0.5, 0.0]
    """
    _check_positive("target", target)
    if not 0 <= tolerance < zero_at:
        raise ValueError(f"tolerance is {tolerance}: it must be at least 0 and below zero_at, {zero_at}")
    off = abs(length - target) / target
    return min(1.0, max(0.0, (zero_at - off) / (zero_at - tolerance)))


def _check_positive(name: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{name} is {value}: it must be above 0")
