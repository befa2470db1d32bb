"""The report's charts of a training by reinforcement."""

from __future__ import annotations

import json
from pathlib import Path

from lengthwise.report import main as report
from lengthwise.report.by_step import logged_charts
from lengthwise.report.rl_curves import alarm_steps, rl_panels

CURVE = [
    {
        "step": step,
        "loss": 0.1,
        "reward": 0.5,
        "rewards/answer_correct/mean": 0.8 - 0.1 * step,
        "rewards/length_shaping/mean": -0.02,
        "shaping/selected_frac": 0.25,
        "completions/mean_length": 100.0 - step,
        "completions/clipped_ratio": 0.0,
        "completions/repeated_frac": 0.0,
        "entropy": 2.0,
        "time/generation": 3.0,
        "time/loss": 2.0,
        "alarm/cut": 0.0,
        "alarm/collapse": float(step > 2),
    }
    for step in range(1, 5)
]


def test_each_panel_shows_what_was_logged_and_no_other_is_made():
    panels = rl_panels(CURVE, "answer_correct", "x")
    assert [panel.title for panel in panels] == [
        "right answers, and the share of prompts whose length is penalised",
        "tokens of an answer",
        "rewards",
        "cut and repeating answers",
        "entropy, nats a token",
        "seconds of a step",
    ]
    assert "right from 0.700 to 0.400; penalised from 0.250 to 0.250, over 4 steps" in panels[0].svg
    assert "step 3: accuracy fell while answers got shorter" in panels[0].svg
    with_vllm = [row | {"sampling/sampling_logp_difference/mean": 0.04} for row in CURVE]
    assert rl_panels(with_vllm, "answer_correct", "x")[-1].title.startswith("log-probabilities")


def test_a_training_without_rewards_has_no_panels():
    assert rl_panels([{"step": 1, "loss": 2.0}], "answer_correct", "x") == []


def test_alarms_are_told_by_step():
    assert alarm_steps(CURVE) == {"accuracy fell while answers got shorter": [3, 4]}


def test_its_own_evaluation_is_not_taken_for_a_tasks():
    logged = [
        {
            "step": 2,
            "eval_rewards/answer_correct/mean": 0.5,
            "eval_completions/mean_length": 9.0,
            "eval_tlg/pm": 1.0,
        }
    ]
    assert [chart.title for chart in logged_charts(logged, "x")] == [
        chart.title for chart in logged_charts([{"step": 2, "eval_tlg/pm": 1.0}], "x")
    ]


def test_the_page_has_them(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CURVE))
    training = {"num_rows": 4, "num_tokens": 90, "num_supervised_tokens": 0, "base_model": {"name": "m"}}
    manifest = {
        "job": "grpo",
        "name": "run",
        "config": {"correctness": "answer_correct"},
        "training": training,
    }
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert report([str(run), "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Its answers while it was trained" in page and "rollouts" in page
    assert (
        "Accuracy fell while answers got shorter at 2 of the logged steps, first at step 3, last at step 4."
        in page
    )
    assert "supervised tokens" not in page
