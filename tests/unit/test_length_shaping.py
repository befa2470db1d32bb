"""The shaping of rewards by length: values worked out by hand from the papers' formulas, and what holds for all."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.length_shaping import (
    PAPER_FLOOR,
    Rollout,
    StdFloor,
    correct_ratio,
    grpo_lambda,
    kimi,
    length_penalty,
    select_top,
)


def group(*pairs: tuple[int, int]) -> list[Rollout]:
    return [Rollout(float(correct), length) for correct, length in pairs]


rollouts = st.builds(
    Rollout,
    st.sampled_from([0.0, 1.0, None]),
    st.integers(min_value=1, max_value=20_000),
    st.booleans(),
)
groups = st.lists(rollouts, min_size=2, max_size=16)
ratios = st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=40)


def test_the_ratio_counts_cut_answers_as_wrong_and_leaves_out_the_unjudged():
    assert correct_ratio(group((1, 5), (0, 5), (1, 7), (1, 9))) == 0.75
    assert correct_ratio([Rollout(1, 5), Rollout(1, 5, is_cut=True)]) == 0.5
    assert correct_ratio([Rollout(None, 5), Rollout(1, 5)]) == 1.0
    assert correct_ratio([Rollout(None, 5), Rollout(None, 5)]) is None


@pytest.mark.parametrize(
    ("top", "rounding", "number"),
    [(0.2, "ceil", 26), (0.2, "floor", 25), (0.2, "round", 26), (0, "ceil", 0), (1, "floor", 128), (0.001, "ceil", 1)],
)  # fmt: skip
def test_how_many_of_128_groups_are_the_top(top, rounding, number):
    assert sum(select_top([1.0] * 128, top, rounding=rounding)) == number


def test_a_tenth_of_thirty_groups_is_three_and_not_four():
    assert sum(select_top([1.0] * 30, 0.1)) == 3


def test_equal_ratios_go_by_the_order_of_the_batch():
    assert select_top([0.5, 0.5, 0.5], 0.5) == [True, True, False]


def test_groups_without_a_right_answer_leave_their_places_empty():
    assert select_top([0.0, None, 0.25], 1) == [False, False, True]
    assert select_top([0.5, 0.25], 1, least_ratio=0.25) == [True, False]


@pytest.mark.parametrize("top", [-0.1, 1.1, float("nan")])
def test_lambda_lies_between_0_and_1(top):
    with pytest.raises(ValueError, match="lambda is"):
        select_top([1.0], top)


@given(ratios, st.floats(0, 1))
def test_no_group_that_is_left_out_has_a_better_ratio(values, top):
    chosen = select_top(values, top)
    inside = [v for v, is_in in zip(values, chosen, strict=True) if is_in]
    outside = [v or 0 for v, is_in in zip(values, chosen, strict=True) if not is_in]
    if inside and outside:
        assert min(inside) >= max(outside)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20, unique=True), st.floats(0, 1), st.randoms())
def test_selection_follows_the_groups_when_they_are_shuffled(values, top, random):
    order = list(range(len(values)))
    random.shuffle(order)
    chosen = select_top(values, top)
    assert select_top([values[i] for i in order], top) == [chosen[i] for i in order]


def test_the_penalty_by_hand():
    # Right lengths 100, 200, 300: mean 200, deviation sqrt(20000 / 3) = 81.65.
    found = length_penalty(group((1, 100), (1, 200), (1, 300), (0, 50)), 0.2)
    z = 100 / math.sqrt(20_000 / 3)
    expected = [-0.2 / (1 + math.exp(z)), -0.1, -0.2 / (1 + math.exp(-z)), 0]
    assert found == pytest.approx(expected)


def test_one_right_answer_or_equal_lengths_give_the_limit():
    assert length_penalty(group((1, 900), (0, 5)), 0.2) == [-0.1, 0]
    assert length_penalty(group((1, 900), (1, 900)), 0.2) == [-0.1, -0.1]
    assert length_penalty(group((0, 900), (0, 5)), 0.2) == [0, 0]


def test_a_cut_answer_is_not_a_length_to_compare_with():
    whole = group((1, 100), (1, 300))
    assert length_penalty([*whole, Rollout(1, 4096, is_cut=True)], 0.2) == [*length_penalty(whole, 0.2), -0.2]


def test_a_floor_keeps_one_token_from_telling_answers_apart():
    """Lengths 700 seven times and 701: without a floor the longest is 2.6 deviations off."""
    almost = group(*[(1, 700)] * 7, (1, 701))
    paper, floored = (length_penalty(almost, 0.2, floor=floor) for floor in (PAPER_FLOOR, StdFloor()))
    assert paper[7] - paper[0] < -0.08
    assert -0.002 < floored[7] - floored[0] < 0


@pytest.mark.parametrize("alpha", [-0.1, 1.0, 1.5])
def test_a_wrong_answer_must_not_win(alpha):
    with pytest.raises(ValueError, match=f"alpha is {alpha}"):
        length_penalty(group((1, 5)), alpha)


@given(groups, st.floats(0, 0.99))
def test_right_answers_keep_more_than_wrong_ones(found, alpha):
    for rollout, penalty in zip(found, length_penalty(found, alpha), strict=True):
        assert (1 - alpha <= 1 + penalty <= 1) if rollout.correct == 1 else penalty == 0


@given(groups, st.floats(0.01, 0.99))
def test_longer_right_answers_lose_more(found, alpha):
    penalties = length_penalty(found, alpha, floor=StdFloor())
    right = sorted((r.length, p) for r, p in zip(found, penalties, strict=True) if r.is_right)
    assert all(a[1] >= b[1] for a, b in pairwise(right))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 500)), min_size=2, max_size=8), st.integers(1, 9))
def test_without_a_floor_neither_scale_nor_offset_of_lengths_matters(pairs, factor):
    plain = length_penalty(group(*pairs), 0.2)
    moved = length_penalty(group(*[(c, factor * n + 100) for c, n in pairs]), 0.2)
    assert moved == pytest.approx(plain, abs=1e-9)


@given(st.lists(groups, min_size=1, max_size=8))
def test_lambda_0_adds_nothing_and_lambda_1_penalises_wherever_an_answer_is_right(batch):
    none, every = grpo_lambda(batch, top=0), grpo_lambda(batch, top=1)
    assert none.added == [[0.0] * len(found) for found in batch] and not any(none.selected)
    assert every.added == [length_penalty(found, 0.2) for found in batch]
    assert every.selected == [bool(correct_ratio(found)) for found in batch]


def test_the_top_groups_alone_are_penalised():
    easy, hard = group((1, 100), (1, 300)), group((1, 100), (0, 300))
    shaped = grpo_lambda([hard, easy, hard], top=0.2)
    assert shaped.selected == [False, True, False] and shaped.ratios == [0.5, 1.0, 0.5]
    assert shaped.added == [[0, 0], length_penalty(easy, 0.2), [0, 0]]


def test_kimi_by_hand():
    """Lengths 10 to 30: s is 0.5, 0 and -0.5; a wrong answer never gains."""
    (added,) = kimi([group((1, 10), (0, 10), (1, 20), (1, 30), (0, 30))], weight=2).added
    assert added == [1, 0, 0, -1, -1]
    assert kimi([group((1, 7), (0, 7))]).added == [[0, 0]]
