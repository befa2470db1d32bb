"""What a training run keeps when a part of it fails, and what several processes compute together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import tiny_model

from posttrain import dpo
from posttrain.run_log import read_metrics

REPO = Path(__file__).parents[2]


@pytest.fixture
def flags(tmp_path, monkeypatch):
    monkeypatch.setenv("LENGTHWISE_CACHE", str(tmp_path / "cache"))
    pairs = [
        {"prompt": "Say " + "a" * n, "chosen": "b" * (2 * n), "rejected": "c" * n}
        for n in (1, 30, 4, 9, 2, 17, 6, 3, 11)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return [
        *("--name=x", f"--model={tiny_model(tmp_path / 'base')}", f"--data={tmp_path / 'pairs.jsonl'}"),
        *("--use_cpu", "--max_steps=3", "--learning_rate=1e-2", "--logging_steps=1", "--save_strategy=no"),
        *("--gradient_checkpointing=false", "--lora.r=4", "--dtype=float32", "--batching.name=token_budget"),
        "--per_device_train_batch_size=2",
    ]


def test_weights_are_saved_before_anything_is_measured(flags, tmp_path, monkeypatch):
    monkeypatch.setattr(dpo.DPOJob, "after_training", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dpo.main([*flags, f"--output_dir={tmp_path / 'run'}"])
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_run_that_ended_without_its_manifest_trains_no_further_step(flags, tmp_path):
    """A kill between the last checkpoint and the manifest; the last step lies within an epoch."""
    run = tmp_path / "run"
    given = [
        *(flag for flag in flags if "save_strategy" not in flag),
        "--save_steps=3",
        f"--output_dir={run}",
    ]
    assert dpo.main(given) == 0
    before = (run / "adapter_model.safetensors").read_bytes()
    log = (run / "metrics.jsonl").read_text()
    (run / "manifest.json").unlink()
    assert dpo.main(given) == 0
    assert json.loads((run / "manifest.json").read_text())["training"]["steps"] == 3
    assert (run / "adapter_model.safetensors").read_bytes() == before
    assert [line["loss"] for line in read_metrics(run / "metrics.jsonl") if "loss" in line] == [
        line["loss"] for line in map(json.loads, log.splitlines()) if "loss" in line
    ]


def losses(flags: list[str], folder: Path) -> list[float]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *("posttrain/dpo.py", *flags, f"--output_dir={folder}"),
        ],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]


def test_two_processes_compute_the_reference_before_as_they_do_in_each_step(flags, tmp_path):
    at_once = losses([*flags, "--precompute_ref_log_probs"], tmp_path / "before")
    assert at_once == pytest.approx(losses(flags, tmp_path / "each"), abs=1e-6)
    assert len(at_once) == 3 and at_once[2] != at_once[0]
