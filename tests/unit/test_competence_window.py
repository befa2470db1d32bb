from __future__ import annotations

import numpy as np
import pytest

from posttrain.batch_order import passes_of
from posttrain.curricula.competence_window import CompetenceWindow, deferred_order, window
from posttrain.token_budget import TokenBudget

LENGTHS = np.clip(np.random.default_rng(0).lognormal(5.4, 0.9, 600), 5, 4577).astype(int).tolist()


def order(*, num_epochs: float = 2, accumulation: int = 1, processes: int = 1, **options) -> CompetenceWindow:
    budget = TokenBudget(lengths=LENGTHS, max_tokens=2000, accumulation=accumulation, num_processes=processes)
    steps = int(num_epochs * budget.steps_per_epoch)
    settings = {"start": float(np.percentile(LENGTHS, 10)), "end": float(max(LENGTHS)), **options}
    return CompetenceWindow(budget=budget, num_steps=steps, **settings)


def run(found: CompetenceWindow, seed: int = 0) -> list[list[list[int]]]:
    return [batches for epoch in range(found.num_epochs) for batches in found.epoch(seed, epoch)]


def longest(batches: list[list[int]]) -> int:
    return max(LENGTHS[row] for batch in batches for row in batch)


@pytest.mark.parametrize("shape", ["linear", "log", "sqrt"])
def test_a_window_grows_from_start_to_end_and_stays(shape):
    options = {"start": 100, "end": 1600, "until": 0.5, "shape": shape}
    widths = [window(u / 10, **options) for u in range(11)]
    assert widths[0] == pytest.approx(100) and widths[5:] == [1600] * 6
    assert widths == sorted(widths)


def test_the_shapes_halfway():
    assert [
        window(0.25, start=100, end=1600, until=0.5, shape=shape) for shape in ("linear", "log", "sqrt")
    ] == pytest.approx([850, 400, 1133.58], abs=0.01)


def test_longer_batches_wait_for_the_window_and_the_shortest_comes_where_all_wait():
    assert deferred_order([9, 3, 5], [3, 3, 9], np.random.default_rng(0)) == [1, 2, 0]
    widths = [20, 20, 20, 1600, 1600, 1600]
    found = deferred_order([1600, 10, 800, 20, 15, 900], widths, np.random.default_rng(1))
    assert sorted(found[:3]) == [1, 3, 4] and sorted(found[3:]) == [0, 2, 5]


@pytest.mark.parametrize("accumulation", [1, 3])
def test_each_row_comes_once_for_each_epoch_however_long_it_waits(accumulation):
    found = order(accumulation=accumulation)
    rows = [row for batches in run(found) for batch in batches for row in batch]
    assert sorted(rows) == sorted([*range(600), *range(600)])


def test_no_batch_comes_before_its_time_but_those_that_are_counted():
    found = order(until=0.6)
    passes = run(found)
    early = sum(longest(batches) > found.width(i / len(passes)) for i, batches in enumerate(passes))
    assert early == found.num_early(0) < len(passes) / 5
    first = [longest(batches) for batches in passes[: len(passes) // 10]]
    assert max(first) < np.percentile(LENGTHS, 50)


def test_a_run_that_ends_within_an_epoch_has_the_batches_that_it_would_have_without_a_window():
    found = order(num_epochs=1.5)
    plain = [batches for epoch in range(2) for batches in found.budget.epoch(3, epoch)]
    key = sorted
    assert found.num_passes < len(plain)
    assert key(run(found, 3)[: found.num_passes]) == key(plain[: found.num_passes])
    assert run(found, 3)[found.num_passes :] == plain[found.num_passes :]


@pytest.mark.parametrize("shape", ["linear", "log", "sqrt"])
def test_a_run_that_goes_on_in_its_second_epoch_has_the_same_batches(shape):
    whole = run(order(shape=shape), 5)
    again = order(shape=shape)  # a new object that begins at the second epoch, as after a restart
    assert again.epoch(5, 1)[4:] == whole[again.num_batches + 4 :]
    assert again.epoch(6, 1) != again.epoch(5, 1)


def test_two_processes_get_batches_of_near_equal_length_at_once():
    for batches in run(order(processes=2)):
        longer, shorter = sorted((max(LENGTHS[row] for row in batch) for batch in batches), reverse=True)
        assert len(batches) == 2 and (longer <= 1.5 * shorter or longer < 60 or longer > 1500)


def test_passes_of_steps():
    assert [passes_of(steps, 5, 2) for steps in (1, 2, 3, 4, 6)] == [2, 4, 5, 7, 10]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"until": 0.0}, "until is 0.0"),
        ({"until": 1.2}, "until is 1.2"),
        ({"start": 9.0, "end": 8.0}, "start is 9 and end is 8 tokens"),
        ({"shape": "cosine"}, "shape is 'cosine': choose one of linear, log, sqrt"),
    ],
)
def test_refused(options, words):
    with pytest.raises(ValueError, match=words):
        order(**options)
