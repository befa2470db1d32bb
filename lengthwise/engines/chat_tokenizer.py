"""Renders prompts with a model's own chat template, to token ids, once; and reads its replies' thinking part."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lengthwise.config import did_you_mean
from lengthwise.engines.base import EngineError, Sampling
from lengthwise.engines.reasoning import (
    AUTO,
    begins_inside,
    count_reasoning_tokens,
    cut_at_stop,
    find_tags,
    split_reasoning,
)
from lengthwise.records import Completion, Message, Prompt, digest, user
from lengthwise.value_types import ConfigError

_TAIL = 32
"""Tokens at the end of a rendered prompt that tell whether the template has opened the thinking part."""


TEMPLATE_HELP = "variables of the model's chat template, such as {enable_thinking: false}"


_CONTENT = "lengthwise"
"""What an assistant says where only what the template writes behind it is looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedPrompt:
    """A prompt as the model reads it."""

    text: str
    token_ids: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready map."""
        return {"text": self.text, "token_ids": list(self.token_ids)}


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnEnd:
    """What a chat template writes behind an assistant's words."""

    text: str
    token_id: int | None
    """The first special token of it, which a trained model writes to end its turn; None if there is none."""
    token: str | None = None


def template_digest(tokenizer: Any) -> str | None:
    """Return the sha256 of a tokenizer's chat template, None if it has none."""
    return digest(tokenizer.chat_template) if tokenizer.chat_template else None


def token_ids(*found: int | list[int] | None) -> frozenset[int]:
    """Return the ids that configs state as one number, a list, or not at all.

    Example:
        >>> sorted(token_ids([1, 2], None, 7))
        [1, 2, 7]
    """
    stated = [entry for entry in found if entry is not None]
    return frozenset(i for entry in stated for i in ([entry] if isinstance(entry, int) else entry))


class ChatTokenizer:
    """A model's tokenizer and chat template. Ids, not text, go to the model: no second BOS, no drift."""

    def __init__(
        self,
        folder: Path,
        reasoning_tags: str | list[str] | None = AUTO,
        template_kwargs: Mapping[str, Any] | None = None,
    ):
        """Load the tokenizer of the model in `folder`.

        Args:
            folder: the model's.
            reasoning_tags: as in an engine's config.
            template_kwargs: values of the chat template's variables.

        Raises:
            ConfigError: if the model has no chat template, or its template does not know a variable.
        """
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        if not self.tokenizer.chat_template:
            raise ConfigError(
                f"model: {folder} has no chat template (a base model?): add a chat_template.jinja to the "
                "folder or choose an instruct model"
            )
        self._template_kwargs = dict(template_kwargs or {})
        if self._template_kwargs:
            self._check_template_kwargs()
        self._added = self.tokenizer.get_added_vocab()
        self.tags = find_tags(reasoning_tags, str(self.tokenizer.chat_template), self._added)
        """The marks of the model's thinking part, None if it does not think."""
        self._special = {t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special}
        self._encode = lru_cache(maxsize=1024)(self._render)

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the ids of the rendered prompt, shape [num_prompt_tokens]; a prefill stays open at its end."""
        return list(self._encode(prompt))

    def rendered(self, prompt: Prompt) -> RenderedPrompt:
        """Return a prompt as the model reads it, every special token shown."""
        ids = self._encode(prompt)
        return RenderedPrompt(text=self._decode(ids), token_ids=ids)

    def turn_end(self) -> TurnEnd:
        """Return what the template writes behind an assistant turn.

        Raises:
            ValueError: the template refuses a dialogue of two turns, or does not show what the assistant said.

        Example:
            ChatML gives the text "<|im_end|>" and the id of that token.
        """
        from jinja2.exceptions import TemplateError

        dialogue = [*user("Hello."), Message(role="assistant", content=_CONTENT)]
        try:
            text = self.tokenizer.apply_chat_template(
                [turn.to_dict() for turn in dialogue], tokenize=False, **self._template_kwargs
            )
        except TemplateError as error:
            raise ValueError(f"the chat template refuses a dialogue of two turns: {error}") from error
        _, found, end = str(text).rpartition(_CONTENT)
        if not found:
            raise ValueError("the chat template does not show what an assistant said")
        special = {*self.tokenizer.all_special_ids, *self._added.values()}
        ids = self.tokenizer.encode(end, add_special_tokens=False)
        first = next((token for token in ids if token in special), None)
        if first is None:
            return TurnEnd(text=end, token_id=None)
        return TurnEnd(text=end, token_id=first, token=self.tokenizer.convert_ids_to_tokens(first))

    def encode_with(self, prompt: Prompt, continuation: str) -> tuple[list[int], int]:
        """Return the ids of the rendered prompt with a text behind it, and where those of the text begin.

        Both are tokenized as one text, as it would be met in training: a tokenizer may join the text's first
        characters to the prompt's last ones, or put a space before a text of its own. What differs from the ids
        of the prompt alone counts as the text's.

        Raises:
            EngineError: if the text is empty, or the prompt leaves the model inside its thinking part.
        """
        if self.begins_inside(prompt):
            raise EngineError(
                "the chat template opens the model's thinking part, where no answer begins: switch it off with "
                "chat_template_kwargs (enable_thinking: false for most models)"
            )
        rendered = self._apply_template(prompt, tokenize=False)
        ids = self.tokenizer.encode(rendered + continuation, add_special_tokens=False)
        alone = self.encode(prompt)
        start = next((i for i, (a, b) in enumerate(zip(ids, alone, strict=False)) if a != b), len(alone))
        if start >= len(ids):
            raise EngineError(f"the continuation {continuation!r} has no token of its own")
        return ids, start

    def count(self, text: str) -> int:
        """Return the number of tokens of a plain text."""
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    @property
    def tags_are_hidden(self) -> bool:
        """Whether a server that leaves special tokens out of its text leaves the thinking part's marks out too."""
        return self.tags is not None and bool(self._special & {self.tags.open, self.tags.close})

    def begins_inside(self, prompt: Prompt) -> bool:
        """Tell whether a reply to `prompt` begins inside its thinking part."""
        if self.tags is None:
            return False
        return begins_inside(self.tags, prompt, self.tokenizer.decode(self.encode(prompt)[-_TAIL:]))

    def for_model(self, sampling: Sampling) -> Sampling:
        """Return how the model is to be asked: a thinking one without the stop strings.

        They are meant for the answer, and are looked for there by `separate`.
        """
        return sampling if self.tags is None else replace(sampling, stop=())

    def separate(self, completion: Completion, prompt: Prompt, sampling: Sampling) -> Completion:
        """Return a completion with its thinking part taken out of the text; `num_tokens` still counts all.

        Args:
            completion: a reply as generated, with its token ids.
            prompt: what it replies to.
            sampling: how it was asked for; stop strings are applied to the answer.
        """
        if self.tags is None:
            return completion
        ids = completion.token_ids or ()
        text = completion.text
        if self.tags_are_hidden:
            text = self._text_with_tags(ids)
        answer, reasoning = split_reasoning(
            text,
            self.tags,
            inside=self.begins_inside(prompt),
            has_grammar=sampling.json_schema is not None,
        )
        answer, stopped = cut_at_stop(answer, sampling.stop)
        num_reasoning_tokens = 0
        if reasoning is not None:
            close_id = self._added.get(self.tags.close)
            num_reasoning_tokens = count_reasoning_tokens(ids, self._decode, self.tags, close_id=close_id)
        return replace(
            completion,
            text=answer,
            finish_reason="stop" if stopped else completion.finish_reason,
            reasoning=reasoning,
            num_reasoning_tokens=num_reasoning_tokens,
        )

    def _text_with_tags(self, ids: Sequence[int]) -> str:
        """Return the reply with tags that are special tokens, which an engine leaves out of its text."""
        assert self.tags is not None
        text = self._decode(ids)
        for token in self._special - {self.tags.open, self.tags.close}:
            text = text.replace(token, "")
        return text

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)

    def _check_template_kwargs(self) -> None:
        """Refuse what the template would ignore, since a typo would change nothing, and what is set here anyway."""
        words = set(re.findall(r"[A-Za-z_]\w*", str(self.tokenizer.chat_template)))
        known = sorted(words - set(inspect.signature(self.tokenizer.apply_chat_template).parameters))
        for name in self._template_kwargs:
            if name not in known:
                raise ConfigError(
                    f"chat_template_kwargs: the chat template in {self.tokenizer.name_or_path} has no variable "
                    f"{name!r} to set; {did_you_mean(name, known) or 'read it there'}"
                )

    def _render(self, prompt: Prompt) -> tuple[int, ...]:
        return tuple(self._apply_template(prompt, tokenize=True))

    def _apply_template(self, prompt: Prompt, *, tokenize: bool) -> Any:
        """Return the rendered prompt, as ids or as text."""
        prefill = prompt[-1].role == "assistant"
        return self.tokenizer.apply_chat_template(
            [m.to_dict() for m in prompt],
            tokenize=tokenize,
            return_dict=False,  # transformers 5 would return a BatchEncoding
            add_generation_prompt=not prefill,
            continue_final_message=prefill,
            **self._template_kwargs,
        )
