"""A Llama of a few thousand weights with a tokenizer of bytes: what training and export do with it takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from byte_tokenizer import chat_tokenizer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_model(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write the model; its generation config stops elsewhere than its turns end."""
    chat_tokenizer(folder, TEMPLATE)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(folder)),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=3,
        bos_token_id=None,
    )
    model: Any = LlamaForCausalLM(config)
    model.to(dtype).save_pretrained(folder)
    return folder
