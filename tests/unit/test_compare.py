"""`lengthwise compare`, through the command line."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from report_runs import STAMP, write_evaluation, write_runs, write_scores

from evals.compare import main
from evals.compare_text import columns, excerpt, side_by_side, table, wrap
from evals.results import results_document
from evals.tasks import longbench_write


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_runs(tmp_path_factory.mktemp("outputs"))


def compared(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_the_command_says_what_changed_and_where(runs: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "lengthwise.cli", "compare", str(runs["base"]), str(runs["tuned"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"COLUMNS": "120"})
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "base -> tuned"
    assert "longbench_write: 30 shared items" in lines
    (s_l,) = (line for line in lines if line.startswith("S_l "))
    assert s_l.endswith("better")
    assert any(line.startswith("flips (right: S_l ≥ 80): ") for line in lines)
    assert (
        "replies: scored 30 -> 30, empty 1 -> 1, truncated 0 -> 4, repetitive 0 -> 2, failed 0 -> 0" in lines
    )
    assert any(line.startswith("length bin [2000,4000] ") for line in lines)
    assert "largest wins (S_l):" in lines
    (reach,) = (line for line in lines if line.startswith("these items show a paired difference of about "))
    assert " in S_l, " in reach
    assert reach.endswith("(80 % power, 5 % level)")
    assert any(line.endswith(", CUT") or ", CUT, " in line for line in lines)
    assert max(columns(line) for line in lines) <= 120


def test_the_figures_are_those_of_the_items(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_scores(tmp_path / "base", {"a": 0.0, "b": 1.0, "c": 0.0, "d": 0.0})
    other = write_scores(tmp_path / "other", {"a": 1.0, "b": 0.0, "c": 1.0, "d": 0.0})
    found = json.loads(compared(capsys, base, other, "--json"))
    task = found["comparisons"][0]["tasks"]["t"]
    metric = task["metrics"]["m"]
    assert [metric[key] for key in ("base", "other", "difference", "n", "p_value", "verdict")] == [
        0.25,
        0.5,
        0.25,
        4,
        1.0,
        "too few",
    ]
    # Differences 1, -1, 1, 0: s / sqrt(4) = sqrt(11 / 48), times 2.8016.
    assert (metric["stderr"], metric["mdd"]) == pytest.approx((0.478714, 1.341166), abs=1e-4)
    assert task["flips"] == [
        {"rule": "m ≥ 1", "won": ["a", "c"], "lost": ["b"], "both_right": 0, "both_wrong": 1, "p_value": 1.0}
    ]
    assert [p["id"] for p in task["largest_losses"]] == ["b"]
    assert [p["id"] for p in task["largest_wins"]] == ["c", "a"]
    assert task["counts"]["other"] == {
        "scored": 4, "empty": 0, "truncated": 0, "repetitive": 0, "failed": None,
    }  # fmt: skip


def test_every_later_run_is_held_against_the_first(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    third = write_evaluation(tmp_path / "third", random.Random(8), num_samples=30, skill=0.5)
    out = compared(capsys, runs["base"], runs["tuned"], third, "--show", 0)
    assert [line for line in out.splitlines() if " -> " in line and ":" not in line] == [
        "base -> tuned",
        "base -> third",
    ]
    assert "largest" not in out


def test_what_does_not_align_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_evaluation(tmp_path / "base", random.Random(1), num_samples=6, skill=0.5)
    warm = write_evaluation(tmp_path / "warm", random.Random(1), num_samples=5, skill=0.6, temperature=0.7)
    file = warm / f"samples_longbench_write_{STAMP}.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows[4]["prompt_hash"] = "changed"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = compared(capsys, base, warm)
    assert "WARNING: not measured alike" in out
    assert "  sampling.temperature: 0.0 in base, 0.7 in warm" in out
    assert "longbench_write: 4 shared items" in out
    assert "  WARNING: 1 item(s) only in base" in out
    assert "  WARNING: 1 item(s) in both left out: asked with another prompt (lbw-004)" in out


def test_a_torn_line_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_scores(tmp_path / "base", {"a": 1.0, "b": 2.0})
    other = write_scores(tmp_path / "other", {"a": 2.0, "b": 2.5})
    file = other / f"samples_t_{STAMP}.jsonl"
    file.write_text(file.read_text() + '{"id": "c", "met')
    line = f"other: {file.name}: 1 unreadable line(s) skipped (line 3)"
    assert f"WARNING: {line}" in compared(capsys, base, other)
    assert json.loads(compared(capsys, base, other, "--json"))["comparisons"][0]["problems"] == [line]
    assert "--show is -1" in refused(capsys, base, other, "--show", -1)


def test_a_threshold_says_what_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_scores(tmp_path / "base", {"a": 0.4, "b": 0.9})
    other = write_scores(tmp_path / "other", {"a": 0.8, "b": 0.95})
    assert "flips: no metric of 0 and 1, and no --threshold METRIC=VALUE given" in compared(
        capsys, base, other
    )
    out = compared(capsys, base, other, "--threshold", "m=0.5")
    assert "flips (right: m ≥ 0.5): 1 won, 0 lost, 1 both right, 0 both wrong" in out
    assert "write --threshold s_l=80" in refused(capsys, base, other, "--threshold", "half")


def test_the_page_of_the_same_runs(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    out = compared(capsys, runs["base"], runs["tuned"], "--json", "--output", page)
    json.loads(out)  # the page's own message is elsewhere
    assert "tuned is better than base" in page.read_text(encoding="utf-8")


def test_what_cannot_be_compared_is_refused_with_the_remedy(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = runs["base"]
    assert "holds a sft run: name evaluations" in refused(capsys, base, runs["train"])
    assert "name two, such as" in refused(capsys, base)
    assert "name two, such as" in refused(capsys, base, base / ".")
    assert "there is no folder" in refused(capsys, base, tmp_path / "nowhere")
    torn = write_evaluation(tmp_path / "torn", random.Random(1), num_samples=3, skill=0.5)
    (torn / "manifest.json").unlink()
    assert "start its evaluation again to resume it" in refused(capsys, base, torn)


@pytest.mark.parametrize(
    ("scores", "row", "words"),
    [
        ({"z": 1.0}, {}, "no item id of t is in both"),
        ({"a": 1.0}, {"prompt_hash": "changed"}, "their prompts differ under the same ids"),
    ],
)
def test_runs_without_a_shared_item_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    scores: dict[str, float | None],
    row: dict[str, str],
    words: str,
) -> None:
    base = write_scores(tmp_path / "base", {"a": 1.0, "b": 2.0})
    assert words in refused(capsys, base, write_scores(tmp_path / "other", scores, **row))


def test_runs_without_a_shared_task_are_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_scores(tmp_path / "other", {"a": 1.0})
    assert "tasks longbench_write against t. Evaluate both on one task" in refused(
        capsys, runs["base"], other
    )


def test_results_say_which_metrics_are_medians() -> None:
    document = results_document({"longbench_write": longbench_write}, {})
    assert document["summaries"] == {"longbench_write": {"s_l": "mean", "log_ratio_abs": "median"}}


# Layout


def test_lines_break_at_words_and_beside_wide_characters() -> None:
    assert wrap("one two three four", 9) == ["one two", "three", "four"]
    assert wrap("城市沿着河流 grow", 6) == ["城市沿", "着河流", "grow"]
    assert wrap("a" * 25, 10) == ["a" * 10, "a" * 10, "a" * 5]
    assert wrap(" \n ", 10) == []


def test_a_reply_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in "".join(wrap("\x1b[31mred\x07 text", 40))


def test_an_excerpt_has_both_ends() -> None:
    lines = excerpt(" ".join(f"line{i:02d}" for i in range(20)), 6)
    assert lines == [
        "line00",
        "line01",
        "line02",
        "line03",
        "line04",
        "[... 13 lines ...]",
        "line18",
        "line19",
    ]
    assert excerpt("", 10) == ["(empty)"]
    assert len(excerpt(" ".join(["line"] * 8), 4)) == 8  # naming one line left out takes a line


def test_two_texts_stand_side_by_side_where_there_is_room() -> None:
    assert side_by_side(["a", "b"], ["one", "two three"], 80)[1] == f"{'one':<38} | two three"
    assert side_by_side(["a", "b"], ["one", "two"], 40) == ["a:", "one", "", "b:", "two", ""]


def test_numbers_are_aligned_to_the_right() -> None:
    assert table([["n", "x"], ["字", "10.5"], ["abc", "2.0"]], "lr") == [
        "n       x",
        "---------",
        "字   10.5",
        "abc   2.0",
    ]
