"""The published odds, weights, chances and sizes of length curricula, and what the odds come to over a cycle.

Sources: Dataset Decomposition, arXiv 2405.13226, sections 3.2 and 3.3, and its released code and README (the
chances of over-long documents; the run of 8 cycles on DCLM-Baseline); Cyclical Curriculum Learning, arXiv
2202.05531, and its released code (sp, ep and alpha). The shares of a cycle follow from Algorithm 1 of the former
and were worked out apart from this code.
"""

from __future__ import annotations

import numpy as np
import pytest

from posttrain.curricula.bucket_schedule import BucketSchedule
from posttrain.curricula.cyclical_curriculum import size_schedule
from posttrain.curricula.dataset_decomposition import over_long_chances, split_length
from posttrain.curricula.length_odds import bucket_weights, emptying_shares, odds, shares_between

EQUAL = [1] * 6


class TestOdds:
    """Six buckets of 256 to 8192 tokens."""

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("uniform", [1, 1, 1, 1, 1, 1]),
            ("grow_linear", [6, 5, 4, 3, 2, 1]),
            ("grow_p2", [32, 16, 8, 4, 2, 1]),
            ("grow_p100", [1e10, 1e8, 1e6, 1e4, 1e2, 1]),
            ("shrink_linear", [1, 2, 3, 4, 5, 6]),
            ("shrink_p2", [1, 2, 4, 8, 16, 32]),
            ("shrink_p100", [1, 1e2, 1e4, 1e6, 1e8, 1e10]),
        ],
    )
    def test_by_rank(self, name, expected):
        found = odds(name, 6)
        assert found is not None and found.tolist() == expected

    def test_weights_of_the_released_run(self):
        """The README prints sequences for each cycle, batches of 64 x 8192 tokens and these weights."""
        sequences = [1507328, 1277952, 794624, 335872, 137216, 61440]
        batches = [number // (64 << (5 - rank)) for rank, number in enumerate(sequences)]
        assert batches == [16 * number for number in (46, 78, 97, 82, 67, 60)]
        found = bucket_weights("grow_p2", batches, "released")
        assert found is not None and (found / 16).tolist() == [1472, 1248, 776, 328, 134, 60]


class TestShareOfACycleAtWhichEachBucketIsEmpty:
    @pytest.mark.parametrize(
        ("name", "expected", "tolerance"),
        [
            ("grow_linear", [0.583, 0.667, 0.750, 0.833, 0.917, 1], 0.0005),
            ("grow_p2", [0.328, 0.490, 0.646, 0.792, 0.917, 1], 0.0005),
            ("grow_p100", [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1], 0.002),
            ("uniform", [1, 1, 1, 1, 1, 1], 1e-12),
            ("shrink_p2", [1, 0.917, 0.792, 0.646, 0.490, 0.328], 0.0005),
        ],
    )
    def test_of_equal_buckets(self, name, expected, tolerance):
        found = emptying_shares(EQUAL, odds(name, 6))
        assert found.tolist() == pytest.approx(expected, abs=tolerance)

    def test_of_unequal_buckets(self):
        """The fifth is empty after the sixth: it has more batches for its odds."""
        found = emptying_shares([0.30, 0.30, 0.20, 0.10, 0.07, 0.03], odds("grow_p2", 6))
        assert found.tolist() == pytest.approx([0.59, 0.88, 0.98, 0.98, 1, 0.99], abs=0.005)


@pytest.mark.parametrize(
    ("name", "first", "last"), [("grow_p2", 1 / 63, 2 / 3), ("grow_linear", 1 / 21, 2 / 3)]
)
def test_the_longest_bucket_in_the_first_and_the_last_sixth(name, first, last):
    weights = odds(name, 6)
    assert shares_between(EQUAL, weights, 0, 1 / 6)[-1] == pytest.approx(first)
    assert shares_between(EQUAL, weights, 5 / 6, 1)[-1] == pytest.approx(last)


class TestSplitting:
    @pytest.mark.parametrize(
        ("length", "powers"),
        [(255, []), (256, [8]), (8192, [13]), (16383, [13, 12, 11, 10, 9, 8]), (16384, [13, 13])],
    )
    def test_between_the_released_powers(self, length, powers):
        assert split_length(length, 8, 13) == powers

    def test_chances_of_the_released_powers(self):
        assert (over_long_chances(8, 13) * 63).tolist() == pytest.approx([32, 16, 8, 4, 2, 1])


def test_sequences_of_a_step_in_the_released_run():
    """64 x 8192 tokens: multipliers of 32 to 1 for sequences of 256 to 8192 tokens."""
    schedule = BucketSchedule(log2=[13] * 64, tokens_per_step=64 * 8192, cycles=1)
    expected = [64 * 32, 64 * 16, 64 * 8, 64 * 4, 64 * 2, 64]
    assert [schedule.sequences_per_step(power) for power in range(8, 14)] == expected


def test_the_default_sizes_of_the_cyclical_curriculum():
    found = size_schedule(30, start=0.25, end=1.0, alpha=0.5)
    assert found == ([0.25, 0.5, 1, 0.5] * 14)[:54]
    assert sum(found) == 30 and np.mean(found[:52]) == 0.5625
