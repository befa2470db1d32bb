"""Batches of a token budget in TRL's trainer: the same loss and gradients, every row, the hooks they hang on.

The model is the embedded one, cut to its first two layers, in float32.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_pt_utils import BatchRebalanceSampler
from trl.trainer import utils as trl_utils
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from lengthwise.models import resolve_model
from posttrain.attention import NAME, register
from posttrain.batch_layout import same_order_after_resume
from posttrain.token_budget import TokenBudget
from posttrain.trainers.length_trainer import TokenBudgetSampler
from posttrain.trainers.sft_trainer import LengthSFTTrainer

pytestmark = pytest.mark.real_model
NUM_ROWS = 12


@pytest.fixture(scope="module")
def path() -> str:
    return str(resolve_model("embedded:smollm2-135m").path)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, list[int]]]:
    stream = random.Random(0)
    found = []
    for length in [stream.randrange(4, 60) for _ in range(NUM_ROWS)]:
        ids = [stream.randrange(100, 500) for _ in range(length)]
        found.append({"input_ids": ids, "labels": [-100] * (length // 3) + ids[length // 3 :]})
    return found


def two_layers(path: str, attention: str = "sdpa") -> Any:
    register()
    config = AutoConfig.from_pretrained(path, num_hidden_layers=2)
    return AutoModelForCausalLM.from_pretrained(
        path, config=config, dtype=torch.float32, attn_implementation=attention
    )


def tiny(path: str) -> Any:
    """Return a model of random weights that takes milliseconds a step, for what is not about the numbers."""
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(
        path,
        num_hidden_layers=1,
        hidden_size=32,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=512,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


class Gradients(TrainerCallback):
    """Keeps the gradients of the first step, and the loss that is logged for it."""

    found: dict[str, torch.Tensor]

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not hasattr(self, "found"):
            self.found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def trainer(
    path: str, rows: Any, folder: Any, *callbacks: TrainerCallback, cls: Any = LengthSFTTrainer, **more: Any
) -> Any:
    given = {key: more.pop(key) for key in list(more) if key == "token_budget"}
    model = more.pop("model", None) or two_layers(path, more.pop("attention", "sdpa"))
    settings = {
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "max_grad_norm": 0.0,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "max_length": None,
        "disable_tqdm": True,
        **more,
    }
    return cls(
        model=model,
        args=SFTConfig(output_dir=str(folder), **settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(path),
        callbacks=[same_order_after_resume(), *callbacks],
        **given,
    )


def one_step(path: str, rows: Any, folder: Any, **more: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Return loss and gradients of one step over all rows."""
    seen = Gradients()
    run = trainer(path, rows, folder, seen, **more)
    run.train()
    (loss,) = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    return loss, seen.found


class StepNames:
    """Keeps the rows of each batch that was trained on; stands in for the log of step rows."""

    def __init__(self) -> None:
        self.rows: list[list[list[int]]] = []

    def see(self, rows: Any) -> None:
        self.rows.append([row.tolist() for row in rows])


def lengths(rows: Any) -> list[int]:
    return [len(row["input_ids"]) for row in rows]


def relative_error(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    assert found.keys() == wanted.keys()
    difference = sum(float((found[name] - wanted[name]).pow(2).sum()) for name in wanted)
    return (difference / sum(float(value.pow(2).sum()) for value in wanted.values())) ** 0.5


def test_a_step_has_the_loss_and_the_gradients_of_one_padded_batch(path, rows, tmp_path):
    loss, gradients = one_step(
        path, rows, tmp_path / "padded", cls=SFTTrainer, per_device_train_batch_size=NUM_ROWS
    )
    budget = TokenBudget(lengths=lengths(rows), max_tokens=80, accumulation=NUM_ROWS)
    assert 4 < budget.num_batches < NUM_ROWS and budget.steps_per_epoch == 1
    budget_loss, budget_gradients = one_step(
        path, rows, tmp_path / "budget", token_budget=budget, gradient_accumulation_steps=NUM_ROWS
    )
    assert budget_loss == pytest.approx(loss, abs=1e-5)
    assert relative_error(budget_gradients, gradients) < 1e-5


@pytest.mark.parametrize("attention", [NAME, "sdpa", "eager"])
def test_packed_rows_do_not_see_each_other(path, rows, tmp_path, attention):
    """Loss and gradients of rows that are joined into one sequence are those of rows by themselves."""
    whole = {"per_device_train_batch_size": NUM_ROWS}
    loss, gradients = one_step(path, rows, tmp_path / "padded", cls=SFTTrainer, **whole)
    packed_loss, packed = one_step(
        path, rows, tmp_path / "packed", attention=attention, padding_free=True, **whole
    )
    assert packed_loss == pytest.approx(loss, abs=1e-5)
    assert relative_error(packed, gradients) < 1e-5


def test_rows_padded_on_the_right_need_no_mask(path, rows, tmp_path):
    whole = {"per_device_train_batch_size": NUM_ROWS}
    loss, gradients = one_step(path, rows, tmp_path / "masked", **whole)
    free_loss, free = one_step(path, rows, tmp_path / "free", attention=NAME, **whole)
    assert free_loss == pytest.approx(loss, abs=1e-6)
    assert relative_error(free, gradients) < 1e-6


def test_positions_without_loss_are_not_projected_and_nothing_changes(path, rows, tmp_path, monkeypatch):
    scored = []
    real = trl_utils._ChunkedLogProbFunction.apply

    class Counted:
        @staticmethod
        def apply(hidden: torch.Tensor, *args: Any) -> Any:
            scored.append(len(hidden))
            return real(hidden, *args)

    monkeypatch.setattr(trl_utils, "_ChunkedLogProbFunction", Counted)
    loss, gradients = one_step(path, rows, tmp_path / "ours", per_device_train_batch_size=NUM_ROWS)
    assert scored == [sum(label != -100 for row in rows for label in row["labels"][1:])]
    monkeypatch.setattr(trl_utils, "_use_triton", lambda device: False)
    stock_loss, stock = one_step(
        path, rows, tmp_path / "stock", cls=SFTTrainer, per_device_train_batch_size=NUM_ROWS
    )
    assert scored[1] == NUM_ROWS * (max(lengths(rows)) - 1)
    assert stock_loss == pytest.approx(loss, abs=1e-6)
    assert relative_error(gradients, stock) < 1e-6


def test_every_epoch_has_every_row_and_the_promised_number_of_steps(path, rows, tmp_path):
    class Rows(TrainerCallback):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.steps.append(state.global_step)

    seen: list[list[int]] = []

    class Watched(LengthSFTTrainer):
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            assert inputs["input_ids"].numel() <= 80 or len(inputs["input_ids"]) == 1
            seen.extend(
                ids[mask.bool()].tolist()
                for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
            )
            return super().training_step(model, inputs, *args, **kwargs)

    budget = TokenBudget(lengths=lengths(rows), max_tokens=80, accumulation=2)
    steps = Rows()
    run = trainer(
        path,
        rows,
        tmp_path,
        steps,
        model=tiny(path),
        cls=Watched,
        token_budget=budget,
        gradient_accumulation_steps=2,
        num_train_epochs=3,
    )
    run.train()
    assert steps.steps == list(range(1, 3 * budget.steps_per_epoch + 1))
    assert sorted(seen) == sorted(row["input_ids"] for row in rows for _ in range(3))
    epochs = [seen[i * NUM_ROWS : (i + 1) * NUM_ROWS] for i in range(3)]
    assert all(sorted(epoch) == sorted(row["input_ids"] for row in rows) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    logged = [entry for entry in run.state.log_history if "padding_frac" in entry]
    assert len(logged) == len(steps.steps)
    assert all(0 <= entry["padding_frac"] < 0.5 and entry["rows_per_batch"] >= 1 for entry in logged)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_that_goes_on_within_its_second_epoch_sees_the_same_rows(path, rows, tmp_path, accumulation):
    budget = TokenBudget(lengths=lengths(rows), max_tokens=80, accumulation=accumulation)
    steps = budget.steps_per_epoch
    settings = {
        "token_budget": budget,
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": 2,
        "save_strategy": "steps",
        "save_steps": steps + 1,
    }

    def seen_by(run: Any, **how: Any) -> tuple[list[list[list[int]]], list[float]]:
        run._step_rows = names = StepNames()
        run.train(**how)
        return names.rows, [entry["loss"] for entry in run.state.log_history if "loss" in entry]

    whole_rows, whole_losses = seen_by(trainer(path, rows, tmp_path, model=tiny(path), **settings))
    again = trainer(path, rows, tmp_path, model=tiny(path), **settings)
    resumed_rows, losses = seen_by(again, resume_from_checkpoint=str(tmp_path / f"checkpoint-{steps + 1}"))
    assert len(whole_losses) == 2 * steps and whole_rows[: budget.num_batches] != resumed_rows
    assert resumed_rows == whole_rows[-len(resumed_rows) :]
    assert len(resumed_rows) == budget.num_batches - accumulation
    assert losses == pytest.approx(whole_losses, abs=1e-6)  # the log comes with the checkpoint


def test_the_hooks_are_where_they_were():
    """Fails where TRL or transformers has moved what the trainer hangs on."""
    assert callable(trl_utils._use_triton) and hasattr(trl_utils, "_ChunkedLogProbFunction")
    assert callable(SFTTrainer._get_train_sampler) and callable(SFTTrainer.training_step)
    sampler = TokenBudgetSampler(TokenBudget(lengths=[1], max_tokens=1), seed=0, rank=0)
    assert isinstance(sampler, BatchRebalanceSampler)
