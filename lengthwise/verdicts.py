"""What a judge may answer, and how its answer is read: pure functions from a reply to a verdict or a named fault.

A verdict is one JSON object. It is read strictly: a key that is missing, a grade of another type or outside its
scale is a fault of the judge, never a guessed grade. Only the wrapping is forgiven: one fence around the object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from lengthwise.degeneration import is_refusal

Form = Mapping[str, range | tuple[str, ...] | None]
"""What a verdict holds, by key: a whole number of a range, one of some words, or (None) a text."""

FaultKind = Literal[
    "empty",
    "truncated",
    "refusal",
    "malformed",
    "missing key",
    "wrong type",
    "out of range",
    "timeout",
    "engine error",
    "no room",
]
"""Why a judge gave no verdict. `no room`: the text to judge does not fit its context."""

FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)


class JudgeFault(Exception):
    """A judge's answer that is no verdict."""

    def __init__(self, kind: FaultKind, detail: str = "") -> None:
        """Keep the kind, by which faults are counted, and what exactly was wrong."""
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind: FaultKind = kind


def parse_verdict(text: str, finish_reason: str | None, form: Form) -> dict[str, Any]:
    """Return the values of a judge's reply by the keys of `form`; further keys are dropped.

    Args:
        text: the reply without its thinking part.
        finish_reason: why it ended. A reply that was cut is no verdict even where it can be read: what came last
            may be half a number.
        form: what the verdict must hold.

    Raises:
        JudgeFault: naming what is wrong.

    Example:
        >>> parse_verdict('{"Clarity": 4, "Why": "short"}', "stop", {"Clarity": range(1, 6)})
        {'Clarity': 4}
    """
    if finish_reason == "content_filter":
        raise JudgeFault("refusal", "the server's filter stopped the reply")
    if finish_reason not in (None, "stop"):
        raise JudgeFault("truncated", f"finish_reason {finish_reason}")
    if not text.strip():
        raise JudgeFault("empty")
    values = _json_object(text)
    return {key: _checked(key, values, kind) for key, kind in form.items()}


def json_schema_of(form: Form) -> dict[str, Any]:
    """Return the JSON schema of a verdict, for engines that can be held to one; keys keep their order.

    Example:
        >>> json_schema_of({"winner": ("A", "B")})["properties"]
        {'winner': {'type': 'string', 'enum': ['A', 'B']}}
    """
    return {
        "type": "object",
        "properties": {key: _value_schema(kind) for key, kind in form.items()},
        "required": list(form),
        "additionalProperties": False,
    }


def _value_schema(kind: range | tuple[str, ...] | None) -> dict[str, Any]:
    if kind is None:
        return {"type": "string"}
    if isinstance(kind, range):
        return {"type": "integer", "enum": list(kind)}  # every server's grammar knows it, unlike minimum
    return {"type": "string", "enum": list(kind)}


def _json_object(text: str) -> Mapping[str, Any]:
    fenced = _FENCED.findall(text)
    if len(fenced) > 1:
        raise JudgeFault("malformed", f"{len(fenced)} fenced blocks: which one is meant is not to be guessed")
    try:
        # Raw line breaks inside a text are common and leave nothing to guess.
        value = json.loads(fenced[0] if fenced else text, strict=False, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        if is_refusal(text):
            raise JudgeFault("refusal") from None
        raise JudgeFault("malformed", str(error)) from None
    if not isinstance(value, Mapping):
        raise JudgeFault("malformed", f"a JSON {type(value).__name__}, not an object")
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that grades one thing twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _checked(key: str, values: Mapping[str, Any], kind: range | tuple[str, ...] | None) -> Any:
    if key not in values:
        raise JudgeFault("missing key", key)
    value = values[key]
    if isinstance(kind, range):
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # 4.0 is an integer to JSON schema
        if isinstance(value, bool) or not isinstance(value, int):
            raise JudgeFault("wrong type", f"{key} is {value!r}, not a whole number")
        if value not in kind:
            raise JudgeFault("out of range", f"{key} is {value}, not from {kind[0]} to {kind[-1]}")
        return value
    if not isinstance(value, str):
        raise JudgeFault("wrong type", f"{key} is {value!r}, not a text")
    if kind is not None and value not in kind:
        raise JudgeFault("out of range", f"{key} is {value!r}, not one of {', '.join(kind)}")
    return value
