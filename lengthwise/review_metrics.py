"""How good a predictor of ratings is, held against one more human reader (CycleReviewer, arXiv 2411.00816).

A paper's, or any text's, true quality is not known; what is known are n >= 2 people's ratings. For each of them the
proxy of the truth is the mean of the other n - 1, and a predictor's error against it is set beside that of the person
left out. So the question is whether the predictor is closer to people than a person is. All measures here rest on
these pairs, that of agreement in order too, so that judge and person are measured alike. Only decisions are held
against the one that was made, in which each person had a part: there a person has the advantage.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lengthwise.bootstrap_intervals import bootstrap_interval
from lengthwise.length_bias import score_length_correlation
from lengthwise.statistics import Interval, mean_interval, share_interval

_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Review:
    """What people and a predictor said of one text, on one scale."""

    ratings: tuple[float, ...]
    """Two or more people's."""
    prediction: float
    decision: bool | None = None
    """Whether it was accepted; None: unknown."""
    predicted_decision: bool | None = None


def bounded_rating(text: str, least: float, most: float) -> float | None:
    """Return the first number of a rating in words, None if there is none or it lies outside the scale.

    The released parser reads the first character alone ("10" is 1) and takes a missing rating for 0.

    Example:
        >>> bounded_rating("10: strong accept", 1, 10), bounded_rating("6.5/10", 1, 10)
        (10.0, 6.5)
        >>> bounded_rating("no rating", 1, 10), bounded_rating("80", 1, 10)
        (None, None)
    """
    found = _NUMBER.search(text)
    value = math.nan if found is None else float(found[0])
    return value if least <= value <= most else None


def leave_one_out(ratings: Sequence[float]) -> list[float]:
    """Return, for each rating, the mean of the others: the proxy of the truth that it is held against.

    Raises:
        ValueError: there are fewer than two.

    Example:
        >>> leave_one_out([4, 6, 8])
        [7.0, 6.0, 5.0]
    """
    if len(ratings) < 2:
        raise ValueError(f"{len(ratings)} ratings: leaving one out needs two or more")
    total = math.fsum(ratings)
    return [(total - rating) / (len(ratings) - 1) for rating in ratings]


def proxy_errors(ratings: Sequence[float], prediction: float | None = None) -> tuple[float, float]:
    """Return the proxy MSE and MAE of one text: mean (p - t_i)^2 and mean |p - t_i| over the people i.

    t_i is the mean of the others' ratings. p is the prediction; without one it is rating i itself, which gives the
    errors of an individual person. (2411.00816, section 4; the later script of its authors compares with the mean of
    all ratings, which favours the predictor.)

    Raises:
        ValueError: there are fewer than two ratings.

    Example:
        >>> [round(error, 4) for error in proxy_errors([4, 6, 8], 6)]
        [0.6667, 0.6667]
        >>> proxy_errors([4, 6, 8])[0]
        6.0
    """
    guesses = ratings if prediction is None else [prediction] * len(ratings)
    gaps = [guess - target for guess, target in zip(guesses, leave_one_out(ratings), strict=True)]
    return math.fsum(gap * gap for gap in gaps) / len(gaps), math.fsum(map(abs, gaps)) / len(gaps)


def review_metrics(
    reviews: Sequence[Review], *, accept_from: float | None = None
) -> dict[str, dict[str, Interval | None]]:
    """Return the measures of the predictor (`judge`), of an individual person (`human`), and their differences.

    `mse` and `mae` are `proxy_errors`, averaged over texts, with t intervals. `spearman` and `order_accuracy` hold
    every guess against its proxy. `decision_accuracy` and `macro_f1` compare decisions where the text has one: a
    predictor's own, else whether its rating reaches `accept_from`; a person's by that alone. `difference` is judge
    minus human for the two errors, text by text: below 0, the judge is closer to people than a person is.

    Returns:
        None where a measure is not defined: no decision, one decision only, ratings that do not vary.

    Raises:
        ValueError: there is no review, or one has fewer than two ratings.

    Example:
        >>> found = review_metrics([Review(ratings=(4, 6, 8), prediction=6), Review(ratings=(2, 2), prediction=3)])
        >>> round(found["judge"]["mse"].estimate, 3), found["human"]["mse"].estimate
        (0.833, 3.0)
    """
    if not reviews:
        raise ValueError("there is no review to measure")
    errors = {
        "judge": [proxy_errors(review.ratings, review.prediction) for review in reviews],
        "human": [proxy_errors(review.ratings) for review in reviews],
    }
    errors["difference"] = [
        (ours[0] - theirs[0], ours[1] - theirs[1])
        for ours, theirs in zip(errors["judge"], errors["human"], strict=True)
    ]
    found: dict[str, dict[str, Interval | None]] = {
        who: {
            name: _kept(
                mean_interval([pair[place] for pair in pairs]), 0 if who != "difference" else -math.inf
            )
            for place, name in enumerate(("mse", "mae"))
        }
        for who, pairs in errors.items()
    }
    for who in ("judge", "human"):
        found[who] |= _order(reviews, by_person=who == "human")
        found[who] |= _decisions(reviews, accept_from, by_person=who == "human")
    return found


def order_accuracy(
    guesses: Sequence[float], targets: Sequence[float], items: Sequence[Hashable]
) -> Interval | None:
    """Return how often guesses order two texts as their targets do, 0..1, over pairs of different items.

    A tie of guesses counts half. Pairs with equal targets are left out. Of an item with several guesses each weighs
    less, so that pairs of items weigh the same. The standard error is that of a U-statistic, from what each item adds
    (Hoeffding, Ann. Math. Stat. 19 (1948), 293-325), with t's quantile.

    Raises:
        ValueError: the shapes differ.

    Example:
        Of three texts' pairs, 1-2 and 1-3 are ordered right, 2-3 is a tie of the guesses.

        >>> round(order_accuracy([1, 5, 5], [2, 3, 4], ["a", "b", "c"]).estimate, 4)
        0.8333
    """
    import numpy as np

    if not len(guesses) == len(targets) == len(items):
        raise ValueError(f"{len(guesses)} guesses, {len(targets)} targets, {len(items)} items: give one each")
    index = {item: place for place, item in enumerate(dict.fromkeys(items))}
    owner = np.array([index[item] for item in items], dtype=int)
    weight = 1 / np.bincount(owner, minlength=len(index))[owner] if len(owner) else owner
    guess, target = np.asarray(guesses, dtype=float), np.asarray(targets, dtype=float)
    right, all_pairs = np.zeros(len(index)), np.zeros(len(index))
    for place, own in enumerate(owner):  # row by row: all pairs at once would fill the memory
        order, said = np.sign(target[place] - target), np.sign(guess[place] - guess)
        share = weight[place] * weight * ((order != 0) & (owner != own))
        right[own] += (share * ((said == order) + 0.5 * (said == 0))).sum()
        all_pairs[own] += share.sum()
    if not all_pairs.any():
        return None
    estimate = right.sum() / all_pairs.sum()
    pull = 2 * (right - estimate * all_pairs) / all_pairs.mean()
    found = mean_interval((estimate + pull).tolist())
    return _kept(replace(found, estimate=float(estimate), method=f"pairs of items, {found.method}"), 0, 1)


def macro_f1(predicted: Sequence[bool], actual: Sequence[bool], items: Sequence[Hashable]) -> Interval | None:
    """Return the mean of both decisions' F1, 2 TP / (2 TP + FP + FN), with a bootstrap interval; items are clusters.

    None where all decisions, predicted and actual, are the same one.

    Example:
        Of yes: one hit, one miss, F1 2/3; of no: one hit, one false alarm, F1 2/3.

        >>> round(macro_f1([True, False, False], [True, True, False], "abc").estimate, 4)
        0.6667
    """
    if len({*predicted, *actual}) < 2:
        return None
    rows = [(float(ours), float(theirs)) for ours, theirs in zip(predicted, actual, strict=True)]
    return bootstrap_interval(_macro_f1, rows, clusters=list(items))


def _macro_f1(rows: Any) -> Any:
    """Return macro-F1 of rows of two decisions, 0 or 1, shape [..., n, 2]."""
    scores = []
    for label in (0.0, 1.0):
        hits = ((rows[..., 0] == label) & (rows[..., 1] == label)).sum(axis=-1)
        scores.append(2 * hits / (rows == label).sum(axis=(-2, -1)))
    return (scores[0] + scores[1]) / 2


def _order(reviews: Sequence[Review], *, by_person: bool) -> dict[str, Interval | None]:
    guesses, targets, items = [], [], []
    for item, review in enumerate(reviews):
        guesses += review.ratings if by_person else [review.prediction] * len(review.ratings)
        targets += leave_one_out(review.ratings)
        items += [item] * len(review.ratings)
    varies = len(reviews) > 1 and len(set(guesses)) > 1 and len(set(targets)) > 1
    return {
        # Spearman's of any two lists, whatever the second holds.
        "spearman": score_length_correlation(guesses, targets, clusters=items) if varies else None,
        "order_accuracy": order_accuracy(guesses, targets, items),
    }


def _decisions(
    reviews: Sequence[Review], accept_from: float | None, *, by_person: bool
) -> dict[str, Interval | None]:
    said_of: Callable[[Review], list[bool]] = _by_rating(accept_from) if by_person else _own(accept_from)
    decided = [
        (item, review.decision, said)
        for item, review in enumerate(reviews)
        if review.decision is not None and (said := said_of(review))
    ]
    if not decided:
        return {"decision_accuracy": None, "macro_f1": None}
    shares = [sum(one == decision for one in said) / len(said) for _, decision, said in decided]
    points = [(one, decision, item) for item, decision, said in decided for one in said]
    return {
        "decision_accuracy": share_interval(shares),
        "macro_f1": macro_f1(*map(list, zip(*points, strict=True))),
    }


def _by_rating(accept_from: float | None) -> Callable[[Review], list[bool]]:
    return lambda review: [] if accept_from is None else [one >= accept_from for one in review.ratings]


def _own(accept_from: float | None) -> Callable[[Review], list[bool]]:
    def said(review: Review) -> list[bool]:
        if review.predicted_decision is not None:
            return [review.predicted_decision]
        return [] if accept_from is None else [review.prediction >= accept_from]

    return said


def _kept(found: Interval, least: float, most: float = math.inf) -> Interval:
    """Keep bounds within what the measure can be."""
    low, high = (None if end is None else min(max(end, least), most) for end in (found.low, found.high))
    return replace(found, low=low, high=high)
