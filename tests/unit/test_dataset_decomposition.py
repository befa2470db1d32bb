from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from posttrain.curricula.bucket_schedule import BucketSchedule
from posttrain.curricula.dataset_decomposition import decompose, over_long_chances, split_length
from posttrain.curricula.length_odds import bucket_weights, draw_order, emptying_shares, odds, shares_between


class TestDecompose:
    def test_front_to_back_the_largest_first(self):
        found = decompose([11, 3, 0, 4], min_log2=1, max_log2=3)
        assert found.spans.tolist() == [[0, 0, 8], [0, 8, 10], [1, 0, 2], [3, 0, 4]]
        assert found.left_out.tolist() == [[0, 10, 11], [1, 2, 3]]
        assert found.log2.tolist() == [3, 1, 1, 2]
        assert {power: rows.tolist() for power, rows in found.buckets.items()} == {1: [1, 2], 2: [3], 3: [0]}
        assert (found.num_tokens, found.num_tokens_left_out, found.num_documents_left_out) == (16, 2, 0)

    def test_a_document_below_the_smallest_power_is_left_out_and_counted(self):
        found = decompose([200, 300], min_log2=8)
        assert found.left_out.tolist() == [[0, 0, 200], [1, 256, 300]]
        assert (found.num_documents_left_out, found.num_tokens_left_out) == (1, 244)

    def test_no_documents(self):
        found = decompose([])
        assert found.spans.shape == found.left_out.shape == (0, 3) and found.buckets == {}

    def test_longest_takes_the_largest_power_of_an_over_long_document(self):
        assert split_length(21, 0, 2) == [2, 2, 2, 2, 2, 0]

    def test_randomized_gives_each_bucket_as_many_tokens_in_the_mean(self):
        assert (over_long_chances(3, 6) * 2.0 ** np.arange(3, 7)).tolist() == pytest.approx([64 / 15] * 4)
        found = decompose([400_000], min_log2=3, max_log2=6)
        tokens = [len(rows) << power for power, rows in found.buckets.items()]
        assert tokens == pytest.approx([100_000] * 4, rel=0.06)

    def test_a_documents_cuts_do_not_depend_on_the_others(self):
        one = decompose([5, 5000, 9], min_log2=2, max_log2=5, seed=3)
        other = decompose([7000, 5000], min_log2=2, max_log2=5, seed=3)
        assert [row for row in one.spans.tolist() if row[0] == 1] == [
            row for row in other.spans.tolist() if row[0] == 1
        ]
        changed = decompose([5, 5000, 9], min_log2=2, max_log2=5, seed=4)
        assert changed.spans.tolist() != one.spans.tolist()

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"min_log2": -1}, "min_log2 is -1"),
            ({"min_log2": 9, "max_log2": 8}, "max_log2 is 8"),
            ({"over_long": "drop"}, "'drop': choose one of randomized, longest"),
        ],
    )
    def test_refused(self, options, words):
        with pytest.raises(ValueError, match=words):
            decompose([5], **options)


class TestOdds:
    def test_natural_has_none(self):
        assert odds("natural", 3) is None
        assert bucket_weights("natural", [3, 4], "paper") is None

    def test_a_bucket_without_batches_keeps_its_rank_and_has_no_weight(self):
        paper = bucket_weights("grow_p2", [5, 0, 7], "paper")
        assert paper is not None and paper.tolist() == [4, 0, 1]
        released = bucket_weights("shrink_linear", [5, 0, 7], "released")
        assert released is not None and released.tolist() == [5, 0, 21]

    def test_unknown_names_are_refused(self):
        with pytest.raises(ValueError, match="'grow': choose one of natural, uniform"):
            odds("grow", 3)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="'raw': choose one of paper, released"):
            bucket_weights("uniform", [1], "raw")  # type: ignore[arg-type]

    def test_a_shuffle_empties_all_at_the_end(self):
        assert emptying_shares([5, 0, 15], None).tolist() == [1, 0, 1]
        assert shares_between([5, 0, 15], None, 0.2, 0.7).tolist() == pytest.approx([0.25, 0, 0.75])

    def test_moments_out_of_order_are_refused(self):
        with pytest.raises(ValueError, match="start is 0.5 and end is 0.5"):
            shares_between([1], None, 0.5, 0.5)

    @pytest.mark.parametrize("weighting", ["paper", "released"])
    def test_many_draws_come_close_to_the_limit(self, weighting):
        batches = [3000, 3000, 2000, 1000, 700, 300]
        weights = bucket_weights("grow_p2", batches, weighting)
        order = np.array(draw_order(batches, weights, np.random.default_rng(0)))
        last = [(np.flatnonzero(order == rank)[-1] + 1) / len(order) for rank in range(6)]
        assert last == pytest.approx(emptying_shares(batches, weights).tolist(), abs=0.03)
        part = np.bincount(order[4000:6000], minlength=6) / 2000
        assert part.tolist() == pytest.approx(shares_between(batches, weights, 0.4, 0.6).tolist(), abs=0.03)

    def test_a_small_bucket_with_high_odds_empties_at_once_by_paper_only(self):
        batches = [10, 1000]
        paper = emptying_shares(batches, bucket_weights("grow_p2", batches, "paper"))
        released = emptying_shares(batches, bucket_weights("grow_p2", batches, "released"))
        assert paper[0] == pytest.approx(15 / 1010) and released[0] == pytest.approx(510 / 1010)


def schedule(**options):
    log2 = [3] * 8 + [2] * 16 + [1] * 40
    return BucketSchedule(**{"log2": log2, "tokens_per_step": 16, "cycles": 2, **options})


class TestBucketSchedule:
    def test_counts(self):
        """Steps of 2, 4 and 8 sequences: 40 sequences of two tokens are 5 steps, of which two cycles have 4."""
        found = schedule()
        assert found.steps_per_cycle == {1: 2, 2: 2, 3: 2}
        assert (found.num_steps, found.num_left_out, found.num_tokens_left_out) == (
            12,
            {1: 8, 2: 0, 3: 0},
            16,
        )

    @pytest.mark.parametrize("curriculum", ["natural", "grow_p2", "shrink_linear"])
    def test_the_rest_after_any_step_is_what_a_resumed_run_has(self, curriculum):
        """A new object, as after a restart, and a number of steps in the middle of the second cycle."""
        whole = schedule(curriculum=curriculum).steps(seed=7, epoch=3)
        seen = whole[:8]
        assert seen[-1].cycle == whole[8].cycle == 1
        resumed = schedule(curriculum=curriculum).steps(seed=7, epoch=3)[len(seen) :]
        assert seen + resumed == whole

    def test_seeds_and_epochs_have_other_orders_and_leave_out_others(self):
        found = schedule()
        orders = [found.steps(*key) for key in ((0, 0), (0, 1), (1, 0))]
        assert orders[0] != orders[1] != orders[2] != orders[0]
        assert len({tuple(found.left_out(0, epoch)) for epoch in range(5)}) == 5

    def test_a_near_strict_curriculum_goes_from_short_to_long_in_each_cycle(self):
        steps = schedule(curriculum="grow_p100", longest_first=False).steps(0, 0)
        assert [step.log2 for step in steps] == [1, 1, 2, 2, 3, 3] * 2
        steps = schedule(curriculum="shrink_p100").steps(0, 0)
        assert [step.log2 for step in steps] == [3, 3, 2, 2, 1, 1] * 2

    def test_the_longest_bucket_comes_first_in_epoch_0_only(self):
        found = schedule(curriculum="grow_p100")
        assert [step.log2 for step in found.steps(0, 0)] == [3, 1, 1, 2, 2, 3, 1, 1, 2, 2, 3, 3]
        assert [step.log2 for step in found.steps(0, 1)] == [1, 1, 2, 2, 3, 3] * 2

    def test_small_sources_are_trained_on_too(self):
        """100 sources of 7 sequences, 8 cycles: no source has one for each cycle, all together have 87."""
        sources = [str(i // 7) for i in range(700)]
        found = schedule(log2=[3] * 700, tokens_per_step=8, cycles=8, sources=sources)
        assert (found.num_steps, found.num_left_out) == (696, {3: 4})
        seen = [n for step in found.steps(0, 0) for part in step.sequences for n in part]
        assert len(set(seen)) == 696
        ever_left_out = {n for epoch in range(50) for n in found.left_out(0, epoch)}
        assert len(ever_left_out) > 100

    def test_sources_are_the_same_in_each_cycle(self):
        """Without them, the 6 sequences of the second source fall where they fall."""
        sources = ["x"] * 10 + ["y"] * 6
        options = {"log2": [1] * 16, "tokens_per_step": 4, "cycles": 2, "curriculum": "natural"}

        def mixes(seed, **more):
            steps = BucketSchedule(**options, **more).steps(seed, 0)
            counted = Counter(
                (step.cycle, sources[number]) for step in steps for part in step.sequences for number in part
            )
            return [counted[0, "y"], counted[1, "y"]]

        assert all(mixes(seed, sources=sources) == [3, 3] for seed in range(9))
        assert any(mixes(seed) != [3, 3] for seed in range(9))

    def test_quotas_limit_a_bucket(self):
        found = schedule(quotas={1: 70, 3: 64})
        assert found.steps_per_cycle == {1: 2, 2: 0, 3: 2}
        assert found.num_left_out == {1: 8, 2: 16, 3: 0}
        assert {step.log2 for step in found.steps(0, 0)} == {1, 3}

    def test_takes_the_powers_of_a_decomposition(self):
        found = decompose([40, 40, 23], min_log2=3, max_log2=5)
        steps = BucketSchedule(log2=found.log2, tokens_per_step=32, cycles=1).steps(0, 0)
        assert sorted(step.log2 for step in steps) == [5, 5]
        assert steps[0].sequences in ([[0]], [[2]])

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"log2": []}, "0 sequences, 2 cycles and 1 processes"),
            ({"cycles": 0}, "0 cycles"),
            ({"sources": ["x"]}, "1 labels for 64 sequences"),
            (
                {"tokens_per_step": 4},
                r"tokens_per_step is 4, .*2\^3 = 8 tokens .*to 8, or .* max_log2 of 2 at",
            ),
            (
                {"num_processes": 4},
                r"tokens_per_step is 16, .* 4 processes .* raise tokens_per_step to 32, or .* of 2",
            ),
            ({"num_processes": 3}, r"raise tokens_per_step to 24$"),
            ({"tokens_per_step": 0}, r"tokens_per_step is 0, .* to 8$"),
            ({"quotas": {1: 81}}, r"81 tokens for sequences of 2\^1, of which there are 80"),
            ({"quotas": {5: 1}}, "of which there are 0"),
            ({"quotas": {}}, "no bucket has a step of 16 tokens for each of 2 cycles"),
            ({"cycles": 40}, "no bucket has a step of 16 tokens for each of 40 cycles"),
            ({"curriculum": "grow"}, "odds is 'grow'"),
            ({"weighting": "raw"}, "weighting is 'raw'"),
        ],
    )
    def test_refused(self, options, words):
        with pytest.raises(ValueError, match=words):
            schedule(**options)
