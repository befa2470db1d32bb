"""Kinds of low-rank adapters: their words, what PEFT is given, and what cannot be had on this machine."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from lengthwise.config import ConfigError, parse_config
from lengthwise.schemas import load_schema
from posttrain.lora import LoraOptions, check_quantization, check_served, lora_config, quantization_config
from posttrain.sft import SFTJob


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "LoRA (r=16, alpha=32)"),
        ({"use_rslora": True, "r": 64}, "rsLoRA (r=64, alpha=32)"),
        ({"use_dora": True}, "DoRA (r=16, alpha=32)"),
        ({"quantization": "4bit", "use_dora": True}, "QLoRA + DoRA (r=16, alpha=32)"),
        (
            {"modules_to_save": ["lm_head", "embed_tokens"]},
            "LoRA (r=16, alpha=32, lm_head and embed_tokens in full)",
        ),
    ],
)
def test_the_words_say_what_is_trained(options, words):
    assert str(LoraOptions(**options)) == words
    assert SFTJob(name="x", model="m", data="d", lora=LoraOptions(**options)).method == words


def test_a_config_may_name_each_option():
    saved = ["--lora.modules_to_save", "lm_head"]
    job = parse_config(
        SFTJob,
        ["--name=x", "--model=m", "--data=d", "--lora.use_rslora", "--lora.quantization=4bit", *saved],
        prog="sft",
        passthrough=load_schema("sft"),
    )
    assert job.lora == LoraOptions(use_rslora=True, quantization="4bit", modules_to_save=["lm_head"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 0}, "r is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"target_modules": []}, "target_modules is empty"),
        ({"modules_to_save": []}, "modules_to_save is an empty list"),
    ],
)
def test_values_that_peft_would_refuse_later_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LoraOptions(**options)


def test_peft_is_given_what_was_asked_for():
    config = lora_config(
        LoraOptions(r=8, alpha=4, dropout=0.1, use_rslora=True, use_dora=True, modules_to_save=["lm_head"])
    )
    assert (config.r, config.lora_alpha, config.lora_dropout) == (8, 4, 0.1)
    assert (config.use_rslora, config.use_dora, config.modules_to_save) == (True, True, ["lm_head"])


def test_four_bits_are_nf4_quantised_twice_and_computed_in_the_other_weights_type():
    import torch

    assert quantization_config(LoraOptions(), "bfloat16") is None
    config = quantization_config(LoraOptions(quantization="4bit"), "bfloat16")
    assert config is not None and config.load_in_4bit
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("nf4", True)
    assert config.bnb_4bit_compute_dtype == config.bnb_4bit_quant_storage == torch.bfloat16


def test_four_bits_need_cuda_and_bitsandbytes(monkeypatch):
    options = LoraOptions(quantization="4bit")
    check_quantization(None, on_cuda=False)
    check_quantization(LoraOptions(), on_cuda=False)
    with pytest.raises(ConfigError, match="lora.quantization is 4bit, but there is no CUDA device"):
        check_quantization(options, on_cuda=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        check_quantization(options, on_cuda=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: sys)
    check_quantization(options, on_cuda=True)


def test_checkpoints_that_vllm_would_not_serve_are_not_left_to_it(tmp_path):
    by_vllm, by_hf = tmp_path / "vllm.yaml", tmp_path / "hf.yaml"
    by_vllm.write_text("model: m\ntasks: [longen]\n")
    by_hf.write_text("model: m\nengine: {name: hf}\ntasks: [longen]\n")
    check_served(None, str(by_vllm))
    check_served(LoraOptions(use_rslora=True).unserved, str(by_vllm))
    check_served(LoraOptions(use_dora=True).unserved, str(by_hf))
    with pytest.raises(
        ConfigError, match=r"by vllm, but lora.use_dora is true.*`lengthwise export RUN --merge`"
    ):
        check_served(LoraOptions(use_dora=True).unserved, str(by_vllm))
    with pytest.raises(ConfigError, match=r"lora.modules_to_save is \['lm_head'\]"):
        check_served(LoraOptions(modules_to_save=["lm_head"]).unserved, str(by_vllm))
