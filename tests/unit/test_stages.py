"""When a stage of reinforcement learning ends, and which stage a resumed run is in."""

from __future__ import annotations

import json

import pytest

from posttrain.stages import FILE, Stages, ended_stages, slope, stage_is_over

RISING = [0.25 + 0.005 * i for i in range(30)]
FLAT = [0.5 + 0.02 * (i % 3) for i in range(30)]


@pytest.mark.parametrize(
    ("cuts", "rewards", "over"),
    [
        (RISING, FLAT, True),
        (RISING[::-1], FLAT, False),
        ([cut - 0.24 for cut in RISING], FLAT, False),
        (RISING, [0.02 * i for i in range(30)], False),
        (RISING, [-0.02 * i for i in range(30)], True),
        (RISING[:19], FLAT[:19], False),
    ],
    ids=["yes", "fewer_are_cut", "few_are_cut", "it_still_learns", "it_gets_worse", "too_early"],
)
def test_the_rule(cuts, rewards, over):
    assert stage_is_over(cuts, rewards, window=20, cut_frac=0.2) is over


def test_only_the_window_counts():
    learnt_before = [0.02 * i for i in range(30)] + [0.6 + 0.02 * (i % 3) for i in range(20)]
    cuts = [0.0] * 30 + RISING[:20]
    assert stage_is_over(cuts, learnt_before, window=20, cut_frac=0.2)
    assert not stage_is_over(cuts, learnt_before, window=50, cut_frac=0.2)


def test_the_slope_and_its_error_are_those_of_least_squares():
    linregress = pytest.importorskip("scipy.stats").linregress
    values = [0.3, 0.1, 0.7, 0.4, 0.9, 0.2]
    found = linregress(range(len(values)), values)
    assert slope(values) == pytest.approx((found.slope, found.stderr))


def test_a_run_is_in_the_stage_that_its_checkpoint_was_in(tmp_path):
    assert ended_stages(tmp_path, 9) == []
    rows = [{"from_step": 10, "max_completion_length": 16}, {"from_step": 30, "max_completion_length": 24}]
    (tmp_path / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"from_st')
    assert [len(ended_stages(tmp_path, step)) for step in (0, 9, 10, 29, 30, 99)] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "given",
    [{"lengths": [8]}, {"lengths": [8, 8]}, {"lengths": [8, 9], "window": 3}, {"lengths": [8, 9], "cut_frac": 2}],
)  # fmt: skip
def test_wrong_values_are_refused(given):
    with pytest.raises(ValueError, match=r"stages\."):
        Stages(**given)
