"""The bootstrap: what an estimate would have been with other items drawn from the same source.

Efron and Tibshirani, An Introduction to the Bootstrap (1993): percentile intervals (chapter 13), and for smooth
statistics the bias-corrected and accelerated ones, BCa (section 14.3). What is drawn are clusters, not values: items
that are not independent are drawn together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lengthwise.observations import check_confidence

NUM_RESAMPLES = 10_000
"""Draws where nothing else is asked for: the bounds of a 95 % interval then rest on 250 draws each."""
_BATCH_NUMBERS = 1_000_000
"""How many numbers are drawn at once: all draws of a long list together would fill the memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """A statistic on resampled clusters; all None if there is one cluster."""

    values: Any = None
    """Array, shape [num_resamples]; NaN where the statistic is undefined (a ratio whose denominator is 0)."""
    stderr: float | None = None
    low: float | None = None
    high: float | None = None
    num_undefined: int = 0
    """Draws without a value. If there is one, there are no bounds: leaving it out would choose among the draws."""
    method: str
    """The rule of the bounds, the draws and their seed."""


def resample(
    statistic: Callable[[Any], Any],
    groups: Sequence[Hashable],
    seed: int,
    *,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    smooth: bool,
) -> Draws:
    """Draw whole clusters with replacement, as many as there are; the same seed gives the same draws.

    `statistic` takes an array of row numbers, shape [..., n], and returns its values, shape [...]. `groups` is the
    cluster of each row. Where clusters differ in size one draw comes at a time, which is slow. The bounds are the
    draws' quantiles, a little farther out where clusters are few. Of a `smooth` statistic (means, roots, ratios; not
    medians, whose jackknife says nothing) BCa picks the quantiles: with skewed draws they hold the truth more often.

    Raises:
        ValueError: if `confidence` is no share or `num_resamples` is below 2.

    Example:
        >>> import numpy as np
        >>> values = np.array([1.0, 2.0, 3.0, 9.0])
        >>> draws = resample(lambda rows: values[rows].mean(-1), range(4), 0, num_resamples=99, smooth=True)
        >>> draws.values.shape, draws.method
        ((99,), 'bootstrap BCa, 99 resamples, seed 0')
    """
    check_confidence(confidence)
    if num_resamples < 2:
        raise ValueError(f"num_resamples is {num_resamples}: two draws are the least that have a spread")
    import numpy as np
    from scipy.stats import norm

    method = f"bootstrap {'BCa' if smooth else 'percentile'}, {num_resamples} resamples, seed {seed}"
    clusters = _members(groups)
    if len(clusters) < 2:
        return Draws(method=method)
    values = _evaluate(statistic, clusters, _draw(len(clusters), len(groups), seed, num_resamples))
    num_undefined = int(np.count_nonzero(~np.isfinite(values)))
    if num_undefined:
        method += f", no bounds: undefined in {num_undefined} resamples"
        return Draws(values=values, num_undefined=num_undefined, method=method)
    reaches = _reaches(confidence, len(clusters))
    if smooth:
        reaches = _bca_reaches(reaches, values, statistic, clusters)
    low, high = np.quantile(values, norm.cdf(reaches))
    return Draws(
        values=values, stderr=float(values.std(ddof=1)), low=float(low), high=float(high), method=method
    )


def _reaches(confidence: float, num_clusters: int) -> list[float]:
    """Return the normal quantiles to take draws at: t's, as a plain percentile interval is too narrow.

    Draws spread as the sample does, sqrt((C - 1) / C) too little, and their quantiles are nearly normal ones, where t
    has C - 1 degrees of freedom (Hesterberg, Am. Stat. 69 (2015), 371-386, section 3.1).
    """
    from scipy.stats import t

    quantile = float(t.ppf((1 + confidence) / 2, num_clusters - 1))
    reach = quantile * (num_clusters / (num_clusters - 1)) ** 0.5
    return [-reach, reach]


def _members(groups: Sequence[Hashable]) -> list[Any]:
    """Return the row numbers of each cluster."""
    import numpy as np

    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    return [np.asarray(rows) for rows in members.values()]


def _draw(num_clusters: int, num_rows: int, seed: int, num_resamples: int) -> Iterator[Any]:
    """Yield cluster numbers drawn with replacement, shape [batch, num_clusters]."""
    import numpy as np

    stream = np.random.default_rng(seed)
    batch = max(1, _BATCH_NUMBERS // num_rows)
    for start in range(0, num_resamples, batch):
        yield stream.integers(0, num_clusters, (min(batch, num_resamples - start), num_clusters))


def _leave_one_out(num_clusters: int, num_rows: int) -> Iterator[Any]:
    """Yield the cluster numbers without one of them, each in turn, shape [batch, num_clusters - 1]."""
    import numpy as np

    batch = max(1, _BATCH_NUMBERS // num_rows)
    kept = np.arange(num_clusters - 1)
    for start in range(0, num_clusters, batch):
        left_out = np.arange(start, min(start + batch, num_clusters))[:, None]
        yield kept + (kept >= left_out)


def _evaluate(statistic: Callable[[Any], Any], clusters: Sequence[Any], batches: Iterator[Any]) -> Any:
    """Return the statistic of each choice of clusters; choices of equal size are taken together."""
    import numpy as np

    even = np.stack(clusters) if len({len(rows) for rows in clusters}) == 1 else None
    found = []
    with np.errstate(divide="ignore", invalid="ignore"):  # an undefined draw is counted, not warned of
        for chosen in batches:
            if even is not None:
                values = statistic(even[chosen].reshape(len(chosen), -1))
            else:
                values = [statistic(np.concatenate([clusters[i] for i in line])) for line in chosen]
            found.append(np.asarray(values, dtype=float))
    return np.concatenate(found)


def _bca_reaches(
    reaches: Sequence[float], values: Any, statistic: Callable[[Any], Any], clusters: Sequence[Any]
) -> list[float]:
    """Return the normal quantiles that BCa takes instead (Efron and Tibshirani, equations 14.10 to 14.15)."""
    import numpy as np
    from scipy.stats import norm

    num, num_rows = len(clusters), sum(len(rows) for rows in clusters)
    (estimate,) = _evaluate(statistic, clusters, iter([np.arange(num)[None]]))
    below = (values < estimate).mean() + (values == estimate).mean() / 2
    # At least half a draw on each side, or the bias would be infinite.
    bias = float(norm.ppf(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values))))
    left = _evaluate(statistic, clusters, _leave_one_out(num, num_rows))
    pull = left.mean() - left
    spread = float((pull**2).sum() ** 1.5)
    # Where leaving a cluster out leaves the statistic undefined or as it is, only the bias is corrected.
    acceleration = float((pull**3).sum()) / (6 * spread) if np.isfinite(spread) and spread > 0 else 0.0
    shifted = [bias + reach for reach in reaches]
    # Past its pole the formula turns back: the outermost draw is meant.
    return [
        bias + z / (1 - acceleration * z) if acceleration * z < 1 else float(np.copysign(np.inf, z))
        for z in shifted
    ]
