from __future__ import annotations

import math
from typing import Any

import pytest

from lengthwise.bootstrap_intervals import median_interval
from lengthwise.paired import holm, least_p_value, mcnemar_p_value, paired_difference
from lengthwise.statistics import mean_interval, wilson_interval
from lengthwise.summaries import summary_interval


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


@pytest.mark.parametrize("value", [0.0, 3.0, 0.1])
def test_equal_values_have_no_interval(value: float) -> None:
    for interval in (mean_interval([value] * 5), median_interval([value] * 5, seed=0)):
        assert interval.estimate == pytest.approx(value)
        assert (interval.low, interval.stderr, interval.high) == (None, 0.0, None)


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


def test_a_median_resamples_whole_clusters() -> None:
    values, clusters = [1.0, 2.0, 5.0, 7.0, 8.0], list("aabcd")
    alone = median_interval(values, seed=0, clusters=list("abcde"))
    assert alone == median_interval(values, seed=0)
    assert median_interval(values, seed=0, clusters=clusters).method.endswith(", clustered (4 clusters)")
    copies = median_interval([1.0] * 3 + [9.0] * 3, seed=0, clusters=list("aaabbb"))
    assert (copies.estimate, copies.low, copies.high) == (5.0, 1.0, 9.0)
    assert median_interval(values, seed=0, clusters=["a"] * 5).low is None
    with pytest.raises(ValueError, match="1 entries for 5 values"):
        median_interval(values, seed=0, clusters=["a"])


@pytest.mark.parametrize("summary", ["mean", "proportion", "median"])
def test_replies_to_an_item_are_one_observation(summary: Any) -> None:
    found = summary_interval([("a", "p", 1.0), ("a", "p", 0.0), ("b", "q", 1.0)], summary)
    assert found is not None
    assert (found.estimate, found.n) == (0.75, 2)
    assert summary_interval([], summary) is None


@pytest.mark.parametrize(
    ("summary", "plain", "clustered"),
    [
        ("mean", "t", "t, clustered (3 clusters, 2 degrees of freedom)"),
        ("proportion", "wilson", "wilson, clustered (3 clusters, 2 degrees of freedom)"),
        (
            "median",
            "bootstrap percentile, 10000 resamples, seed 0",
            "bootstrap percentile, 10000 resamples, seed 0, clustered (3 clusters)",
        ),
    ],
)
def test_items_of_a_prompt_are_a_cluster(summary: Any, plain: str, clustered: str) -> None:
    scores = [0.0, 1.0, 1.0, 0.0, 1.0]
    apart = summary_interval([(i, i, score) for i, score in enumerate(scores)], summary)
    shared = summary_interval([(i, i // 2, score) for i, score in enumerate(scores)], summary)
    assert apart is not None and shared is not None
    assert (apart.method, shared.method) == (plain, clustered)
    assert (apart.estimate, shared.estimate, shared.n) == (shared.estimate, apart.estimate, 5)
    same = summary_interval([(i, "p", score) for i, score in enumerate(scores)], summary)
    assert same is not None
    assert (same.stderr, same.low, same.high) == (None, None, None)


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
    # Differences 1, 2, -1, 2, 1, 1: mean 1, s/sqrt(6) = sqrt(0.2), t = 2.23607 with 5 degrees of freedom.
    found = paired_difference([3, 5, 4, 4, 2, 1], [2, 3, 5, 2, 1, 0])
    assert (found.stderr, found.p_value) == pytest.approx((math.sqrt(0.2), 0.0755868), abs=1e-6)
    assert (found.low, found.high) == pytest.approx((1 - 1.14960, 1 + 1.14960), abs=1e-4)


def test_the_interval_of_a_paired_t_holds_zero_exactly_if_p_is_above_5_percent() -> None:
    for shift in (0.5, 1.0, 1.5, 2.0, 3.0):
        found = paired_difference([shift + v for v in (1, 2, 0, 3, 1, 0, 2)], [2, 0, 1, 2, 3, 1, 0])
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


@pytest.mark.parametrize("summary", ["mean", "median"])
def test_a_constant_difference_has_no_interval_and_the_p_of_its_signs(summary: Any) -> None:
    values = [1.5, 2.5, 4.5]
    for shift, p_value in ((0.0, 1.0), (50.0, 0.25), (0.1, 0.25)):
        found = paired_difference([v + shift for v in values], values, summary=summary)
        assert found.estimate == pytest.approx(shift)
        assert (found.stderr, found.low, found.high, found.p_value) == (0.0, None, None, p_value)


@pytest.mark.parametrize("summary", ["mean", "median"])
def test_few_items_never_make_certain(summary: Any) -> None:
    for num_items in (2, 3, 4, 5):
        low = [float(v) for v in range(num_items)]
        found = paired_difference([90.0 + v * v for v in low], low, summary=summary)
        assert found.p_value == least_p_value(num_items) == 2 / 2**num_items
        assert found.num_clusters == num_items
    # Copies of two prompts are two items.
    copies = paired_difference(
        [9.0, 9.0, 8.0, 8.1], [1.0, 1.0, 2.0, 2.0], clusters=list("aabb"), summary=summary
    )
    assert (copies.p_value, copies.num_clusters) == (0.5, 2)


def test_medians_are_compared_by_resampling_pairs() -> None:
    a, b = [float(v) for v in range(20)], [v - 3.0 for v in range(20)]
    found = paired_difference(a, b, summary="median", num_resamples=199)
    # Every draw of the pairs has the same difference of medians.
    assert (found.estimate, found.low, found.high) == (3.0, None, None)
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
