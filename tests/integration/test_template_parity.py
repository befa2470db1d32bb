"""The same messages give the same tokens in training, in an engine's prompt, and from the exported folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lengthwise.config import ConfigError
from lengthwise.engines.chat_tokenizer import ChatTokenizer
from lengthwise.models import ModelRef, resolve_model
from lengthwise.records import Message
from lengthwise.row_formats import TrainRow
from posttrain import merge
from posttrain.base_model import load_tokenizer
from posttrain.kept_content import bos_lines
from posttrain.train_data import NOT_SUPERVISED, tokenize_rows

REPO = Path(__file__).parents[2]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA_3_TOKENS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]

CONVERSATIONS = [
    [("user", "Name a river."), ("assistant", "The Danube, for one.")],
    [("system", "Answer in one word."), ("user", "Red?"), ("assistant", "Blue."), ("user", "  And  now? \n"),
     ("assistant", "Green,\n\nor é\U0001f600 — 日本語.")],
    [("user", "2+2?"), ("assistant", "<think>two and two</think>\n\nFour.")],
]  # fmt: skip


def smollm2() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(resolve_model("embedded:smollm2-135m").path)


def llama_3() -> Any:
    """A tokenizer of bytes with Llama 3's special tokens, which puts BOS before each text by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(LLAMA_3_TOKENS)
    bos = core.token_to_id("<|begin_of_text|>")
    core.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"
    )


CASES = {
    "chatml": (smollm2, CHATML, "<|im_end|>"),
    "llama_3": (llama_3, LLAMA_3, "<|eot_id|>"),
    "smollm2": (smollm2, None, "<|im_end|>"),
    "plain_text": (
        smollm2,
        (REPO / "configs/sft/plain_text.jinja").read_text(encoding="utf-8"),
        "<|im_end|>",
    ),
}


def base_of(tokenizer: Any, folder: Path) -> Path:
    """Write a model of a few weights with the tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def exported(base: Path, tokenizer: Any, folder: Path) -> Path:
    """Return what `export --merge` writes of an adapter that was saved with the tokenizer of its training."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM"))
    model.save_pretrained(str(folder / "adapter"))
    tokenizer.save_pretrained(str(folder / "adapter"))
    assert merge.main([str(folder / "adapter"), "--merge", f"--output_dir={folder / 'merged'}"]) == 0
    return folder / "merged"


@pytest.fixture(params=CASES)
def case(request, tmp_path, monkeypatch):
    make, template, end = CASES[request.param]
    tokenizer = make()
    base = base_of(tokenizer, tmp_path / "base")
    file = tmp_path / "template.jinja"
    if template is not None:
        file.write_text(template, encoding="utf-8")
    monkeypatch.setenv("LENGTHWISE_CACHE", str(tmp_path / "cache"))
    ref = ModelRef(name="base", path=base, adapter=None, identity="")
    trained = load_tokenizer(ref, chat_template_path=str(file) if template else None)
    return request.param, trained, exported(base, trained, tmp_path), end


@pytest.mark.real_model
def test_training_engine_and_export_see_the_same_tokens(case):
    name, tokenizer, folder, end = case
    end_id = tokenizer.convert_tokens_to_ids(end)
    # Bare text has no mark before the answer, so white space at a prompt's end is cut otherwise before a word.
    clean = str.strip if name == "plain_text" else str
    rows = [
        TrainRow(
            id=str(number),
            source="s",
            line=number,
            messages=tuple(Message(role=role, content=clean(text)) for role, text in turns),  # pyright: ignore
        )
        for number, turns in enumerate(CONVERSATIONS)
    ]
    trained, refused = tokenize_rows(rows, tokenizer, train_on="last")
    assert not refused
    engines = (ChatTokenizer(folder.parent / "adapter"), ChatTokenizer(folder))
    for row, tokens in zip(rows, trained, strict=True):
        ids = tokens.input_ids.tolist()
        supervised = [i for i, label in enumerate(tokens.labels.tolist()) if label != NOT_SUPERVISED]
        start = supervised[0]
        if tokens.num_split_tokens:  # "?<" is one token of SmolLM2's: counted, and said in the header
            assert (name, row.messages[-1].content[0]) == ("plain_text", "<")
            continue
        for engine in engines:
            assert ids[:start] == engine.encode(row.messages[:-1])
            answer = engine.tokenizer.encode(row.messages[-1].content, add_special_tokens=False)
            assert ids[start : supervised[-1] + 1] == [*answer, end_id]
        bos = tokenizer.bos_token_id
        if name == "llama_3":
            assert ids[0] == bos and ids.count(bos) == 1
        if name == "plain_text":
            text = "".join(m.content + (end if m.role == "assistant" else "") for m in row.messages)
            assert ids == tokenizer.encode(text, add_special_tokens=False)
    assert not list(bos_lines(tokenizer, [tokens.input_ids for tokens in trained]))
    stops = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    assert stops == [0, end_id]


@pytest.mark.real_model
def test_without_a_template_training_and_engine_refuse_alike(tmp_path):
    tokenizer = smollm2()
    tokenizer.chat_template = None
    base = base_of(tokenizer, tmp_path / "base")
    with pytest.raises(ConfigError, match=r"has no chat template .*plain_text\.jinja"):
        load_tokenizer(ModelRef(name="base", path=base, adapter=None, identity=""))
    with pytest.raises(ConfigError, match="has no chat template"):
        ChatTokenizer(base)
