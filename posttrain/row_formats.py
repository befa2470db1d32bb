"""The shapes in which training rows come, read as one: a list of messages."""

from __future__ import annotations

from collections.abc import Mapping
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
    if row.get("tools"):
        raise ValueError("it has tools, which are not supported")
    if row.get("chosen") is not None and row.get("rejected") is not None:
        raise ValueError("it is a preference row (chosen, rejected), whose answers SFT would not see")
    shape = row_format(row)
    num_context = 0
    if shape == "messages":
        messages = _messages(row["messages"], "role", "content")
    elif shape == "sharegpt":
        messages = _messages(row["conversations"], "from", "value")
        if row.get("system"):
            messages = (Message(role="system", content=_text(row["system"], "system")), *messages)
    elif shape == "prompt_completion":
        prompt = _messages_or_text(row["prompt"], "user", "prompt")
        num_context = len(prompt)
        messages = prompt + _messages_or_text(row["completion"], "assistant", "completion")
    else:
        messages = _alpaca(row)
    _check(messages, num_context)
    return TrainRow(
        id=row_id(row.get("id")) or sample_id(messages),
        source=given.place.source,
        line=given.place.number,
        messages=messages,
        num_context=num_context,
    )


def _alpaca(row: Mapping[str, Any]) -> tuple[Message, ...]:
    instruction = _text(row["instruction"], "instruction")
    extra = _text(row.get("input") or "", "input")
    turns = (
        Message(role="user", content=f"{instruction}\n\n{extra}" if extra.strip() else instruction),
        Message(role="assistant", content=_text(row["output"], "output")),
    )
    if row.get("system"):
        return (Message(role="system", content=_text(row["system"], "system")), *turns)
    return turns


def _messages_or_text(value: Any, role: Role, field: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message(role=role, content=_text(value, field)),)
    return _messages(value, "role", "content")


def _messages(value: Any, role_key: str, content_key: str) -> tuple[Message, ...]:
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
        if turn.get("tool_calls"):
            raise ValueError(f"message {number} has tool_calls, which are not supported")
        messages.append(Message(role=known, content=_text(turn.get(content_key), f"message {number}")))
    return tuple(messages)


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
    empty = next((i for i, m in enumerate(messages) if m.role == "assistant" and not m.content.strip()), None)
    if empty is not None:
        raise ValueError(f"message {empty}, an assistant turn, is empty")
