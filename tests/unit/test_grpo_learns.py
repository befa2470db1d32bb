"""What GRPO-lambda teaches where a short answer will do: a property of the curves, not a figure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from tiny_grpo import data, shape_with, trained
from tiny_model import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.trainers.grpo_trainer import LengthGRPOTrainer, length_shaping

ENOUGH = 4
"""Tokens of the shortest right answer, its end counted."""
LIMIT = 16
STEPS = 40
WINDOW = 10


@pytest.fixture(scope="module")
def rambler(tmp_path_factory) -> Path:
    """Return a tiny model that has been taught to write 2 to 10 letters and then to stop."""
    folder = tiny_model(tmp_path_factory.mktemp("rambler") / "base")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    asked = [
        tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        for row in data()
    ]
    draw, optimizer = random.Random(0), torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        ids, labels = [], []
        for prompt in asked:
            answer = [*tokenizer.encode("".join(draw.choices("abcd", k=draw.randint(2, 10))))]
            answer.append(tokenizer.eos_token_id)
            padding = 11 - len(answer)
            ids.append(prompt + answer + [tokenizer.eos_token_id] * padding)
            labels.append([-100] * len(prompt) + answer + [-100] * padding)
        model(input_ids=torch.tensor(ids), labels=torch.tensor(labels)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def long_enough(*, completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float]:
    """Call a completion right if it has a few tokens and was not cut."""
    return [float(ENOUGH <= len(ids) < LIMIT) for ids in completion_ids]


def test_length_falls_without_accuracy_and_sooner_the_more_groups_are_penalised(rambler, tmp_path):
    def curve(top: float) -> tuple[list[float], list[float]]:
        trainer = trained(
            LengthGRPOTrainer,
            rambler,
            tmp_path / f"top_{top}",
            [long_enough, length_shaping],
            shape=shape_with(top),
            correctness="long_enough",
            max_steps=STEPS,
            per_device_train_batch_size=16,
            num_generations=8,
            max_completion_length=LIMIT,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
        )
        rows = [row for row in trainer.state.log_history if "reward" in row]
        assert len(rows) == STEPS
        return [row["rewards/long_enough/mean"] for row in rows], [
            row["completions/mean_length"] for row in rows
        ]

    (_, length_0), (right, length), (right_1, length_1) = curve(0), curve(0.25), curve(1)
    for lengths in (length, length_1):
        assert fmean(lengths[-WINDOW:]) < 0.85 * fmean(lengths[:WINDOW])
    for share in (right, right_1):
        assert fmean(share[-WINDOW:]) > fmean(share[:WINDOW])
    assert fmean(length_1) < fmean(length) < fmean(length_0) - 0.2
