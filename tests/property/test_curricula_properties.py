"""No token twice or lost unsaid, one document a sequence, the same tokens a step, a process and a cycle."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.curricula.bucket_schedule import BucketSchedule
from posttrain.curricula.choices import Odds
from posttrain.curricula.cyclical_curriculum import CyclicalCurriculum, selection_chances, size_schedule
from posttrain.curricula.dataset_decomposition import decompose, split_length
from posttrain.curricula.length_odds import (
    bucket_weights,
    draw_order,
    emptying_shares,
    shares_between,
)

SEEDS = st.integers(0, 5)
NAMES = st.sampled_from(Odds.__args__)
WEIGHTINGS = st.sampled_from(["paper", "released"])


@st.composite
def decompositions(draw):
    lengths = draw(st.lists(st.integers(0, 300), max_size=20))
    smallest = draw(st.integers(0, 4))
    options = {"min_log2": smallest, "max_log2": smallest + draw(st.integers(0, 3))}
    over_long = draw(st.sampled_from(["randomized", "longest"]))
    return lengths, options, decompose(lengths, **options, over_long=over_long, seed=draw(SEEDS))


@given(decompositions())
def test_each_token_is_in_one_sequence_or_left_out(case):
    lengths, _, found = case
    tokens = Counter(
        (document, token)
        for document, start, end in [*found.spans.tolist(), *found.left_out.tolist()]
        for token in range(start, end)
    )
    assert set(tokens) == {(i, token) for i, length in enumerate(lengths) for token in range(length)}
    assert all(number == 1 for number in tokens.values())
    assert found.num_tokens + found.num_tokens_left_out == sum(lengths)


@given(decompositions())
def test_sequences_are_powers_of_two_of_the_buckets(case):
    _, options, found = case
    for power, members in found.buckets.items():
        assert options["min_log2"] <= power <= options["max_log2"]
        assert (found.spans[members, 2] - found.spans[members, 1]).tolist() == [2**power] * len(members)
    assert sum(len(members) for members in found.buckets.values()) == len(found.spans)


@given(st.integers(0, 3000), st.integers(0, 3), st.integers(0, 3), st.none() | SEEDS)
def test_the_largest_power_that_fits_is_taken_but_where_the_document_is_over_long(length, least, more, seed):
    most = least + more
    stream = None if seed is None else np.random.default_rng(seed)
    for power in split_length(length, least, most, stream):
        if length < 2 ** (most + 1):
            assert 2**power <= length < 2 ** (power + 1)
        elif seed is None:
            assert power == most
        length -= 2**power
    assert length < 2**least


@given(decompositions())
def test_only_a_documents_end_below_the_smallest_power_is_left_out(case):
    lengths, options, found = case
    documents = found.left_out[:, 0].tolist()
    assert len(set(documents)) == len(documents)
    for document, start, end in found.left_out.tolist():
        assert end == lengths[document] and end - start < 2 ** options["min_log2"]
    short = [length for length in lengths if 0 < length < 2 ** options["min_log2"]]
    assert found.num_documents_left_out == len(short)


@st.composite
def schedules(draw):
    """Schedules of powers 0 to 3 that have at least one step in each cycle."""
    cycles = draw(st.integers(1, 3))
    processes = draw(st.sampled_from([1, 2, 3]))
    tokens = 8 * processes * draw(st.integers(1, 2))
    kinds = draw(
        st.lists(st.tuples(st.integers(0, 3), st.sampled_from("xyz")), min_size=1, max_size=150)
        if draw(st.booleans())
        else st.just([])
    )
    certain = draw(st.integers(0, 3))
    kinds += [(certain, "x")] * (cycles * tokens >> certain)
    log2 = [power for power, _ in kinds]
    quotas = None
    if draw(st.booleans()):
        quotas = {power: draw(st.integers(0, number << power)) for power, number in Counter(log2).items()}
        quotas[certain] = log2.count(certain) << certain
    return BucketSchedule(
        log2=log2,
        tokens_per_step=tokens,
        num_processes=processes,
        cycles=cycles,
        curriculum=draw(NAMES),
        weighting=draw(WEIGHTINGS),
        sources=[source for _, source in kinds] if draw(st.booleans()) else None,
        quotas=quotas,
        longest_first=draw(st.booleans()),
    )


def flat(step):
    return [number for part in step.sequences for number in part]


@given(schedules(), SEEDS, SEEDS)
def test_each_sequence_comes_at_most_once_and_the_others_are_listed(schedule, seed, epoch):
    found = [number for step in schedule.steps(seed, epoch) for number in flat(step)]
    left_out = schedule.left_out(seed, epoch)
    assert sorted([*found, *left_out]) == list(range(len(schedule.log2)))
    of_buckets = Counter(schedule.log2[number] for number in left_out)
    assert of_buckets == Counter(schedule.num_left_out)
    assert schedule.num_tokens_left_out == sum(2 ** schedule.log2[number] for number in left_out)


@given(schedules(), SEEDS, SEEDS)
def test_each_process_has_the_same_number_of_one_buckets_sequences(schedule, seed, epoch):
    steps = schedule.steps(seed, epoch)
    assert len(steps) == schedule.num_steps > 0
    for step in steps:
        assert len(step.sequences) == schedule.num_processes
        assert len({len(part) for part in step.sequences}) == 1
        assert {schedule.log2[number] for number in flat(step)} == {step.log2}
        assert len(flat(step)) << step.log2 == schedule.tokens_per_step


@given(schedules(), SEEDS, SEEDS)
def test_each_cycle_has_the_same_mix_of_buckets_and_sources(schedule, seed, epoch):
    sources = schedule.sources or [""] * len(schedule.log2)
    buckets = [Counter() for _ in range(schedule.cycles)]
    mixes = [Counter() for _ in range(schedule.cycles)]
    steps = schedule.steps(seed, epoch)
    for step in steps:
        buckets[step.cycle].update(step.log2 for _ in flat(step))
        mixes[step.cycle].update((step.log2, sources[number]) for number in flat(step))
    assert all(bucket == buckets[0] for bucket in buckets)
    for kind in set().union(
        *mixes
    ):  # the first and the last block of a source may hold some of its neighbours
        counts = [mix[kind] for mix in mixes]
        assert max(counts) - min(counts) <= 2
    assert [step.cycle for step in steps] == sorted(step.cycle for step in steps)


@given(schedules(), SEEDS, SEEDS)
def test_no_more_is_left_out_than_the_cycles_need(schedule, seed, epoch):
    """Without quotas: less than one more step in each cycle, and one sequence of each source in each cycle."""
    if schedule.quotas is not None:
        return
    for power, number in schedule.num_left_out.items():
        num_sources = len(
            {s for s, p in zip(schedule.sources or [], schedule.log2, strict=False) if p == power}
        )
        rest = max(1, num_sources) * (schedule.cycles - 1)
        assert number <= schedule.cycles * (schedule.sequences_per_step(power) - 1) + rest


def by_events(batches, weights):
    """Advance to the next emptied bucket, leave it out and renormalise, until all are empty."""
    left = {i: number / sum(batches) for i, number in enumerate(batches) if number}
    empty, now = [0.0] * len(batches), 0.0
    while left:
        total = sum(weights[i] for i in left)
        pace = {i: weights[i] / total for i in left}
        first = min(left, key=lambda i: left[i] / pace[i])
        passed = left[first] / pace[first]
        now += passed
        empty[first] = now
        left = {i: amount - passed * pace[i] for i, amount in left.items() if i != first}
    return empty


BATCHES = st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any)


@given(BATCHES, NAMES.filter(lambda name: name != "natural"), WEIGHTINGS)
def test_the_shares_are_those_of_a_simulation_of_the_events(batches, name, weighting):
    weights = bucket_weights(name, batches, weighting)
    found = emptying_shares(batches, weights)
    assert found.tolist() == pytest.approx(by_events(batches, weights.tolist()), abs=1e-9)
    assert found.max() == pytest.approx(1)


@given(BATCHES, NAMES, WEIGHTINGS, st.lists(st.floats(0.01, 0.99), max_size=4, unique=True))
def test_the_shares_of_a_cycles_parts_add_up_to_its_mix(batches, name, weighting, marks):
    weights = bucket_weights(name, batches, weighting)
    total = np.zeros(len(batches))
    edges = [0.0, *sorted(marks), 1.0]
    for start, end in itertools.pairwise(edges):
        part = shares_between(batches, weights, start, end)
        # A short part divides rounding of the whole cycle by its length.
        assert part.sum() == pytest.approx(1, abs=1e-9 / (end - start)) and part.min() >= -1e-9 / (
            end - start
        )
        total += part * (end - start)
    assert total.tolist() == pytest.approx([number / sum(batches) for number in batches], abs=1e-9)


@given(BATCHES, NAMES, WEIGHTINGS, SEEDS)
def test_each_batch_is_drawn_once(batches, name, weighting, seed):
    order = draw_order(batches, bucket_weights(name, batches, weighting), np.random.default_rng(seed))
    assert [order.count(rank) for rank in range(len(batches))] == batches


VALUES = st.lists(st.floats(0, 1e12), min_size=1, max_size=30)
PREFERENCES = st.sampled_from(["easy", "hard", "random"])
BOUNDS = st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(sorted)


@given(VALUES, PREFERENCES, st.none() | st.tuples(st.floats(0.01, 1), st.floats(1, 20)))
def test_chances_are_positive_and_within_the_bounds(values, preference, clip):
    found = selection_chances(values, preference, clip=clip)
    assert found.sum() == pytest.approx(1) and found.min() > 0
    if clip is not None:
        assert found.min() * len(values) >= clip[0] * (1 - 1e-9)
        assert found.max() * len(values) <= clip[1] * (1 + 1e-9)


@given(VALUES, st.sampled_from([("easy", 1), ("hard", -1)]), st.none() | st.just((0.2, 5.0)))
def test_a_preferred_row_has_no_smaller_chance(values, preference, clip):
    name, sign = preference
    found = selection_chances(values, name, clip=clip)
    ordered = found[np.argsort(sign * np.asarray(values), kind="stable")]
    assert (np.diff(ordered) <= 1e-12).all()


@given(st.floats(0.1, 20), BOUNDS, st.floats(0.2, 0.9))
def test_sizes_stay_in_bounds_and_add_up(num_epochs, bounds, alpha):
    start, end = bounds
    sizes = size_schedule(num_epochs, start=start, end=end, alpha=alpha)
    assert sizes[0] == start and all(start <= size <= end for size in sizes)
    assert math.fsum(sizes) >= num_epochs
    assert len(sizes) == 1 or math.fsum(sizes[:-1]) < num_epochs


@settings(max_examples=50)
@given(VALUES, PREFERENCES, SEEDS)
def test_a_mini_epoch_has_different_rows_and_all_come(values, preference, seed):
    curriculum = CyclicalCurriculum(values=values, preference=preference, num_epochs=2)
    for number, size in enumerate(curriculum.sizes):
        rows = curriculum.mini_epoch(seed, number)
        assert len(set(rows)) == len(rows) == max(1, int(size * len(values)))
        assert set(rows) <= set(range(len(values)))
    assert curriculum.never_drawn(seed) == []
