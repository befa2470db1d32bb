"""The shapes in which training rows come, read as one: a list of messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lengthwise.records import Message, Role, sample_id
from lengthwise.row_values import row_id, shown
from lengthwise.rows import Row

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}

_THINKING = ("reasoning_content", "reasoning", "thinking")
"""Where providers and data sets put what a model thought before its answer."""

_LOSS_MARKS = ("weight", "loss", "train")
"""By which OpenAI's and other trainers' files say whether, or how much, a turn carries loss: 1 or true is full."""

RowFormat = Literal["messages", "prompt_completion", "sharegpt", "alpaca"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRow:
    """One conversation to train on, and where it came from."""

    id: str
    source: str
    """The file, or the hub id."""
    line: int
    """Its line in a JSONL file, else its row number; the first is 1."""
    messages: tuple[Message, ...]
    num_context: int = 0
    """Leading messages that are never trained on: the prompt of a prompt-completion row."""
    score: float | None = None
    """A number of the user's own by which a curriculum draws rows, where the config names its column."""
    tools: tuple[Mapping[str, Any], ...] | None = None
    """JSON schemas of the functions that the model may call, which the chat template shows."""


def row_format(row: Mapping[str, Any]) -> RowFormat:
    """Say in which shape a row is.

    Raises:
        ValueError: it is in none of them.

    Example:
        >>> row_format({"instruction": "Add.", "input": "1 1", "output": "2"})
        'alpaca'
    """
    if row.get("messages") is not None:
        return "messages"
    if row.get("prompt") is not None and row.get("completion") is not None:
        return "prompt_completion"
    if row.get("conversations") is not None:
        return "sharegpt"
    if row.get("instruction") is not None and row.get("output") is not None:
        return "alpaca"
    if isinstance(row.get("text"), str):
        raise ValueError(
            "it is a plain text, not a conversation: to train on plain texts set curriculum: {name: "
            "dataset_decomposition} and batching: {name: token_budget}; the builder back_translate "
            "makes prompts for them"
        )
    raise ValueError(
        f"its keys are {sorted(row)[:8]}; it needs messages, or prompt and completion, or conversations "
        "(ShareGPT), or instruction and output (Alpaca)"
    )


def read_row(given: Row) -> TrainRow:
    """Turn a row of any known shape into a conversation.

    Strings of a prompt-completion row become a user and an assistant turn: the chat template applies to them
    as to all others (TRL would train on the bare text).

    Raises:
        ValueError: with the reason.
    """
    row = given.values
    if row.get("chosen") is not None and row.get("rejected") is not None:
        raise ValueError("it is a preference row (chosen, rejected): train on it with `lengthwise dpo`")
    messages, num_context = _conversation(row)
    _check(messages, num_context)
    return TrainRow(
        id=row_id(row.get("id")) or sample_id(messages),
        source=given.place.source,
        line=given.place.number,
        messages=messages,
        num_context=num_context,
        tools=_tools(row.get("tools")),
    )


def _tools(value: Any) -> tuple[Mapping[str, Any], ...] | None:
    """Return the functions that a row offers; a text is read as JSON, as data sets store them."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"its tools are {shown(value)}, which is no JSON: {error}") from None
    if not value:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(tool, Mapping) and tool for tool in value):
        raise ValueError(f"its tools are {shown(value)}, expected a list of JSON schemas of functions")
    return tuple(value)


def refuse_tools(row: Mapping[str, Any]) -> None:
    """Raise for a pair that offers tools, which are kept for SFT only."""
    if row.get("tools"):
        raise ValueError("it has tools, which are not supported in pairs")


def _conversation(row: Mapping[str, Any]) -> tuple[tuple[Message, ...], int]:
    """Return the messages of a row, and how many of them are context that is never trained on."""
    shape = row_format(row)
    if shape == "messages":
        return with_system(row, messages_of(row["messages"], "role", "content")), 0
    if shape == "sharegpt":
        return with_system(row, messages_of(row["conversations"], "from", "value")), 0
    if shape == "alpaca":
        return with_system(row, (*alpaca_prompt(row), _alpaca_answer(row))), 0
    prompt = messages_or_text(row["prompt"], "user", "prompt", is_context=True)
    prompt = with_system(row, prompt)
    return prompt + messages_or_text(row["completion"], "assistant", "completion"), len(prompt)


def with_system(row: Mapping[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the messages behind the row's own `system` text, if it has one."""
    if not row.get("system"):
        return messages
    system = Message(role="system", content=_text(row["system"], "system"))
    if messages[0].role != "system":
        return (system, *messages)
    if messages[0] != system:
        raise ValueError(f"it has two system texts: {shown(system.content)} and {shown(messages[0].content)}")
    return messages


def alpaca_prompt(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """Return the turns of an Alpaca row up to the instruction: its history, and the instruction with its input."""
    instruction = _text(row["instruction"], "instruction")
    extra = _text(row.get("input") or "", "input")
    return (
        *_history(row.get("history") or ()),
        Message(role="user", content=f"{instruction}\n\n{extra}" if extra.strip() else instruction),
    )


def _alpaca_answer(row: Mapping[str, Any]) -> Message:
    return Message(role="assistant", content=_text(row["output"], "output"))


def _history(value: Any) -> Iterator[Message]:
    """Yield the earlier turns of an Alpaca row; their answers carry loss as those of any conversation do."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"history is {shown(value)}, expected a list of [user, assistant] pairs")
    for number, pair in enumerate(value):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"history {number} is {shown(pair)}, expected a pair [user, assistant]")
        yield Message(role="user", content=_text(pair[0], f"history {number}"))
        yield Message(role="assistant", content=_text(pair[1], f"history {number}"))


def messages_or_text(value: Any, role: Role, field: str, *, is_context: bool = False) -> tuple[Message, ...]:
    """Return a list of turns as messages, or a text as one message of the role."""
    if isinstance(value, str):
        return (Message(role=role, content=_text(value, field)),)
    return messages_of(value, "role", "content", is_context=is_context)


def messages_of(
    value: Any, role_key: str, content_key: str, *, is_context: bool = False
) -> tuple[Message, ...]:
    """Return a list of turns as messages.

    Args:
        value: the list.
        role_key: where a turn has its role.
        content_key: where it has its text.
        is_context: whether no turn of it is trained on.

    Raises:
        ValueError: it is no such list, or has a part that a message cannot hold.
    """
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("its list of messages is empty or not a list")
    messages = []
    for number, turn in enumerate(value):
        if not isinstance(turn, Mapping) or role_key not in turn:
            raise ValueError(f"message {number} is not an object with {role_key!r} and {content_key!r}")
        role = turn[role_key]
        known = _ROLES.get(role.lower()) if isinstance(role, str) else None
        if known is None:
            raise ValueError(
                f"message {number} has the role {shown(role)}; known are {', '.join(sorted(_ROLES))}"
            )
        _refuse_what_would_be_lost(turn, number, may_carry_loss=known == "assistant" and not is_context)
        messages.append(Message(role=known, content=_text(turn.get(content_key), f"message {number}")))
    return tuple(messages)


def _refuse_what_would_be_lost(turn: Mapping[str, Any], number: int, *, may_carry_loss: bool) -> None:
    """Raise for the parts of a turn that no message here can hold."""
    if turn.get("tool_calls"):
        raise ValueError(
            f"message {number} has tool_calls, which are not supported: write the call into its content as the model "
            "is to write it"
        )
    for key in _THINKING:
        part = turn.get(key)
        if part.strip() if isinstance(part, str) else part:
            raise ValueError(
                f"message {number} has {key}, which would be left out: put it into its content, as <think>...</think>"
            )
    for key in _LOSS_MARKS:
        mark = turn.get(key)
        if may_carry_loss and mark is not None and mark != 1:
            raise ValueError(
                f"message {number} has {key}: {shown(mark)}, which is not supported: every assistant turn would "
                "carry full loss; give turns without loss as the prompt of a prompt-completion row"
            )


def _text(value: Any, where: str) -> str:
    if isinstance(value, list) and all(isinstance(p, Mapping) and p.get("type") == "text" for p in value):
        value = "".join(_text(part.get("text"), where) for part in value)
    if not isinstance(value, str):
        raise ValueError(f"{where} holds no text but a {type(value).__name__}")
    return value


def _check(messages: tuple[Message, ...], num_context: int) -> None:
    trained = [i for i, m in enumerate(messages) if m.role == "assistant" and i >= num_context]
    if not trained:
        raise ValueError("it has no assistant turn to train on")
    refuse_empty_turns(messages)


def refuse_empty_turns(messages: tuple[Message, ...]) -> None:
    """Raise where an assistant turn says nothing."""
    empty = next((i for i, m in enumerate(messages) if m.role == "assistant" and not m.content.strip()), None)
    if empty is not None:
        raise ValueError(f"message {empty}, an assistant turn, is empty")
