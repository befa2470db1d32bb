"""GRPO runs of a few steps with the tiny model, on TRL's trainer or on ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from posttrain.length_shaping import grpo_lambda

NUM_GENERATIONS = 4


def data(number: int = 8) -> Dataset:
    """Return prompts of one turn, each with an answer and its number."""
    return Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": f"Say {i}."}], "answer": str(i), "row": i}
            for i in range(number)
        ]
    )


def trained(
    trainer_class: type[GRPOTrainer], base: Path, folder: Path, rewards: list[Any], **options: Any
) -> Any:
    """Train a few steps; returns the trainer."""
    own = {
        name: options.pop(name)
        for name in ("shape", "correctness", "budget", "sorts_by_length", "callbacks")
        if name in options
    }
    resume = options.pop("resume_from_checkpoint", None)
    args: dict[str, Any] = {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": NUM_GENERATIONS,
        "max_completion_length": 12,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 5,
    }
    trainer = trainer_class(
        model=str(base),
        reward_funcs=rewards,
        args=GRPOConfig(output_dir=str(folder), **args | options),
        train_dataset=data(),
        eval_dataset=data(4),
        processing_class=AutoTokenizer.from_pretrained(base),
        **own,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def shape_with(top: float) -> Any:
    """Return GRPO-lambda's shaping with a share of penalised groups."""
    return lambda groups: grpo_lambda(groups, top=top)
