"""Every row once, no batch over the budget, the same number of batches for every process and epoch."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from posttrain.token_budget import TokenBudget, cut, split_to

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=60)
BUDGETS = st.builds(
    TokenBudget,
    lengths=LENGTHS,
    max_tokens=st.integers(1, 200),
    num_processes=st.integers(1, 5),
    accumulation=st.integers(1, 5),
)


@given(BUDGETS, st.integers(0, 5), st.integers(0, 5))
def test_every_row_is_in_one_batch(budget, seed, epoch):
    rows = [row for batches in budget.epoch(seed, epoch) for batch in batches for row in batch]
    assert set(rows) == set(range(len(budget.lengths)))
    assert len(rows) == len(budget.lengths) + budget.num_repeated


@given(BUDGETS)
def test_rows_come_twice_only_to_give_each_process_one(budget):
    assert budget.num_repeated < budget.num_processes
    if len(budget.lengths) % budget.num_processes == 0:
        assert budget.num_repeated == 0


@given(BUDGETS, st.integers(0, 5), st.integers(0, 5))
def test_a_batch_is_within_the_budget_or_a_single_row(budget, seed, epoch):
    for batches in budget.epoch(seed, epoch):
        for batch in batches:
            padded = len(batch) * max(budget.lengths[row] for row in batch)
            assert len(batch) == 1 or padded <= budget.max_tokens


@given(BUDGETS, st.integers(0, 5), st.integers(0, 5))
def test_each_process_has_the_same_number_of_batches_in_every_epoch(budget, seed, epoch):
    passes = budget.epoch(seed, epoch)
    assert len(passes) == budget.num_batches
    assert all(len(batches) == budget.num_processes for batches in passes)


@given(BUDGETS, st.integers(0, 5))
def test_processes_have_neighbouring_lengths_at_a_time(budget, seed):
    """No batch of another moment lies between the shortest and the longest row of one moment."""
    spans = [
        (min(found), max(found))
        for batches in budget.epoch(seed, 0)
        if (found := [budget.lengths[row] for batch in batches for row in batch])
    ]
    if not budget.num_repeated:
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(sorted(spans)))


@given(LENGTHS, st.integers(1, 200))
def test_a_cut_list_needs_no_fewer_batches_than_its_greedy_cut(lengths, max_tokens):
    """Each cut is forced: the first row of the next batch would not have fitted."""
    lengths = sorted(lengths)
    place = 0
    for size in cut(lengths, itertools.repeat(max_tokens))[:-1]:
        place += size
        assert (size + 1) * lengths[place] > max_tokens


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 40))
def test_splitting_keeps_the_rows(sizes, number):
    found = split_to(sizes, number)
    assert sum(found) == sum(sizes) and min(found) >= 1
    assert len(found) == max(len(sizes), min(number, sum(sizes)))
