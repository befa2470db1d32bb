"""The SFT job on the real embedded model, through its command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lengthwise.config import ConfigError, parse_config
from lengthwise.engines.chat_tokenizer import template_digest
from lengthwise.run_dir import RunDir
from lengthwise.schemas import load_schema
from posttrain.resume import binds, clear_leftovers, find_checkpoint
from posttrain.run_log import keep_steps, read_metrics
from posttrain.sft import SFTJob, main

REPO = Path(__file__).parents[2]
SCRIPT = "posttrain/sft.py"
SMALL = [
    "--model=embedded:smollm2-135m",
    "--learning_rate=1e-3",
    "--lr_scheduler_type=constant",
    "--per_device_train_batch_size=2",
    "--gradient_checkpointing=false",
    "--logging_steps=1",
    "--save_steps=1",
]
LORA = ["--lora.r=4", "--lora.alpha=8", "--lora.target_modules", "q_proj", "v_proj"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "rows.jsonl"
    pairs = [
        ("Hi", "Yo"),
        ("One?", "Two."),
        ("Red?", "Blue."),
        ("Cat?", "Dog."),
        ("Up?", "Down."),
        ("In?", "Out."),
    ]
    file.write_text(
        "".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in pairs), encoding="utf-8"
    )
    return file


def start(*arguments, launcher=(sys.executable,)):
    return subprocess.Popen(
        [*launcher, SCRIPT, *map(str, arguments)],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )


def run(*arguments, launcher=(sys.executable,)):
    process = start(*arguments, launcher=launcher)
    output, _ = process.communicate()
    return process.returncode, output


def losses(folder):
    return {row["step"]: row["loss"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row}


@pytest.mark.parametrize("file", sorted((REPO / "configs" / "sft").glob("*.yaml")), ids=lambda f: f.stem)
def test_shipped_configs_are_valid(file):
    job = parse_config(SFTJob, ["--config", str(file)], prog="sft", passthrough=load_schema("sft"))
    assert job.name


def test_the_shipped_rows_are_valid():
    from lengthwise.row_formats import read_row
    from posttrain.row_sources import data_sources, load_source

    loaded = load_source(data_sources(str(REPO / "configs" / "sft" / "example.jsonl"))[0], read_row)
    assert (len(loaded.rows), loaded.refused) == (24, [])


def test_config_errors_come_before_torch(tmp_path):
    code = (
        "import sys; from posttrain.sft import main; rc = main(sys.argv[1:]); "
        "assert not {'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules); raise SystemExit(rc)"
    )
    config = ["--config", str(REPO / "configs/sft/lora.yaml"), f"--output_dir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *config, "--data=nowhere.jsonl"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "there is no file or folder 'nowhere.jsonl'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_without_arguments_it_shows_usage(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "accelerate launch posttrain/sft.py --config configs/sft/lora.yaml" in capsys.readouterr().err


def test_which_checkpoint_to_go_on_from(tmp_path):
    assert find_checkpoint(tmp_path, "auto") is None
    with pytest.raises(ConfigError, match="no complete checkpoint"):
        find_checkpoint(tmp_path, True)
    for step in (2, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}", encoding="utf-8")
    assert find_checkpoint(tmp_path, "auto") == find_checkpoint(tmp_path, True) == tmp_path / "checkpoint-10"
    assert find_checkpoint(tmp_path, str(tmp_path / "checkpoint-2")) == tmp_path / "checkpoint-2"
    (tmp_path / "checkpoint-11" / "trainer_state.json").write_text('{"global_step": 1', encoding="utf-8")
    assert find_checkpoint(tmp_path, "auto") == tmp_path / "checkpoint-10"  # the kill came as it was written
    with pytest.raises(ConfigError, match="holds checkpoint-10"):
        find_checkpoint(tmp_path, False)
    with pytest.raises(ConfigError, match="is no complete checkpoint"):
        find_checkpoint(tmp_path, str(tmp_path / "checkpoint-11"))


def test_metrics_of_steps_to_be_done_again_are_removed(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "train_runtime": 9.0}]
    file.write_text("".join(json.dumps(row) + "\n" for row in lines) + '{"step": 3, "lo', encoding="utf-8")
    keep_steps(file, 1)
    assert read_metrics(file) == [{"step": 1, "loss": 3.0}]


def test_a_run_without_checkpoint_binds_nobody_to_its_settings(tmp_path):
    run = RunDir.open_for("sft", tmp_path / "run", {"learning_rate": 1.0})
    (run.path / "checkpoint-1").mkdir()
    for name in ("README.md", "notes.txt", "runs/host/events", "step_rows.jsonl", "metrics.jsonl"):
        run.file(name).write_text("{}\n", encoding="utf-8")
    clear_leftovers(run.path)
    assert (run.path / "run_config.json").exists()  # in use
    run.close()
    assert not binds(run.path)
    clear_leftovers(run.path)
    kept = ["README.md", "notes.txt", "run_config.json", "runs"]
    assert sorted(p.name for p in run.path.iterdir() if p.name != ".lock") == kept
    RunDir.check("sft", run.path, {"learning_rate": 2.0}, starts_anew=True)
    again = RunDir.open_for("sft", run.path, {"learning_rate": 2.0}, starts_anew=True)
    assert not again.resumed
    assert json.loads((run.path / "run_config.json").read_text(encoding="utf-8")) == {"learning_rate": 2.0}
    (again.file("checkpoint-1/trainer_state.json")).write_text("{}", encoding="utf-8")
    (again.path / "checkpoint-2").mkdir()
    again.close()
    assert binds(run.path)
    clear_leftovers(run.path)
    assert sorted(p.name for p in run.path.glob("checkpoint-*")) == ["checkpoint-1"]
    with pytest.raises(ConfigError, match="begun with 2"):
        RunDir.open_for("sft", run.path, {"learning_rate": 3.0})


BEST = ["--load_best_model_at_end", "--eval_strategy=steps", "--eval_steps=2", "--save_steps=2"]


@pytest.mark.parametrize(
    ("begun", "now", "named"),
    [
        (["--num_train_epochs=1"], ["--num_train_epochs=2"], "num_train_epochs: begun with 1.0, now 2.0"),
        (["--max_steps=4"], ["--max_steps=8"], "max_steps: begun with 4, now 8"),
        (BEST, [*BEST[:2], "--eval_steps=1", BEST[3]], "eval_steps: begun with 2.0, now 1.0"),
        (BEST, [*BEST[:3], "--save_steps=4"], "save_steps: begun with 2.0, now 4.0"),
        (BEST, BEST[1:], "load_best_model_at_end: begun with true, now not set"),
        (["--lr_scheduler_type=greedy"], ["--lr_scheduler_type=greedy", "--eval_delay=3"], "eval_delay"),
        (["--save_steps=2"], ["--save_steps=4"], None),
    ],
)
def test_what_decides_the_weights_may_not_change_on_resume(rows, tmp_path, begun, now, named):
    def job(flags):
        given = [f"--data={rows}", f"--eval_data={rows}", "--name=x", "--model=m", *flags]
        return parse_config(SFTJob, given, prog="sft", passthrough=load_schema("sft"))

    RunDir.open_for("sft", tmp_path / "run", job(begun)).close()
    if named is None:
        assert RunDir.check("sft", tmp_path / "run", job(now)).resumed
        return
    with pytest.raises(ConfigError, match=named) as refused:
        RunDir.check("sft", tmp_path / "run", job(now))
    assert str(refused.value).count(": begun with") == 1


@pytest.mark.real_model
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_lora_stops_on_sigterm_and_resumes_to_the_same_losses(rows, tmp_path):
    shared = [f"--data={rows}", *SMALL, *LORA, "--max_steps=4"]
    whole = tmp_path / "whole"
    accelerate = (
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        "configs/accelerate/cpu.yaml",
    )
    code, output = run("--name=whole", f"--output_dir={whole}", *shared, launcher=accelerate)
    assert code == 0, output
    assert "6 rows read, 0 unreadable, 0 over-length, 6 trained on" in output
    assert "max_length  8,192 (the model's context)" in output

    halves = tmp_path / "halves"
    process = start("--name=halves", f"--output_dir={halves}", *shared)
    deadline = time.monotonic() + 600
    while not (halves / "checkpoint-1" / "trainer_state.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, output
    assert not (halves / "manifest.json").exists()
    code, output = run("--name=halves", f"--output_dir={halves}", *shared)
    assert code == 0, output
    assert "start       from" in output and "checkpoint-" in output
    assert losses(halves) == pytest.approx(losses(whole), abs=1e-4)
    manifests = [json.loads((f / "manifest.json").read_text(encoding="utf-8")) for f in (whole, halves)]
    means = [m["training"]["train_loss"] for m in manifests]
    assert means[0] == pytest.approx(sum(losses(whole).values()) / 4) == pytest.approx(means[1], abs=1e-4)
    assert list(losses(halves)) == [1, 2, 3, 4]

    code, output = run("--name=halves", f"--output_dir={halves}", *shared)
    assert code == 2 and "finished run, which is never overwritten" in output
    check_adapter(halves, rows)


@pytest.mark.real_model
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_checkpoints_are_evaluated_and_a_stop_ends_the_evaluation_under_way(rows, tmp_path):
    config = tmp_path / "eval.yaml"
    config.write_text(
        "model: m\nengine: {name: scripted, delay_seconds: 1}\ntasks: [longen]\nlimit: 4\n"
        "max_concurrent_samples: 1\n",
        encoding="utf-8",
    )
    folder = tmp_path / "run"
    evaluated = ["--max_steps=2", "--save_total_limit=1", f"--length_eval.config={config}"]
    command = ["--name=run", f"--output_dir={folder}", f"--data={rows}", *SMALL, *LORA, *evaluated]
    process = start(*command)
    first = folder / "evals" / "checkpoint-1"
    deadline = time.monotonic() + 600
    while not (first / "journal.jsonl").is_file() or not (first / "journal.jsonl").stat().st_size:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    evaluation = json.loads((first / ".lock").read_text(encoding="utf-8"))["pid"]
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "the evaluation of checkpoint-1 is cut short" in output
    assert not Path(f"/proc/{evaluation}").exists()
    assert [p.name for p in folder.glob("checkpoint-*")] == ["checkpoint-1"]
    code, output = run(*command)
    assert code == 0, output
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["length_evals"]["evaluated_steps"] == [1, 2] and not manifest["length_evals"]["failed"]
    steps = [
        row["step"] for row in read_metrics(folder / "metrics.jsonl") if "eval_longen/length_score" in row
    ]
    assert steps == [1, 2]


def check_adapter(folder, rows):
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["job"] == "sft"
    assert manifest["inputs"][0]["path"] == str(rows)
    training = manifest["training"]
    assert training["num_rows"] == 6
    assert training["over_length"] == {"rows": 0, "tokens": 0, "policy": "raise"}
    assert 6 < training["num_supervised_tokens"] < training["num_tokens"]
    assert "LoRA (r=4, alpha=8)" in (folder / "README.md").read_text(encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert "<|im_start|>" in tokenizer.chat_template
    assert training["chat_template"] == template_digest(tokenizer)
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    moved = [p.abs().max() for name, p in model.named_parameters() if "lora_B" in name]
    assert torch.stack(moved).min() > 0


@pytest.mark.real_model
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_full_fine_tuning_saves_a_model_that_loads(rows, tmp_path):
    folder = tmp_path / "full"
    code, output = run(
        "--name=full",
        f"--output_dir={folder}",
        f"--data={rows}",
        *SMALL,
        "--max_steps=1",
        "--save_strategy=no",
    )
    assert code == 0, output
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.model_type == "llama"
    assert json.loads((folder / "run_config.json").read_text(encoding="utf-8"))["name"] == "full"
    assert (folder / "manifest.json").is_file()


@pytest.mark.real_model
@pytest.mark.timeout(600)
def test_over_length_rows_stop_the_job(rows, tmp_path):
    code, output = run(
        "--name=x", f"--output_dir={tmp_path / 'x'}", f"--data={rows}", *SMALL, "--max_length=30"
    )
    assert code == 2
    assert "6 of 6 rows" in output and "over_length: drop" in output


@pytest.mark.real_model
@pytest.mark.timeout(600)
def test_modules_that_the_model_lacks_are_answered_with_those_it_has(rows, tmp_path):
    code, output = run(
        "--name=x",
        f"--output_dir={tmp_path / 'x'}",
        f"--data={rows}",
        *SMALL,
        "--lora.target_modules=[qproj]",
    )
    assert code == 2, output
    assert "lora.target_modules is ['qproj']: embedded:smollm2-135m has no such modules" in output
    assert "it has down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj" in output
    assert "Traceback" not in output
