"""Every row once an epoch, whatever the order; equal numbers of batches for every process and epoch."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from posttrain.batch_order import passes_of
from posttrain.curricula.choices import Odds, Shape
from posttrain.curricula.competence_window import CompetenceWindow, deferred_order
from posttrain.curricula.cyclical_order import CyclicalOrder
from posttrain.curricula.length_buckets import LengthBuckets
from posttrain.curricula.run_lengths import class_spans
from posttrain.curricula.source_mix import cramers_v
from posttrain.token_budget import TokenBudget

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80)
SEEDS = st.integers(0, 5)
BUDGETS = st.builds(
    TokenBudget,
    lengths=LENGTHS,
    max_tokens=st.integers(1, 200),
    num_processes=st.integers(1, 3),
    accumulation=st.integers(1, 3),
)


def rows_of(passes):
    return [row for batches in passes for batch in batches for row in batch]


@st.composite
def bucketed(draw):
    budget = draw(BUDGETS)
    cycles = draw(st.integers(1, 5))
    missing = max(0, cycles * budget.num_processes - len(budget.lengths))
    budget = replace(budget, lengths=[*budget.lengths, *([7] * missing)])
    sources = draw(st.none() | st.lists(
        st.sampled_from("abc"), min_size=len(budget.lengths), max_size=len(budget.lengths)))  # fmt: skip
    return LengthBuckets(
        budget=budget,
        odds=draw(st.sampled_from(Odds.__args__)),
        cycles=cycles,
        num_buckets=draw(st.integers(2, 6)),
        sources=sources,
    )


@given(bucketed(), SEEDS, SEEDS)
def test_each_row_is_once_in_an_epoch_of_buckets(order, seed, epoch):
    passes = order.epoch(seed, epoch)
    counts = Counter(rows_of(passes))
    assert set(counts) == set(range(len(order.budget.lengths)))
    assert sum(counts.values()) == len(order.budget.lengths) + order.num_repeated
    if order.budget.num_processes == 1:
        assert order.num_repeated == 0
    assert len(passes) == order.num_batches
    assert all(len(batches) == order.budget.num_processes and all(batches) for batches in passes)


@given(bucketed(), SEEDS, SEEDS)
def test_no_batch_of_a_bucket_is_over_the_budget_but_a_single_row(order, seed, epoch):
    for batches in order.epoch(seed, epoch):
        for batch in batches:
            longest = max(order.budget.lengths[row] for row in batch)
            assert len(batch) == 1 or len(batch) * longest <= order.budget.max_tokens


@given(bucketed(), SEEDS, SEEDS)
def test_each_cycle_has_its_share_of_every_source_and_its_buckets_in_full(order, seed, epoch):
    labelled = order.labelled(seed, epoch)
    assert [cycle for cycle, _, _ in labelled] == sorted(cycle for cycle, _, _ in labelled)
    for cycle in range(order.cycles):
        drawn = Counter(rank for found, rank, _ in labelled if found == cycle)
        assert [drawn[rank] for rank in sorted(drawn)] == order.bucket_sizes(cycle)
    if order.num_repeated:
        return  # a repeated row counts in its own cycle twice
    sources = order.sources or ["a"] * len(order.budget.lengths)
    for source, number in Counter(sources).items():
        for cycle in range(order.cycles):
            rows = rows_of([batches for found, _, batches in labelled if found == cycle])
            of_source = sum(sources[row] == source for row in rows)
            assert abs(of_source - number / order.cycles) < 2


@st.composite
def windows(draw):
    budget = draw(BUDGETS)
    start = draw(st.integers(1, 60))
    return CompetenceWindow(
        budget=budget,
        num_steps=draw(st.integers(1, 3 * budget.steps_per_epoch)),
        start=start,
        end=draw(st.integers(start, 60)),
        until=draw(st.floats(0.01, 1)),
        shape=draw(st.sampled_from(Shape.__args__)),
    )


@given(windows(), SEEDS)
def test_a_window_only_reorders_the_batches_of_the_run(order, seed):
    epochs = range(order.num_epochs)
    found = [batches for epoch in epochs for batches in order.epoch(seed, epoch)]
    plain = [batches for epoch in epochs for batches in order.budget.epoch(seed, epoch)]
    number = passes_of(order.num_steps, order.num_batches, order.budget.accumulation)
    assert sorted(found[:number]) == sorted(plain[:number]) and found[number:] == plain[number:]
    assert all(len(order.epoch(seed, epoch)) == order.num_batches for epoch in epochs)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=30), SEEDS)
def test_a_batch_comes_before_its_time_only_where_no_shorter_one_is_left(pairs, seed):
    import numpy as np

    longest, widths = [pair[0] for pair in pairs], sorted(pair[1] for pair in pairs)
    order = deferred_order(longest, widths, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(pairs)))
    for place, width in enumerate(widths):
        left = [longest[i] for i in order[place:]]
        assert left[0] <= width or left[0] == min(left)


@given(BUDGETS, SEEDS, st.sampled_from(["easy", "hard", "random"]), st.floats(0.1, 0.9), st.floats(0.3, 0.9))
def test_a_cyclical_run_has_whole_epochs_of_different_rows_in_each_mini_epoch(
    budget, seed, preference, start, alpha
):
    order = CyclicalOrder(
        budget=budget,
        num_steps=30 * budget.steps_per_epoch,
        values=[float(length) for length in budget.lengths],
        preference=preference,
        start=start,
        alpha=alpha,
    )
    assert [len(order.epoch(seed, epoch)) for epoch in range(3)] == [order.num_batches] * 3
    for batches in order.epoch(seed, 0):
        assert len(batches) == budget.num_processes and all(batches)
        for batch in batches:
            longest = max(budget.lengths[row] for row in batch)
            assert len(batch) == 1 or len(batch) * longest <= budget.max_tokens


@given(BUDGETS, SEEDS, st.integers(1, 8))
def test_classes_of_length_cover_all_batches_in_order(budget, seed, number):
    passes = budget.epoch(seed, 0)
    spans = class_spans(passes, budget.lengths, number)
    assert sum(span.num_passes for span in spans) == len(passes)
    assert [span.longest for span in spans] == sorted(span.longest for span in spans)
    assert all(0 <= span.first < span.last <= 1 for span in spans)
    assert max(span.last for span in spans) == 1 and min(span.first for span in spans) == 0


@given(st.lists(st.lists(st.integers(0, 20), min_size=3, max_size=3), min_size=1, max_size=4))
def test_cramers_v_lies_between_0_and_1(table):
    found = cramers_v(table)
    assert found is None or -1e-9 <= found <= 1 + 1e-9
