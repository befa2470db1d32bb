"""The guards of reinforcement learning: what they see in a log, when they speak, and when they end a training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from posttrain.rl_guards import CUT, GAP, LENGTH, Guards, guard_callback, has_collapsed, steps_cut
from posttrain.stop import StopRequest

ACCURACY = "rewards/answer_correct/mean"


def run(guards: Guards, lines: list[dict[str, float]], correctness: str | None = "answer_correct") -> Any:
    """Log the lines one by one; returns the stop request and what was logged."""
    stop = StopRequest()
    callback = guard_callback(guards, correctness, stop)
    history: list[dict[str, float]] = []
    logged = []
    for step, line in enumerate(lines, 1):
        history.append({**line, "step": step})
        logs = dict(line)
        state = SimpleNamespace(log_history=history, is_world_process_zero=True, global_step=step)
        callback.on_log(None, state, None, logs=logs)  # pyright: ignore[reportArgumentType]
        logged.append(logs)
        if stop.reason is not None:
            break
    return stop, logged


def line(cut: float = 0.0, right: float = 0.8, length: float = 100.0) -> dict[str, float]:
    return {CUT: cut, ACCURACY: right, LENGTH: length}


def test_cut_answers_warn_at_once_and_end_a_training_where_they_last(capsys):
    stop, logged = run(Guards(cut_steps=3), [line(cut=0.9), line(cut=0.2), *[line(cut=0.9)] * 5])
    assert [logs["alarm/cut"] for logs in logged] == [1, 0, 1, 1, 1]
    assert stop.reason is not None and "3 steps in a row had more than 50% cut answers" in stop.reason
    assert stop.exit_code == 1 and "max_completion_length" in stop.how_to_go_on
    assert capsys.readouterr().out.count("WARNING") == 1


def test_a_training_may_be_told_to_bear_cut_answers():
    stop, _ = run(Guards(cut_steps=0), [line(cut=1.0)] * 60)
    assert stop.reason is None


def test_accuracy_that_falls_with_length_is_a_collapse(capsys):
    fall = [line()] * 8 + [line(right=0.8 - 0.1 * k, length=100 - 10 * k) for k in range(1, 8)]
    stop, logged = run(Guards(), fall)
    assert stop.reason is None, "it warns, unless it is told to stop"
    assert logged[7]["alarm/collapse"] == 0 and logged[-1]["alarm/collapse"] == 1
    assert "lower shaping.alpha" in capsys.readouterr().out
    stop, logged = run(Guards(on_collapse="stop"), fall)
    assert stop.reason is not None and len(logged) < len(fall)


@pytest.mark.parametrize(
    ("rights", "lengths"),
    [
        ([0.8] * 20, [200 - 9 * k for k in range(20)]),
        ([0.8 - 0.03 * k for k in range(20)], [100 + k for k in range(20)]),
        ([1.0] + [0.5] * 4, [100, 50, 50, 50, 50]),
    ],
    ids=["shorter_and_as_right", "longer_and_less_right", "too_early_to_say"],
)
def test_what_is_no_collapse(rights, lengths):
    assert not has_collapsed(rights, lengths, drop=0.1)


def test_log_probabilities_that_part_from_the_trainers_end_the_training():
    stop, _ = run(Guards(), [line() | {GAP: 0.04}] * 3)
    assert stop.reason is None
    stop, logged = run(Guards(), [line() | {GAP: 0.04}, line() | {GAP: 0.9}, line()])
    assert stop.reason is not None and "0.90 off the trainer's" in stop.reason and len(logged) == 2


def test_without_a_judge_of_answers_there_is_no_collapse_to_see():
    stop, logged = run(Guards(on_collapse="stop"), [line()] * 8 + [line(right=0, length=1)] * 8, None)
    assert stop.reason is None and logged[-1]["alarm/collapse"] == 0


def test_lines_of_an_evaluation_say_nothing():
    stop, logged = run(Guards(cut_steps=1), [{"eval_loss": 1.0}, {"train_runtime": 3.0}])
    assert stop.reason is None and all(set(logs) <= {"eval_loss", "train_runtime"} for logs in logged)


def test_steps_in_a_row_are_counted_from_the_end():
    assert [steps_cut(cuts, 0.5) for cuts in ([], [0.5], [0.6], [0.6, 0.4, 0.6, 0.7])] == [0, 0, 1, 2]


@pytest.mark.parametrize("given", [{"cut_frac": 1.5}, {"smoothing": -0.1}, {"cut_steps": -1}])
def test_wrong_values_are_refused_by_name(given):
    with pytest.raises(ValueError, match=f"guards.{next(iter(given))} is"):
        Guards(**given)
