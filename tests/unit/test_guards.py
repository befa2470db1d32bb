"""What spoils a score in silence, each in a model small enough to make by hand."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from byte_tokenizer import chat_tokenizer
from safetensors.torch import save_file
from transformers import AddedToken

from evals.base import score_completion
from evals.guards import check_model
from evals.overlap import OverlapCheck, check_overlap, prompts_of
from evals.results import Tally, summarise
from evals.results_table import warnings_of
from evals.tasks import longen
from lengthwise.engines.base import ShowsModel
from lengthwise.engines.chat_tokenizer import ChatTokenizer, template_digest
from lengthwise.engines.scripted import Engine as Scripted
from lengthwise.models import EMBEDDED, ModelRef, resolve_model
from lengthwise.records import LengthTarget, Sample, user
from lengthwise.untrained_tokens import untrained_sign

ENDS = (
    "{{ '<|bos|>' }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}<|end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
RESERVED = [f"<|reserved_{i}|>" for i in range(3)]
PROMPTS = {"longen": user("Write about 20 words.")}


def model(folder: Path, template: str = ENDS) -> Path:
    """Write a model's folder: tokenizer, generation config, and weights in which every row differs."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = chat_tokenizer(folder, template).tokenizer
    tokenizer.add_special_tokens({"bos_token": "<|bos|>"})
    tokenizer.add_tokens([AddedToken(token, special=True) for token in RESERVED])
    tokenizer.save_pretrained(folder)
    rows = torch.randn(len(tokenizer) + 8, 16, generator=torch.Generator().manual_seed(0))
    write_weights(folder, rows)
    return folder


def write_weights(folder: Path, rows: torch.Tensor, name: str = "model.embed_tokens.weight") -> None:
    save_file({name: rows.contiguous(), "model.norm.weight": torch.ones(16)}, folder / "model.safetensors")


@dataclass
class Local:
    """An engine as the guards see it."""

    model_ref: ModelRef
    chat_tokenizer: ChatTokenizer
    end_token_ids: frozenset[int]
    model: str = "m"


def engine(folder: Path, *, adapter: Path | None = None, ends: frozenset[int] | None = None) -> Local:
    chat = ChatTokenizer(folder)
    stops = frozenset([chat.tokenizer.eos_token_id]) if ends is None else ends
    return Local(ModelRef(name="m", path=folder, adapter=adapter, identity=""), chat, stops)


def sft_run(folder: Path, *, data: Path | None = None, finished: bool = True, **manifest) -> Path:
    """Write what an SFT run leaves beside its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"name": folder.name, "model": "base", "data": str(data), **manifest.pop("config", {})}
    (folder / "run_config.json").write_text(json.dumps(config))
    (folder / ".lock").write_text(json.dumps({"job": "sft"}))
    if finished:
        inputs = [] if data is None else [{"path": str(data), "sha256": None, "num_rows": None}]
        entries = {"job": "sft", "config": config, "config_digest": "", "created": "", "parents": []}
        (folder / "manifest.json").write_text(json.dumps({**entries, "inputs": inputs, **manifest}))
    return folder


def rows(file: Path, *prompts: str) -> Path:
    turns = [[{"role": "user", "content": p}, {"role": "assistant", "content": "Yes."}] for p in prompts]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))
    return file


def test_a_sound_model_gives_no_warning_and_the_prompt_as_it_is_read(tmp_path):
    found = check_model(engine(model(tmp_path)), PROMPTS)
    assert (found.warnings, found.unchecked) == ([], [])
    prompt = found.first_prompt["longen"]
    assert prompt["text"] == "<|bos|><|user|>Write about 20 words.<|assistant|>"
    tokenizer = ChatTokenizer(tmp_path).tokenizer
    assert prompt["token_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.decode(prompt["token_ids"]) == prompt["text"]
    assert found.chat_template == template_digest(tokenizer)
    assert json.loads(json.dumps(found.to_dict()))["end_token_ids"] == [tokenizer.eos_token_id]


def test_two_bos_are_seen(tmp_path):
    found = check_model(engine(model(tmp_path, "{{ '<|bos|>' }}" + ENDS)), PROMPTS)
    assert [w for w in found.warnings if "two '<|bos|>'" in w]


def test_a_template_that_ends_turns_otherwise_than_the_engine_stops(tmp_path):
    local = engine(model(tmp_path), ends=frozenset([3]))
    (warning,) = check_model(local, PROMPTS).warnings
    assert "'<|end|>'" in warning and "stops only at [3]" in warning and "generation_config.json" in warning


def test_a_template_without_an_end_of_turn(tmp_path):
    found = check_model(engine(model(tmp_path, ENDS.replace("<|end|>\n", ""))), PROMPTS)
    assert ["writes nothing behind an assistant turn" in warning for warning in found.warnings] == [True]
    found = check_model(engine(model(tmp_path, ENDS.replace("<|end|>", "END"))), PROMPTS)
    assert "only 'END\\n', no special token" in found.warnings[0]


def test_a_template_that_refuses_a_dialogue_is_said_to_be_unchecked(tmp_path):
    template = "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}" + ENDS
    found = check_model(engine(model(tmp_path, template)), PROMPTS)
    assert found.warnings == [] and "one turn only" in found.unchecked[0]


@pytest.mark.parametrize("matrix", ["model.embed_tokens.weight", "lm_head.weight"])
def test_an_end_of_turn_that_was_never_trained(tmp_path, matrix):
    folder = model(tmp_path)
    tokenizer = ChatTokenizer(folder).tokenizer
    end, reserved = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(RESERVED[1])
    weights = torch.randn(len(tokenizer), 16, generator=torch.Generator().manual_seed(1))
    weights[reserved] = weights[end]
    write_weights(folder, weights, matrix)
    (warning,) = check_model(engine(folder), PROMPTS).warnings
    assert f"equals that of token {reserved}" in warning and matrix in warning
    weights[reserved] += 1
    weights[end] *= 1e-3
    write_weights(folder, weights, matrix)
    assert "the median row has" in check_model(engine(folder), PROMPTS).warnings[0]
    weights[end] *= 1e3
    write_weights(folder, weights, matrix)
    assert check_model(engine(folder), PROMPTS).warnings == []


def test_a_row_like_the_padding_of_the_vocabulary_was_never_trained(tmp_path):
    folder = model(tmp_path)
    tokenizer = ChatTokenizer(folder).tokenizer
    weights = torch.randn(len(tokenizer) + 8, 16, generator=torch.Generator().manual_seed(1))
    weights[len(tokenizer) :] = weights[tokenizer.eos_token_id]
    write_weights(folder, weights)
    found = check_model(engine(folder), PROMPTS)
    assert [found.unchecked, "seems never trained" in "".join(found.warnings)] == [[], True]


def test_the_output_matrix_decides_where_there_are_two(tmp_path):
    embeddings = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    head = embeddings.clone()
    head[2] = 0
    save_file({"wte.weight": embeddings, "lm_head.weight": head}, tmp_path / "model.safetensors")
    assert "lm_head.weight" in (untrained_sign(tmp_path, 2) or "")
    assert untrained_sign(tmp_path, 3) is None
    assert "8 rows" in (untrained_sign(tmp_path, 8) or "")


def test_weights_that_cannot_be_read_are_said_to_be_unchecked(tmp_path):
    folder = model(tmp_path)
    (folder / "model.safetensors").unlink()
    found = check_model(engine(folder), PROMPTS)
    assert found.warnings == [] and "no safetensors" in found.unchecked[0]


def test_an_adapter_is_held_against_the_weights_it_leaves_alone(tmp_path):
    folder = model(tmp_path / "base")
    weights = torch.randn(300, 16)
    weights[ChatTokenizer(folder).tokenizer.eos_token_id] = 0
    write_weights(folder, weights)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"target_modules": ["q_proj", "v_proj"], "modules_to_save": None}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert "never trained" in check_model(engine(folder, adapter=adapter), PROMPTS).warnings[0]
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "modules_to_save": ["lm_head"]}))
    found = check_model(engine(folder, adapter=adapter), PROMPTS)
    assert found.warnings == [] and "rows of its own" in found.unchecked[0]


@pytest.mark.parametrize("place", [".", "checkpoint-10"], ids=["run", "checkpoint"])
def test_another_template_than_trainings(tmp_path, place):
    run = sft_run(tmp_path / "run", training={"chat_template": "another"})
    folder = model(run / place)
    (warning,) = check_model(engine(folder), PROMPTS).warnings
    assert "is not the one" in warning and str(run) in warning
    same = template_digest(ChatTokenizer(folder).tokenizer)
    sft_run(run, training={"chat_template": same})
    assert check_model(engine(folder), PROMPTS).warnings == []


def test_an_adapter_trained_with_another_template_than_its_bases(tmp_path):
    base = model(tmp_path / "base")
    run = sft_run(tmp_path / "run", training={})  # of a version that did not record the template
    chat_tokenizer(run, ENDS.replace("<|user|>", "USER: "))
    (run / "adapter_config.json").write_text("{}")
    assert check_model(engine(base, adapter=run), PROMPTS).warnings == []
    chat_tokenizer(run, "{% for m in messages %}{{ m.content }}{% endfor %}")
    assert "is not the one" in check_model(engine(base, adapter=run), PROMPTS).warnings[0]


def test_an_engine_that_shows_nothing_says_so():
    found = check_model(Scripted("m"), PROMPTS)
    assert found.warnings == [] and found.first_prompt == {}
    assert "not checked" in found.unchecked[0]


def test_a_started_engine_is_looked_at_as_it_is(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    from lengthwise.engines.hf import Config, Engine

    folder = model(tmp_path)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=269, eos_token_id=[256, 3], **sizes)).save_pretrained(folder)
    started = Engine(str(folder), Config(device="cpu", dtype="float32"))
    assert not isinstance(started, ShowsModel)  # not before it has started
    asyncio.run(started.start())
    found = check_model(started, PROMPTS)
    assert (found.warnings, found.unchecked, found.end_token_ids) == ([], [], [3, 256])


def prompts(*texts: str) -> dict[str, dict[str, tuple[str]]]:
    return {"longen": {f"p{number}": (text,) for number, text in enumerate(texts)}}


def test_prompts_are_looked_for_in_the_data_of_all_runs_behind_a_model(tmp_path):
    first = sft_run(tmp_path / "first", data=rows(tmp_path / "a.jsonl", "What is rain?"))
    second = sft_run(
        tmp_path / "second",
        data=rows(tmp_path / "b.jsonl", "What is snow?"),
        parents=[{"path": str(first), "job": "sft"}],
    )
    ref = ModelRef(name="m", path=second, adapter=None, identity="")
    found = check_overlap(prompts("what is RAIN", "What is snow?", "What is hail?"), ref)
    task = found.tasks["longen"]
    assert (task.ids, found.num_rows, found.unchecked) == ({"p0", "p1"}, 2, [])
    assert [task.slice_of(key) for key in ("p0", "p2")] == ["yes", "no"]
    assert found.warnings[0].startswith("longen: 2 of 3 prompts are in the model's own training data (2 word")
    saved = json.loads(json.dumps(found.to_dict()))
    assert saved["tasks"]["longen"] == {"prompts": 3, "verbatim": ["p0", "p1"], "copied": []}
    assert OverlapCheck.from_dict(saved) == found


def test_the_rows_of_the_evaluation_loss_were_not_trained_on(tmp_path):
    data, held_out = rows(tmp_path / "a.jsonl", "What is rain?"), rows(tmp_path / "b.jsonl", "What is snow?")
    inputs = [{"path": str(file), "sha256": None} for file in (data, held_out)]
    run = sft_run(tmp_path / "run", data=data, config={"eval_data": str(held_out)}, inputs=inputs)
    ref = ModelRef(name="m", path=run, adapter=None, identity="")
    assert check_overlap(prompts("What is rain?", "What is snow?"), ref).tasks["longen"].ids == {"p0"}


def test_a_checkpoint_of_an_unfinished_run_is_followed_through_its_config(tmp_path):
    data = rows(tmp_path / "a.jsonl", "What is rain?")
    run = sft_run(tmp_path / "run", data=data, finished=False)
    (run / "checkpoint-5").mkdir()
    after = sft_run(
        tmp_path / "after", data=rows(tmp_path / "b.jsonl", "x"), config={"model": f"{run}/checkpoint-5"}
    )
    found = check_overlap(prompts("What is rain?"), ModelRef(name="m", path=after, adapter=None, identity=""))
    assert found.tasks["longen"].ids == {"p0"}
    assert ["not finished" in note for note in found.unchecked] == [True]


def test_data_that_is_gone_or_changed_is_said(tmp_path):
    data = rows(tmp_path / "a.jsonl", "What is rain?")
    changed = [
        {"path": str(data), "sha256": "of the old file"},
        {"path": str(tmp_path / "c.jsonl"), "sha256": "x"},
    ]
    run = sft_run(tmp_path / "run", inputs=changed, parents=[{"path": str(tmp_path / "moved"), "job": "sft"}])
    found = check_overlap(prompts("What is rain?"), ModelRef(name="m", path=run, adapter=None, identity=""))
    assert found.tasks["longen"].ids == {"p0"}
    for part in ("a.jsonl has changed", "c.jsonl", "moved, on which"):
        assert [note for note in found.unchecked if part in note]


def test_of_a_model_that_is_not_ours_nothing_is_said(tmp_path):
    found = check_overlap(prompts("x"), ModelRef(name="m", path=tmp_path, adapter=None, identity=""))
    assert (found.tasks, found.runs, found.unchecked, found.warnings) == ({}, [], [], [])


def test_the_texts_of_a_prompt_are_the_sources_and_the_one_that_is_asked():
    from evals.tasks import tlg

    (sample, *_) = [entry for entry in tlg.load(None, draw_seed=0) if isinstance(entry, Sample)]
    (texts,) = prompts_of(tlg, [sample]).values()
    assert texts[0] == sample.instruction and len(texts) == 2 and sample.instruction in texts[1]


@pytest.mark.parametrize(
    ("text", "finish_reason", "num_reasoning_tokens", "expected"),
    [
        ("", "length", 50, True),
        ("An answer", "length", 50, False),
        ("", "length", 0, False),
        ("", "stop", 50, False),
        ("", None, 50, False),
    ],
)
def test_thinking_that_never_ended_is_counted_and_scores_as_empty(
    text, finish_reason, num_reasoning_tokens, expected
):
    sample = Sample(id="a", messages=user("Write."), length=LengthTarget.about(20))
    row = score_completion(longen, sample, text, finish_reason, 60, num_reasoning_tokens)
    assert row["flags"]["unfinished_thinking"] is expected
    tally = Tally()
    tally.add({"id": "a", **row})
    summary = summarise(longen, tally)
    assert summary["counts"]["unfinished_thinking"] == expected
    said = [w for w in warnings_of({"longen": summary}) if "still thinking" in w]
    assert bool(said) is expected
    if expected:
        assert row["metrics"]["length_score"] == 0.0


@pytest.mark.real_model
def test_the_embedded_model_is_sound():
    ref = resolve_model(EMBEDDED)
    local = engine(ref.path)
    assert isinstance(local, ShowsModel)
    found = check_model(local, PROMPTS)
    assert (found.warnings, found.unchecked) == ([], [])
    assert found.first_prompt["longen"]["text"].endswith("<|im_start|>assistant\n")
    end = local.chat_tokenizer.turn_end()
    assert (end.token, end.token_id, end.text) == ("<|im_end|>", 2, "<|im_end|>\n")
