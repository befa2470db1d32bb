"""Past-generation masking: what may be hidden, how often it is drawn, and what the model is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import tiny_model

from lengthwise.refinement.code_problems import read_problem
from lengthwise.refinement.code_repair import request
from posttrain.past_generation import PastGeneration, hidden_tokens
from posttrain.row_sources import data_sources
from posttrain.sft import SFTJob, main
from posttrain.train_data import TrainingData, prepare

TASK = "Write f, which doubles."


def rows(folder: Path, number: int = 4) -> Path:
    """Write rows with a draft, and one without."""
    problem = read_problem({"prompt": TASK, "tests": ["assert f(1) == 2"]})
    found = []
    for i in range(number):
        asked = (
            request(problem, f"def f(n):\n    return n + {i}", f"f({i}) is wrong") if i else request(problem)
        )
        turns = [
            *(m.to_dict() for m in asked),
            {"role": "assistant", "content": f"def f(n): return {i}"},
        ]
        found.append({"id": str(i), "messages": turns})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def prepared(folder: Path, masking: PastGeneration | None) -> tuple[TrainingData, Any]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model(folder / "model"))
    data = prepare(
        data_sources(str(rows(folder))),
        tokenizer,
        max_length=1000,
        over_length="raise",
        on_bad_row="raise",
        train_on="all",
        mixture_rows=None,
        seed=0,
        past_generation=masking,
    )
    return data, tokenizer


def test_only_the_draft_and_its_feedback_may_be_hidden(tmp_path):
    data, tokenizer = prepared(tmp_path, PastGeneration(frac=0.1))
    by_id = {row.row.id: row for row in data.rows}
    assert by_id["0"].past is None  # a row without a draft is left whole, its task above all
    row = by_id["2"]
    assert row.past is not None
    hidden = tokenizer.decode(row.input_ids[row.past.astype(bool)])
    assert hidden.startswith("### Bad solution:\n# def f(n):") and hidden.rstrip().endswith("# f(2) is wrong")
    assert TASK not in hidden and "Good solution" not in hidden
    assert not (row.past.astype(bool) & (row.labels != -100)).any()
    columns = data.to_dataset().column_names
    assert columns == ["input_ids", "labels", "past"]
    assert prepared(tmp_path / "other", None)[0].to_dataset().column_names == ["input_ids", "labels"]


def test_a_draft_may_quote_the_marks():
    masking = PastGeneration(frac=0.1, start="BAD", end="GOOD")
    text = "task\nBAD a\n# BAD b\n# GOOD c\nGOOD\nanswer\nBAD d\nGOOD"
    span = masking.span(text, text.index("answer"))
    assert span is not None and text[slice(*span)] == "BAD a\n# BAD b\n# GOOD c\n"
    assert masking.span("x\nBAD without end", 15) is None and masking.span("x\nGOOD\nBAD", 11) is None


@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 400))
def test_draws_are_of_the_row_the_seed_and_the_epoch(seed: int, epoch: int, length: int):
    ids, past = np.arange(length, dtype=np.int32), np.arange(length) % 2
    first = hidden_tokens(past, ids, frac=0.5, seed=seed, epoch=epoch)
    assert (first == hidden_tokens(past, ids.astype(np.int64), frac=0.5, seed=seed, epoch=epoch)).all()
    assert not first[past == 0].any()


def test_the_share_hidden_is_the_probability_and_epochs_differ():
    ids, past = np.arange(20_000, dtype=np.int32), np.ones(20_000)
    epochs = [hidden_tokens(past, ids, frac=0.1, seed=0, epoch=epoch) for epoch in range(2)]
    assert all(0.09 < mask.mean() < 0.11 for mask in epochs)
    assert (epochs[0] & epochs[1]).mean() < 0.015  # independent draws: 0.01


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"past_generation_masking": {"frac": 0}}, "between 0 and 1"),
        ({"past_generation_masking": {"frac": 1.5}}, "between 0 and 1"),
        ({"past_generation_masking": {"frac": 0.1, "start": " "}}, "start is empty"),
        ({"past_generation_masking": {"frac": 0.1}, "packing": True}, "packing"),
        ({"past_generation_masking": {"frac": 0.1}, "dataloader_persistent_workers": True}, "persistent"),
        ({"past_generation_masking": {"frac": 0.1}, "padding_free": True}, "padding_free"),
        (
            {
                "past_generation_masking": {"frac": 0.1},
                "model_init_kwargs": {"attn_implementation": "flash_attention_2"},
            },
            "flash_attention_2",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, capsys, options, said):
    flags = [f"--{key}={json.dumps(value)}" for key, value in options.items()]
    assert (
        main(
            [*flags, f"--data={rows(tmp_path)}", f"--output_dir={tmp_path / 'run'}", "--model=m", "--name=x"]
        )
        == 2
    )
    assert said in capsys.readouterr().err


@pytest.fixture
def seen(monkeypatch) -> list[dict[str, Any]]:
    """Note what each forward pass of a training is given."""
    from posttrain.trainers.sft_trainer import LengthSFTTrainer

    given: list[dict[str, Any]] = []
    compute = LengthSFTTrainer.compute_loss

    def noting(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        given.append({key: inputs[key].clone() for key in ("input_ids", "attention_mask", "labels")})
        given[-1]["trains"] = model.training
        return compute(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(LengthSFTTrainer, "compute_loss", noting)
    return given


def train(folder: Path, name: str, **options: Any) -> Path:
    tiny_model(folder / "model")
    run = folder / name
    flags = {
        "name": name,
        "model": folder / "model",
        "data": rows(folder),
        "eval_data": rows(folder),
        "eval_strategy": "epoch",
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "log_step_rows": True,
        "output_dir": run,
        **options,
    }
    words = [f"--{key}={json.dumps(v) if isinstance(v, dict) else v}" for key, v in flags.items()]
    assert main(words) == 0
    return run


def test_a_training_hides_tokens_anew_each_epoch_and_none_when_it_evaluates(tmp_path, seen):
    run = train(tmp_path, "run", past_generation_masking={"frac": 0.5})
    trained = [batch for batch in seen if batch["trains"]]
    evaluated = [batch for batch in seen if not batch["trains"]]
    assert len(trained) == 2 and evaluated

    def holes(batch: dict[str, Any]) -> dict[bytes, list[int]]:
        found = {}
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            last = int(mask.nonzero()[-1])
            found[ids[: last + 1].numpy().tobytes()] = [i for i in range(last) if not mask[i]]
        return found

    first, second = map(holes, trained)
    assert (
        first.keys() == second.keys() and sum(map(bool, first.values())) == 3
    )  # not of the row without a draft
    assert first != second
    assert not any(any(holes(batch).values()) for batch in evaluated)
    # The log counts what is hidden apart from padding, and knows the rows by their tokens still.
    steps = [json.loads(line) for line in (run / "step_rows.jsonl").read_text().splitlines()]
    assert sorted(steps[0]["rows"]) == ["0", "1", "2", "3"]
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(0.05 < entry["hidden_frac"] < 0.5 for entry in logged if "hidden_frac" in entry)
    assert any("hidden_frac" in entry for entry in logged)


def test_rows_without_any_draft_are_refused(tmp_path, capsys):
    with pytest.raises(AssertionError):
        train(tmp_path, "run", past_generation_masking={"frac": 0.9, "start": "NO SUCH MARK"})
    assert "none of 4 rows has a line that begins with 'NO SUCH MARK'" in capsys.readouterr().err


def test_masks_are_kept_by_the_attention(tmp_path):
    job = SFTJob(
        name="x", model="m", data=str(rows(tmp_path)), past_generation_masking=PastGeneration(frac=0.1)
    )
    assert job.needs_masks
    from transformers import AutoConfig

    from posttrain.attention import choose_attention

    config = AutoConfig.from_pretrained(tiny_model(tmp_path / "model"))
    found = choose_attention(config, given=None, packed=False, on_cuda=False, hides_tokens=True)
    assert found.implementation == "sdpa"
