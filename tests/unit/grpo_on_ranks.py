"""GRPO on completions that are given, run on one process or several: `torchrun ... BASE FOLDER GROUP_SIZE...`.

The first process writes rewards, advantages, what was logged, and the sum of each weight to FOLDER/GROUP_SIZE.json.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer
from trl.trainer.grpo_config import GRPOConfig

from posttrain.budget_prompts import PromptBudget
from posttrain.length_shaping import grpo_lambda
from posttrain.token_budgets import BudgetSchedule
from posttrain.trainers.grpo_trainer import LengthGRPOTrainer, length_shaping

ROWS = 8
"""Completions of a step, on all processes."""


def given_completions(prompts: list[Any], trainer: Any) -> dict[str, Any]:
    """Return completions that depend on the step and on their place among those of all processes."""
    ids = []
    for i in range(len(prompts)):
        place = trainer.accelerator.process_index * len(prompts) + i + 100 * trainer.state.global_step
        length = 2 + (7 * place) % 9
        ids.append([5 + (place * j) % 50 for j in range(length - 1)] + [trainer.eos_token_ids[0]])
    tokenize = trainer.processing_class.apply_chat_template
    asked = [tokenize(p, add_generation_prompt=True, tokenize=True, return_dict=False) for p in prompts]
    return {"prompt_ids": asked, "completion_ids": ids, "logprobs": None}


def even(*, completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
    """Judge by the sum of a completion's tokens; some cannot be judged."""
    return [None if sum(ids) % 7 == 0 else float(sum(ids) % 2 == 0) for ids in completion_ids]


class Noted(LengthGRPOTrainer):
    """Notes what each step was trained by."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Begin without a step."""
        super().__init__(*args, **kwargs)
        self.noted: list[dict[str, Any]] = []

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        found = super()._generate_and_score_completions(inputs)
        logs = self._logs
        columns = {name: list(values) for name, values in logs["rewards"].items()}
        self.noted.append(
            {"advantages": list(logs["advantages"]), "prompts": list(logs["prompt"]), **columns}
        )
        return found


def train(base: str, out: Path, group_size: int) -> None:
    """Train two steps."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = Noted(
        model=base,
        reward_funcs=[even, length_shaping],
        args=GRPOConfig(
            output_dir=str(out.parent / "run"),
            max_steps=2,
            per_device_train_batch_size=ROWS // processes,
            num_generations=group_size,
            max_completion_length=16,
            learning_rate=1e-2,
            loss_type="grpo",
            optim="sgd",
            max_grad_norm=0.0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            logging_steps=1,
            save_strategy="no",
            disable_tqdm=True,
            seed=3,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": f"Say {i}."}], "row_id": str(i)} for i in range(16)]
        ),
        processing_class=AutoTokenizer.from_pretrained(base),
        rollout_func=given_completions,
        shape=lambda groups: grpo_lambda(groups, top=0.5),
        correctness="even",
        budget=PromptBudget(schedule=BudgetSchedule(kind="uniform", initial=40, final=10)),
    )
    trainer.train()
    if trainer.accelerator.is_main_process:
        logs = [
            {key: value for key, value in line.items() if not key.startswith(("time", "step_time", "train"))}
            for line in trainer.state.log_history
        ]
        sums = {name: float(value.double().sum()) for name, value in trainer.model.state_dict().items()}
        out.write_text(json.dumps({"noted": trainer.noted, "logs": logs, "weights": sums}))


if __name__ == "__main__":
    for size in sys.argv[3:]:
        train(sys.argv[1], Path(sys.argv[2]) / f"{size}.json", int(size))
