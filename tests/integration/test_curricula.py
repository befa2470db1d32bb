"""Length curricula in TRL's trainer: the very batches that the order says, and the same ones after a resume.

The model has random weights and takes milliseconds a step; its config and tokenizer are the embedded model's.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from test_batching import StepNames, tiny
from transformers import AutoTokenizer
from trl.trainer.sft_config import SFTConfig

from lengthwise.models import resolve_model
from lengthwise.row_formats import TrainRow
from posttrain import dpo, sft
from posttrain.batch_layout import same_order_after_resume
from posttrain.curricula.bucket_schedule import BucketSchedule
from posttrain.curricula.competence_window import CompetenceWindow
from posttrain.curricula.cyclical_order import CyclicalOrder
from posttrain.curricula.decomposed_order import DecomposedOrder
from posttrain.curricula.length_buckets import LengthBuckets
from posttrain.row_scores import SCORES, losses_of
from posttrain.token_budget import TokenBudget
from posttrain.train_data import TokenRow
from posttrain.trainers.length_trainer import TokenBudgetSampler
from posttrain.trainers.sft_trainer import LengthSFTTrainer

pytestmark = pytest.mark.real_model
NUM_EPOCHS = 3


@pytest.fixture(scope="module")
def path() -> str:
    return str(resolve_model("embedded:smollm2-135m").path)


def rows_of_lengths(lengths: list[int]) -> list[dict[str, list[int]]]:
    stream = random.Random(0)
    found = [[stream.randrange(100, 500) for _ in range(length)] for length in lengths]
    return [{"input_ids": ids, "labels": ids} for ids in found]


LENGTHS = [random.Random(i).randrange(4, 60) for i in range(24)]
POWERS = [4] * 16 + [8] * 8 + [16] * 6


def order_of(name: str, *, lengths: list[int] = LENGTHS, accumulation: int = 1, processes: int = 1) -> Any:
    """Return an order of few batches; of a run of three epochs where it spans the run."""
    budget = TokenBudget(lengths=lengths, max_tokens=80, accumulation=accumulation, num_processes=processes)
    num_steps = NUM_EPOCHS * budget.steps_per_epoch
    if name == "length_buckets":
        return LengthBuckets(budget=budget, odds="grow_p2", cycles=4, num_buckets=3)
    if name == "dataset_decomposition":
        parts = processes * accumulation
        schedule = BucketSchedule(
            log2=[n.bit_length() - 1 for n in POWERS],
            tokens_per_step=16 * parts,
            num_processes=parts,
            cycles=2,
            curriculum="grow_p2",
        )
        return DecomposedOrder(schedule=schedule, num_processes=processes, accumulation=accumulation)
    if name == "competence_window":
        return CompetenceWindow(budget=budget, num_steps=num_steps, start=10, end=60)
    return CyclicalOrder(budget=budget, num_steps=num_steps, values=[float(n) for n in lengths])


NAMES = ["length_buckets", "dataset_decomposition", "competence_window", "cyclical"]


def trainer(path: str, rows: Any, folder: Any, order: Any, **more: Any) -> Any:
    settings = {
        "num_train_epochs": NUM_EPOCHS,
        "learning_rate": 1e-3,
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
    return LengthSFTTrainer(
        model=tiny(path),
        args=SFTConfig(output_dir=str(folder), **settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(path),
        callbacks=[same_order_after_resume()],
        token_budget=order,
    )


def seen_by(run: Any, **how: Any) -> tuple[list[list[list[int]]], list[float]]:
    run._step_rows = names = StepNames()
    run.train(**how)
    return names.rows, [entry["loss"] for entry in run.state.log_history if "loss" in entry]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_goes_on_within_a_cycle_trains_on_the_same_batches(path, tmp_path, name, accumulation):
    """Resumed in its second epoch, in the middle of a cycle: a new trainer and a new order."""
    rows = rows_of_lengths(POWERS if name == "dataset_decomposition" else LENGTHS)
    steps = order_of(name, accumulation=accumulation).steps_per_epoch
    settings = {
        "gradient_accumulation_steps": accumulation,
        "save_strategy": "steps",
        "save_steps": steps + 3,
    }
    order = order_of(name, accumulation=accumulation)
    whole, losses = seen_by(trainer(path, rows, tmp_path, order, **settings))
    expected = [
        [rows[row]["input_ids"] for row in batch]
        for epoch in range(NUM_EPOCHS)
        for (batch,) in order.epoch(42, epoch)
    ]
    assert whole == expected and len(losses) == NUM_EPOCHS * steps
    again = trainer(path, rows, tmp_path, order_of(name, accumulation=accumulation), **settings)
    resumed, after = seen_by(again, resume_from_checkpoint=str(tmp_path / f"checkpoint-{steps + 3}"))
    assert 0 < len(resumed) < len(whole) and resumed == whole[-len(resumed) :]
    assert len(resumed) == len(whole) - order.num_batches - 3 * accumulation
    assert after == pytest.approx(losses, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_draw_the_same_bucket(name):
    """The samplers of two processes, side by side: as many batches, of neighbouring lengths."""
    stream = random.Random(0)
    lengths = POWERS if name == "dataset_decomposition" else [stream.randrange(4, 60) for _ in range(600)]
    order = order_of(name, lengths=lengths, processes=2)
    samplers = [TokenBudgetSampler(order, seed=42, rank=rank) for rank in range(2)]
    for epoch in range(2):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        pairs = list(zip(*samplers, strict=True))
        assert len(pairs) == len(samplers[0]) == order.num_batches
        ranges = [[{lengths[row] for row in batch} for batch in pair] for pair in pairs]
        if name == "dataset_decomposition":
            assert all(first == second and len(first) == 1 for first, second in ranges)
        else:
            cuts = [max(min(a), min(b)) - min(max(a), max(b)) for a, b in ranges]
            assert max(cuts) <= 4  # tokens between the two batches of a pass: they are neighbours


def test_losses_of_the_base_model_are_those_of_its_labels(path):
    """Against the model's own loss, a row at a time."""
    from transformers import AutoModelForCausalLM

    stream = random.Random(1)
    rows = []
    for number, length in enumerate((5, 40, 12, 3)):
        ids = np.array([stream.randrange(100, 5000) for _ in range(length)], dtype=np.int32)
        labels = np.where(np.arange(length) < length // 3, -100, ids).astype(np.int32)
        rows.append(TokenRow(TrainRow(id=str(number), source="s", line=number, messages=()), ids, labels))
    found = losses_of(Path(path), rows, max_tokens=60, dtype="float32", device=torch.device("cpu"))
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    for row, loss in zip(rows, found, strict=True):
        ids, labels = (torch.tensor(part[None].astype(int)) for part in (row.input_ids, row.labels))
        with torch.inference_mode():
            assert loss == pytest.approx(float(model(input_ids=ids, labels=labels).loss), abs=1e-4)


def run(capsys, job: Any, *arguments: str) -> tuple[int, str]:
    """Run a job in this process; returns its exit code and what it said."""
    code = job.main(["--model=embedded:smollm2-135m", *arguments])
    said = capsys.readouterr()
    return code, said.out + said.err


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rows")
    chats = [
        {"prompt": f"Count to {i}.", "completion": " ".join(map(str, range(i + 1))), "difficulty": i}
        for i in range(16)
    ]
    texts = [{"text": " ".join(f"word{i}{j}" for j in range(i * 5 + 3))} for i in range(16)]
    found = {}
    for name, rows in (("chats", chats), ("texts", texts)):
        found[name] = folder / f"{name}.jsonl"
        found[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return found


BUDGET = ["--batching.name=token_budget", "--batching.max_tokens=128"]
RUN = [
    "--lora.r=2",
    "--gradient_checkpointing=false",
    "--logging_steps=1",
    "--save_strategy=no",
    "--log_step_rows",
]


def test_plain_texts_are_trained_on_in_sequences_of_powers_of_two(files, tmp_path, capsys):
    code, output = run(
        capsys,
        sft,
        "--name=texts",
        f"--output_dir={tmp_path / 'run'}",
        f"--data={files['texts']}",
        *("--curriculum.name=dataset_decomposition", "--curriculum.cycles=2", "--curriculum.min_log2=3"),
        *("--curriculum.max_log2=6", "--num_train_epochs=1", *BUDGET, *RUN),
    )
    assert code == 0, output
    assert "sequences of 8 to 64 tokens from 16 texts" in output
    assert "curriculum  dataset_decomposition: grow_p2, 2 cycles an epoch" in output
    assert "below 8 tokens, are in no sequence" in output
    seen = [json.loads(line) for line in (tmp_path / "run" / "step_rows.jsonl").read_text().splitlines()]
    assert seen and "unknown" not in {row for step in seen for row in step["rows"]}
    dropped = [json.loads(line) for line in (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()]
    assert dropped and {row["reason"] for row in dropped} == {"below_min_log2"}


def test_scores_of_the_base_model_are_computed_once_and_kept(files, tmp_path, capsys):
    arguments = [
        "--name=loss",
        f"--output_dir={tmp_path / 'run'}",
        f"--data={files['chats']}",
        *("--curriculum.name=cyclical", "--curriculum.score=loss", "--num_train_epochs=2", *BUDGET, *RUN),
        *("--save_strategy=steps", "--save_steps=1", "--save_total_limit=1"),
    ]
    arguments.remove("--save_strategy=no")
    code, output = run(capsys, sft, *arguments)
    assert code == 0, output
    kept = json.loads((tmp_path / "run" / SCORES).read_text())
    assert len(kept["losses"]) == 16 and all(0 < loss < 20 for loss in kept["losses"])
    begun = json.loads((tmp_path / "run" / "begun_with.json").read_text())
    assert len(begun["curriculum"]["values"]) == 64


@pytest.mark.parametrize(
    ("data", "arguments", "words"),
    [
        ("chats", ["--curriculum.name=length_buckets"], "batching.name is padded"),
        ("chats", ["--curriculum.name=length_buckets", "--batching.name=packed"], "rows are packed"),
        ("chats", ["--curriculum.name=length_buckets", "--curriculum.odds=grow_p2", "--curriculum.cycles=1", *BUDGET],
         "cycles is 1: it must be at least 4"),
        ("chats", ["--curriculum.name=length_buckets", "--curriculum.odds=grow_p3", *BUDGET], "did you mean 'grow_p2'"),
        ("chats", ["--curriculum.name=competence_window", "--curriculum.until=1.5", *BUDGET], "until is 1.5"),
        ("chats", ["--curriculum.name=dataset_decomposition", "--curriculum.min_log2=3", *BUDGET],
         "set curriculum: {name: length_buckets}"),
        ("texts", ["--curriculum.name=length_buckets", *BUDGET], "set curriculum: {name: dataset_decomposition}"),
        ("chats", ["--curriculum.name=cyclical", "--num_train_epochs=1", *BUDGET],
         "the first mini-epoch of all rows ends after 1.75"),
    ],
)  # fmt: skip
def test_wrong_settings_are_answered_before_a_model_loads(files, tmp_path, capsys, data, arguments, words):
    code, output = run(
        capsys,
        sft,
        "--name=wrong",
        f"--output_dir={tmp_path / 'run'}",
        f"--data={files[data]}",
        "--dry_run",
        *arguments,
    )
    assert code == 2 and words in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--curriculum.name=length_buckets", "--curriculum.odds=grow_p2"], "natural, since an epoch has"),
        (["--curriculum.name=length_buckets", "--curriculum.odds=grow_p2", "--curriculum.cycles=4"],
         "used up after"),
        (["--curriculum.name=competence_window"], "in each tenth of the run"),
        (["--curriculum.name=cyclical", "--curriculum.score=column", "--curriculum.column=difficulty",
          "--num_train_epochs=2"], "easy rows by difficulty"),
        (["--curriculum.name=cyclical", "--curriculum.score=loss", "--num_train_epochs=2"],
         "losses are computed before the first step"),
    ],
)  # fmt: skip
def test_the_dry_run_prints_the_table_and_the_average_context(files, tmp_path, capsys, arguments, words):
    code, output = run(
        capsys,
        sft,
        "--name=plan", f"--output_dir={tmp_path / 'run'}", f"--data={files['chats']}", "--dry_run",
        *BUDGET, *arguments,
    )  # fmt: skip
    assert code == 0 and words in output and "average context seen" in output
    assert not (tmp_path / "run").exists()


def test_pairs_take_a_curriculum_too(tmp_path, capsys):
    pairs = [
        {"prompt": f"Count to {i}.", "chosen": " ".join(map(str, range(i + 1))), "rejected": "no"}
        for i in range(16)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    folder = tmp_path / "run"
    code, output = run(
        capsys,
        dpo,
        *("--name=pairs", f"--data={file}", f"--output_dir={folder}", "--curriculum.name=length_buckets"),
        *("--curriculum.odds=grow_p2", "--curriculum.cycles=4", "--margin_pairs=0"),
        *("--num_train_epochs=1", *BUDGET, *RUN),
    )
    assert code == 0, output
    assert "curriculum  length_buckets: grow_p2, 4 cycles an epoch" in output
    seen = [json.loads(line) for line in (folder / "step_rows.jsonl").read_text().splitlines()]
    rows = [row for step in seen for row in step["rows"]]
    assert len(rows) == len(set(rows)) == 16 and "unknown" not in rows
