from __future__ import annotations

import math

import pytest

from lengthwise.statistics import (
    holm,
    mcnemar_p_value,
    mean_interval,
    median_interval,
    paired_difference,
    wilson_interval,
)


def test_mean_interval_is_students() -> None:
    # s = sqrt(5/3), s/sqrt(4) = 0.6455, t(0.975, 3) = 3.1824
    interval = mean_interval([1, 2, 3, 4])
    assert interval.estimate == 2.5
    assert interval.stderr == pytest.approx(math.sqrt(5 / 3) / 2)
    assert (interval.low, interval.high) == pytest.approx((2.5 - 2.05426, 2.5 + 2.05426), abs=1e-4)
    assert (interval.n, interval.method) == (4, "t")


def test_one_value_has_no_bounds() -> None:
    for interval in (mean_interval([7.0]), median_interval([7.0], seed=0)):
        assert (interval.estimate, interval.stderr, interval.low, interval.high) == (7.0, None, None, None)


def test_equal_values_have_no_width() -> None:
    interval = mean_interval([3.0] * 5)
    assert (interval.low, interval.stderr, interval.high) == (3.0, 0.0, 3.0)


def test_clusters_of_one_change_nothing() -> None:
    plain, clustered = mean_interval([1, 2, 5]), mean_interval([1, 2, 5], clusters=["a", "b", "c"])
    assert clustered.stderr == pytest.approx(plain.stderr)
    assert clustered.high == pytest.approx(plain.high)


def test_copies_in_a_cluster_add_no_certainty() -> None:
    once = mean_interval([1, 2, 5])
    thrice = mean_interval([1, 1, 1, 2, 2, 2, 5, 5, 5], clusters=list("aaabbbccc"))
    assert thrice.stderr == pytest.approx(once.stderr)
    assert thrice.n == 9
    assert mean_interval([1, 2], clusters=["a", "a"]).stderr is None


def test_clusters_must_fit() -> None:
    with pytest.raises(ValueError, match="1 entries for 2 values"):
        mean_interval([1, 2], clusters=["a"])


def test_wilson_interval() -> None:
    # 8 of 10: (0.4902, 0.9433), the textbook example.
    interval = wilson_interval(8, 10)
    assert interval.estimate == 0.8
    assert (interval.low, interval.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert interval.stderr == pytest.approx(math.sqrt(0.016))
    assert wilson_interval(0, 5).low == 0
    assert wilson_interval(5, 5).high == 1


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_nonsense(successes: int, n: int) -> None:
    with pytest.raises(ValueError):
        wilson_interval(successes, n)


def test_median_interval_is_seeded() -> None:
    values = [float(x) for x in range(101)]
    first, again, other = (median_interval(values, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.estimate == 50
    assert first.low is not None and first.high is not None and 30 < first.low < 50 < first.high < 70
    assert other.method != first.method


def test_paired_difference_uses_the_pairs() -> None:
    a, b = [10.0, 20.0, 30.0], [9.0, 18.5, 29.0]
    interval = paired_difference(a, b)
    assert interval.estimate == pytest.approx(3.5 / 3)
    assert interval.low is not None and interval.low > 0
    assert interval.method == "paired t"
    with pytest.raises(ValueError, match="a has 3 values and b has 2"):
        paired_difference(a, b[:2])


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_holes_are_refused_by_place(bad: float) -> None:
    with pytest.raises(ValueError, match=r"values\[1\]"):
        mean_interval([1.0, bad])
    with pytest.raises(ValueError, match=r"values\[1\]"):
        median_interval([1.0, bad], seed=0)
    with pytest.raises(ValueError, match=r"b\[0\]"):
        paired_difference([1.0], [bad])


def test_empty_is_refused() -> None:
    with pytest.raises(ValueError, match="values is empty"):
        mean_interval([])


def test_confidence_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"0\.95 is usual"):
        mean_interval([1, 2], confidence=95)


def test_mcnemar() -> None:
    # Five items won by one side, none by the other: 2 / 2^5.
    assert mcnemar_p_value([True] * 5, [False] * 5) == pytest.approx(0.0625)
    assert mcnemar_p_value([True, False], [True, False]) == 1.0
    with pytest.raises(ValueError, match="a has 1 values and b has 0"):
        mcnemar_p_value([True], [])


def test_to_dict() -> None:
    assert mean_interval([2.0]).to_dict() == {
        "estimate": 2.0,
        "stderr": None,
        "low": None,
        "high": None,
        "n": 1,
        "method": "t",
    }


def test_paired_t_is_the_textbook_test() -> None:
    # Differences 1, 2, 1: mean 4/3, s/sqrt(3) = 1/3, t = 4 with 2 degrees of freedom.
    found = paired_difference([3, 5, 4], [2, 3, 3])
    assert (found.stderr, found.p_value) == pytest.approx((1 / 3, 0.0571910), abs=1e-6)
    assert (found.low, found.high) == pytest.approx((4 / 3 - 1.43422, 4 / 3 + 1.43422), abs=1e-4)


def test_the_interval_of_a_paired_t_holds_zero_exactly_if_p_is_above_5_percent() -> None:
    for shift in (0.5, 1.0, 1.5, 2.0, 3.0):
        found = paired_difference([shift + v for v in (1, 2, 0, 3)], [2, 0, 1, 2])
        assert found.low is not None and found.high is not None and found.p_value is not None
        assert (found.low <= 0 <= found.high) == (found.p_value >= 0.05)


def test_copies_of_a_prompt_add_no_certainty_to_a_difference() -> None:
    once = paired_difference([2.0, 5.0, 4.0], [1.0, 1.0, 2.0])
    twice = paired_difference(
        [2.0, 2.0, 5.0, 5.0, 4.0, 4.0], [1.0, 1.0, 1.0, 1.0, 2.0, 2.0], clusters=list("aabbcc")
    )
    assert twice.p_value == pytest.approx(once.p_value)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    assert paired_difference([1.0, 2.0], [0.0, 0.0], clusters=["a", "a"]).p_value is None


def test_yes_and_no_get_the_exact_p_value() -> None:
    found = paired_difference([1.0] * 6, [0.0] * 5 + [1.0])
    assert found.p_value == 2 / 2**5
    assert found.method.endswith("exact McNemar")


def test_no_difference_at_all_has_p_1_and_a_constant_one_p_0() -> None:
    assert paired_difference([1.5, 2.5], [1.5, 2.5]).p_value == 1.0
    assert paired_difference([1.5, 2.5], [1.0, 2.0]).p_value == 0.0


def test_medians_are_compared_by_resampling_pairs() -> None:
    a, b = [float(v) for v in range(20)], [v - 3.0 for v in range(20)]
    found = paired_difference(a, b, summary="median", num_resamples=199)
    # Every draw of the pairs has the same difference of medians.
    assert (found.estimate, found.low, found.high) == (3.0, 3.0, 3.0)
    assert found.p_value == 2 / 200
    noisy = [9.0, 1.0, 4.0, 7.0, 2.0]
    again = [paired_difference(noisy, noisy[::-1], summary="median", num_resamples=199) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0].p_value == 1.0


def test_medians_resample_whole_clusters() -> None:
    a, b = [1.0, 2.0, 9.0, 8.0], [0.0, 1.0, 9.0, 8.0]
    found = paired_difference(a, b, clusters=["x", "x", "y", "y"], summary="median", num_resamples=99)
    # Draws: only x (difference 1), only y (0), or both (medians 5 and 4.5).
    assert (found.estimate, found.low, found.high) == (0.5, 0.0, 1.0)
    with pytest.raises(ValueError, match="3 entries for 4 values"):
        paired_difference(a, b, clusters=[1, 2, 3], summary="median")


def test_holm_multiplies_by_what_is_left() -> None:
    # Sorted 0.01, 0.02, 0.04 times 3, 2, 1; never falling.
    assert holm([0.04, 0.01, None, 0.02]) == pytest.approx([0.04, 0.03, None, 0.04])
    assert holm([None]) == [None]
    assert holm([]) == []
