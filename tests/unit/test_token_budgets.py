"""Budgets by step: the paper's numbers, and what may not be written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.token_budgets import BudgetSchedule

PAPER = {"initial": 256, "final": 87, "num_steps": 600}


def test_the_papers_main_schedule():
    schedule = BudgetSchedule(initial=256, gamma=0.7, interval=150)
    assert [schedule.at(step) for step in (0, 149, 150, 299, 300, 449, 450, 599)] == [
        256, 256, 179, 179, 125, 125, 87, 87,
    ]  # fmt: skip
    assert [BudgetSchedule(initial=256, gamma=0.7, interval=100).at(100 * k) for k in (6, 7)] == [30, 21]


@pytest.mark.parametrize(("num_decays", "interval", "first"), [(1, 300, 87), (3, 150, 178), (7, 75, 219)])
def test_the_form_that_names_its_end(num_decays, interval, first):
    """The factors of the ablation are 0.340, 0.700 and 0.857: 256 times those, cut off, is 87, 178 and 219."""
    schedule = BudgetSchedule(num_decays=num_decays, **PAPER)
    assert [schedule.at(step) for step in (0, interval - 1, interval)] == [256, 256, first]
    assert [schedule.at(600 - interval - 1) > 87, schedule.at(600 - interval), schedule.at(10_000)] == [
        True,
        87,
        87,
    ]


def test_equal_drops():
    schedule = BudgetSchedule(kind="linear", num_decays=3, **PAPER)
    assert [schedule.at(step) for step in (0, 150, 300, 450, 599)] == [256, 199, 143, 87, 87]


def test_budgets_by_hand():
    schedule = BudgetSchedule(kind="piecewise", initial=64, steps=((10, 128), (20, 32)))
    assert [schedule.at(step) for step in (0, 9, 10, 19, 20, 99)] == [64, 64, 128, 128, 32, 32]
    assert schedule.largest == 128
    assert BudgetSchedule(kind="constant", initial=64).at(10_000) == 64


@given(st.integers(1, 4096), st.floats(0.01, 1), st.integers(1, 300), st.integers(0, 10_000))
def test_budgets_shrink_and_never_reach_0(initial, gamma, interval, step):
    schedule = BudgetSchedule(initial=initial, gamma=gamma, interval=interval)
    assert 1 <= schedule.at(step + interval) <= schedule.at(step) <= initial


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gamma": 0.7}, "budget.interval is not set"),
        ({}, "budget.final is not set, and budget.kind is exponential, which needs final and num_decays and"),
        ({"gamma": 0.7, "interval": 10, "final": 87}, "budget.final is 87, which budget.kind exponential does not use"),
        ({"kind": "constant", "gamma": 0.7}, "remove it"),
        ({"gamma": 1.2, "interval": 10}, "budget.gamma is 1.2"),
        ({"gamma": 0.7, "interval": 0}, "budget.interval is 0"),
        ({"initial": 0, "kind": "constant"}, "budget.initial is 0"),
        ({"initial": 64, "final": 128, "num_decays": 3, "num_steps": 60}, "above budget.initial, 64"),
        ({"final": 87, "num_decays": 3, "num_steps": 3}, "3 decays need more steps"),
        ({"kind": "piecewise", "steps": ((20, 64), (10, 32))}, "the steps must rise"),
        ({"kind": "piecewise", "steps": ((20, 0),)}, "below 1 token"),
        ({"kind": "piecewise"}, "budget.steps is not set"),
    ],
)  # fmt: skip
def test_what_is_no_schedule_is_refused(fields, words):
    with pytest.raises(ValueError, match="budget") as refused:
        BudgetSchedule(**fields)
    assert words in str(refused.value)
