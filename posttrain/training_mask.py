"""Which tokens of a conversation carry loss, for any chat template.

TRL's assistant-only loss needs `{% generation %}` markers in the template; most templates have none. Here the
template is only ever asked to render text: the prompt before an assistant turn, and the conversation up to
and with it. Where both are beginnings of the whole conversation, the text between them is what the model
would have to generate. Where they are not, the template says one thing at inference and another in training,
and the job stops instead of training on a guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lengthwise.config import ConfigError
from lengthwise.records import Message
from posttrain.kept_content import left_out

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""Start and end (exclusive) of an assistant turn, in characters of the rendered conversation."""

Tools = Sequence[Mapping[str, Any]] | None
"""JSON schemas of the functions that a conversation offers to the model."""


class RowRefused(ValueError):
    """One conversation cannot be rendered by the template; other rows may be fine."""


class TemplateRefused(ConfigError):
    """The template cannot give training masks for this kind of conversation."""


@dataclass(frozen=True, slots=True)
class MaskedConversation:
    """A tokenised conversation; T is its number of tokens."""

    input_ids: list[int]
    """Shape [T]."""
    supervised: list[bool]
    """Shape [T]; true where the token carries loss."""
    num_split_tokens: int
    """Tokens that begin in the prompt and end in the turn: generation would have cut them differently."""
    end_of_turn_ids: frozenset[int]
    """The tokens that close the supervised turns."""
    offsets: list[Span]
    """Where each token stands in the rendered conversation, shape [T]."""


def trained_turns(messages: Sequence[Message], *, train_on: str = "all", num_context: int = 0) -> list[int]:
    """Return the indices of the assistant turns that carry loss.

    Args:
        messages: the conversation.
        train_on: `all` assistant turns, or only the `last`.
        num_context: this many leading messages are context, whatever their role.
    """
    turns = [i for i, m in enumerate(messages) if m.role == "assistant" and i >= num_context]
    return turns[-1:] if train_on == "last" else turns


def assistant_spans(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    turns: Sequence[int],
    tools: Tools = None,
) -> tuple[str, list[Span]]:
    """Render a conversation and find the text that the model writes in the given turns.

    A span starts where the generation prompt ends and goes through the end-of-turn marker; white space after
    the marker belongs to the template, not to the turn. A template without a generation prompt gives spans
    that hold the turn's own header, since the model then has to write it.

    Args:
        tokenizer: with its chat template.
        messages: the conversation.
        turns: indices of the assistant turns that carry loss.
        tools: JSON schemas of the functions that the model may call.

    Raises:
        RowRefused: the template raises on this conversation, or leaves out a part of it.
        TemplateRefused: the template renders a turn differently once the conversation goes on.

    Example:
        With ChatML, `[user("Hi"), assistant("Yo")]` gives the span of `Yo<|im_end|>`.
    """
    full = _render(tokenizer, messages, tools, add_generation_prompt=False)
    if tools and full == _render(tokenizer, messages, None, add_generation_prompt=False):
        raise RowRefused(
            "the chat template does not show its tools: choose a template that does (chat_template_path)"
        )
    spans = []
    for turn in turns:
        prompt = _render(tokenizer, messages[:turn], tools, add_generation_prompt=True)
        if not full.startswith(prompt):
            raise TemplateRefused(_generation_prompt_differs(full, prompt, turn))
        is_last = turn == len(messages) - 1
        until = (
            full if is_last else _render(tokenizer, messages[: turn + 1], tools, add_generation_prompt=False)
        )
        if not full.startswith(until):
            raise TemplateRefused(_earlier_turn_differs(full, until, turn))
        end = len(until.rstrip())
        if end <= len(prompt):
            raise RowRefused(f"the template renders nothing for the assistant turn {turn}")
        spans.append((len(prompt), end))
    _refuse_left_out(messages, full, dict(zip(turns, spans, strict=True)))
    return full, spans


def _refuse_left_out(messages: Sequence[Message], full: str, spans: Mapping[int, Span]) -> None:
    number = left_out(messages, full, spans)
    if number is None:
        return
    thinks = " (templates of thinking models drop what stands before </think>)" if number in spans else ""
    raise RowRefused(
        f"the chat template leaves out a part of message {number} ({messages[number].role}){thinks}: it would be lost "
        "in training; set chat_template_path to a template that shows it, or take it out of the data"
    )


def supervised_tokens(offsets: Sequence[Span], spans: Sequence[Span]) -> tuple[list[bool], list[int], int]:
    """Map character spans to tokens.

    Some tokenizers report offsets without a token's leading white space; a token of white space alone then
    has no width and lies at its end. So a token belongs to a span when it ends inside and starts before the
    span's end, and a token without width is taken to be the character before it.

    Args:
        offsets: (start, end) of each token in the text, shape [T].
        spans: ascending character spans, not overlapping.

    Returns:
        The mask [T], the index of each span's last token, and how many tokens straddle a span's start.

    Example:
        >>> supervised_tokens([(0, 5), (5, 6), (6, 9)], [(5, 9)])
        ([False, True, True], [2], 0)
    """
    mask = [False] * len(offsets)
    last_tokens = []
    num_split = 0
    token = 0
    for start, end in spans:
        last = -1
        while token < len(offsets):
            left, right = offsets[token]
            if left == right:
                left = right - 1
            if left >= end:
                break
            if right > start:
                mask[token] = True
                last = token
                num_split += left < start
            token += 1
        last_tokens.append(last)
    return mask, last_tokens, num_split


def mask_conversations(
    tokenizer: PreTrainedTokenizerBase, rendered: Sequence[tuple[str, list[Span]]]
) -> list[MaskedConversation]:
    """Tokenise rendered conversations and mark the tokens of their spans.

    Raises:
        TemplateRefused: a turn does not close with a special token, so nothing would teach the model to stop.
    """
    encoded = tokenizer(
        [text for text, _ in rendered],
        add_special_tokens=False,  # the template has written them
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,  # what is too long is this package's own business, and reported
    )
    closing = closing_token_ids(tokenizer)
    conversations = []
    for ids, offsets, (text, spans) in zip(
        encoded["input_ids"], encoded["offset_mapping"], rendered, strict=True
    ):
        mask, last_tokens, num_split = supervised_tokens(offsets, spans)
        end_ids = frozenset(ids[i] for i in last_tokens)
        if not end_ids <= closing:
            start, end = next(s for s, i in zip(spans, last_tokens, strict=True) if ids[i] not in closing)
            raise TemplateRefused(_no_end_of_turn(text[max(start, end - 40) : end]))
        conversations.append(MaskedConversation(list(ids), mask, num_split, end_ids, list(offsets)))
    return conversations


def closing_token_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that may close a turn: the end-of-sequence token and all special tokens."""
    added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that cannot give masks.

    Raises:
        TemplateRefused: it has no chat template, or reports no character offsets.
    """
    if not tokenizer.chat_template:
        raise TemplateRefused(
            "model: its tokenizer has no chat template (it is a base model): set chat_template_path to a "
            ".jinja file (for bare text: configs/sft/plain_text.jinja) or to a model whose template to use"
        )
    if not tokenizer.is_fast:
        raise TemplateRefused(
            "model: its tokenizer reports no character offsets (it is not a fast tokenizer): convert it to a "
            "tokenizer.json, without which no exact training mask can be made"
        )


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Tools,
    *,
    add_generation_prompt: bool,
) -> str:
    from jinja2.exceptions import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            [m.to_dict() for m in messages],
            tools=None if tools is None else [dict(tool) for tool in tools],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except (TemplateError, IndexError, ValueError) as error:
        if not messages:
            reason = "the conversation starts with an assistant turn that would have no prompt"
        else:
            reason = f"the chat template refuses it: {error}"
        raise RowRefused(reason) from error
    return str(text)


def _divergence(full: str, part: str) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(full, part, strict=False)) if a != b), min(len(full), len(part))
    )
    begin = max(0, at - 20)
    return f"{part[begin : at + 30]!r} against {full[begin : at + 30]!r}"


def _generation_prompt_differs(full: str, prompt: str, turn: int) -> str:
    return (
        f"chat template: what it shows the model before the assistant turn {turn} is not how the whole "
        f"conversation begins ({_divergence(full, prompt)}). It would train on another text than the model "
        "sees when it generates. Common causes: a generation prompt that opens a thinking block, or "
        "thoughts that are cut from turns. Set chat_template_path to a template without that, or leave the "
        "thoughts out of the data"
    )


def _earlier_turn_differs(full: str, until: str, turn: int) -> str:
    return (
        f"chat template: it renders the assistant turn {turn} differently once the conversation goes on "
        f"({_divergence(full, until)}), as templates do that drop the thoughts of earlier turns. "
        "Set train_on: last to train only the final turn of each row, or chat_template_path to a template "
        "that keeps every turn as it was generated"
    )


def _no_end_of_turn(tail: str) -> str:
    return (
        f"chat template: an assistant turn ends in {tail!r}, without an end-of-turn token, so training "
        "would never teach the model to stop. Set chat_template_path to a template that writes the "
        "end-of-sequence token after each assistant turn"
    )
