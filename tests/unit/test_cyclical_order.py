from __future__ import annotations

import numpy as np
import pytest

from posttrain.curricula.cyclical_order import CyclicalOrder
from posttrain.token_budget import TokenBudget

LENGTHS = np.clip(np.random.default_rng(0).lognormal(5.4, 0.9, 400), 5, 4577).astype(int).tolist()


def order(*, num_epochs: float = 3, accumulation: int = 1, processes: int = 1, **options) -> CyclicalOrder:
    budget = TokenBudget(lengths=LENGTHS, max_tokens=2000, accumulation=accumulation, num_processes=processes)
    steps = int(num_epochs * budget.steps_per_epoch)
    return CyclicalOrder(
        **{"budget": budget, "num_steps": steps, "values": [float(n) for n in LENGTHS], **options}
    )


def rows_of(passes) -> list[int]:
    return [row for batches in passes for batch in batches for row in batch]


@pytest.mark.parametrize("preference", ["easy", "hard", "random"])
@pytest.mark.parametrize("processes", [1, 2])
def test_epochs_have_equally_many_batches_and_no_row_goes_unseen(preference, processes):
    found = order(preference=preference, processes=processes)
    epochs = [found.epoch(0, epoch) for epoch in range(3)]
    assert [len(epoch) for epoch in epochs] == [found.num_batches] * 3
    assert all(len(batches) == processes for epoch in epochs for batches in epoch)
    assert {row for epoch in epochs for row in rows_of(epoch)} == set(range(400))
    assert found.num_unseen(0) == 0


def test_mini_epochs_follow_each_other_across_the_trainers_epochs():
    """Shares of .25, .5 and 1 of 400 rows: the first 100 rows of the run are different ones, and so on."""
    found = order(preference="random")
    rows = rows_of(batches for epoch in range(3) for batches in found.epoch(0, epoch))
    for start, end in ((0, 100), (100, 300), (300, 700), (700, 900)):
        assert len(set(rows[start:end])) == end - start
    assert found.sizes(0)[:5] == [0.25, 0.5, 1.0, 0.5, 0.25]


def test_easy_rows_are_short_in_the_small_parts_only():
    easy, hard = order(preference="easy"), order(preference="hard")
    first = {
        name: np.mean([LENGTHS[row] for row in rows_of(found.epoch(0, 0))[:100]])
        for name, found in (("easy", easy), ("hard", hard))
    }
    assert first["easy"] < 0.8 * np.mean(LENGTHS) < 1.25 * np.mean(LENGTHS) < first["hard"]


def test_a_users_column_is_what_rows_are_drawn_by():
    values = [0.1 if row < 100 else 10.0 for row in range(400)]
    rows = rows_of(order(values=values).epoch(0, 0))[:100]
    assert sum(row < 100 for row in rows) > 60  # 25 at random


def test_a_run_that_goes_on_in_its_third_epoch_has_the_same_batches():
    whole = order()
    epochs = [whole.epoch(4, epoch) for epoch in range(3)]
    assert order().epoch(4, 2) == epochs[2] and order().epoch(4, 1)[7:] == epochs[1][7:]
    assert order().epoch(5, 1) != epochs[1]


def test_a_run_too_short_for_all_rows_is_refused():
    with pytest.raises(
        ValueError, match=r"has 1 epochs, but the first mini-epoch of all rows ends after 1.75"
    ):
        order(num_epochs=1)
    order(num_epochs=2)
    with pytest.raises(ValueError, match="has 2 epochs, .* after 2.2: raise num_train_epochs or max_steps"):
        order(num_epochs=2, start=0.4)


def test_scores_that_are_not_known_yet_leave_the_number_of_batches_known():
    found = order(values=None)
    assert found.num_batches == order().num_batches and found.steps_per_epoch == order().steps_per_epoch


def test_wrong_scores_are_refused():
    with pytest.raises(ValueError, match="row 3 has -1.0"):
        order(values=[1.0, 1.0, 1.0, -1.0] * 100)
