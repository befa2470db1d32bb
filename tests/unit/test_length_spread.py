"""Spread of the lengths of several replies, and the rule for those that ran away."""

from __future__ import annotations

import math

import pytest

from lengthwise.length_spread import is_degenerate, length_spread, sanitised


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
