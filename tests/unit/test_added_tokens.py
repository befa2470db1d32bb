"""Meta length tokens in training: added, supervised, trained, saved, resumed, merged, and written by the model."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from lengthwise.config import ConfigError
from lengthwise.engines.base import Sampling
from lengthwise.engines.hf import Config, Engine
from lengthwise.engines.lora_slots import lora_rank
from lengthwise.lengths import TLG_TARGETS
from lengthwise.meta_length import MLT_FORMAT, mlt_text, split_mlt
from lengthwise.records import Message, user
from posttrain import merge, sft
from posttrain.added_tokens import AddedTokens, add_to_tokenizer, start_rows
from posttrain.lora import LoraOptions, check_served
from posttrain.run_log import read_metrics
from posttrain.train_data import tokenize_rows

ROWS = [
    ("ab", "10", "bees"),
    ("cd", "30", "bees and cats"),
    ("ef", "10", "cats"),
    ("gh", "30", "cats and dogs"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LENGTHWISE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "base")


def untied(folder: Path) -> Path:
    """Write the tiny model with an output matrix of its own."""
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model(folder))
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.detach().flip(0).clone())
    model.save_pretrained(folder)
    return folder


def flags(base: Path, tmp_path: Path, *more: str, run: str = "run", steps: int = 4) -> list[str]:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"prompt": p, "completion": mlt_text(t) + c}) + "\n" for p, t, c in ROWS)
    )
    return [
        *("--name=x", f"--model={base}", f"--data={rows}", f"--output_dir={tmp_path / run}", "--use_cpu"),
        *(
            f"--max_steps={steps}",
            "--learning_rate=1e-2",
            "--lr_scheduler_type=constant",
            "--logging_steps=1",
        ),
        *(
            "--gradient_checkpointing=false",
            "--dtype=float32",
            "--bf16=false",
            "--per_device_train_batch_size=2",
        ),
        *(f"--added_tokens.mlt_format={MLT_FORMAT}", f"--save_steps={steps // 2}", *more),
    ]


def rows_of(model: Any) -> torch.Tensor:
    return model.get_input_embeddings().weight.detach().float()


def ids_of(folder: Path) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = [tokenizer.encode(mlt_text(label), add_special_tokens=False) for label in TLG_TARGETS]
    assert all(len(ids) == 1 for ids in found) and not any(
        tokenizer.added_tokens_decoder[one].special for (one,) in found
    )
    return [one for (one,) in found]


def started(base: Path) -> Any:
    """The base as the training begins with it."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    start_rows(model, tokenizer, add_to_tokenizer(tokenizer, AddedTokens(mlt_format=MLT_FORMAT)), "pieces")
    return model


def test_the_loss_begins_at_the_token_which_is_one(base):
    from lengthwise.row_formats import TrainRow

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokens = add_to_tokenizer(tokenizer, AddedTokens(mlt_format=MLT_FORMAT))
    assert [token.text for token in tokens] == [mlt_text(label) for label in TLG_TARGETS]
    for token in tokens:
        turns = (*user("Hi"), Message(role="assistant", content=f"{token.text}Yo yo"))
        (row,), refused = tokenize_rows(
            [TrainRow(id="a", source="here", line=1, messages=turns)], tokenizer, train_on="all"
        )
        labels = row.labels.tolist()
        supervised = [label for label in labels if label != -100]
        assert not refused and labels.count(token.id) == 1 and supervised[0] == token.id
        assert labels[: -len(supervised)] == [-100] * (len(labels) - len(supervised))
        prompt = tokenizer.apply_chat_template(
            [turn.to_dict() for turn in user("Hi")], add_generation_prompt=True, return_dict=False
        )
        assert row.input_ids.tolist()[: len(prompt) + 1] == [*prompt, token.id]


def test_new_rows_start_as_the_mean_of_their_pieces_or_of_all(base):
    for start in ("pieces", "mean"):
        model: Any = AutoModelForCausalLM.from_pretrained(base)
        before = rows_of(model).clone()
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokens = add_to_tokenizer(tokenizer, AddedTokens(mlt_format=MLT_FORMAT))
        start_rows(model, tokenizer, tokens, start)
        after = rows_of(model)
        assert len(after) == len(before) + 9 == model.config.vocab_size
        assert torch.equal(after[: len(before)], before)
        assert model.lm_head.weight is model.get_input_embeddings().weight
        for token in tokens:
            assert len(token.pieces) == len(token.text)  # a tokenizer of bytes
            wanted = before[list(token.pieces)] if start == "pieces" else before
            assert torch.allclose(after[token.id], wanted.mean(dim=0), atol=1e-6)


@pytest.mark.parametrize("make", [tiny_model, untied])
def test_lora_trains_the_new_rows_and_no_other_and_is_merged(make, tmp_path, capsys):
    base = make(tmp_path / "base")
    assert sft.main(flags(base, tmp_path, "--lora.r=4")) == 0
    run = tmp_path / "run"
    assert "with 9 added tokens" in capsys.readouterr().out
    for folder in (run, run / "checkpoint-4"):  # the nine rows of each matrix, and no matrix
        held = load_file(folder / "adapter_model.safetensors")
        rows = [weights.shape for name, weights in held.items() if ".lora_" not in name]
        assert rows == [(9, 32)] * (1 if make is tiny_model else 2)
    with pytest.raises(ConfigError, match="rows of its own for tokens, which vLLM does not serve.*--merge"):
        lora_rank(run)
    assert merge.main([str(run), "--merge", f"--output_dir={tmp_path / 'merged'}"]) == 0
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    first, ids = started(base), ids_of(tmp_path / "merged")
    used = [ids[TLG_TARGETS.index(label)] for label in ("10", "30")]
    is_tied = make is tiny_model
    assert (
        (model.lm_head.weight is model.get_input_embeddings().weight)
        == is_tied
        == model.config.tie_word_embeddings
    )
    for now, then in (
        (rows_of(model), rows_of(first)),
        (model.lm_head.weight.detach(), first.lm_head.weight.detach()),
    ):
        changed = (now - then).abs().amax(dim=1) > 1e-6
        assert {*used} <= {*changed.nonzero()[:, 0].tolist()} <= {*ids}


def test_whole_embeddings_may_be_trained_beside_the_matrices(base, tmp_path):
    given = flags(base, tmp_path, "--lora.r=4", "--lora.modules_to_save", "embed_tokens", "lm_head")
    assert sft.main(given) == 0
    assert merge.main([str(tmp_path / "run"), "--merge", f"--output_dir={tmp_path / 'merged'}"]) == 0
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.lm_head.weight is model.get_input_embeddings().weight
    changed = (rows_of(model) - rows_of(started(base))).abs().amax(dim=1) > 1e-6
    assert changed.sum() > 9  # every token that was read or could have been written


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_resumed_run_has_the_same_tokens_and_losses(kind, base, tmp_path):
    lora = ["--lora.r=4"] if kind == "lora" else []
    run, whole = tmp_path / "run", tmp_path / "whole"
    given = flags(base, tmp_path, *lora)
    assert sft.main(flags(base, tmp_path, *lora, run="whole")) == 0
    assert sft.main(given) == 0
    for file in (run / "manifest.json", run / "checkpoint-4"):  # as a kill after the second step leaves it
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    assert ids_of(run / "checkpoint-2") == ids_of(whole)
    begun = json.loads((run / "begun_with.json").read_text())
    assert [*begun["new_tokens"]] == [mlt_text(label) for label in TLG_TARGETS]
    other = [flag for flag in given if "added_tokens" not in flag]
    assert sft.main([*other, "--added_tokens.mlt_format=<{target}>"]) == 2  # the config differs
    (run / "begun_with.json").write_text(json.dumps(begun | {"new_tokens": {"[MLT:10]": 7}}))
    assert sft.main(given) == 2  # the tokenizer differs
    (run / "begun_with.json").write_text(json.dumps(begun))
    assert sft.main(given) == 0
    assert losses(run) == losses(whole) and len(losses(run)) == 4
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_a_full_model_writes_its_token_and_the_engine_shows_it(base, tmp_path):
    assert sft.main(flags(base, tmp_path, steps=60)) == 0
    engine = Engine(str(tmp_path / "run"), Config(dtype="float32", device="cpu"))

    async def replies() -> list[str]:
        await engine.start()
        sampling = Sampling(temperature=0, max_tokens=24)
        chosen = await engine.generate(user("cd"), sampling)
        prompt = (*user("cd"), Message(role="assistant", content=mlt_text("30")))
        told = await engine.generate(prompt, sampling)
        await engine.stop()
        return [chosen[0].text, told[0].text]

    chosen, told = asyncio.run(replies())
    assert chosen == f"{mlt_text('30')}bees and cats" and split_mlt(chosen) == ("30", "bees and cats")
    assert told == "bees and cats"


def test_an_adapter_with_tokens_is_served_by_transformers_as_it_is_merged(base, tmp_path):
    assert sft.main(flags(base, tmp_path, "--lora.r=4")) == 0
    assert merge.main([str(tmp_path / "run"), "--merge", f"--output_dir={tmp_path / 'merged'}"]) == 0

    async def likelihood(model: Path) -> float:
        engine = Engine(str(model), Config(dtype="float32", device="cpu"))
        await engine.start()
        found = await engine.loglikelihood(user("cd"), f"{mlt_text('30')}bees")
        await engine.stop()
        return found.logprob

    served, merged = (asyncio.run(likelihood(tmp_path / name)) for name in ("run", "merged"))
    assert served == pytest.approx(merged, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "added_tokens adds none"),
        ({"mlt_format": "[MLT]"}, "must hold {target} once"),
        ({"texts": [" a"]}, "without white space around it"),
        ({"texts": ["<a>", "<a>"]}, "names a token twice"),
    ],
)
def test_tokens_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AddedTokens(**options)


def test_tokens_that_a_model_has_otherwise_are_refused(base):
    for text, message in (("a", "is an ordinary token"), ("<|end|>", "is a special token")):
        with pytest.raises(ConfigError, match=message):
            add_to_tokenizer(AutoTokenizer.from_pretrained(base), AddedTokens(texts=[text]))


def test_tokens_of_an_earlier_training_keep_their_rows(base, tmp_path):
    model = started(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    add_to_tokenizer(tokenizer, AddedTokens(mlt_format=MLT_FORMAT))
    again = add_to_tokenizer(tokenizer, AddedTokens(mlt_format=MLT_FORMAT, texts=["<new>"]))
    assert [len(token.pieces) for token in again] == [0] * 9 + [5]
    before = rows_of(model).clone()
    start_rows(model, tokenizer, again, "pieces")
    assert torch.equal(rows_of(model)[: len(before)], before) and len(rows_of(model)) == len(before) + 1


def test_what_cannot_be_had_together_is_refused():
    with pytest.raises(ValueError, match="has no loss on added_tokens"):
        sft.SFTJob(
            name="x",
            model="m",
            data="d",
            added_tokens=AddedTokens(texts=["<a>"]),
            curriculum={"name": "cyclical", "score": "loss"},
            batching=sft.train_job.Batching(name="token_budget", max_tokens=64),
        )


def test_checkpoints_with_tokens_are_not_left_to_vllm(tmp_path):
    by_vllm = tmp_path / "vllm.yaml"
    by_vllm.write_text("model: m\ntasks: [tlg]\n")
    tokens = AddedTokens(mlt_format=MLT_FORMAT)
    full = sft.SFTJob(name="x", model="m", data="d", added_tokens=tokens)
    lora = sft.SFTJob(name="x", model="m", data="d", added_tokens=tokens, lora=LoraOptions())
    check_served(full.unserved, str(by_vllm))
    with pytest.raises(
        ConfigError, match="by vllm, but added_tokens is set.*`lengthwise export RUN --merge`"
    ):
        check_served(lora.unserved, str(by_vllm))
