from __future__ import annotations

import pytest

from posttrain.curricula.bucket_schedule import BucketSchedule
from posttrain.curricula.decomposed_order import DecomposedOrder

LOG2 = [3] * 24 + [2] * 48 + [1] * 100


def order(odds="grow_p2", processes=2, accumulation=2, cycles=2) -> DecomposedOrder:
    schedule = BucketSchedule(
        log2=LOG2, tokens_per_step=32, num_processes=processes * accumulation, cycles=cycles, curriculum=odds
    )
    return DecomposedOrder(schedule=schedule, num_processes=processes, accumulation=accumulation)


def test_each_batch_has_the_same_tokens_and_all_of_a_step_are_of_one_bucket():
    found = order()
    passes = found.epoch(0, 0)
    assert (found.max_tokens, found.num_batches, found.steps_per_epoch) == (8, len(passes), len(passes) // 2)
    for start in range(0, len(passes), 2):
        step = [batch for batches in passes[start : start + 2] for batch in batches]
        assert len(step) == 4 and {sum(2 ** LOG2[row] for row in batch) for batch in step} == {8}
        assert len({LOG2[row] for batch in step for row in batch}) == 1


def test_it_is_dealt_to_the_number_that_the_schedule_was_made_for():
    with pytest.raises(AssertionError):
        DecomposedOrder(schedule=order().schedule, num_processes=2, accumulation=1)


@pytest.mark.parametrize("odds", ["natural", "grow_p2", "shrink_linear"])
def test_a_run_that_goes_on_within_a_cycle_has_the_same_batches(odds):
    whole = order(odds).epoch(7, 1)
    assert order(odds).epoch(7, 1)[9:] == whole[9:]
    assert order(odds).epoch(7, 2) != whole
