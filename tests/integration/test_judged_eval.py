"""Scorers and judges in an evaluation, by its own command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = str(REPOSITORY / "evals" / "run.py")
FEW = ("--tasks", "longbench_write", "--limit", "12")


def start(tmp_path: Path, name: str, *flags: str, model: bool = True) -> subprocess.Popen[str]:
    asked = ("--model", "scripted", "--engine.name", "scripted") if model else ()
    command = [sys.executable, SCRIPT, *asked, "--output_dir", str(tmp_path / name), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)


def evaluate(tmp_path: Path, name: str, *flags: str, code: int = 0, model: bool = True) -> tuple[str, str]:
    out, err = (process := start(tmp_path, name, *flags, model=model)).communicate(timeout=240)
    assert process.returncode == code, err
    return out, err


def judges(*entries: dict[str, Any]) -> str:
    """One scripted judge for each map of its engine's options; `settings` are its own."""
    given = []
    for number, options in enumerate(entries):
        settings = options.pop("settings", {})
        given.append({"model": f"org/Judge-{number}", "engine": {"name": "scripted", **options}, **settings})
    return f"--judges={json.dumps(given)}"


def scorers(*entries: Any) -> str:
    return f"--scorers={json.dumps(entries)}"


def results(folder: Path) -> dict:
    (file,) = folder.glob("results_*.json")
    return json.loads(file.read_text())


def samples(folder: Path) -> list[dict]:
    (file,) = folder.glob("samples_*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def requests(log: Path) -> list[dict]:
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    return [line for line in lines if line["event"] == "started"]


def judged(row: dict, metric: str) -> str:
    (name,) = [name for name in [*row["metrics"], *row["unscored"]] if name.startswith(f"{metric}@judge-0.")]
    return name


def test_a_judge_adds_its_grades(tmp_path):
    out, err = evaluate(tmp_path, "run", *FEW, scorers("writing_quality", "degeneration"), judges({}))
    rows, found = samples(tmp_path / "run"), results(tmp_path / "run")
    name = judged(rows[0], "s_q")
    for row in rows:
        reply = json.loads(row["notes"][name]["attempts"][-1]["text"])
        grades = [value for value in reply.values() if isinstance(value, int)]
        assert len(grades) == 6
        assert row["metrics"][name] == pytest.approx((sum(grades) / 6 - 1) * 25)
        mean = (row["metrics"]["s_l"] + row["metrics"][name]) / 2
        assert row["metrics"][judged(row, "s_bar")] == pytest.approx(mean)
        assert row["metrics"]["refusal"] == 0.0
    summary = found["results"]["longbench_write"]
    assert summary[f"{name}_n,none"] == 12 and f"{name}_bounds,none" not in summary
    assert found["counts"]["longbench_write"]["unscored"] == 0
    assert -1 <= found["length_correlation"]["longbench_write"][name]["spearman"] <= 1
    (use,) = found["judges"].values()
    assert use["num_calls"] == 12 and use["prompts"].keys() == {"judge/longbench_write"}
    assert "rank correlation with the reply's length" in out
    assert "unscored" not in err
    assert not list((tmp_path / "run").glob("*.partial"))


def test_a_judges_faults_are_counted_and_bounded_and_never_0(tmp_path):
    faults = {
        **dict.fromkeys(("malformed", "missing_key", "out_of_range", "refusal", "truncated"), 0.1),
        "hang": 0.1,
    }
    options = {"faults": faults, "settings": {"max_attempts": 1, "timeout_seconds": 1.0}}
    flags = (scorers("writing_quality"), judges(options))
    out, err = evaluate(tmp_path, "run", "--tasks", "longbench_write", *flags)
    rows, found = samples(tmp_path / "run"), results(tmp_path / "run")
    name = judged(rows[0], "s_q")
    without = [row for row in rows if name not in row["metrics"]]
    assert {row["unscored"][name] for row in without} == {
        "malformed",
        "missing key",
        "out of range",
        "refusal",
        "truncated",
        "timeout",
    }
    assert all(row["unscored"].keys().isdisjoint(row["metrics"]) for row in rows)
    assert not [row for row in rows if row["metrics"].get(name) == 0.0]
    summary, unscored = found["results"]["longbench_write"], found["unscored"]["longbench_write"][name]
    values = [row["metrics"][name] for row in rows if name in row["metrics"]]
    assert summary[f"{name}_n,none"] == len(values) < len(rows)
    assert summary[f"{name},none"] == pytest.approx(sum(values) / len(values))
    least, most = sum(values) / len(rows), (sum(values) + 100 * len(without)) / len(rows)
    assert summary[f"{name}_bounds,none"] == pytest.approx([least, most])
    assert unscored["num"] == sum(unscored["reasons"].values()) == len(without)
    assert found["counts"]["longbench_write"]["unscored"] == len(without)
    assert "malformed" in out and f"{len(without)} replies" in out
    assert "unscored by no fault of the model's" in err


def test_all_unscored_leaves_no_estimate_but_bounds(tmp_path):
    options = {"faults": {"malformed": 1.0}, "settings": {"max_attempts": 2}}
    evaluate(tmp_path, "run", *FEW, scorers("writing_quality"), judges(options))
    found, name = results(tmp_path / "run"), judged(samples(tmp_path / "run")[0], "s_q")
    assert f"{name},none" not in found["results"]["longbench_write"]
    unscored = found["unscored"]["longbench_write"][name]
    assert unscored["bounds"] == [0.0, 100.0] and unscored["frac"] == 1.0
    assert found["judges"]["judge-0"]["num_calls"] == 24


def test_an_empty_reply_is_the_models_fault_and_is_not_judged(tmp_path):
    log = tmp_path / "judge.jsonl"
    flags = ('--engine.faults={"empty": 0.3, "refusal": 0.3}', scorers("writing_quality"))
    evaluate(tmp_path, "run", *FEW, *flags, judges({"request_log": str(log)}))
    rows = samples(tmp_path / "run")
    name = judged(rows[0], "s_q")
    floor = [row for row in rows if row["flags"]["empty"] or row["flags"]["refusal"]]
    assert 0 < len(floor) < len(rows)
    assert all(row["metrics"][name] == 0.0 for row in floor)
    assert {row["notes"][name]["not_judged"] for row in floor} == {"empty", "refusal"}
    assert len(requests(log)) == len(rows) - len(floor)


def test_several_judges_and_their_panel(tmp_path):
    options = {"faults": {"malformed": 0.5}, "settings": {"max_attempts": 1}}
    evaluate(tmp_path, "run", *FEW, scorers("writing_quality"), judges({}, options))
    partly = 0
    for row in samples(tmp_path / "run"):
        values = {name.partition("@")[2]: v for name, v in row["metrics"].items() if name.startswith("s_q@")}
        panel = values.pop(next(name for name in values if name.startswith("panel2.")))
        assert panel == pytest.approx(sum(values.values()) / len(values))
        partly += len(values) == 1
    assert 0 < partly < 12


def test_a_baseline_is_compared_in_both_orders(tmp_path):
    log = tmp_path / "judge.jsonl"
    evaluate(tmp_path, "base", *FEW)
    entry = {"name": "pairwise", "baseline": "base"}
    flags = ("--seed", "7", '--engine.faults={"truncated": 0.5}', scorers(entry))
    out, _ = evaluate(tmp_path, "run", *FEW, *flags, judges({"request_log": str(log)}))
    rows, found = samples(tmp_path / "run"), results(tmp_path / "run")
    assert len(requests(log)) == 24
    name, disagreement = judged(rows[0], "win_rate_vs_base"), judged(rows[0], "order_disagreement_vs_base")
    base = {row["id"]: row["resps"][0] for row in samples(tmp_path / "base")}
    for row in rows:
        winners = [
            json.loads(row["notes"][name]["attempts"][order][-1]["text"])["winner"]
            for order in ("first", "second")
        ]
        first = {"A": 1.0, "B": 0.0, "tie": 0.5}[winners[0]]
        second = {"A": 0.0, "B": 1.0, "tie": 0.5}[winners[1]]
        assert row["metrics"][name] == (first if first == second else 0.5)
        assert row["metrics"][disagreement] == float(first != second)
        delta = len(row["resps"][0]) - len(base[row["id"]])
        assert row["metrics"]["length_delta_chars_vs_base"] == delta
    controlled = found["length_controlled"]["longbench_write"][name]
    assert 0 < controlled["value"] < 1
    assert controlled["raw"] == pytest.approx(found["results"]["longbench_write"][f"{name},none"])
    assert "if both were equally long" in out


def test_a_pair_without_a_baseline_is_unscored(tmp_path):
    evaluate(tmp_path, "base", "--tasks", "longbench_write", "--limit", "6")
    evaluate(tmp_path, "run", *FEW, scorers({"name": "pairwise", "baseline": "base"}), judges({}))
    rows = samples(tmp_path / "run")
    name = judged(rows[0], "win_rate_vs_base")
    reasons = [row["unscored"][name] for row in rows if name in row["unscored"]]
    assert 6 <= len(reasons) < 12
    assert set(reasons) == {"baseline: not in the saved run"}


def test_saved_replies_are_scored_without_a_model(tmp_path):
    log = tmp_path / "judge.jsonl"
    evaluate(tmp_path, "run", *FEW)
    before = samples(tmp_path / "run")
    evaluate(tmp_path, "again", "--rescore", "run", "--scorers", "degeneration", model=False)
    assert json.loads((tmp_path / "again" / "manifest.json").read_text())["usage"]["num_calls"] == 0
    found = samples(tmp_path / "again")
    assert [row["resps"] for row in found] == [row["resps"] for row in before]
    assert all("ends_cleanly" in row["metrics"] for row in found)

    flags = ("--rescore", "run", scorers("writing_quality"), judges({"request_log": str(log)}))
    evaluate(tmp_path, "judged", *flags, model=False)
    assert json.loads((tmp_path / "judged" / "manifest.json").read_text())["usage"]["num_calls"] == 12
    assert len(requests(log)) == 12


def test_a_rescored_run_asks_only_for_the_verdicts_that_are_missing(tmp_path):
    def with_attempts(number: int, log: str) -> str:
        options = {"faults": {"malformed": 0.5}, "settings": {"max_attempts": number}}
        return judges({**options, "request_log": str(tmp_path / log)})

    flags = ("--rescore", "run", scorers("writing_quality"))
    evaluate(tmp_path, "run", *FEW, scorers("writing_quality"), with_attempts(1, "first.log"))
    before = samples(tmp_path / "run")
    missing = [row for row in before if row["unscored"]]
    assert 0 < len(missing) < 12
    evaluate(tmp_path, "same", *flags, with_attempts(1, "same.log"), model=False)
    assert requests(tmp_path / "same.log") == []
    assert samples(tmp_path / "same") == before
    evaluate(tmp_path, "more", *flags, with_attempts(8, "more.log"), model=False)
    after = samples(tmp_path / "more")
    assert not [row for row in after if row["unscored"]]
    kept = [(a, b) for a, b in zip(before, after, strict=True) if not a["unscored"]]
    assert all(a["metrics"] == b["metrics"] for a, b in kept)
    asked = sum(len(row["notes"][judged(row, "s_q")]["attempts"]) - 1 for row in after)
    assert len(requests(tmp_path / "more.log")) == asked >= len(missing)


def test_a_run_killed_while_it_judges_repeats_no_call(tmp_path):
    log = tmp_path / "judge.jsonl"
    flags = (
        *("--tasks", "longbench_write", "--max_concurrent_samples", "2"),
        scorers("writing_quality"),
        judges({"request_log": str(log), "delay_seconds": 0.1, "faults": {"malformed": 0.2}}),
    )
    evaluate(tmp_path, "whole", *flags)
    log.unlink()
    process = start(tmp_path, "run", *flags)
    journal = tmp_path / "run" / "journal.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b'"judge:') >= 8):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "run" / "manifest.json").exists()
    finished = [line for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"}\n")]
    evaluate(tmp_path, "run", *flags)
    assert journal.read_bytes().startswith(b"".join(finished))
    salts = [json.dumps(json.loads(line)["salt"]) for line in journal.read_text().splitlines()]
    assert len(salts) == len(set(salts)), "a call that was finished was made again"
    assert samples(tmp_path / "run") == samples(tmp_path / "whole")
    whole, run = results(tmp_path / "whole"), results(tmp_path / "run")
    assert run["results"] == whole["results"] and run["judges"] == whole["judges"]


def test_a_limit_that_is_reached_while_judging(tmp_path):
    flags = (*FEW, scorers("writing_quality"), judges({}), "--max_concurrent_samples", "1")
    generated = sum(row["num_tokens"] for row in _rows_without_judge(tmp_path))
    _, err = evaluate(tmp_path, "run", *flags, f"--max_generated_tokens={generated + 30}", code=1)
    assert "max_generated_tokens is reached" in err and "of longbench_write are scored" in err
    evaluate(tmp_path, "run", *flags, "--max_generated_tokens=1000000")
    assert results(tmp_path / "run")["judges"]["judge-0"]["num_calls"] == 12


def _rows_without_judge(tmp_path: Path) -> list[dict]:
    evaluate(tmp_path, "plain", *FEW)
    return samples(tmp_path / "plain")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((scorers("writing_quality"),), "writing_quality needs a judge"),
        ((judges({}),), "no scorer asks one"),
        ((scorers("degeneration", "degeneration"),), "degeneration measures 'ends_cleanly'"),
        ((scorers("qualty"), judges({})), "no component 'qualty'"),
        ((scorers({"name": "writing_quality", "dimension": "longen"}), judges({})), "dimension"),
        ((scorers({"name": "pairwise", "baseline": "nowhere"}), judges({})), "holds no samples"),
        (
            (
                scorers("writing_quality"),
                '--judges=[{"model": "/nowhere/at/all", "engine": {"name": "hf"}}]',
            ),
            "judges: all",
        ),
        ((scorers("writing_quality"), '--judges=[{"model": "m", "engine": {"name": "nope"}}]'), "nope"),
        ((scorers("writing_quality"), '--judges=["a/m", "b/m"]'), "two are called 'm'"),
        ((scorers("writing_quality"), '--judges=[{"model": "m", "name": "a,b"}]'), "name 'a,b'"),
    ],
)
def test_mistakes_stop_before_the_model(tmp_path, flags, message):
    _, err = evaluate(tmp_path, "run", *FEW, *flags, code=2)
    assert message in err
    assert not (tmp_path / "run").exists()
