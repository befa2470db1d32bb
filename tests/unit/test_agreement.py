"""Cohen's kappa by hand."""

from __future__ import annotations

import math

import pytest

from lengthwise.agreement import cohen_kappa, confusion


def labels(counts: list[list[int]], names: list) -> tuple[list, list]:
    """Labels with these counts, judge in rows and human in columns."""
    pairs = [(r, c) for r, row in enumerate(counts) for c, num in enumerate(row) for _ in range(num)]
    return [names[r] for r, _ in pairs], [names[c] for _, c in pairs]


def test_kappa_by_hand() -> None:
    # p_o 0.7; the judge says yes 25 of 50, the human 30 of 50: p_e 0.5 * 0.6 + 0.5 * 0.4 = 0.5.
    found = cohen_kappa(*labels([[20, 5], [10, 15]], ["yes", "no"]), categories=["yes", "no"])
    assert found.estimate == pytest.approx(0.4)
    # Fleiss, Cohen and Everitt: [A + B - C] / ((1 - p_e)^2 n), with
    # A = .4 (1 - 1.1 * .6)^2 + .3 (1 - .9 * .6)^2, B = .36 (.1 * 1.1^2 + .2 * .9^2), C = (.4 - .5 * .6)^2
    a = 0.4 * (1 - 1.1 * 0.6) ** 2 + 0.3 * (1 - 0.9 * 0.6) ** 2
    b = 0.36 * (0.1 * (0.6 + 0.5) ** 2 + 0.2 * (0.4 + 0.5) ** 2)
    variance = (a + b - (0.4 - 0.5 * 0.6) ** 2) / (0.25 * 50)
    assert found.stderr == pytest.approx(math.sqrt(variance), rel=0.02)
    assert found.low == pytest.approx(0.4 - 1.959964 * found.stderr, abs=1e-6)
    assert (found.n, found.method) == (50, "Cohen's kappa")


def test_weights_forgive_near_misses() -> None:
    counts = [[10, 4, 0], [3, 10, 2], [1, 2, 8]]
    judge, human = labels(counts, [1, 2, 3])
    plain, linear, quadratic = (cohen_kappa(judge, human, weighting=w) for w in (None, "linear", "quadratic"))
    # Disagreement weighted by distance: 1 - sum(w o) / sum(w e), rows 14, 15, 11, columns 14, 16, 10 of 40.
    seen = (4 + 3 + 2 + 2) * 1 + (0 + 1) * 2
    chance = ((14 * 16 + 15 * 14 + 15 * 10 + 11 * 16) * 1 + (14 * 10 + 11 * 14) * 2) / 40
    assert linear.estimate == pytest.approx(1 - seen / chance)
    seen, chance = 11 + 4, ((14 * 16 + 15 * 14 + 15 * 10 + 11 * 16) + (14 * 10 + 11 * 14) * 4) / 40
    assert quadratic.estimate == pytest.approx(1 - seen / chance)
    assert plain.estimate < linear.estimate < quadratic.estimate
    assert linear.method == "Cohen's kappa, linear weights"


def test_a_grade_that_nobody_gave_lies_between_others() -> None:
    judge, human = [1, 1, 1, 3, 4, 4], [1, 3, 4, 3, 4, 4]
    short = cohen_kappa(judge, human, weighting="linear")
    full = cohen_kappa(judge, human, categories=[1, 2, 3, 4], weighting="linear")
    assert confusion(judge, human, [1, 2, 3, 4])[1].tolist() == [0, 0, 0, 0]
    # Distances: 1 to 3 is one step without grade 2, two with it.
    assert short.estimate != pytest.approx(full.estimate)


def test_full_agreement_has_no_interval() -> None:
    found = cohen_kappa(["a", "b", "a"], ["a", "b", "a"])
    assert (found.estimate, found.stderr, found.low, found.high) == (1.0, 0.0, None, None)


@pytest.mark.parametrize(
    ("judge", "human", "message"),
    [
        (["a"], ["a", "b"], "judge has 1 labels and human 2"),
        ([], [], "judge has 0 labels"),
        (["a", "a"], ["a", "a"], "one label only"),
        (["a", 1], ["a", 1], "name the categories"),
    ],
)
def test_nonsense_is_refused(judge, human, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cohen_kappa(judge, human)


def test_a_label_must_be_a_category() -> None:
    with pytest.raises(ValueError, match="label 'maybe' is no category"):
        cohen_kappa(["yes", "maybe"], ["yes", "no"], categories=["yes", "no"])
