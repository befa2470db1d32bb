"""The evaluation job by its own command line."""

from __future__ import annotations

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


def start(tmp_path: Path, name: str, *flags: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        SCRIPT,
        *("--model", "scripted", "--engine.name", "scripted", "--output_dir", str(tmp_path / name)),
        *flags,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)


def evaluate(tmp_path: Path, name: str, *flags: str, code: int = 0) -> tuple[str, str]:
    out, err = (process := start(tmp_path, name, *flags)).communicate(timeout=120)
    assert process.returncode == code, err
    return out, err


def results(folder: Path) -> dict:
    (file,) = folder.glob("results_*.json")
    return json.loads(file.read_text())


def samples(folder: Path, task: str) -> list[dict]:
    (file,) = folder.glob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_run_from_config_to_manifest(tmp_path):
    out, err = evaluate(tmp_path, "run", "--tasks", "longbench_write", "longen", "tlg")
    folder = tmp_path / "run"
    found = results(folder)
    assert {task: row["scored"] for task, row in found["counts"].items()} == {
        "longbench_write": 36,
        "longen": 72,
        "tlg": 54,
    }
    # The scripted engine does as told; LonGen and TLG count its plain words exactly.
    assert found["results"]["longbench_write"]["s_l,none"] == pytest.approx(100)
    assert found["results"]["longen"]["length_score,none"] == 1.0
    assert found["versions"]["tlg"] == 1
    assert found["n-samples"]["tlg"] == {
        "rows": 72, "original": 54, "left_aside": 18, "bad_rows": 0, "renamed_ids": 0, "effective": 54,
    }  # fmt: skip
    assert "s_l" in out and "cjk_alpha" in out
    assert "WARNING" not in err
    rows = samples(folder, "longen")
    source = (REPOSITORY / "evals/prompts/length_control.jsonl").read_text(encoding="utf-8").splitlines()
    assert [row["id"] for row in rows] == [json.loads(line)["id"] for line in source]
    assert rows[0]["resps"] == rows[0]["filtered_resps"]
    assert rows[0]["arguments"][-1]["role"] == "user"
    assert set(rows[0]["counts"]) == {"cjk_alpha", "cjk_ws", "cjk_alnum", "regex_w", "whitespace", "tokens"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["job"] == "eval"
    assert manifest["usage"]["num_calls"] == 162
    assert [item["num_rows"] for item in manifest["inputs"]] == [72]
    assert {Path(item["path"]).name.split("_20")[0] for item in manifest["outputs"]} == {
        "results",
        "samples_longbench_write",
        "samples_longen",
        "samples_tlg",
        "dropped.jsonl",
    }


def test_a_finished_run_is_not_overwritten(tmp_path):
    evaluate(tmp_path, "run", "--tasks", "tlg", "--limit", "3")
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").glob("*.json*")}
    _, err = evaluate(tmp_path, "run", "--tasks", "tlg", "--limit", "3", code=2)
    assert "never overwritten" in err
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "run").glob("*.json*")}


def test_faults_are_scored_as_the_models_or_counted_as_ours(tmp_path):
    faults = '{"empty": 0.2, "truncated": 0.2, "error": 0.2}'
    _, err = evaluate(tmp_path, "run", "--tasks", "longbench_write", f"--engine.faults={faults}")
    found = results(tmp_path / "run")
    counts = found["counts"]["longbench_write"]
    assert counts["scored"] + counts["failed"] == 36
    assert min(counts["empty"], counts["truncated"], counts["failed"]) > 0
    dropped = [json.loads(line) for line in (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()]
    assert len(dropped) == counts["failed"]
    assert {row["outcome"] for row in dropped} == {"failed"}
    row = found["results"]["longbench_write"]
    low, high = row["s_l_bounds,none"]
    assert low < row["s_l,none"] < high
    assert "were cut at the token cap" in err and "failed" in err


def test_thinking_is_no_part_of_the_answer_and_both_counts_are_kept(tmp_path):
    faults = '{"thinking": 0.4, "thinking_cut": 0.3}'
    evaluate(tmp_path, "run", "--tasks", "longen", f"--engine.faults={faults}")
    rows = samples(tmp_path / "run", "longen")
    thought = [row for row in rows if row["num_reasoning_tokens"]]
    assert len(rows) == 72 and 20 < len(thought) < 72
    for row in rows:
        assert row["counts"]["tokens"] == row["num_tokens"] - row["num_reasoning_tokens"]
        assert row["counts"]["whitespace"] == row["counts"]["tokens"]  # a word is a token here
    cut = [row for row in rows if row["flags"]["empty"]]
    assert cut and all(row["finish_reason"] == "length" and row["counts"]["tokens"] == 0 for row in cut)
    assert results(tmp_path / "run")["counts"]["longen"]["empty"] == len(cut)


def test_a_prompt_beyond_the_context_fails_before_the_call(tmp_path):
    data = tmp_path / "data.jsonl"
    rows = [{"prompt": "word " * 300, "length": 100}, {"prompt": "Write about 100 words.", "length": 100}]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = json.dumps([{"name": "longbench_write", "data": str(data), "sampling": {"max_tokens": 1000}}])
    log = tmp_path / "requests.jsonl"
    evaluate(tmp_path, "run", f"--tasks={task}", "--engine.context_length=200", f"--engine.request_log={log}")
    counts = results(tmp_path / "run")["counts"]["longbench_write"]
    assert (counts["scored"], counts["failed"]) == (1, 1)
    (dropped,) = (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()
    assert json.loads(dropped)["reason"] == "prompt longer than the context"
    assert len(log.read_text().splitlines()) == 2  # started and finished, once


def test_a_killed_run_resumes_without_repeating_a_call(tmp_path):
    flags = ("--tasks", "longen", "--max_concurrent_samples", "4", "--sampling.temperature", "0.9")
    evaluate(tmp_path, "whole", *flags)
    log = tmp_path / "requests.jsonl"
    slow = (*flags, "--engine.delay_seconds=0.05", f"--engine.request_log={log}")
    process = start(tmp_path, "killed", *slow)
    deadline = time.monotonic() + 60
    while not (log.is_file() and log.read_text().count("finished") >= 12) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    journal = (tmp_path / "killed" / "journal.jsonl").read_bytes()
    num_kept = journal.count(b"\n")
    assert 0 < num_kept < 72
    _, err = evaluate(tmp_path, "killed", *flags, "--seed", "1", code=2)
    assert "seed" in err
    evaluate(tmp_path, "killed", *slow)
    assert samples(tmp_path / "killed", "longen") == samples(tmp_path / "whole", "longen")
    (whole,) = (tmp_path / "whole").glob("samples_*")
    (resumed,) = (tmp_path / "killed").glob("samples_*")
    assert resumed.read_bytes() == whole.read_bytes()
    finished = [json.loads(line) for line in log.read_text().splitlines()]
    requests = [entry["request"] for entry in finished if entry["event"] == "finished"]
    # At most the calls under way at the kill had an answer that the journal had not yet.
    assert len(requests) - len(set(requests)) <= 4
    assert results(tmp_path / "killed")["results"] == results(tmp_path / "whole")["results"]


def test_several_completions_of_a_prompt(tmp_path):
    flags = ("--tasks", "longbench_write", "--limit", "4", "--num_samples", "3")
    evaluate(tmp_path, "run", *flags)
    rows = samples(tmp_path / "run", "longbench_write")
    assert [row["completion_index"] for row in rows] == [0, 1, 2] * 4
    assert len({row["id"] for row in rows}) == 4
    assert len({row["resps"][0] for row in rows}) == 12
    row = results(tmp_path / "run")["results"]["longbench_write"]
    assert row["s_l_n,none"] == 4


def test_the_samples_can_be_scored_again(tmp_path):
    evaluate(tmp_path, "run", "--tasks", "longen", "--engine.faults", '{"empty": 0.3}')
    (file,) = (tmp_path / "run").glob("samples_longen_*.jsonl")
    command = [sys.executable, str(REPOSITORY / "evals" / "score.py"), str(file), "--task", "longen"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "again.json")], text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["results"] == results(tmp_path / "run")["results"]
    assert again["slices"] == results(tmp_path / "run")["slices"]


def test_mistakes_stop_before_the_model(tmp_path):
    _, err = evaluate(tmp_path, "run", "--tasks", "longbench_rite", code=2)
    assert "did you mean 'longbench_write'" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.real_model
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_embedded_model_through_vllm(tmp_path):
    config = REPOSITORY / "configs" / "evals" / "debug.yaml"
    command = [sys.executable, SCRIPT, "--config", str(config), "--output_dir", str(tmp_path / "run")]
    done = subprocess.run(command, text=True, capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = results(tmp_path / "run")
    for task in ("longbench_write", "longen", "tlg"):
        assert found["counts"][task]["scored"] == 6
        for row in samples(tmp_path / "run", task):
            assert 0 < row["num_tokens"] <= 128
            assert row["finish_reason"] in ("stop", "length")
    assert "were cut at the token cap" in done.stderr
    assert found["model_identity"]
