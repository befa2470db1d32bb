"""What a value in a row of somebody's data means: plain JSON, a prompt, a length. Pure functions."""

from __future__ import annotations

import datetime
import decimal
import math
import sys
import uuid
from collections.abc import Mapping
from typing import Any

from lengthwise.records import LengthTarget, Message, Prompt

MAX_DEPTH = 64
"""Levels of lists and maps in one value; deeper ones would end in a RecursionError when they are written."""

_SHOWN = 80
"""Characters of a wrong value that a message shows."""

_SHOWN_KEYS = 20


def shown(value: Any) -> str:
    """Return the start of a value, for a message."""
    text = value[: _SHOWN + 1] if isinstance(value, str) else value
    text = repr(text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def shown_keys(row: Mapping[str, Any]) -> str:
    """Return the names of a row's columns, for a message."""
    more = f" and {len(row) - _SHOWN_KEYS} more" if len(row) > _SHOWN_KEYS else ""
    return (", ".join(list(row)[:_SHOWN_KEYS]) or "no columns") + more


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON would hold it: dates and the like become text, tuples lists.

    NaN and the infinities stay, so that a column with a meaning can refuse them; `without_nan` takes them out
    of what is only passed on. Keys are interned: the rows of a file share them.

    Raises:
        ValueError: the value cannot be written as UTF-8 JSON; the text goes on from the column's name.

    Example:
        >>> plain({"day": datetime.date(2024, 5, 1), "tags": ("a", None)})
        {'day': '2024-05-01', 'tags': ['a', None]}
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _text(value)
    if depth == MAX_DEPTH:
        raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {sys.intern(_text(str(key))): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return int(value) if value.is_finite() and value == int(value) else float(value)
    if isinstance(value, datetime.timedelta | uuid.UUID):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"holds bytes that are no UTF-8 text (byte {error.start + 1})") from None
    raise ValueError(f"holds a {type(value).__name__}, which is no JSON")


def _text(value: str) -> str:
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            half = ascii(value[error.start])
            raise ValueError(f"holds half a surrogate pair, {half}, at character {error.start + 1}") from None
    return value


def without_nan(value: Any) -> Any:
    """Return plain data with null for NaN and the infinities, which JSON does not know.

    Example:
        >>> without_nan({"score": float("nan"), "parts": [1.5, float("inf")]})
        {'score': None, 'parts': [1.5, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return value


def row_id(value: Any) -> str | None:
    """Return a row's id as text; None where it has none (null, NaN or an empty text)."""
    return None if value is None or value == "" or value != value else str(value)


def prompt_turns(value: Any) -> Prompt:
    """Return a prompt, a text or a list of turns, up to its last user turn: what follows is an answer.

    null is an empty prompt, a list without a user turn is no turns at all; what to do with them is the
    caller's choice.

    Raises:
        ValueError: it is neither.

    Example:
        >>> [m.content for m in prompt_turns([{"role": "user", "content": "Hi"},
        ...                                   {"role": "assistant", "content": "Yo"}])]
        ['Hi']
    """
    if value is None or isinstance(value, str):
        return (Message(role="user", content=value or ""),)
    if not isinstance(value, list) or not all(
        isinstance(turn, Mapping)
        and turn.get("role") in ("system", "user", "assistant")
        and isinstance(turn.get("content"), str)
        for turn in value
    ):
        raise ValueError(f"must be a text or a list of {{role, content}} turns, not {shown(value)}")
    turns = [Message(role=turn["role"], content=turn["content"]) for turn in value]
    while turns and turns[-1].role != "user":
        turns.pop()
    return tuple(turns)


def length_target(value: Any) -> LengthTarget | None:
    """Return the wanted length that a value states, None for null.

    Args:
        value: a whole number of words; a map as `LengthTarget.to_dict` writes it; or the `length` of a build's
            row, whose `requested` is such a map.

    Raises:
        ValueError: it is none of these.

    Example:
        >>> length_target(500.0) == length_target({"min": 500, "max": 500}) == LengthTarget.about(500)
        True
    """
    if isinstance(value, Mapping) and "requested" in value:
        value = value["requested"]
    if value is None:
        return None
    if isinstance(value, Mapping):
        return LengthTarget.from_dict(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return LengthTarget.about(value)
    raise ValueError(
        f"it is {shown(value)}, expected a whole number of words or a map of min, max, unit, relation"
    )
