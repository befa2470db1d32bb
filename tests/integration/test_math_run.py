"""Maths tasks by the evaluation's own command line, with a stand-in that knows the answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = str(Path(__file__).parents[2] / "evals" / "run.py")

RESPONDER = r'''
import re

def adds(prompt, sampling, draw):
    """Add the two numbers, as an expression that only algebra can compare; the third reply of three is wrong."""
    question = prompt[-1].content
    a, b = map(int, re.findall(r"\d+", question)[:2])
    budget = re.search(r"Think for (?:at most )?(\d+) tokens", question)
    wrong = 7 if "(fail)" in question else 0
    answer = rf"so it is \boxed{{\sqrt{{{(a + b + wrong) ** 2}}}}}"
    padding = int(budget[1]) - len(answer.split()) if budget else 0
    return " ".join(["hmm"] * padding + [answer])
'''
ROWS = [
    {"id": 1, "problem": "Add 2 and 3.", "answer": "5", "level": 1, "subject": "Sums"},
    {"id": 2, "problem": "Add 4 and 5. (fail)", "answer": "9", "level": 2, "subject": "Sums"},
]


@pytest.fixture
def evaluate(tmp_path: Path):
    (tmp_path / "own_responder.py").write_text(RESPONDER)
    (tmp_path / "math500_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])

    def run(*tasks: dict, flags: tuple[str, ...] = ()) -> tuple[dict, list[dict]]:
        config = tmp_path / "run.json.yaml"
        config.write_text(json.dumps({"tasks": list(tasks), "data_dir": str(tmp_path)}))
        engine = ("--engine.name", "scripted", "--engine.responder", "own_responder:adds")
        command = [sys.executable, SCRIPT, "--config", str(config), "--model", "scripted", *engine]
        command += ["--output_dir", str(tmp_path / "run"), *flags]
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": paths}
        )
        assert ended.returncode == 0, ended.stderr
        (results,) = (tmp_path / "run").glob("results_*.json")
        (samples,) = (tmp_path / "run").glob("samples_*.jsonl")
        return json.loads(results.read_text()), [
            json.loads(line) for line in samples.read_text().splitlines()
        ]

    return run


def test_algebra_on_worker_threads_and_pass_at_k(evaluate):
    flags = ("--num_samples", "4", "--sampling.temperature", "0.6")
    found, samples = evaluate({"name": "math500"}, flags=flags)
    row = found["results"]["math500"]
    assert (row["accuracy,none"], row["answered,none"], row["pass@4,none"]) == (0.5, 1.0, 0.5)
    assert {
        value: one["accuracy"]["value"] for value, one in found["slices"]["math500"]["level"].items()
    } == {
        "1": 1.0,
        "2": 0.0,
    }
    assert {sample["target"] for sample in samples} == {"5", "9"}
    assert {sample["filtered_resps"][0] for sample in samples} == {r"\sqrt{25}", r"\sqrt{256}"}


def test_the_budget_curve(evaluate):
    found, samples = evaluate({"name": "math500", "budgets": [32, 64], "budget_form": "max", "label": "l1"})
    assert len(samples) == 4
    for value in ("32", "64"):
        one = found["slices"]["l1"]["budget"][value]
        assert one["accuracy"]["value"] == 0.5
        assert one["budget_deviation"]["value"] == pytest.approx(0, abs=0.05)
        assert one["within_budget"]["n"] == 2
    assert found["configs"]["l1"]["options"] == {"budgets": [32, 64], "budget_form": "max"}
