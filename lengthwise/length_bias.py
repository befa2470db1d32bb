"""How far a judge's preference follows length: the length-controlled win rate, and scores against lengths.

Dubois, Galambosi, Liang and Hashimoto, "Length-Controlled AlpacaEval" (arXiv 2404.04475), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from lengthwise.bootstrap_intervals import bootstrap_interval
from lengthwise.observations import check_confidence, checked
from lengthwise.statistics import Interval, mean_interval

RIDGE = 0.01
"""Weight of the squared coefficients: it keeps them finite where length alone tells every preference, and moves a win
rate over hundreds of items by less than it is printed with."""
LARGEST_SHIFT = 10.0
"""Points of win rate: above it, a comparison says more about length than about the models (AlpacaEval's bound)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthControlledWinRate:
    """Win rates of one model against a baseline, in points of 100."""

    raw: Interval
    """Mean preference."""
    controlled: Interval
    """Mean predicted preference if both replies to each item were equally long."""
    length_coefficient: float
    """Log-odds by tanh of the difference in lengths: above 0, the judge prefers longer replies."""

    @property
    def shift(self) -> float:
        """Points that length gave the model."""
        return self.raw.estimate - self.controlled.estimate

    @property
    def suspicious(self) -> bool:
        """Whether control moves the win rate by more than 10 points: too much to be called a correction."""
        return abs(self.shift) > LARGEST_SHIFT


def length_controlled_win_rate(
    preferences: Sequence[float],
    lengths: Sequence[float],
    baseline_lengths: Sequence[float],
    *,
    difficulties: Sequence[float] | None = None,
    clusters: Sequence[Hashable] | None = None,
    ridge: float = RIDGE,
) -> LengthControlledWinRate:
    """Return a model's win rate with and without control for length.

    logit P(model wins item i) = theta + phi tanh(d_i / std(d)) + psi gamma_i with d_i = length - baseline length and
    the item's difficulty gamma_i; the controlled rate is 100 times the mean of that P at d = 0. AlpacaEval fits one
    model over all entries of its board with an L1 penalty by cross-validation, and reports the standard error of the
    predictions alone. Here one pair of models is fitted with a small ridge, and the standard error is the sandwich
    one, which also holds the uncertainty of theta, phi and psi (not that of std(d)); clusters as for `mean_interval`.

    Args:
        preferences: 1 where the model won, 0 where the baseline did, or a judge's probability; shape [n].
        lengths: of the model's replies, in AlpacaEval characters; shape [n].
        baseline_lengths: of the baseline's.
        difficulties: gamma, log-odds of an item whoever answers; AlpacaEval estimates it from many models.
        clusters: items that are not independent.
        ridge: penalty, ridge / 2 times the sum of squared coefficients.

    Raises:
        ValueError: if the shapes differ, a preference lies outside 0..1, or every d is the same and not 0.

    Example:
        Longer replies win three of four whoever wrote them: without length the two are equal.

        >>> rates = length_controlled_win_rate([1, 1, 1, 0, 0, 0, 0, 1], [9] * 4 + [5] * 4, [5] * 4 + [9] * 4)
        >>> round(rates.controlled.estimate, 3), rates.length_coefficient > 0
        (50.0, True)
    """
    import numpy as np

    wins = checked(preferences, "preferences")
    if min(wins) < 0 or max(wins) > 1:
        raise ValueError(f"preferences holds {min(wins)} and {max(wins)}: a preference lies in 0..1")
    given = {"lengths": lengths, "baseline_lengths": baseline_lengths}
    if difficulties is not None:
        given["difficulties"] = difficulties
    ours, theirs, *rest = _columns(given, len(wins))
    design = np.column_stack([np.ones(len(wins)), _length_term(ours - theirs), *rest])
    coefficients, hessian = _fit(design, np.asarray(wins), ridge)
    neutral = design.copy()
    neutral[:, 1] = 0.0
    chances = _logistic(neutral @ coefficients)
    # What each item adds to the estimate: its own prediction, and its pull on the coefficients (delta method).
    gradient = (neutral * (chances * (1 - chances))[:, None]).mean(axis=0)
    residuals = np.asarray(wins) - _logistic(design @ coefficients)
    pull = len(wins) * (design * residuals[:, None]) @ np.linalg.solve(hessian, gradient)
    found = mean_interval((100 * (chances + pull)).tolist(), clusters=clusters)
    raw = mean_interval([100 * win for win in wins], clusters=clusters)
    estimate = 100 * float(chances.mean())
    return LengthControlledWinRate(
        raw=_within_percent(raw, raw.estimate),
        controlled=_within_percent(found, estimate, method=f"length-controlled, sandwich {found.method}"),
        length_coefficient=float(coefficients[1]),
    )


def score_length_correlation(
    scores: Sequence[float],
    lengths: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Return Spearman's rank correlation of scores with lengths: near 0 if a graded judge does not see length.

    The interval is Fisher's, tanh(artanh(r) +- z sqrt((1 + r^2 / 2) / (n - 3))) (Bonett and Wright, Psychometrika 65
    (2000), 23-28); where items share clusters, a bootstrap of whole clusters. There is none with fewer than 4 items
    or r = 1 or -1.

    Raises:
        ValueError: if the shapes differ, or all scores or all lengths are equal.

    Example:
        >>> found = score_length_correlation([1, 2, 3, 4, 5], [10, 20, 50, 40, 30])
        >>> round(found.estimate, 3)
        0.6
    """
    check_confidence(confidence)
    import numpy as np
    from scipy.stats import norm

    first = checked(scores, "scores")
    (second,) = _columns({"lengths": lengths}, len(first))
    if len(set(first)) < 2 or len(set(second.tolist())) < 2:
        raise ValueError("all scores or all lengths are equal: a correlation needs both to vary")
    if clusters is not None and len(set(clusters)) < len(first):
        rows = list(zip(first, second.tolist(), strict=True))
        return bootstrap_interval(_spearman, rows, clusters=clusters, confidence=confidence)
    r, n = float(_spearman(np.column_stack([first, second]))), len(first)
    if n < 4 or math.isclose(abs(r), 1):
        return Interval(estimate=r, stderr=None, low=None, high=None, n=n, method="Spearman, Fisher")
    spread = math.sqrt((1 + r * r / 2) / (n - 3))
    half = float(norm.ppf((1 + confidence) / 2)) * spread
    low, high = math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
    return Interval(
        estimate=r, stderr=(1 - r * r) * spread, low=low, high=high, n=n, method="Spearman, Fisher"
    )


def _columns(given: dict[str, Sequence[float]], n: int) -> list[Any]:
    import numpy as np

    for name, values in given.items():
        if len(values) != n:
            raise ValueError(f"{name} has {len(values)} values for {n} items: give one for each")
    return [np.asarray(checked(values, name)) for name, values in given.items()]


def _length_term(differences: Any) -> Any:
    import numpy as np

    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    if spread == 0 and differences.any():
        raise ValueError(
            f"every reply is {differences[0]:g} longer than the baseline's: length and model cannot be told apart"
        )
    return np.tanh(differences / spread) if spread else differences


def _logistic(x: Any) -> Any:
    from scipy.special import expit

    return expit(x)


def _fit(design: Any, wins: Any, ridge: float) -> tuple[Any, Any]:
    """Return the coefficients of a ridge logistic regression, and the Hessian of its loss there."""
    import numpy as np
    from scipy.optimize import minimize

    def loss(b: Any) -> tuple[float, Any]:
        linear = design @ b
        value = np.logaddexp(0, linear).sum() - wins @ linear + ridge / 2 * (b @ b)
        return float(value), design.T @ (_logistic(linear) - wins) + ridge * b

    def hessian(b: Any) -> Any:
        chance = _logistic(design @ b)
        return design.T @ (design * (chance * (1 - chance))[:, None]) + ridge * np.eye(design.shape[1])

    found = minimize(
        loss, np.zeros(design.shape[1]), jac=True, hess=hessian, method="trust-exact", options={"gtol": 1e-8}
    )
    return found.x, hessian(found.x)


def _within_percent(found: Interval, estimate: float, method: str | None = None) -> Interval:
    low, high = found.low, found.high
    shift = estimate - found.estimate  # the ridge leaves the pulls a sum that is not quite 0
    return Interval(
        estimate=estimate,
        stderr=found.stderr,
        low=None if low is None else max(0.0, low + shift),
        high=None if high is None else min(100.0, high + shift),
        n=found.n,
        method=found.method if method is None else method,
    )


def _spearman(rows: Any) -> Any:
    """Return Spearman's correlation of the two columns, shape [..., n, 2]."""
    import numpy as np
    from scipy.stats import rankdata

    ranks = rankdata(rows, axis=-2)
    centred = ranks - ranks.mean(axis=-2, keepdims=True)
    squares = (centred**2).sum(axis=-2)
    return (centred[..., 0] * centred[..., 1]).sum(axis=-1) / np.sqrt(squares[..., 0] * squares[..., 1])
