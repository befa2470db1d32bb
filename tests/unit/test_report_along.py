"""Curves in the report: rounds of refinement, and the parts of a long text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_runs import STAMP, write_runs

from lengthwise.report.along import part_curves, round_curves
from lengthwise.report.collect import collect
from lengthwise.report.page import render


def point(number: int, value: float, gain: float, better: int, worse: int) -> dict[str, Any]:
    return {
        "round": number, "value": value, "ci": [value - 0.1, value + 0.1], "n": 30, "gain": gain,
        "gain_ci": [gain - 0.05, gain + 0.05], "improved": better, "worsened": worse,
    }  # fmt: skip


ROUNDS = {
    "passed": {"rounds": [point(0, 0.2, 0, 0, 0), point(1, 0.5, 0.3, 10, 1)], "stops_after": 1},
    "independent": {"rounds": [point(0, 0.2, 0, 0, 0), point(1, 0.4, 0.2, 6, 0)], "stops_after": 1},
    "tokens": {"rounds": [point(0, 100, 0, 0, 0), point(1, 250, 150, 30, 0)], "stops_after": None},
}


@pytest.fixture
def runs(tmp_path) -> dict[str, Path]:
    """Write runs whose evaluations have rounds and parts."""
    found = write_runs(tmp_path, num_samples=6)
    for name in ("base", "tuned"):
        file = found[name] / f"results_{STAMP}.json"
        results = json.loads(file.read_text())
        stated = results["results"]["longbench_write"]
        for key, curve in ROUNDS.items():
            for p in curve["rounds"]:
                stated[f"{key}_round_{p['round']},none"] = p["value"]
        for part, value in enumerate((0.01, 0.04, 0.2), start=1):
            stated |= {f"repetition_{part},none": value, f"repetition_{part}_ci,none": [value / 2, value * 2]}
        results["rounds"] = {"longbench_write": ROUNDS}
        results["parts"] = {"longbench_write": {"repetition": [f"repetition_{k}" for k in (1, 2, 3)]}}
        file.write_text(json.dumps(results))
    return found


def evaluations(runs: dict[str, Path]) -> list[tuple[Any, int]]:
    return [(run, i) for i, run in enumerate(collect([runs["base"], runs["tuned"]])) if run.evaluation]


def test_rounds_are_drawn_by_round_and_by_tokens_and_stand_in_a_table(runs):
    (task,) = round_curves(evaluations(runs))
    assert [chart.title for chart in task.charts] == ["passed by round", "passed by tokens written"]
    last = next(row for row in task.rows if row.measure == "passed" and row.round == 1)
    assert (last.gain, last.improved, last.worsened, last.stops) == ("+0.300", "10", "1", True)
    assert {row.measure for row in task.rows} == {"passed", "independent"}  # tokens are the axis


def test_parts_are_one_curve(runs):
    (task,) = part_curves(evaluations(runs))
    assert [chart.title for chart in task.charts] == ["repetition"]
    assert "0.010 to 0.200" in task.charts[0].svg


def test_points_of_curves_are_no_scores_of_their_own(runs):
    task = evaluations(runs)[0][0].evaluation.tasks["longbench_write"]
    assert not any("round" in name or "repetition" in name for name in task.scores)
    page = render(collect([runs["base"], runs["tuned"]]))
    assert 'id="rounds"' in page and 'id="parts"' in page and "Round by round" in page


def test_a_page_without_them_has_no_such_sections(tmp_path):
    plain = write_runs(tmp_path, num_samples=4)
    page = render(collect([plain["base"]]))
    assert 'id="rounds"' not in page and 'id="parts"' not in page
