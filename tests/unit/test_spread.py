"""The spread of several replies' lengths as metrics of any task, in results, table and comparison."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evals.base import measured, score_completion
from evals.results import Tally, results_document, summarise
from evals.results_table import format_table
from evals.score import main as score_main
from evals.spread import SPREAD_METRICS, with_spread
from evals.tasks import longbench_write
from lengthwise.records import LengthTarget, Sample, user

ROOT = Path(__file__).parents[2]


def replies(*sizes: int | None, cut: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    return [
        {"num_tokens": n, "finish_reason": "length" if i in cut else "stop", "metrics": {"s_l": 1.0}}
        for i, n in enumerate(sizes)
    ]


class TestWithSpread:
    def test_each_reply_has_what_is_the_prompts(self):
        found = with_spread(replies(100, 200, 300, 400), 1000)
        assert all(row["metrics"] == found[0]["metrics"] for row in found)
        values = found[0]["metrics"]
        assert values["tokens_std"] == pytest.approx(12500**0.5)
        assert values["tokens_cv"] == pytest.approx(12500**0.5 / 250)
        assert (values["tokens_iqr"], values["s_l"], values["runaway"]) == (150.0, 1.0, 0.0)
        assert values["tokens_p99"] == pytest.approx(397)

    def test_what_ran_away_is_one_reply(self):
        found = with_spread(replies(*[100] * 9, 8500), 15_000)
        assert [row["metrics"]["runaway"] for row in found] == [0.0] * 9 + [1.0]
        found = with_spread(replies(*[100] * 9, 8499), 15_000)
        assert not any(row["metrics"]["runaway"] for row in found)

    @pytest.mark.parametrize("cap", [None, 1])
    def test_without_a_cap_only_cut_replies_ran_away(self, cap):
        found = with_spread(replies(*[10] * 8, 8500, 9000, cut=(9,)), cap)
        assert [row["metrics"]["runaway"] for row in found] == [0.0] * 9 + [1.0]

    def test_an_end_that_nobody_knows_is_no_ones_fault(self):
        rows = [{**row, "finish_reason": None} for row in replies(5, 9)]
        assert "runaway" not in with_spread(rows, None)[0]["metrics"]

    @pytest.mark.parametrize("rows", [replies(7), replies(7, None), []])
    def test_where_there_is_none(self, rows):
        assert with_spread(rows, 1000) == rows

    def test_replies_without_a_token_have_no_coefficient(self):
        values = with_spread(replies(0, 0), 1000)[0]["metrics"]
        assert "tokens_cv" not in values and values["tokens_std"] == 0.0


def test_results_and_table():
    tally = Tally()
    for prompt, sizes in (("a", (100, 300)), ("b", (500, 700))):
        rows = []
        for size in sizes:
            sample = Sample(id=prompt, messages=user(prompt), length=LengthTarget.about(4))
            rows.append({"id": prompt, **score_completion(longbench_write, sample, "one two", "stop", size)})
        for row in with_spread(rows, 1000):
            tally.add(row)
    task = measured(longbench_write, *SPREAD_METRICS)
    found = summarise(task, tally)
    overall = found["overall"]
    assert (overall["num_tokens"]["value"], overall["num_tokens"]["n"]) == (400, 2)
    assert (overall["tokens_std"]["value"], overall["tokens_std"]["n"]) == (100, 2)
    assert overall["tokens_cv"]["value"] == pytest.approx((100 / 200 + 100 / 600) / 2)
    assert (overall["runaway"]["value"], overall["runaway"]["n"]) == (0, 2)
    assert overall["tokens_within_frac"]["value"] == pytest.approx(2 / 9)
    row = results_document({"t": task}, {"t": found})["results"]["t"]
    assert row["tokens_std_ci,none"] == [None, None]  # both prompts have the same
    assert len(row["tokens_cv_ci,none"]) == 2 and row["tokens_cv_n,none"] == 2
    lines = [line.split() for line in format_table({"t": task}, {"t": found}).splitlines()]
    shown = [line[2] for line in lines if line[:2] == ["t", "all"]]
    assert shown[-1] == "num_tokens" and {m.name for m in SPREAD_METRICS} <= set(shown)
    sliced = {line[3] for line in lines if line[:2] == ["t", "length_bin"]}
    assert not sliced & {m.name for m in SPREAD_METRICS}


def evaluate(folder: Path, *flags: str) -> Path:
    command = [
        *(
            sys.executable,
            str(ROOT / "evals" / "run.py"),
            "--model",
            folder.name,
            "--engine.name",
            "scripted",
        ),
        *("--tasks", "longbench_write", "--limit", "6", "--output_dir", str(folder), *flags),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder.parent, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_an_evaluation_and_its_comparison(tmp_path, capsys):
    from evals.compare import main as compare_main

    for name, share in (("base", "0.4"), ("tuned", "0")):
        evaluate(tmp_path / name, "--num_samples", "3", f'--engine.faults={{"truncated": {share}}}')
    (file,) = (tmp_path / "base").glob("results_*.json")
    row = json.loads(file.read_text())["results"]["longbench_write"]
    assert 0 < row["runaway,none"] < 1 and row["tokens_cv,none"] > 0 and row["tokens_cv_n,none"] == 6
    assert 0 < row["tokens_within_frac,none"] <= 1
    assert compare_main([str(tmp_path / "base"), str(tmp_path / "tuned"), "--json"]) == 0
    (compared,) = json.loads(capsys.readouterr().out)["comparisons"]
    metrics = compared["tasks"]["longbench_write"]["metrics"]
    assert metrics["tokens_cv"]["n"] == 6 and metrics["runaway"]["difference"] == -row["runaway,none"]


def test_a_single_reply_each_gives_none(tmp_path):
    (file,) = evaluate(tmp_path / "base").glob("results_*.json")
    assert "tokens_std,none" not in json.loads(file.read_text())["results"]["longbench_write"]


def test_texts_that_are_there(tmp_path):
    rows = [{"id": i % 2, "output": "a b", "length": 2, "num_tokens": 10 * i + 10} for i in range(4)]
    file, output = tmp_path / "rows.jsonl", tmp_path / "out.json"
    file.write_text("\n".join(map(json.dumps, rows)))
    assert score_main([str(file), "--task", "longbench_write", "--output", str(output)]) == 0
    row = json.loads(output.read_text())["results"]["longbench_write"]
    assert (row["tokens_std,none"], row["tokens_std_n,none"]) == (10, 2)
    assert "runaway,none" not in row
