"""Evaluations of a training's checkpoints: one at a time, noted once, gone with the training, gone on with later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lengthwise.config import ConfigError, parse_config
from lengthwise.run_dir import RunDir
from lengthwise.schemas import load_schema
from posttrain.length_eval import CheckpointEvals, LengthEval, check_length_eval, environment_of, headline
from posttrain.run_log import read_metrics
from posttrain.sft import SFTJob
from posttrain.stop import StopRequest

REPO = Path(__file__).parents[2]
CONFIG = """
model: whatever
engine: {name: scripted, delay_seconds: %s}
tasks: [longen]
limit: 4
max_concurrent_samples: 1
"""


def config_file(tmp_path, delay=0.0, text=CONFIG):
    file = tmp_path / "length_eval.yaml"
    file.write_text(text % delay if "%s" in text else text, encoding="utf-8")
    return file


def begun(tmp_path, *, delay=0.0, steps=(1,), wait=True):
    """Return the evaluations of a run with checkpoints."""
    folder = tmp_path / "run"
    for step in steps:
        (folder / f"checkpoint-{step}").mkdir(parents=True, exist_ok=True)
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text("{}", encoding="utf-8")
    options = LengthEval(config=str(config_file(tmp_path, delay)), wait=wait)
    return CheckpointEvals(options=options, run_folder=folder, stop=StopRequest())


def metrics(evals):
    return read_metrics(evals.run_folder / "metrics.jsonl")


def is_alive(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(is_so, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_checkpoint_is_evaluated_and_its_numbers_stand_beside_the_losses_once(tmp_path, capsys):
    evals = begun(tmp_path)
    evals.evaluate(1)
    run = RunDir.load(evals.folder(1))
    assert run.is_finished and run.config["model"] == str(evals.run_folder / "checkpoint-1")
    (line,) = metrics(evals)
    assert (
        line["step"] == 1
        and 0 <= line["eval_longen/length_score"] <= 1
        and line["eval_longen/num_tokens"] > 0
    )
    assert not any(key.endswith(("_ci", "_n", "_stderr")) for key in line)
    assert "checkpoint-1/evaluation.log" in capsys.readouterr().out and evals.log_file(1).stat().st_size > 0
    written = (evals.folder(1) / "manifest.json").stat().st_mtime_ns
    evals.go_on(1)
    assert (evals.folder(1) / "manifest.json").stat().st_mtime_ns == written
    assert metrics(evals) == [line]
    assert evals.account()["evaluated_steps"] == [1] and evals.account()["failed"] == []


def test_a_result_that_a_kill_kept_from_the_log_is_noted_later(tmp_path):
    evals = begun(tmp_path)
    evals.evaluate(1)
    (evals.run_folder / "metrics.jsonl").unlink()
    evals.go_on(1)
    assert metrics(evals) == [{"step": 1, **headline(evals.folder(1))}]


def test_a_failure_stops_nothing_and_is_said(tmp_path, capsys):
    evals = begun(tmp_path)
    config_file(tmp_path, text="model: m\ntasks: [longen]\nengine: {name: scripted}\nlimit: 0\n")
    evals.evaluate(1)
    assert "WARNING     the evaluation of checkpoint-1 ended with exit code 2" in capsys.readouterr().out
    assert "limit must be at least 1" in evals.log_file(1).read_text(encoding="utf-8")
    assert evals.account()["failed"][0]["step"] == 1
    assert evals.closing()[1].startswith("WARNING") and evals.closing()[1].endswith("evaluation.log says why")
    config_file(tmp_path)
    evals.go_on(1)  # as a resumed run does
    assert evals.account() == {**evals.account(), "evaluated_steps": [1], "failed": []}


def test_never_two_at_once(tmp_path):
    evals = begun(tmp_path, steps=(1, 2), delay=0.1, wait=False)
    evals.evaluate(1)
    assert not evals.is_done(1)
    evals.evaluate(2)
    assert evals.is_done(1) and not evals.is_done(2)
    evals.settle()
    assert [line["step"] for line in metrics(evals)] == [1, 2]


def test_a_save_waits_for_the_checkpoint_that_it_may_delete(tmp_path):
    evals = begun(tmp_path, delay=0.1, wait=False)
    callback = evals.callback()
    state = SimpleNamespace(global_step=1, is_world_process_zero=True)
    args, control = SimpleNamespace(save_strategy="steps"), SimpleNamespace(should_save=False)
    callback.on_save(args, state, control)
    callback.on_step_end(args, state, control)
    assert not evals.is_done(1)
    control.should_save = True
    callback.on_step_end(args, state, control)
    assert evals.is_done(1)


def test_other_ranks_evaluate_nothing(tmp_path):
    evals = begun(tmp_path)
    state = SimpleNamespace(global_step=1, is_world_process_zero=False)
    callback = evals.callback()
    callback.on_train_begin(None, state, None)
    callback.on_save(None, state, None)
    assert not (evals.run_folder / "evals").exists()


def test_a_signal_ends_the_evaluation_and_a_resumed_run_goes_on_with_it(tmp_path, capsys):
    evals = begun(tmp_path, steps=(1, 2), delay=1.0, wait=False)
    evals.evaluate(1)
    journal = evals.folder(1) / "journal.jsonl"
    wait_until(lambda: journal.is_file() and journal.read_bytes().count(b"\n") >= 1)
    evals.stop.signal = signal.SIGTERM
    evals.settle()
    assert "is cut short" in capsys.readouterr().out
    assert [entry["step"] for entry in evals.account()["failed"]] == [1, 2]
    assert not evals.is_done(1) and evals.failed == {}
    evals.evaluate(2)
    assert not evals.folder(2).exists()
    kept = journal.read_bytes()
    evals = begun(tmp_path, steps=(1, 2))
    evals.go_on(2)
    assert journal.read_bytes().startswith(kept)
    assert [line["step"] for line in metrics(evals)] == [1, 2]


def test_evaluations_of_steps_to_be_done_again_are_removed(tmp_path):
    evals = begun(tmp_path, steps=(1, 2))
    evals.go_on(2)
    evals.go_on(1)
    assert [p.name for p in (evals.run_folder / "evals").iterdir()] == ["checkpoint-1"]


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_a_killed_training_leaves_no_evaluation(tmp_path):
    begun(tmp_path, delay=60)
    code = (
        "import sys; from pathlib import Path\n"
        "from posttrain.length_eval import CheckpointEvals, LengthEval\n"
        "from posttrain.stop import StopRequest\n"
        "options = LengthEval(config=sys.argv[2])\n"
        "evals = CheckpointEvals(options=options, run_folder=Path(sys.argv[1]), stop=StopRequest())\n"
        "evals.evaluate(1)\n"
    )
    arguments = [str(tmp_path / "run"), str(tmp_path / "length_eval.yaml")]
    training = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}
    )
    lock = tmp_path / "run" / "evals" / "checkpoint-1" / ".lock"
    wait_until(lambda: lock.is_file() and lock.stat().st_size > 0)
    pid = json.loads(lock.read_text(encoding="utf-8"))["pid"]
    assert is_alive(pid)
    training.kill()
    training.wait()
    wait_until(lambda: not is_alive(pid), 10)


def test_the_evaluation_is_checked_before_anything_is_loaded(tmp_path):
    check_length_eval(LengthEval(config=str(config_file(tmp_path))), "m")
    wrong = config_file(tmp_path, text="model: m\ntasks: [longenn]\nengine: {name: scripted}\n")
    with pytest.raises(ConfigError, match=r"refuses .*length_eval.yaml: .*did you mean 'longen'\?"):
        check_length_eval(LengthEval(config=str(wrong)), "m")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["length_eval.yaml"]


def parsed(*flags):
    given = ["--data=rows.jsonl", "--name=x", "--model=m", *map(str, flags)]
    return parse_config(SFTJob, given, prog="sft", passthrough=load_schema("sft"))


def test_it_may_be_added_changed_and_taken_out_when_a_run_is_resumed(tmp_path):
    file = config_file(tmp_path)
    RunDir.open_for("sft", tmp_path / "run", parsed()).close()
    assert RunDir.check("sft", tmp_path / "run", parsed(f"--length_eval.config={file}")).resumed


def test_wrong_settings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="length_eval: config: there is no file 'nowhere.yaml'"):
        parsed("--length_eval.config=nowhere.yaml")
    with pytest.raises(ConfigError, match="save_strategy is 'no': there is no checkpoint to evaluate"):
        parsed(f"--length_eval.config={config_file(tmp_path)}", "--save_strategy=no")


def test_an_evaluation_is_no_rank_of_the_training(tmp_path):
    options = LengthEval(config=str(config_file(tmp_path)), devices="3")
    given = {"RANK": "0", "MASTER_PORT": "1", "ACCELERATE_USE_FSDP": "true", "PATH": "/bin"}
    assert environment_of(options, given) == {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "3"}
