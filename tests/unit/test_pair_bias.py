"""What length alone tells of pairs, on pairs whose lengths are known."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from lengthwise.records import Message
from posttrain.pair_bias import PairLengths, bias_of_lengths, length_bias
from posttrain.pair_data import TokenPair
from posttrain.pair_formats import PairRow
from posttrain.pair_margins import margins_by_gap, quantile_groups


def lengths(*rows, scores=None):
    gaps = scores or [None] * len(rows)
    return [
        PairLengths(chosen=c, rejected=r, cluster=i, score_gap=s)
        for i, ((c, r), s) in enumerate(zip(rows, gaps, strict=True))
    ]


def test_counts_means_and_ties():
    bias = bias_of_lengths(lengths((30, 10), (20, 20), (10, 30), (40, 20), (50, 10))).overall
    assert (bias.n, bias.num_ties, bias.smallest_gap, bias.largest_gap) == (5, 1, 0, 40)
    assert (bias.chosen_mean, bias.chosen_median, bias.rejected_mean, bias.rejected_median) == (
        30,
        30,
        18,
        20,
    )
    # gaps 20 0 -20 20 40: mean 12, variance 2080 / 4 = 520, t(4, .975) = 2.776445
    half = 2.776445 * (520 / 5) ** 0.5
    assert (bias.gap.estimate, bias.gap.low, bias.gap.high) == pytest.approx((12, 12 - half, 12 + half))
    assert bias.relative_gap.estimate == pytest.approx((1 + 0 - 1 + 2 / 3 + 4 / 3) / 5)
    share = bias.longer_is_chosen
    assert share is not None and share.low is not None and share.high is not None
    # Wilson, 3 of 4
    assert (share.n, share.estimate, round(share.low, 3), round(share.high, 3)) == (4, 0.75, 0.301, 0.954)
    assert bias.longer_wins_accuracy.estimate == pytest.approx((1 + 0.5 + 0 + 1 + 1) / 5)
    assert bias.score_correlation is None


def test_always_longer_is_warned_about():
    bias = bias_of_lengths(lengths(*((100 + 10 * i, 50) for i in range(20))))
    share = bias.overall.longer_is_chosen
    assert share is not None and share.estimate == 1.0 and share.low is not None and share.low > 0.8
    text = "\n".join(bias.lines())
    assert "longer answer is chosen in 100.0% (83.9% to 100.0%) of 20 pairs, 0 have equal lengths" in text
    assert (
        "WARNING     the longer answer is mostly the chosen one: training may teach to write at length"
        in text
    )
    assert "loss_type: sigmoid_norm" in text and "ld_alpha" in text


def test_never_longer_is_warned_about():
    bias = bias_of_lengths(lengths(*((50, 100 + 10 * i) for i in range(20))))
    assert bias.overall.longer_wins_accuracy.estimate == 0
    assert "the shorter answer is mostly the chosen one: training may teach to write briefly" in "\n".join(
        bias.lines()
    )


def test_length_unrelated_to_the_choice_is_not_warned_about():
    stream = random.Random(1)
    bias = bias_of_lengths(lengths(*((stream.randint(50, 500), stream.randint(50, 500)) for _ in range(300))))
    share = bias.overall.longer_is_chosen
    assert share is not None and share.low is not None and share.high is not None
    assert share.low < 0.5 < share.high
    assert bias.overall.gap.low is not None and bias.overall.gap.high is not None
    assert bias.overall.gap.low < 0 < bias.overall.gap.high
    assert len(list(bias.lines())) == 2


def test_few_pairs_are_no_reason_to_warn():
    assert not any("WARNING" in line for line in bias_of_lengths(lengths((9, 5), (8, 5), (7, 5))).lines())


def test_all_equally_long():
    bias = bias_of_lengths(lengths((9, 9), (7, 7)))
    assert bias.overall.longer_is_chosen is None and bias.overall.longer_wins_accuracy.estimate == 0.5
    assert list(bias.lines())[1] == "length bias none: the answers of all 2 pairs are equally long"


def test_repeated_prompts_do_not_narrow_the_interval():
    once = bias_of_lengths(lengths((30, 10), (10, 30), (25, 15), (40, 20), (50, 10)))
    pairs = lengths((30, 10), (10, 30), (25, 15), (40, 20), (50, 10))
    twice = bias_of_lengths([*pairs, *pairs]).overall
    assert (once.overall.gap.low, once.overall.gap.high) == pytest.approx((twice.gap.low, twice.gap.high))
    assert once.overall.longer_is_chosen is not None and twice.longer_is_chosen is not None
    assert twice.longer_is_chosen.low is not None and once.overall.longer_is_chosen.low is not None
    assert twice.longer_is_chosen.low <= once.overall.longer_is_chosen.low + 1e-9


def test_scores_follow_length():
    rows = [(10 + i, 10) for i in range(5)]
    found = bias_of_lengths(lengths(*rows, scores=[0.1, 0.2, 0.5, 0.4, 0.3])).overall.score_correlation
    assert found is not None and (found.n, round(found.estimate, 3)) == (5, 0.6)
    some = bias_of_lengths(lengths(*rows, scores=[0.1, None, 0.5, None, 0.3]))
    assert some.overall.score_correlation is not None and some.overall.score_correlation.n == 3
    assert "rank correlation of length gap with score gap 0.50, 3 prompts" in "\n".join(some.lines())
    assert bias_of_lengths(lengths(*rows, scores=[1.0] * 5)).overall.score_correlation is None


def test_bias_by_size_of_the_gap():
    """Near pairs are chosen by quality, far ones by length."""
    near = [(101, 100), (100, 101), (102, 100), (100, 102)]
    far = [(150, 100), (160, 100), (170, 100), (100, 180)]
    first, second = bias_of_lengths(lengths(*near, *far), num_quantiles=2).by_gap
    assert (first.smallest_gap, first.largest_gap, second.smallest_gap, second.largest_gap) == (1, 2, 50, 80)
    assert first.longer_is_chosen is not None and second.longer_is_chosen is not None
    assert (first.longer_is_chosen.estimate, second.longer_is_chosen.estimate) == (0.5, 0.75)


def test_the_report_is_json():
    bias = bias_of_lengths(lengths((30, 10), (20, 20), scores=[1.0, 2.0])).to_dict()
    assert json.loads(json.dumps(bias, allow_nan=False)) == bias
    assert bias["overall"]["gap"]["estimate"] == 10.0 and len(bias["by_gap"]) == 2


def test_token_pairs_are_measured_as_they_are_trained():
    def token_pair(prompt, chosen, rejected, score):
        turn = (Message(role="assistant", content="x"),)
        row = PairRow(
            id="i",
            source="s",
            line=1,
            prompt=(),
            chosen=turn,
            rejected=turn,
            chosen_score=score,
            rejected_score=1.0,
        )
        return TokenPair(row, np.arange(prompt), np.arange(chosen), np.arange(rejected))

    bias = length_bias(
        [token_pair(3, 5, 2, 4.0), token_pair(4, 2, 3, 2.0), token_pair(4, 4, 3, None)]
    ).overall
    assert (bias.n, bias.gap.estimate, bias.chosen_mean) == (3, 1.0, pytest.approx(11 / 3))
    assert bias.score_correlation is not None and (
        bias.score_correlation.n,
        bias.score_correlation.estimate,
    ) == (2, 1)


def test_no_pairs():
    with pytest.raises(ValueError, match="no pairs"):
        bias_of_lengths([])


@pytest.mark.parametrize(
    ("values", "num", "expected"),
    [
        ([3, 1, 2, 4], 2, [[1, 2], [0, 3]]),
        ([1, 1, 1, 1, 2], 4, [[0, 1, 2, 3], [4]]),
        ([7, 7], 4, [[0, 1]]),
        ([2, 1], 4, [[1], [0]]),
        ([], 4, []),
    ],
)
def test_quantiles_do_not_part_equal_values(values, num, expected):
    assert quantile_groups(values, num) == expected


def test_margins_by_gap():
    gaps = [-30, -20, -10, 5, 15, 25]
    low, high = margins_by_gap([-1.0, -2.0, 0.0, 2.0, 3.0, 4.0], gaps, num_quantiles=2)
    assert (low.smallest_gap, low.largest_gap, high.smallest_gap, high.largest_gap) == (-30, -10, 5, 25)
    # mean 3, standard deviation 1, t(2, .975) = 4.302653
    half = 4.302653 / 3**0.5
    assert (high.margin.estimate, high.margin.low, high.margin.high) == pytest.approx((3, 3 - half, 3 + half))
    assert (low.margin.estimate, low.accuracy.estimate, high.accuracy.estimate) == (-1.0, 0.0, 1.0)
    assert high.to_dict()["accuracy"]["n"] == 3


def test_margins_need_a_gap_each():
    with pytest.raises(ValueError, match="2 margins, 1 gaps"):
        margins_by_gap([1.0, 2.0], [3])
    with pytest.raises(ValueError, match="no margins"):
        margins_by_gap([], [])
