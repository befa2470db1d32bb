"""KTO and ORPO: our rows in TRL's own trainers, with the losses of their papers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import tiny_model
from transformers import AutoModelForCausalLM

from posttrain import kto, orpo
from posttrain.row_sources import DataSource, data_sources
from posttrain.run_log import read_metrics

SHARED = [
    *("--name=x", "--use_cpu", "--gradient_checkpointing=false", "--dtype=float32", "--learning_rate=1e-2"),
    *("--logging_steps=1", "--save_strategy=no", "--log_step_rows", "--lora.r=4"),
]
MARKED = [
    {"id": f"m{n}", "prompt": "Say " + "a" * n, "completion": "b" * (2 * n), "label": n % 2 == 0}
    for n in range(1, 7)
]
PAIRS = [
    {"id": f"p{n}", "prompt": "Say " + "a" * n, "chosen": "b" * (2 * n), "rejected": "c" * n}
    for n in range(1, 7)
]


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("LENGTHWISE_CACHE", str(tmp_path / "cache"))
    return tiny_model(tmp_path / "base")


def written(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def flags(
    tmp_path: Path, base: Path, rows: list[dict[str, Any]], *, steps: int = 2, size: int = 3
) -> list[str]:
    data = written(tmp_path / "rows.jsonl", rows)
    batches = [f"--max_steps={steps}", f"--per_device_train_batch_size={size}"]
    return [*SHARED, *batches, f"--model={base}", f"--data={data}", f"--output_dir={tmp_path / 'run'}"]


def ids_of_steps(run: Path) -> list[str]:
    return sorted(row for line in read_metrics(run / "step_rows.jsonl") for row in line["rows"])


def test_kto_trains_on_marked_answers(base, tmp_path, capsys):
    assert kto.main(flags(tmp_path, base, MARKED)) == 0
    said = capsys.readouterr().out
    assert "KTO (kto, beta 0.1)" in said and "3 wanted answers" in said and "3 unwanted answers" in said
    assert ids_of_steps(tmp_path / "run") == [row["id"] for row in MARKED]
    losses = [line["loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    # An adapter begins as its reference: all rewards are 0, and 1 - sigmoid(0) is 0.5.
    assert losses[0] == pytest.approx(0.5, abs=1e-5) and losses[1] != pytest.approx(0.5, abs=1e-5)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["job"] == "kto" and manifest["counts"]["drawn"] == 6


def test_the_mark_of_an_answer_is_part_of_its_data(base, tmp_path):
    from posttrain.base_model import find_base, load_tokenizer

    tokenizer = load_tokenizer(find_base(str(base)))
    job = kto.KTOJob(name="x", model=str(base), data="rows.jsonl")
    columns = {}
    for label in (True, False):
        file = written(tmp_path / f"{label}.jsonl", [row | {"label": label} for row in MARKED])
        data = job.prepare(data_sources(str(file)), tokenizer, 512)
        columns[label] = data.to_dataset()
    assert columns[True]["label"] == [True] * 6 and columns[False]["label"] == [False] * 6
    answers = sorted(tokenizer.decode(row["completion_ids"]) for row in columns[True])
    assert answers == sorted(f"{row['completion']}<|end|>" for row in MARKED)


def test_marked_answers_of_several_sources_are_mixed(base, tmp_path):
    """TRL's KTO trainer goes through its rows in order: first all of one file, then all of the other."""
    from posttrain.base_model import find_base, load_tokenizer

    rows = [row | {"prompt": f"{row['prompt']} {i}"} for row in MARKED for i in range(4)]
    files = [
        written(tmp_path / f"{label}.jsonl", [row | {"label": label} for row in rows])
        for label in (True, False)
    ]
    sources = data_sources([DataSource(path=str(file)) for file in files])
    job = kto.KTOJob(name="x", model=str(base), data="rows.jsonl")
    labels = job.prepare(sources, load_tokenizer(find_base(str(base))), 512).to_dataset()["label"]
    assert sum(labels) == 24 and 6 < sum(labels[:24]) < 18


def test_another_label_column_makes_the_rows_anew(base, tmp_path, monkeypatch, capsys):
    rows = [row | {"good": not row["label"]} for row in MARKED]
    with monkeypatch.context() as broken:
        broken.setattr("posttrain.train_run.make_trainer", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            kto.main(flags(tmp_path, base, rows[:3], steps=1))
    assert kto.main([*flags(tmp_path, base, rows[:3], steps=1), "--label_column=good"]) == 0
    said = capsys.readouterr().out
    assert "2 wanted answers" in said and "1 unwanted answers" in said


def test_a_row_without_mark_stops_the_job(base, tmp_path, capsys):
    assert kto.main(flags(tmp_path, base, [*MARKED, {"prompt": "Hi", "completion": "Ho"}])) == 2
    assert "it has no column 'label' with the mark: name it with label_column" in capsys.readouterr().err
    assert kto.main(flags(tmp_path, base, [*MARKED, MARKED[0] | {"label": "yes"}])) == 2
    assert "label is 'yes': it must be true for a wanted answer" in capsys.readouterr().err


def test_orpo_has_the_loss_of_its_paper(base, tmp_path, capsys):
    assert orpo.main([*flags(tmp_path, base, PAIRS, steps=1, size=6), "--beta=0.3"]) == 0
    assert "ORPO (lambda 0.3)" in capsys.readouterr().out
    assert ids_of_steps(tmp_path / "run") == [row["id"] for row in PAIRS]
    (found,) = [line["loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line]

    from posttrain.base_model import find_base, load_tokenizer

    job = orpo.ORPOJob(name="x", model=str(base), data=str(tmp_path / "rows.jsonl"))
    pairs = job.prepare(data_sources(job.data), load_tokenizer(find_base(str(base))), 512).rows
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()

    def token_logprobs(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        return logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]

    nll, ratios = [], []
    for pair in pairs:
        prompt = pair.prompt_ids.tolist()
        sides = [token_logprobs(prompt + ids.tolist()) for ids in (pair.chosen_ids, pair.rejected_ids)]
        nll.append(-sides[0])
        means = [float(side[len(prompt) - 1 :].mean()) for side in sides]
        odds = [mean - math.log1p(-math.exp(mean)) for mean in means]  # equation 4, in logarithms
        ratios.append(math.log(1 / (1 + math.exp(odds[1] - odds[0]))))  # equation 7
    expected = float(torch.cat(nll).mean()) - 0.3 * sum(ratios) / len(ratios)
    assert found == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("job", [kto, orpo])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--batching.name=token_budget"], "batching.name is token_budget, but {verb} hands its rows to TRL's trainer"),
        (["--batching.name=packed"], "batching.name is packed, but {verb}"),
        (["--curriculum.name=length_buckets"], "curriculum is set, but {verb}"),
        (["--lora.quantization=4bit"], "lora.quantization is 4bit, but there is no CUDA device"),
    ],
)  # fmt: skip
def test_batches_of_our_own_are_refused(tmp_path, base, capsys, job, given, words):
    rows = MARKED if job is kto else PAIRS
    assert job.main([*flags(tmp_path, base, rows), *given]) == 2
    assert words.format(verb=job.__name__.rpartition(".")[2]) in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_kto_needs_another_row_beside_each(tmp_path, base, capsys):
    assert kto.main(flags(tmp_path, base, MARKED, size=1)) == 2
    assert "per_device_train_batch_size is 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--loss_type=kto_pair"], "loss_type is 'kto_pair'"),
        (["--train_sampling_strategy=random"], "goes through the rows in order"),
        (["--lable_column=good"], "did you mean 'label_column'?"),
    ],
)
def test_wrong_settings_of_kto_are_answered_at_once(tmp_path, base, capsys, given, words):
    assert kto.main([*flags(tmp_path, base, MARKED), *given]) == 2
    assert words in capsys.readouterr().err
