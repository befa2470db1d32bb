"""The longest batch before the first step: which it is, that it changes nothing, and what is said when it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import tiny_model

from posttrain import dpo, sft
from posttrain.run_log import read_metrics
from posttrain.token_budget import TokenBudget
from posttrain.trainers.preflight import longest_batch

SHARED = [
    "--name=x",
    "--learning_rate=1e-2",
    "--per_device_train_batch_size=2",
    "--gradient_accumulation_steps=2",
    "--max_steps=3",
    "--logging_steps=1",
    "--save_strategy=no",
    "--lora.r=4",
    "--lora.dropout=0.3",
    "--gradient_checkpointing=false",
    "--use_cpu",
]


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("LENGTHWISE_CACHE", str(tmp_path / "cache"))
    return tiny_model(tmp_path / "base")


@pytest.fixture
def rows(tmp_path):
    file = tmp_path / "rows.jsonl"
    lines = [
        {"prompt": "Say " + "a" * n, "completion": "b" * (2 * n)} for n in (1, 30, 4, 9, 2, 17, 6, 3, 11, 25)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture
def pairs(tmp_path):
    file = tmp_path / "pairs.jsonl"
    lines = [
        {"prompt": "Say " + "a" * n, "chosen": "b" * (2 * n), "rejected": "c" * n}
        for n in (1, 30, 4, 9, 2, 17)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.mark.parametrize(
    ("lengths", "rows", "max_tokens", "expected"),
    [
        ([3, 9, 2, 4], 2, None, [1, 3]),
        ([3, 9], 4, None, [1, 0]),
        ([1, 1, 1, 1, 1, 1, 4], 2, 6, [5, 4, 3, 2, 1, 0]),
        ([1, 1, 1, 1, 1, 1, 20], 2, 6, [6]),
        ([2, 2, 2, 6], 2, 6, [3]),
    ],
)
def test_the_batch_with_most_padded_tokens(lengths, rows, max_tokens, expected):
    assert longest_batch(lengths, rows=rows, max_tokens=max_tokens) == expected


def test_no_batch_of_an_epoch_has_more_tokens():
    lengths = [(7 * i) % 61 + 1 for i in range(300)]
    budget = TokenBudget(lengths=lengths, max_tokens=200)
    found = longest_batch(lengths, rows=2, max_tokens=budget.max_tokens)
    most = len(found) * max(lengths[row] for row in found)
    for epoch in range(3):
        for batches in budget.epoch(0, epoch):
            assert all(len(batch) * max(lengths[row] for row in batch) <= most for batch in batches)


def left_by(module, folder: Path, flags: list[str]) -> tuple[list[dict], dict[str, torch.Tensor]]:
    assert module.main([*SHARED, f"--output_dir={folder}", *flags]) == 0
    lines = [
        {
            key: value
            for key, value in line.items()
            if key != "elapsed_seconds" and not key.startswith("train_")
        }
        for line in read_metrics(folder / "metrics.jsonl")
    ]
    return lines, load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize("batching", ["padded", "token_budget", "packed"])
def test_sft_is_the_same_with_it_and_without(base, rows, tmp_path, capsys, batching):
    flags = [f"--model={base}", f"--data={rows}", f"--batching.name={batching}"]
    logs, weights = left_by(sft, tmp_path / "with", [*flags, "--preflight=true"])
    assert "preflight   the longest batch, " in capsys.readouterr().out
    without_logs, without = left_by(sft, tmp_path / "without", [*flags, "--preflight=auto"])
    assert "preflight " not in capsys.readouterr().out
    assert logs == without_logs and {line["step"] for line in logs} == {1, 2, 3}
    assert all(weights[name].equal(without[name]) for name in weights)


def test_dpo_is_the_same_with_it_and_without(base, pairs, tmp_path, capsys):
    flags = [f"--model={base}", f"--data={pairs}", "--margin_pairs=0"]
    logs, weights = left_by(dpo, tmp_path / "with", [*flags, "--preflight"])
    assert "preflight   the longest batch, 2 pairs of up to" in capsys.readouterr().out
    without_logs, without = left_by(dpo, tmp_path / "without", [*flags, "--preflight=false"])
    assert logs == without_logs
    assert all(weights[name].equal(without[name]) for name in weights)


@pytest.mark.parametrize(
    ("error", "flags", "named"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), [], "per_device_train_batch_size (now 2;"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            ["--batching={name: token_budget, max_tokens: 150}"],
            "batching.max_tokens (now 150)",
        ),
    ],
)
def test_what_does_not_fit_ends_the_job_with_what_to_lower(
    base, rows, tmp_path, monkeypatch, capsys, error, flags, named
):
    from posttrain.trainers.sft_trainer import LengthSFTTrainer

    def full(self, *args, **kwargs):
        raise error

    monkeypatch.setattr(LengthSFTTrainer, "compute_loss", full)
    given = [f"--output_dir={tmp_path / 'run'}", f"--model={base}", f"--data={rows}", "--preflight", *flags]
    assert sft.main([*SHARED, *given]) == 2
    said = capsys.readouterr().err
    assert "preflight: the longest batch, " in said and named in said
    assert "max_length (now 512), or set gradient_checkpointing: true" in said


def test_another_error_stays_what_it_is(base, rows, tmp_path, monkeypatch):
    from posttrain.trainers.sft_trainer import LengthSFTTrainer

    def broken(self, *args, **kwargs):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(LengthSFTTrainer, "compute_loss", broken)
    given = [f"--output_dir={tmp_path / 'run'}", f"--model={base}", f"--data={rows}", "--preflight"]
    with pytest.raises(RuntimeError, match="shapes differ"):
        sft.main([*SHARED, *given])
