from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from posttrain.batching import real_token_frac
from posttrain.curricula.length_buckets import LengthBuckets
from posttrain.token_budget import TokenBudget


def lengths(num_rows: int, seed: int = 0) -> list[int]:
    drawn = np.random.default_rng(seed).lognormal(5.4, 0.9, num_rows)
    return np.clip(drawn, 5, 4577).astype(int).tolist()


def buckets(
    num_rows: int = 2000, *, max_tokens: int = 2000, num_processes: int = 1, **options
) -> LengthBuckets:
    budget = TokenBudget(lengths=lengths(num_rows), max_tokens=max_tokens, num_processes=num_processes)
    return LengthBuckets(**{"budget": budget, "odds": "grow_p2", "cycles": 4, **options})


def rows_of(passes) -> list[int]:
    return [row for batches in passes for batch in batches for row in batch]


def test_each_cycle_has_the_same_lengths_and_sources():
    sources = ["a" if row % 3 else "b" for row in range(2000)]
    order = buckets(sources=sources, cycles=8)
    found: dict[int, list[int]] = {}
    for cycle, _, batches in order.labelled(0, 0):
        found.setdefault(cycle, []).extend(rows_of([batches]))
    assert sorted(itertools.chain(*found.values())) == list(range(2000))
    means = [np.mean([order.budget.lengths[row] for row in rows]) for rows in found.values()]
    assert max(means) < 1.05 * min(means)
    counts = [Counter(sources[row] for row in rows) for rows in found.values()]
    assert {count["a"] for count in counts} <= {166, 167} and {count["b"] for count in counts} <= {83, 84}


def test_a_near_strict_curriculum_goes_from_short_to_long_in_each_cycle():
    order = buckets(odds="grow_p100")
    by_cycle: dict[int, list[int]] = {}
    for cycle, rank, _ in order.labelled(0, 0):
        by_cycle.setdefault(cycle, []).append(rank)
    assert sorted(by_cycle) == [0, 1, 2, 3]
    for ranks in by_cycle.values():
        wrong = sum(a > b for a, b in itertools.combinations(ranks, 2))
        assert wrong < len(ranks) ** 2 / 100
    shrinking = [rank for cycle, rank, _ in buckets(odds="shrink_p100").labelled(0, 0) if cycle == 0]
    assert shrinking[0] == 5 and shrinking[-1] == 0


def test_the_order_within_a_cycle_comes_close_to_the_fluid_limit_of_the_paper():
    """curricula.md 1.3: P2 over equal buckets leaves them empty at .328 .490 .646 .792 .917 1 of a cycle.

    The mean over a hundred epochs of one cycle of 6 x 40 batches, each of a single row; within 0.03 of the limit.
    """
    budget = TokenBudget(lengths=[*range(1, 241)], max_tokens=1)
    order = LengthBuckets(budget=budget, odds="grow_p2", cycles=1)
    assert order.num_batches == 240 and order.bucket_sizes(0) == [40] * 6
    assert order.emptying_shares().tolist() == pytest.approx(
        [0.328, 0.490, 0.646, 0.792, 0.917, 1], abs=0.0005
    )
    last = np.zeros(6)
    for epoch in range(100):
        ranks = np.array([rank for _, rank, _ in order.labelled(0, epoch)])
        last += [(np.flatnonzero(ranks == rank)[-1] + 1) / 240 for rank in range(6)]
    assert (last / 100).tolist() == pytest.approx(order.emptying_shares().tolist(), abs=0.03)


@pytest.mark.parametrize("odds", ["natural", "uniform", "grow_linear", "grow_p2", "shrink_p100"])
def test_a_run_that_goes_on_within_a_cycle_has_the_same_batches(odds):
    """A new object, as after a restart."""
    whole = buckets(odds=odds).epoch(7, 1)
    middle = len(whole) // 4 + 3
    assert buckets(odds=odds).epoch(7, 1)[middle:] == whole[middle:]
    assert buckets(odds=odds).epoch(7, 2) != whole != buckets(odds=odds).epoch(8, 1)


def test_two_processes_see_the_same_bucket_and_near_equal_lengths():
    order = buckets(num_processes=2)
    for _, rank, batches in order.labelled(0, 0):
        assert len(batches) == 2
        longest = [max(order.budget.lengths[row] for row in batch) for batch in batches]
        assert max(longest) <= 1.3 * min(longest) or rank in (0, 5)
    assert sorted(rows_of(order.epoch(0, 0))) == list(range(2000))


def test_hardly_any_token_is_padding_although_a_cycle_has_an_eighth_of_the_rows():
    order = buckets(20_000, max_tokens=8192, cycles=8)
    batches = [batch for batches in order.epoch(0, 0) for batch in batches]
    assert real_token_frac(order.budget.lengths, batches) > 0.95
    assert all(
        len(batch) == 1 or len(batch) * max(order.budget.lengths[row] for row in batch) <= 8192
        for batch in batches
    )


def test_fewer_rows_than_cycles_have_processes_are_refused():
    with pytest.raises(ValueError, match="7 rows for 4 cycles of 2 processes: lower curriculum.cycles"):
        LengthBuckets(
            budget=TokenBudget(lengths=[1] * 7, max_tokens=9, num_processes=2), odds="grow_p2", cycles=4
        )
