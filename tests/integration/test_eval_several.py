"""Several models and tasks in one evaluation, killed and resumed; and saved replies scored again."""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = str(REPOSITORY / "evals" / "run.py")
TASKS = ("--tasks", "longen", "tlg", "--limit", "20", "--sampling.temperature", "0.9")


def start(tmp_path: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, SCRIPT, "--engine.name", "scripted", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)


def evaluate(tmp_path: Path, *flags: str, code: int = 0) -> tuple[str, str]:
    out, err = (process := start(tmp_path, *flags)).communicate(timeout=120)
    assert process.returncode == code, err
    return out, err


def document(folder: Path) -> dict:
    (file,) = folder.glob("results_*.json")
    return json.loads(file.read_text())


def row_files(folder: Path) -> dict[str, bytes]:
    return {file.name.rpartition("_")[0]: file.read_bytes() for file in folder.glob("samples_*.jsonl")}


def tool(tmp_path: Path, *words: str) -> str:
    command = [sys.executable, "-m", "lengthwise.cli", *words]
    done = subprocess.run(command, text=True, capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_model_has_a_folder_and_all_are_compared(tmp_path):
    out, _ = evaluate(tmp_path, "--models", "base", "lab/tuned", *TASKS, "--output_dir", "both")
    folders = {path.name for path in (tmp_path / "both").iterdir() if path.is_dir()}
    assert folders == {"base", "lab__tuned"}
    assert "model 2 of 2: lab__tuned" in out
    for name in folders:
        assert (tmp_path / "both" / name / "manifest.json").is_file()
    found = json.loads(tool(tmp_path, "compare", "both", "--json"))
    assert [c["other"]["name"] for c in found["comparisons"]] == ["lab__tuned"]
    assert tool(tmp_path, "report", "both").startswith("report.html: 2 run(s)")


def test_a_pattern_stands_for_checkpoints_in_the_order_of_their_steps(tmp_path):
    for step in (16, 8, 24):
        (tmp_path / "mine" / f"checkpoint-{step}").mkdir(parents=True)
    evaluate(tmp_path, "--models", "mine/checkpoint-*", *TASKS, "--output_dir", "all")
    manifest = json.loads((tmp_path / "all" / "manifest.json").read_text())
    assert manifest["members"] == [f"mine__checkpoint-{step}" for step in (8, 16, 24)]
    _, err = evaluate(tmp_path, "--models", "mine/step-*", *TASKS, "--output_dir", "none", code=2)
    assert "no folder matches 'mine/step-*'" in err


def test_an_aa_run_measures_the_noise(tmp_path):
    evaluate(tmp_path, "--model", "base", "--aa_run", "true", *TASKS, "--output_dir", "twice")
    manifest = json.loads((tmp_path / "twice" / "manifest.json").read_text())
    assert manifest["members"] == ["base", "base__again"]
    (found,) = json.loads(tool(tmp_path, "compare", "twice", "--json"))["comparisons"]
    assert any("seed" in warning for warning in found["warnings"])


def test_killed_between_models_and_tasks_no_call_is_repeated(tmp_path):
    models = ("--models", "one", "two", *TASKS, "--max_concurrent_samples", "4")
    evaluate(tmp_path, *models, "--output_dir", "whole")
    log = tmp_path / "requests.jsonl"
    slow = (*models, "--engine.delay_seconds=0.02", f"--engine.request_log={log}", "--output_dir", "killed")

    def num_finished() -> int:
        return log.read_text().count('"finished"') if log.is_file() else 0

    for wanted in (10, 30, 55):  # in the first task, the second, the second model
        process = start(tmp_path, *slow)
        deadline = time.monotonic() + 60
        while num_finished() < wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    evaluate(tmp_path, *slow)
    for name in ("one", "two"):
        assert row_files(tmp_path / "killed" / name) == row_files(tmp_path / "whole" / name)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    finished = collections.Counter(e["request"] for e in events if e["event"] == "finished")
    # One model's requests are the other's: twice is once each. At each kill up to four calls had an answer that the
    # journal had not.
    assert len(finished) == 40
    assert 80 <= sum(finished.values()) <= 80 + 3 * 4


def test_a_finished_model_is_not_measured_again_and_another_setting_is_refused(tmp_path):
    log = tmp_path / "requests.jsonl"
    flags = ("--models", "one", "two", *TASKS, f"--engine.request_log={log}", "--output_dir", "both")
    evaluate(tmp_path, *flags)
    (tmp_path / "both" / "manifest.json").unlink()
    before = log.read_text()
    out, _ = evaluate(tmp_path, *flags)
    assert "one is finished" in out and log.read_text() == before
    (tmp_path / "both" / "manifest.json").unlink()
    _, err = evaluate(tmp_path, *flags, "--seed", "7", code=2)
    assert "seed" in err


def test_saved_replies_are_scored_again_without_a_call(tmp_path):
    evaluate(tmp_path, "--model", "one", *TASKS, "--num_samples", "2", "--output_dir", "old")
    metric = tmp_path / "within_ten.py"
    metric.write_text(
        "from evals.tasks.longen import *\nfrom evals.base import Metric, asked_length\n"
        "METRICS = (*METRICS, Metric(name='within', counter='whitespace', summary='proportion'))\n"
        "own = score\n"
        "def score(sample, text, finish_reason):\n"
        "    near = abs(len(text.split()) - asked_length(sample, 'x').nominal) <= 10\n"
        "    return {**own(sample, text, finish_reason), 'within': float(near)}\n"
    )
    log = tmp_path / "requests.jsonl"
    evaluate(
        tmp_path,
        *("--rescore", "old", "--output_dir", "new", f"--engine.request_log={log}"),
        *("--tasks", json.dumps({"name": str(metric), "label": "longen"})),
    )
    old, new = document(tmp_path / "old"), document(tmp_path / "new")
    assert new["results"]["longen"]["length_score,none"] == old["results"]["longen"]["length_score,none"]
    assert new["results"]["longen"]["within_n,none"] == 20
    assert not log.exists()
    manifest = json.loads((tmp_path / "new" / "manifest.json").read_text())
    assert manifest["usage"]["num_calls"] == 0
    assert [parent["path"] for parent in manifest["parents"]] == ["old"]
    assert new["model_identity"] == old["model_identity"]


def test_all_tasks_are_rescored_where_none_is_named(tmp_path):
    evaluate(tmp_path, "--model", "one", *TASKS, "--output_dir", "old")
    evaluate(tmp_path, "--rescore", "old", "--output_dir", "new")
    assert document(tmp_path / "new")["results"] == document(tmp_path / "old")["results"]


def test_a_rescored_run_keeps_what_was_found_before_the_first_reply(tmp_path):
    evaluate(tmp_path, "--model", "one", *TASKS, "--output_dir", "old")
    old = document(tmp_path / "old")
    trained_on = json.loads(row_files(tmp_path / "old")["samples_longen"].splitlines()[0])["id"]
    task = {"prompts": 10, "verbatim": [trained_on], "copied": []}
    old["overlap"] = {"tasks": {"longen": task}, "training_rows": 5, "runs": ["sft"], "unchecked": []}
    old["guards"]["warnings"] = ["two BOS"]
    (file,) = (tmp_path / "old").glob("results_*.json")
    file.write_text(json.dumps(old))
    _, err = evaluate(tmp_path, "--rescore", "old", "--output_dir", "new")
    new = document(tmp_path / "new")
    assert (new["overlap"], new["guards"]) == (old["overlap"], old["guards"])
    assert new["slices"]["longen"]["overlap"]["yes"]["counts"]["scored"] == 1
    assert "WARNING: two BOS" in err and "longen: 1 of 10 prompts" in err


def test_a_prompt_that_was_not_asked_is_failed_and_counted(tmp_path):
    data = tmp_path / "data.jsonl"
    rows = [{"id": n, "prompt": f"Write about {n} words.", "length": n} for n in (10, 20, 30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    task = ("--tasks", json.dumps({"name": "longbench_write", "data": "data.jsonl"}))
    evaluate(tmp_path, "--model", "one", *task, "--output_dir", "old")
    rows[0]["prompt"] = "Write ten words."
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate(tmp_path, "--rescore", "old", "--output_dir", "new")
    dropped = [json.loads(line) for line in (tmp_path / "new" / "dropped.jsonl").read_text().splitlines()]
    assert {row["id"]: row["reason"] for row in dropped} == {
        "10": "asked otherwise in the saved run",
        "30": "not in the saved run",
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--tasks", "tlg"), "model is missing"),
        (("--tasks", "tlg", "--model", "a", "--models", "b"), "model and models are given"),
        (("--tasks", "tlg", "--models", "lab/a", "lab/a"), "two are called 'lab__a'"),
        (("--tasks", "tlg", "--models", "a", "b", "--adapter", "c"), "adapter is of one model"),
        (("--tasks", "tlg", "--models", '{"model": "a", "name": "../b"}'), "is to be a folder's"),
        (("--tasks", "tlg", "--model", "a", "--aa_run", "true", "--response_cache", "c"), "aa_run measures"),
        (("--rescore", "nowhere"), "nowhere is not a run folder"),
        (("--model", "a", "--tasks", '{"name": "tlg", "targts": 3}'), "tlg has no option 'targts'"),
        (("--model", "a", "--tasks", "tlg", "--data_dir", "nowhere"), "there is no folder 'nowhere'"),
        (("--model", "a", "--tasks", "tlg", "tlg"), "give each entry a label"),
    ],
)
def test_mistakes_stop_before_a_folder_is_made(tmp_path, flags, message):
    _, err = evaluate(tmp_path, *flags, "--output_dir", "run", code=2)
    assert message in err
    assert not (tmp_path / "run").exists()


def test_an_aa_run_cannot_be_rescored_and_says_so(tmp_path):
    evaluate(tmp_path, "--model", "one", "--aa_run", "true", *TASKS, "--output_dir", "twice")
    _, err = evaluate(tmp_path, "--rescore", "twice", "--output_dir", "again", code=2)
    assert "no finished evaluation of one model" in err and not (tmp_path / "again").exists()


def test_a_rescored_runs_config_runs_again(tmp_path):
    evaluate(tmp_path, "--model", "one", *TASKS, "--output_dir", "old")
    evaluate(tmp_path, "--rescore", "old", "--output_dir", "new")
    evaluate(tmp_path, "--config", "new/run_config.json", "--output_dir", "newer")
    assert document(tmp_path / "newer")["results"] == document(tmp_path / "old")["results"]


def test_every_model_meets_the_same_judge(tmp_path):
    broken = {"model": "x", "engine": {"name": "scripted", "faults": {"malformed": 1.0}}}
    evaluate(
        tmp_path,
        *("--models", json.dumps(broken), "y", "--judges", "j", "--scorers", "writing_quality"),
        *("--tasks", "longen", "--limit", "4", "--output_dir", "both"),
    )
    for name in "xy":
        assert document(tmp_path / "both" / name)["counts"]["longen"]["unscored"] == 0


def test_verdicts_are_asked_anew_of_a_judge_that_is_served_otherwise(tmp_path):
    evaluate(tmp_path, "--model", "one", "--tasks", "longen", "--limit", "4", "--output_dir", "old")

    def judged(source: str, name: str, faults: dict) -> dict:
        judge = json.dumps({"model": "j", "engine": {"name": "scripted", "faults": faults}})
        flags = ("--judges", judge, "--scorers", "writing_quality", "--output_dir", name)
        evaluate(tmp_path, "--rescore", source, *flags)
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        return {"unscored": manifest["counts"]["longen"]["unscored"], "calls": manifest["usage"]["num_calls"]}

    assert judged("old", "broken", {"malformed": 1.0})["unscored"] == 4
    assert judged("broken", "sound", {}) == {"unscored": 0, "calls": 4}
    assert judged("sound", "again", {}) == {"unscored": 0, "calls": 0}
    assert judged("again", "thrice", {}) == {"unscored": 0, "calls": 0}
