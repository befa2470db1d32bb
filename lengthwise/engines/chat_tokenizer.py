"""Renders prompts with a model's own chat template, to token ids, once."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from lengthwise.records import Prompt
from lengthwise.value_types import ConfigError


class ChatTokenizer:
    """A model's tokenizer and chat template. Ids, not text, go to the model: no second BOS, no drift."""

    def __init__(self, folder: Path):
        """Load the tokenizer of the model in `folder`.

        Raises:
            ConfigError: if the model has no chat template.
        """
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        if not self.tokenizer.chat_template:
            raise ConfigError(
                f"model: {folder} has no chat template (a base model?): add a chat_template.jinja to the "
                "folder or choose an instruct model"
            )
        self._encode = lru_cache(maxsize=1024)(self._render)

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the ids of the rendered prompt, shape [num_prompt_tokens]; a prefill stays open at its end."""
        return list(self._encode(prompt))

    def _render(self, prompt: Prompt) -> tuple[int, ...]:
        prefill = prompt[-1].role == "assistant"
        ids = self.tokenizer.apply_chat_template(
            [m.to_dict() for m in prompt],
            tokenize=True,
            return_dict=False,  # transformers 5 would return a BatchEncoding
            add_generation_prompt=not prefill,
            continue_final_message=prefill,
        )
        return tuple(ids)
