"""A tokenizer whose tokens are bytes, with chat templates of thinking models and of one that does not think."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AddedToken, PreTrainedTokenizerFast

from lengthwise.engines.chat_tokenizer import ChatTokenizer
from lengthwise.engines.reasoning import THINK

PLAIN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
WRITES_BOTH = PLAIN + "{% if add_generation_prompt %}<|assistant|>{% endif %}{# </think> #}"
OPENS = PLAIN + "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"


def chat_tokenizer(folder: Path, template: str, *, special: bool = False, tags=THINK) -> ChatTokenizer:
    """Return a byte-level tokenizer of its own with the tags as added tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")
    if "hink" in template or special:
        tokenizer.add_tokens([AddedToken(tag, special=special) for tag in (tags.open, tags.close)])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return ChatTokenizer(folder)
