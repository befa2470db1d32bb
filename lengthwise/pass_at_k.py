"""The share of problems that k tries would solve, estimated from more tries (pass@k). Pure functions."""

from __future__ import annotations

import math


def pass_at_k(num_tries: int, num_right: int, k: int) -> float:
    """Return the unbiased estimate of the chance that one of k tries is right.

    Chen et al. (arXiv 2107.03374, section 2.1): 1 - C(n - c, k) / C(n, k), as the product
    1 - prod over i = n - c + 1 .. n of (1 - k / i), which is exact where the binomials would overflow.

    Args:
        num_tries: tries that were made, n.
        num_right: right ones among them, c, in 0..n.
        k: tries one may have, in 1..n.

    Raises:
        ValueError: if a number is out of its range.

    Example:
        >>> round(pass_at_k(10, 3, 5), 5)
        0.91667
    """
    if not 0 <= num_right <= num_tries or not 1 <= k <= num_tries:
        raise ValueError(f"pass@{k} of {num_right} right ones in {num_tries} tries does not exist")
    if num_tries - num_right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(num_tries - num_right + 1, num_tries + 1))


def pass_at_k_sizes(num_tries: int) -> tuple[int, ...]:
    """Return the k that are reported of so many tries: the powers of two from 2, and all. pass@1 is the mean.

    Example:
        >>> pass_at_k_sizes(10), pass_at_k_sizes(4), pass_at_k_sizes(1)
        ((2, 4, 8, 10), (2, 4), ())
    """
    if num_tries < 2:
        return ()
    powers = [2**exponent for exponent in range(1, num_tries.bit_length())]
    return tuple(sorted({*powers, num_tries}))
