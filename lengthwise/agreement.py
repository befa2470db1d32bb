"""How far a judge agrees with human labels, beyond what chance gives."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

from lengthwise.observations import check_confidence
from lengthwise.statistics import Interval

Weighting = Literal["linear", "quadratic"]


def cohen_kappa(
    judge: Sequence[Hashable],
    human: Sequence[Hashable],
    *,
    categories: Sequence[Hashable] | None = None,
    weighting: Weighting | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Return Cohen's kappa, (p_o - p_e) / (1 - p_e), with the normal interval of Fleiss, Cohen and Everitt.

    p_o is the share of items on which the two agree, p_e the share that their marginal shares alone would give
    (Cohen, Educ. Psychol. Meas. 20 (1960), 37-46; standard error: Psychol. Bull. 72 (1969), 323-327). 1 is full
    agreement, 0 that of chance. Normal bounds are close from about 100 items on, and are kept in -1..1.

    Args:
        judge: labels of the judge, shape [n].
        human: labels of the same items.
        categories: all labels there are, from low to high; needed where labels do not sort by themselves, or where
            grades that nobody gave lie between others.
        weighting: how much a near miss counts, for ordered labels: None, not at all; "linear", by its distance;
            "quadratic", by its square.
        confidence: coverage of the interval.

    Returns:
        Kappa; without an interval where all labels agree.

    Raises:
        ValueError: if the shapes differ, a label is no category, or both give one label only: chance then agrees
            in all, and kappa is not defined.

    Example:
        Of 50 items, 20 twice yes, 15 twice no, 5 and 10 mixed: p_o 0.7, p_e 0.5.

        >>> judge = ["yes"] * 25 + ["no"] * 25
        >>> human = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
        >>> round(cohen_kappa(judge, human).estimate, 3)
        0.4
    """
    check_confidence(confidence)
    from scipy.stats import norm
    from statsmodels.stats.inter_rater import cohens_kappa

    counts = confusion(judge, human, categories)
    n = len(judge)
    if sum(row.any() or column.any() for row, column in zip(counts, counts.T, strict=True)) < 2:
        raise ValueError("judge and human give one label only: kappa needs at least two")
    found: Any = cohens_kappa(counts, wt=weighting)
    kappa, stderr = float(found.kappa), float(found.std_kappa)
    method = "Cohen's kappa" + (f", {weighting} weights" if weighting else "")
    if int(counts.trace()) == n:
        return Interval(estimate=1.0, stderr=0.0, low=None, high=None, n=n, method=method)
    half = float(norm.ppf((1 + confidence) / 2)) * stderr
    low, high = max(-1.0, kappa - half), min(1.0, kappa + half)
    return Interval(estimate=kappa, stderr=stderr, low=low, high=high, n=n, method=method)


def confusion(
    judge: Sequence[Hashable], human: Sequence[Hashable], categories: Sequence[Hashable] | None = None
) -> Any:
    """Return how often each pair of labels was given: an array, judge in rows, human in columns.

    Raises:
        ValueError: if the shapes differ, there is no item, a label is no category, or labels do not sort.

    Example:
        >>> confusion([1, 1, 2], [1, 2, 2]).tolist()
        [[1, 1], [0, 1]]
    """
    import numpy as np

    if len(judge) != len(human) or not judge:
        raise ValueError(
            f"judge has {len(judge)} labels and human {len(human)}: give one each for every item"
        )
    labels: list[Any] = list(categories) if categories is not None else list({*judge, *human})
    if categories is None:
        try:
            labels.sort()
        except TypeError:
            raise ValueError(
                "the labels are of several kinds: name the categories, from low to high"
            ) from None
    place = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    for ours, theirs in zip(judge, human, strict=True):
        strange = next((label for label in (ours, theirs) if label not in place), None)
        if strange is not None or None in (ours, theirs):
            raise ValueError(
                f"label {strange!r} is no category: name it in categories, and leave unscored items out"
            )
        counts[place[ours], place[theirs]] += 1
    return counts
