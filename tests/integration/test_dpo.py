"""DPO on batches of any number of pairs: the loss and gradients of one padded batch, SimPO, margins, the job itself.

The model of the numbers is the embedded one, cut to its first two layers, in float32.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from lengthwise.models import resolve_model
from posttrain.dpo import LOSSES, main
from posttrain.token_budget import TokenBudget
from posttrain.trainers.dpo_trainer import LengthDPOTrainer, pair_lengths

pytestmark = pytest.mark.real_model
REPO = Path(__file__).resolve().parents[2]
NUM_PAIRS = 10


@pytest.fixture(scope="module")
def path() -> str:
    return str(resolve_model("embedded:smollm2-135m").path)


@pytest.fixture(scope="module")
def pairs() -> Dataset:
    stream = random.Random(0)

    def ids(low: int, high: int) -> list[int]:
        return [stream.randrange(100, 500) for _ in range(stream.randrange(low, high))]

    rows = [
        {"prompt_ids": ids(2, 20), "chosen_ids": ids(1, longest), "rejected_ids": ids(1, longest)}
        for longest in [8, 60] * (NUM_PAIRS // 2)
    ]
    return Dataset.from_list(rows)


def model(path: str) -> Any:
    config = AutoConfig.from_pretrained(path, num_hidden_layers=2)
    return AutoModelForCausalLM.from_pretrained(
        path, config=config, dtype=torch.float32, attn_implementation="sdpa"
    )


class Stock(DPOTrainer):
    """TRL's trainer, but for the data, which come as tokens."""

    _prepare_dataset = LengthDPOTrainer._prepare_dataset


class Gradients(TrainerCallback):
    """Keeps the gradients of the first step."""

    found: dict[str, torch.Tensor]

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def trainer(
    path: str, pairs: Dataset, folder: Path, *callbacks: Any, cls: Any = LengthDPOTrainer, **more: Any
) -> Any:
    own = {key: more.pop(key) for key in list(more) if key in ("token_budget", "simpo_margin")}
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
    torch.manual_seed(0)
    made = cls(
        model=model(path),
        args=DPOConfig(output_dir=str(folder), **settings),
        train_dataset=pairs,
        processing_class=AutoTokenizer.from_pretrained(path),
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=list(callbacks),
        **own,
    )
    for name, weights in made.model.named_parameters():
        if "lora_B" in name:  # of zeros there would be nothing to compare
            weights.data.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
    return made


def one_step(path: str, pairs: Dataset, folder: Path, **more: Any) -> tuple[float, dict[str, torch.Tensor]]:
    seen = Gradients()
    run = trainer(path, pairs, folder, seen, **more)
    run.train()
    (entry,) = [entry for entry in run.state.log_history if "loss" in entry]
    return entry, seen.found


def relative_error(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    assert found.keys() == wanted.keys()
    difference = sum(float((found[name] - wanted[name]).pow(2).sum()) for name in wanted)
    return (difference / sum(float(value.pow(2).sum()) for value in wanted.values())) ** 0.5


def budget_of(pairs: Dataset, accumulation: int = NUM_PAIRS) -> TokenBudget:
    found = TokenBudget(
        lengths=[2 * n for n in pair_lengths(pairs)], max_tokens=250, accumulation=accumulation
    )
    sizes = {len(batch) for batches in found.epoch(42, 0) for batch in batches}
    assert len(sizes) > 1
    return found


@pytest.mark.parametrize(
    "loss",
    [
        {},
        {"loss_type": ["sigmoid_norm"]},
        {"ld_alpha": 0.5},
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.3]},
        {"precompute_ref_log_probs": True},
    ],
    ids=lambda loss: "-".join(loss) or "sigmoid",
)
def test_a_step_has_the_loss_and_the_gradients_of_one_padded_batch(path, pairs, tmp_path, loss):
    stock, gradients = one_step(
        path, pairs, tmp_path / "padded", cls=Stock, per_device_train_batch_size=NUM_PAIRS, **loss
    )
    ours, budget_gradients = one_step(
        path,
        pairs,
        tmp_path / "budget",
        token_budget=budget_of(pairs),
        gradient_accumulation_steps=NUM_PAIRS,
        per_device_train_batch_size=4,
        **loss,
    )
    assert ours["loss"] == pytest.approx(stock["loss"], abs=1e-5)
    assert relative_error(budget_gradients, gradients) < 1e-5
    for name in ("rewards/margins", "rewards/accuracies", "logps/chosen"):
        assert ours[name] == pytest.approx(stock[name], abs=1e-4)


def test_unweighted_batches_would_train_on_something_else(path, pairs, tmp_path, monkeypatch):
    """Keeps the test above honest: without the weights it would fail."""
    padded = {"per_device_train_batch_size": NUM_PAIRS}
    _, gradients = one_step(path, pairs, tmp_path / "padded", cls=Stock, **padded)
    monkeypatch.setattr(LengthDPOTrainer, "compute_loss", DPOTrainer.compute_loss)
    _, unweighted = one_step(
        path,
        pairs,
        tmp_path / "mean_of_means",
        token_budget=budget_of(pairs),
        gradient_accumulation_steps=NUM_PAIRS,
    )
    assert relative_error(unweighted, gradients) > 1e-2


def test_simpo_is_its_formula(path, pairs, tmp_path):
    """Arithmetic of the formula: -log sigmoid(2 (-0.5) - 2 (-0.7) - 0.3) is 0.64440; then the trainer's own loss."""
    assert -math.log(1 / (1 + math.exp(-(2 * -0.5 - 2 * -0.7 - 0.3)))) == pytest.approx(0.64440, abs=5e-6)
    beta, gamma = 2.0, 0.3
    run = trainer(
        path,
        pairs,
        tmp_path,
        beta=beta,
        loss_type=["sigmoid_norm"],
        precompute_ref_log_probs=True,
        simpo_margin=gamma / beta,
        per_device_train_batch_size=NUM_PAIRS,
    )
    margins = run.margins(run.train_dataset, max_tokens=250)
    losses = [math.log1p(math.exp(-(margin - gamma))) for margin in margins]
    run.model.eval()
    with torch.no_grad():
        inputs = run._prepare_inputs(run.data_collator(list(run.train_dataset)))
        assert float(run.compute_loss(run.model, inputs)) == pytest.approx(sum(losses) / NUM_PAIRS, abs=1e-5)
    chosen, rejected = (mean_logp(run, pairs[0], name) for name in ("chosen_ids", "rejected_ids"))
    assert margins[0] == pytest.approx(beta * (chosen - rejected), abs=1e-4)


def mean_logp(run: Any, pair: dict[str, list[int]], answer: str) -> float:
    """Return an answer's mean log-probability by plain logits."""
    ids = torch.tensor([pair["prompt_ids"] + pair[answer]])
    with torch.no_grad():
        logps = run.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    scored = logps.gather(1, ids[0, 1:, None])[:, 0]
    return float(scored[len(pair["prompt_ids"]) - 1 :].mean())


def test_margins_are_those_that_the_loss_compares(path, pairs, tmp_path):
    run = trainer(path, pairs, tmp_path, per_device_train_batch_size=NUM_PAIRS)
    margins = run.margins(run.train_dataset, max_tokens=120)
    run.train()
    (entry,) = [entry for entry in run.state.log_history if "loss" in entry]
    assert sum(margins) / NUM_PAIRS == pytest.approx(entry["rewards/margins"], abs=1e-4)
    assert sum(m > 0 for m in margins) / NUM_PAIRS == pytest.approx(entry["rewards/accuracies"])
    losses = [math.log1p(math.exp(-margin)) for margin in margins]
    assert sum(losses) / NUM_PAIRS == pytest.approx(entry["loss"], abs=1e-4)


def test_the_known_losses_are_those_of_trl():
    source = inspect.getsource(DPOTrainer._compute_loss)
    assert set(re.findall(r'loss_type == "(\w+)"', source)) == set(LOSSES)


UNEVEN = """
import torch
from accelerate import PartialState, Accelerator
from posttrain.trainers.dpo_trainer import uneven_gather
accelerator = Accelerator(cpu=True)
rank = accelerator.process_index
with uneven_gather(accelerator):
    found = accelerator.gather(torch.arange(1 + 2 * rank) + 10 * rank)
    total = accelerator.gather(torch.tensor(float(rank)))
assert found.tolist() == [0, 10, 11, 12], found
assert total.tolist() == [0.0, 1.0], total
assert "gather" not in vars(accelerator)
torch.distributed.destroy_process_group()  # its threads may else abort a process that ends
"""


def test_processes_may_have_different_numbers_of_pairs(tmp_path):
    script = tmp_path / "uneven.py"
    script.write_text(UNEVEN)
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    found = subprocess.run(
        [*launch, str(script)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batching.name=packed"], ["packed", "token_budget"]),
        (["--batching.name=token_budget", "--loss_type=[aot]"], ["aot", "padded"]),
        (["--simpo.gamma=0.3", "--beta=0.2"], ["beta", "simpo", "remove"]),
        (["--simpo.beta=0"], ["simpo", "beta"]),
        (["--padding_free=true"], ["padding_free", "token_budget"]),
        (["--loss_type=[sigmod]"], ["loss_type", "sigmod"]),
        (["--margin_pairs=-1"], ["margin_pairs"]),
        (
            ["--batching.name=padded", "--train_sampling_strategy=group_by_length"],
            ["group_by_length", "token_budget"],
        ),
        (["--sync_ref_model"], ["sync_ref_model", "no reference model"]),
        (["--loss_type=[exo_pair]"], ["exo_pair", "label_smoothing"]),
        (["--train_on=last"], ["train_on"]),
    ],
)
def test_wrong_settings_are_refused_before_the_model_loads(tmp_path, capsys, flags, words):
    code = main(["--config", str(REPO / "configs/dpo/lora.yaml"), f"--output_dir={tmp_path / 'run'}", *flags])
    said = capsys.readouterr().err
    assert code == 2 and all(word in said for word in words), said
    assert not (tmp_path / "run").exists()


def test_the_job_trains_an_adapter_and_says_what_it_made_of_the_pairs(tmp_path, capsys):
    run = tmp_path / "run"
    held_out = tmp_path / "held_out.jsonl"
    lines = (REPO / "configs/dpo/example.jsonl").read_text().splitlines()
    held_out.write_text("\n".join(lines[:5]) + "\n")
    flags = ["--max_steps=2", f"--eval_data={held_out}", "--log_step_rows", f"--output_dir={run}"]
    assert main(["--config", str(REPO / "configs/dpo/lora.yaml"), *flags]) == 0
    said = capsys.readouterr().out
    assert "length bias" in said and "5 held-out pairs" in said
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["job"] == "dpo" and manifest["training"]["margins"]["is_held_out"] is True
    assert manifest["training"]["length_bias"]["overall"]["n"] == 12
    assert manifest["counts"]["drawn"] == 12
    rows = [json.loads(line) for line in (run / "step_rows.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(name.startswith("pair-") for row in rows for name in row["rows"])
    assert (run / "adapter_model.safetensors").is_file() and "DPOTrainer" in (run / "README.md").read_text()
