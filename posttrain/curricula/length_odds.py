"""Which length comes next: the odds of Dataset Decomposition's curricula, and what they come to over a cycle.

Sequences of near-equal length are a bucket, and a step trains on sequences of one bucket. A curriculum gives
each bucket odds by its rank, shortest first; each step draws one of the buckets that still have batches, in
proportion to the odds, until all are empty (Algorithm 1 of arXiv 2405.13226). All batches are drawn once: the
odds decide their order only.

With many batches the draws lose their randomness: this fluid limit says, before anything is trained, at which
share of a cycle each bucket runs empty and what is left for the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from posttrain.curricula.choices import Odds, Weighting

Weights = NDArray[np.float64] | None
"""Shape [K]; None where all batches are shuffled."""


def odds(name: Odds, num_buckets: int) -> Weights:
    """Return the odds of each bucket, shortest first.

    For K buckets of rank r = 0 to K - 1: `uniform` 1, `grow_linear` K - r, `grow_p2` 2^(K-1-r), `grow_p100`
    100^(K-1-r); the names that begin with `shrink` have the same odds reversed. `grow_p2` with 8 cycles is the
    default of arXiv 2405.13226 (section 3.3, Table 3); the base of `grow_p100` is read from its name.

    Args:
        name: the curriculum.
        num_buckets: K, at least 1.

    Returns:
        Shape [K]; None for `natural`, where all batches are shuffled.

    Raises:
        ValueError: if there is no such curriculum.

    Example:
        >>> odds("grow_p2", 4)
        array([8., 4., 2., 1.])
    """
    if name not in get_args(Odds):
        raise ValueError(f"odds is {name!r}: choose one of {', '.join(get_args(Odds))}")
    if name == "natural":
        return None
    ranks = np.arange(num_buckets, dtype=np.float64)
    if name == "uniform":
        return np.ones(num_buckets)
    growth, _, shape = name.partition("_")
    rising = {"linear": ranks + 1, "p2": 2.0**ranks, "p100": 100.0**ranks}[shape]
    return rising[::-1] if growth == "grow" else rising


def bucket_weights(name: Odds, num_batches: Sequence[int], weighting: Weighting) -> Weights:
    """Return the weight with which each bucket is drawn as long as it has batches.

    `paper` weighs with the odds of the buckets that are not empty. `released` is what the paper's code prints
    for its
    runs: odds times the bucket's batches. Both are in proportion when all buckets have equally many. Where they
    have not, a small bucket with high odds is empty after few steps by `paper`, and runs along by `released`.

    Args:
        name: the curriculum.
        num_batches: shape [K], batches of each bucket in a cycle, shortest first.
        weighting: `paper` or `released`.

    Returns:
        Shape [K]; 0 for a bucket without batches. None for `natural`.

    Raises:
        ValueError: if there is no such curriculum or weighting.

    Example:
        >>> bucket_weights("grow_p2", [46, 78, 97, 82, 67, 60], "released")
        array([1472., 1248.,  776.,  328.,  134.,   60.])
    """
    if weighting not in get_args(Weighting):
        raise ValueError(f"weighting is {weighting!r}: choose one of {', '.join(get_args(Weighting))}")
    found = odds(name, len(num_batches))
    if found is None:
        return None
    counts = np.asarray(num_batches, dtype=np.float64)
    return found * (counts if weighting == "released" else counts > 0)


def draw_order(num_batches: Sequence[int], weights: Weights, stream: np.random.Generator) -> list[int]:
    """Return the rank of the bucket of each step of a cycle (the inner loop of Algorithm 1).

    Args:
        num_batches: shape [K], batches of each bucket in the cycle.
        weights: shape [K], positive where there are batches; None shuffles all batches.
        stream: what is drawn from; it is advanced.

    Returns:
        As many ranks as there are batches; each rank as often as its bucket has batches.

    Example:
        >>> draw_order([3, 0, 2], np.array([1e9, 0, 1]), np.random.default_rng(0))
        [0, 0, 0, 2, 2]
    """
    if weights is None:
        return stream.permutation(np.repeat(np.arange(len(num_batches)), num_batches)).tolist()
    left = list(num_batches)
    draws = stream.random(sum(left)).tolist()
    bounds = np.cumsum(weights * (np.asarray(left) > 0))
    order: list[int] = []
    for draw in draws:
        rank = int(np.searchsorted(bounds, draw * bounds[-1], side="right"))
        order.append(rank)
        left[rank] -= 1
        if not left[rank]:
            bounds = np.cumsum(weights * (np.asarray(left) > 0))
    return order


def emptying_shares(num_batches: Sequence[float], weights: Weights) -> NDArray[np.float64]:
    """Return the share of a cycle after which each bucket is empty, in the limit of many batches.

    Bucket i with the share w_i of the batches and the weight p_i is drawn at a rate in proportion to p_i, so it
    is empty at v_i = w_i / p_i of a clock that runs as fast as the total weight of the buckets left. What has
    been trained on by then is the sum over j of min(w_j, p_j v_i): the same as advancing from one emptied
    bucket to the next and renormalising the weights each time, but without its rounding.

    Args:
        num_batches: shape [K], batches of each bucket, or their shares; at least one is positive.
        weights: shape [K], positive where there are batches; None where all batches are shuffled.

    Returns:
        Shape [K], within 0 to 1; 0 for a bucket without batches.

    Example:
        >>> emptying_shares([1, 1, 1], odds("grow_p2", 3)).round(3)
        array([0.583, 0.833, 1.   ])
    """
    shares, rates, clocks = _clocks(num_batches, weights)
    return np.minimum(shares, rates * clocks[:, None]).sum(axis=1)


def shares_between(
    num_batches: Sequence[float], weights: Weights, start: float, end: float
) -> NDArray[np.float64]:
    """Return what each bucket has of the batches between two moments of a cycle, in the limit of many batches.

    The last value for the last sixth of a cycle says how far a learning rate that decays to zero would meet the
    longest sequences only.

    Args:
        num_batches: shape [K], batches of each bucket, or their shares; at least one is positive.
        weights: shape [K], positive where there are batches; None where all batches are shuffled.
        start: share of the cycle at the first moment, at least 0.
        end: share of the cycle at the second moment, above `start` and at most 1.

    Returns:
        Shape [K], shortest bucket first; the sum is 1.

    Raises:
        ValueError: if the moments are not in order.

    Example:
        >>> shares_between([1, 1, 1], odds("grow_p2", 3), 5 / 6, 1).round(3)
        array([0., 0., 1.])
    """
    if not 0 <= start < end <= 1:
        raise ValueError(f"start is {start} and end is {end}: they must be 0 <= start < end <= 1")
    shares, rates, clocks = _clocks(num_batches, weights)
    marks = np.unique([0.0, *clocks.tolist()])
    trained = np.minimum(shares, rates * marks[:, None]).sum(axis=1)
    first, last = np.interp([start, end], trained, marks)
    return (np.minimum(shares, rates * last) - np.minimum(shares, rates * first)) / (end - start)


def _clocks(
    num_batches: Sequence[float], weights: Weights
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return w, p and v of `emptying_shares`, each of shape [K]."""
    shares = np.asarray(num_batches, dtype=np.float64)
    shares = shares / shares.sum()
    rates = shares if weights is None else weights
    clocks = np.divide(shares, rates, out=np.zeros_like(shares), where=shares > 0)
    return shares, rates, clocks
