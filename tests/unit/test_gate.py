"""`lengthwise gate`: what passes, what fails, what is refused."""

from __future__ import annotations

import random
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from report_runs import write_evaluation, write_runs, write_scores

from evals.gate import main
from evals.gate_rules import MetricRules, check_bounds, check_truncated, read_rules
from lengthwise.report.evaluations import Score
from lengthwise.yaml_source import load_yaml

ROOT = Path(__file__).resolve().parents[2]


def thresholds(path: Path, text: str) -> Path:
    file = path / "thresholds.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def gate(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A base, and a run that is 2 lower on every one of ten items, give or take 0.1."""
    base = write_scores(tmp_path / "base", {str(i): float(i) for i in range(10)})
    low = write_scores(tmp_path / "low", {str(i): i - 2 - i % 2 / 10 for i in range(10)})
    return base, low


@pytest.mark.parametrize(("max_drop", "code", "outcome"), [(1.0, 1, "FAIL"), (2.5, 0, "PASS")])
def test_a_fall_fails_if_it_is_larger_than_allowed(
    pair: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    max_drop: float,
    code: int,
    outcome: str,
) -> None:
    base, low = pair
    file = thresholds(tmp_path, f"tasks: {{t: {{metrics: {{m: {{max_drop: {max_drop}}}}}}}}}")
    found, out, _ = gate(capsys, low, "--base", base, "--thresholds", file)
    assert found == code
    (line,) = (line for line in out.splitlines() if line.startswith("t "))
    assert line.split()[:5] == ["t", "m", "max_drop", f"{max_drop:g}", outcome]
    assert "4.5 -> 2.45, paired difference -2.05, 95 % interval [-2.088, -2.012], n = 10" in line
    # A rise of the same size passes.
    assert gate(capsys, base, "--base", low, "--thresholds", file)[0] == 0


def test_a_fall_within_noise_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_scores(tmp_path / "base", {str(i): float(i) for i in range(10)})
    noisy = write_scores(tmp_path / "noisy", {str(i): i - 2 + 20 * (-1.0) ** i for i in range(10)})
    file = thresholds(tmp_path, "tasks: {t: {metrics: {m: {max_drop: 1}}}}")
    code, out, _ = gate(capsys, noisy, "--base", base, "--thresholds", file)
    assert code == 0
    assert "a loss above 1, but within noise" in out
    few = write_scores(tmp_path / "few", {"0": -5.0, "1": -4.0})
    code, out, _ = gate(capsys, few, "--base", base, "--thresholds", file)
    assert code == 0
    assert "a loss above 1, but too few items to tell" in out


def test_where_lower_is_better_a_rise_is_the_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_scores(tmp_path / "base", {str(i): float(i) for i in range(10)}, better=False)
    high = write_scores(tmp_path / "high", {str(i): i + 2 + i % 2 / 10 for i in range(10)}, better=False)
    file = thresholds(tmp_path, "tasks: {t: {metrics: {m: {max_drop: 1}}}}")
    assert gate(capsys, high, "--base", base, "--thresholds", file)[0] == 1
    assert gate(capsys, base, "--base", high, "--thresholds", file)[0] == 0


def test_a_metric_without_direction_has_no_drop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write_scores(tmp_path / n, {"a": 1.0, "b": 2.0}, better=None) for n in ("base", "run")]
    file = thresholds(tmp_path, "tasks: {t: {metrics: {m: {max_drop: 1}}}}")
    code, _, err = gate(capsys, paths[1], "--base", paths[0], "--thresholds", file)
    assert code == 2
    assert "t.m: max_drop needs a metric with a better direction" in err


@pytest.mark.parametrize(
    ("rules", "outcomes"),
    [
        (MetricRules(min=0.5), [("pass", "estimate 0.6, n = 50")]),
        (MetricRules(min=0.6), [("pass", "estimate 0.6, n = 50")]),
        (MetricRules(min=0.61), [("fail", "estimate 0.6, n = 50")]),
        (MetricRules(max=0.59), [("fail", "estimate 0.6, n = 50")]),
        (MetricRules(min=0.5, max=0.7), [("pass", "estimate 0.6, n = 50"), ("pass", "estimate 0.6, n = 50")]),
        (MetricRules(min=0.5, confident=True), [("fail", "lower bound 0.45, n = 50")]),
        (MetricRules(min=0.4, confident=True), [("pass", "lower bound 0.45, n = 50")]),
        (MetricRules(max=0.7, confident=True), [("fail", "upper bound 0.75, n = 50")]),
    ],
)
def test_absolute_bounds(rules: MetricRules, outcomes: list[tuple[str, str]]) -> None:
    score = Score(metric="m", estimate=0.6, low=0.45, high=0.75, n=50, counter=None, higher_is_better=True)
    assert [(c.outcome, c.reason) for c in check_bounds("t", "m", score, rules)] == outcomes


def test_what_was_not_measured_does_not_pass() -> None:
    score = Score(metric="m", estimate=None, low=None, high=None, n=0, counter=None, higher_is_better=True)
    (check,) = check_bounds("t", "m", score, MetricRules(min=0.0))
    assert (check.outcome, check.reason) == ("fail", "there is no estimate")
    score.estimate = 1.0
    (check,) = check_bounds("t", "m", score, MetricRules(min=0.0, confident=True))
    assert check.outcome == "fail"
    assert check.reason == "there is no lower bound: leave out confident, or measure more items"
    assert check_truncated("t", {"scored": None, "truncated": None}, 0.5).outcome == "fail"


@pytest.mark.parametrize(
    ("counts", "outcome"),
    [
        ({"scored": 100, "truncated": 2}, "pass"),
        ({"scored": 100, "truncated": 3}, "fail"),
        ({"scored": 100, "truncated": 1, "end unknown": 2}, "fail"),
    ],
)
def test_replies_of_unknown_end_count_as_cut(counts: dict[str, int | None], outcome: str) -> None:
    assert check_truncated("t", counts, 0.02).outcome == outcome


def test_without_a_base_only_bounds_are_checked(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = thresholds(tmp_path, "tasks: {t: {metrics: {m: {min: 4, max_drop: 1}}}}")
    code, out, _ = gate(capsys, pair[0], "--thresholds", file)
    assert (code, out.splitlines()[-1]) == (0, "1 passed, 0 failed, 1 skipped")
    assert gate(capsys, pair[1], "--thresholds", file)[0] == 1
    file = thresholds(tmp_path, "tasks: {t: {metrics: {m: {max_drop: 1}}}}")
    code, _, err = gate(capsys, pair[0], "--thresholds", file)
    assert code == 2
    assert "add --base RUN" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: {tt: {metrics: {m: {min: 1}}}}", "the run has no task 'tt': did you mean 't'?"),
        ("tasks: {longen: {metrics: {m: {min: 1}}}}", "the run has no task 'longen': there are t"),
        ("tasks: {t: {metrics: {mm: {min: 1}}}}", "the run has no metric 'mm': did you mean 'm'?"),
        ("tasks: {t: {metrics: {m: {mim: 1}}}}", "did you mean 'min'?"),
        ("tasks: {t: {metrics: {m: {min: high}}}}", "expected"),
        ("tasks: {t: {metrics: {m: {}}}}", "tasks.t.metrics.m has no rule"),
        ("tasks: {t: {}}", "tasks.t has no rule"),
        ("tasks: {t: {metrics: {m: 3}}}", "tasks.t.metrics.m is 3: it must be a map"),
        ("tasks: {t: {metrics: {m: {max_drop: -1}}}}", "it is a size"),
        ("tasks: {t: {metrics: {m: {min: 2, max: 1}}}}", "no estimate lies between them"),
        ("tasks: {t: {metrics: {m: {max_drop: 2, confident: true}}}}", "there is no min or max"),
        ("tasks: {t: {max_truncated_frac: 2}}", "it is a share, 0 to 1"),
        ("gates: {t: {}}", "a thresholds file is one map, tasks:"),
    ],
)
def test_wrong_thresholds_are_refused_with_the_remedy(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    code, out, err = gate(capsys, pair[1], "--base", pair[0], "--thresholds", thresholds(tmp_path, text))
    assert (code, out) == (2, "")
    assert message in err


def test_the_base_must_be_another_run_with_shared_items(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = thresholds(tmp_path, "tasks: {t: {metrics: {m: {max_drop: 1}}}}")
    code, _, err = gate(capsys, pair[0], "--base", pair[0], "--thresholds", file)
    assert (code, "is the run itself" in err) == (2, True)
    other = write_scores(tmp_path / "other", {"z": 1.0})
    code, _, err = gate(capsys, pair[0], "--base", other, "--thresholds", file)
    assert (code, "finds no item that both runs scored" in err) == (2, True)


def test_junit_has_a_case_for_each_rule(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = thresholds(tmp_path, "tasks: {t: {metrics: {m: {min: -9, max: 2, max_drop: 1}}}}")
    xml = tmp_path / "ci" / "gate.xml"
    assert gate(capsys, pair[1], "--thresholds", file, "--junit", xml)[0] == 1
    suite = ElementTree.parse(xml).getroot()[0]
    assert {k: suite.get(k) for k in ("tests", "failures", "skipped", "errors")} == {
        "tests": "3",
        "failures": "1",
        "skipped": "1",
        "errors": "0",
    }
    assert [(c.get("classname"), c.get("name"), c[0].tag) for c in suite] == [
        ("t", "m min -9", "system-out"),
        ("t", "m max 2", "failure"),
        ("t", "m max_drop 1", "skipped"),
    ]
    assert suite[1][0].get("message") == "estimate 2.45, n = 10"


def test_the_command_line_and_its_warnings(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs")
    warm = write_evaluation(tmp_path / "warm", random.Random(8), skill=0.35, temperature=0.7)
    file = thresholds(
        tmp_path,
        "tasks: {longbench_write: {max_truncated_frac: 0.01, metrics: {s_l: {max_drop: 1}}}}",
    )
    command = [sys.executable, "-m", "lengthwise.cli", "gate"]
    done = subprocess.run(
        [*command, str(runs["tuned"]), "--base", str(runs["base"]), "--thresholds", str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "4 of 30 cut" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"
    done = subprocess.run(
        [*command, str(warm), "--base", str(runs["base"]), "--thresholds", str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert "WARNING: not measured alike: sampling.temperature: 0.0 in base, 0.7 in warm" in done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "gates").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_shipped_thresholds_name_tasks_and_metrics_that_exist(path: Path) -> None:
    import importlib

    for name, (_, metrics) in read_rules(load_yaml(str(path)), str(path)).items():
        task = importlib.import_module(f"evals.tasks.{name}")
        directions = {m.name: m.higher_is_better for m in task.METRICS}
        assert metrics.keys() <= directions.keys()
