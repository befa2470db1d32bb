from __future__ import annotations

import numpy as np
import pytest

from posttrain.batching import Batching, check_batching, real_token_frac, token_budget
from posttrain.token_budget import TokenBudget, mixed_order


def lengths(num_rows: int, seed: int = 0) -> list[int]:
    drawn = np.random.default_rng(seed).lognormal(5.4, 0.9, num_rows)
    return np.clip(drawn, 5, 4577).astype(int).tolist()


def flat(budget: TokenBudget, seed: int = 0, epoch: int = 0) -> list[list[int]]:
    return [batch for batches in budget.epoch(seed, epoch) for batch in batches]


def test_hardly_any_token_is_padding():
    """curricula.md 1.5 has .36 for random batches of 8 of such lengths, and .998 for a budget over the whole set."""
    found = lengths(20_000)
    budget = TokenBudget(lengths=found, max_tokens=8192)
    assert real_token_frac(found, flat(budget)) > 0.99
    rows = np.random.default_rng(0).permutation(len(found)).tolist()
    assert real_token_frac(found, [rows[i : i + 8] for i in range(0, len(rows), 8)]) < 0.5


def test_batches_differ_from_epoch_to_epoch_and_from_seed_to_seed_and_are_the_same_again():
    budget = TokenBudget(lengths=lengths(500), max_tokens=2000, num_processes=2, accumulation=3)
    as_sets = {
        key: {frozenset(batch) for batch in flat(budget, *key) if len(batch) > 3}
        for key in ((0, 0), (0, 1), (1, 0), (1, 1))
    }
    assert budget.epoch(0, 1) == budget.epoch(0, 1)
    for key, other in (((0, 0), (0, 1)), ((0, 0), (1, 0)), ((0, 1), (1, 1))):
        assert len(as_sets[key] & as_sets[other]) < len(as_sets[key]) / 2


def test_each_step_has_short_and_long_batches():
    budget = TokenBudget(lengths=lengths(2000), max_tokens=2000, accumulation=8)
    found = budget.epoch(0, 0)
    for step in range(len(found) // 8):
        longest = sorted(budget.lengths[batch[0]] for (batch,) in found[step * 8 : step * 8 + 8])
        assert longest[0] < 200 and longest[-1] > 800


@pytest.mark.parametrize(("number", "accumulation"), [(1, 1), (1, 4), (7, 3), (8, 4), (9, 4), (100, 7)])
def test_a_mixed_order_is_an_order_with_one_of_each_part(number, accumulation):
    for seed in range(5):
        order = mixed_order(number, accumulation, np.random.default_rng(seed))
        assert sorted(order) == list(range(number))
        num_steps, num_last = divmod(number, accumulation)
        rest = sorted(order[: num_steps * accumulation])
        for step in range(num_steps):
            ranks = sorted(rest.index(place) for place in order[step * accumulation :][:accumulation])
            assert [rank // num_steps for rank in ranks] == list(range(accumulation))
        assert len(order[num_steps * accumulation :]) == num_last


def test_by_default_a_batch_has_as_many_tokens_as_rows_have_without_padding():
    budget = token_budget(
        Batching(name="token_budget"), [10, 20, 31], rows=2, num_processes=1, accumulation=1
    )
    assert budget is not None and budget.max_tokens == 41  # 2 x 61 / 3, rounded up
    assert (budget.num_over, budget.num_batches) == (0, 3)


def test_a_row_over_the_budget_is_counted_and_alone():
    budget = TokenBudget(lengths=[5, 5, 50, 5], max_tokens=20)
    assert budget.num_over == 1
    assert [2] in flat(budget)


def test_fewer_rows_than_processes_come_again():
    budget = TokenBudget(lengths=[3, 9, 4], max_tokens=10, num_processes=4)
    assert budget.num_repeated == 1
    assert sorted(row for batch in flat(budget) for row in batch) == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("trainer", "word"),
    [
        ({"packing": True}, "packing is True"),
        ({"padding_free": True}, "padding_free"),
        ({"train_sampling_strategy": "group_by_length"}, "the budget decides which rows"),
        ({"dataloader_drop_last": True}, "no row is left out"),
    ],
)
def test_a_key_that_says_otherwise_is_refused(trainer, word):
    check_batching(Batching(), trainer)
    with pytest.raises(ValueError, match=word):
        check_batching(Batching(name="token_budget"), trainer)


def test_a_budget_without_a_use_is_refused():
    with pytest.raises(ValueError, match="only token_budget has a budget"):
        Batching(max_tokens=100)
    with pytest.raises(ValueError, match="at least 1"):
        Batching(name="token_budget", max_tokens=0)
