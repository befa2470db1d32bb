"""What a number of items can show: the least difference that would be found, and the items that one needs.

Miller, "Adding Error Bars to Evals" (arXiv 2411.00640), on power. All formulas take normal quantiles, which are
close from about 30 items on; with fewer, more is needed than they say.
"""

from __future__ import annotations

import math

POWER, ALPHA = 0.8, 0.05
"""A true difference of the stated size is found in 80 % of such comparisons, tested two-sided at 5 %."""


def minimum_detectable_difference(
    stderr: float | None, *, paired: bool, power: float = POWER, alpha: float = ALPHA
) -> float | None:
    """Return the true difference between two models that a comparison finds with this power.

    Unpaired, `stderr` is one run's, and the other model is taken to have been asked as many items of its own, with
    the same spread: (z_{alpha/2} + z_beta) sqrt(2) stderr. On the same items it is an upper bound, as pairing
    removes what the items share. Paired, `stderr` is that of the difference: (z_{alpha/2} + z_beta) stderr.

    Args:
        stderr: in the metric's unit, clustered where items are.
        paired: whether `stderr` is that of a paired difference.
        power: probability of finding it, in (alpha, 1).
        alpha: two-sided level of the test.

    Returns:
        The difference in the metric's unit; None where there is no standard error, or it is 0: values that all
        agree do not show their spread.

    Raises:
        ValueError: if `power` or `alpha` is out of range.

    Example:
        Of 100 items half are right, stderr 0.05: 2.80 * 1.414 * 0.05.

        >>> round(minimum_detectable_difference(0.05, paired=False), 3)
        0.198
    """
    quantiles = _quantiles(power, alpha)
    if not stderr:
        return None
    return quantiles * stderr * (1.0 if paired else math.sqrt(2))


def num_items_needed(
    difference: float,
    *,
    variance: float,
    reply_variances: tuple[float, float] = (0.0, 0.0),
    num_replies: tuple[int, int] = (1, 1),
    power: float = POWER,
    alpha: float = ALPHA,
) -> int:
    """Return how many items a paired comparison needs to find a difference.

    n = (z_{alpha/2} + z_beta)^2 (omega^2 + sigma_A^2 / K_A + sigma_B^2 / K_B) / delta^2, rounded up.

    Args:
        difference: delta, in the metric's unit.
        variance: omega^2, of the difference of an item's two expected scores, over the items.
        reply_variances: sigma^2 of the replies to one item, under each model, in the mean over the items.
        num_replies: K, replies to each item, under each model.
        power: probability of finding the difference.
        alpha: two-sided level of the test.

    Raises:
        ValueError: if a value is out of range.

    Example:
        To find 3 points of 100, one reply each; replies without a spread of their own would take a quarter.

        >>> num_items_needed(0.03, variance=1 / 9, reply_variances=(1 / 6, 1 / 6))
        3876
        >>> num_items_needed(0.03, variance=1 / 9)
        969
    """
    if difference == 0 or not math.isfinite(difference):
        raise ValueError(f"difference is {difference}: give the size to be found, such as 0.03")
    if min(variance, *reply_variances) < 0:
        raise ValueError(
            f"variance is {variance} and reply_variances {reply_variances}: none may be negative"
        )
    if min(num_replies) < 1:
        raise ValueError(f"num_replies is {num_replies}: each model gives at least 1 reply to an item")
    spread = variance + sum(s / k for s, k in zip(reply_variances, num_replies, strict=True))
    needed = _quantiles(power, alpha) ** 2 * spread / difference**2
    return max(1, math.ceil(needed))


def _quantiles(power: float, alpha: float) -> float:
    """Return z_{alpha/2} + z_beta: by how many standard errors a difference must exceed 0."""
    if not 0 < alpha < power < 1:
        raise ValueError(
            f"power is {power} and alpha {alpha}: take 0 < alpha < power < 1, 0.8 and 0.05 are usual"
        )
    from scipy.stats import norm

    return float(norm.ppf(1 - alpha / 2) + norm.ppf(power))
