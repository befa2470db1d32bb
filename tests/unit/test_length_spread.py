"""Spread of the lengths of several replies, and the rule for those that ran away."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.length_spread import (
    is_degenerate,
    length_spread,
    runaways,
    sanitised,
    within_prompt_frac,
)


def test_one_size_has_no_spread() -> None:
    spread = length_spread([7])
    assert (spread.mean, spread.std, spread.cv, spread.iqr, spread.p99) == (7, 0, 0, 0, 7)


def test_empty_replies_have_no_coefficient() -> None:
    assert length_spread([0, 0]).cv is None


def test_the_order_does_not_matter() -> None:
    sizes = [300, 100, 200, 1000]
    assert length_spread(sizes) == length_spread(sorted(sizes))
    assert length_spread(sizes).std == pytest.approx(math.sqrt(125_000))


@pytest.mark.parametrize(("sizes", "message"), [([], "no sizes"), ([5, -1], "must not be negative, not -1")])
def test_wrong_sizes(sizes: list[int], message: str) -> None:
    for function in (length_spread, is_degenerate, sanitised):
        with pytest.raises(ValueError, match=message):
            function(sizes)


def test_a_cap_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="cap must be at least 2, not 1"):
        is_degenerate([1], cap=1)


def test_the_rules_scale_with_the_cap() -> None:
    assert is_degenerate([20] * 9 + [1499], cap=1500)
    assert is_degenerate([20] * 9 + [850], cap=1500)
    assert not is_degenerate([20] * 9 + [849], cap=1500)


SIZES = st.lists(st.integers(0, 20_000), min_size=1, max_size=12)


@given(SIZES)
def test_what_ran_away_is_what_sanitising_takes_out(sizes: list[int]) -> None:
    flags = runaways(sizes)
    assert [size for size, away in zip(sizes, flags, strict=True) if not away] == sanitised(sizes)
    assert any(flags) == is_degenerate(sizes)


class TestWithinPromptFrac:
    def test_by_hand(self) -> None:
        # Variances 20,000 and 0: w 10,000. Means 200 and 600: 80,000, less (10,000 + 0) / 2. w / (w + 75,000).
        found = within_prompt_frac([[100, 300], [600, 600]])
        assert found is not None and found.n == 2
        assert found.estimate == pytest.approx(10_000 / 85_000)

    def test_the_prompt_decides_all_or_nothing(self) -> None:
        all_of_it = within_prompt_frac([[5, 5], [9, 9], [7, 7]])
        nothing = within_prompt_frac([[5, 9], [9, 5], [5, 9]])
        assert all_of_it is not None and nothing is not None
        assert (all_of_it.estimate, nothing.estimate) == (0.0, 1.0)

    def test_it_does_not_hang_on_the_number_of_replies(self) -> None:
        import numpy as np

        # Prompts spread with std 100, replies with 100: half of the variance is within, however many replies.
        stream = np.random.default_rng(0)
        for num_replies in (2, 10):
            means = 1000 + 100 * stream.standard_normal((4000, 1))
            sizes = (means + 100 * stream.standard_normal((4000, num_replies))).round().astype(int)
            found = within_prompt_frac(sizes.tolist(), clusters=[0] * 4000)
            assert found is not None and found.estimate == pytest.approx(0.5, abs=0.03)

    def test_the_interval_holds_the_estimate(self) -> None:
        found = within_prompt_frac([[100 + i * i, 150 + 7 * i, 90 + 3 * i] for i in range(20)])
        assert found is not None and found.low is not None and found.high is not None
        assert 0 <= found.low <= found.estimate <= found.high <= 1

    @pytest.mark.parametrize("replies", [[], [[1, 2]], [[4, 4], [4, 4]]])
    def test_where_there_is_none(self, replies: list[list[int]]) -> None:
        assert within_prompt_frac(replies) is None

    def test_a_single_reply_is_refused(self) -> None:
        with pytest.raises(ValueError, match="one reply only"):
            within_prompt_frac([[1, 2], [3]])
