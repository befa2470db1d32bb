"""The shapes in which preference rows come, read as one: a prompt, a chosen and a rejected answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lengthwise.config import did_you_mean
from lengthwise.records import Message, sample_id
from lengthwise.row_formats import (
    alpaca_prompt,
    messages_of,
    messages_or_text,
    refuse_empty_turns,
    refuse_tools,
    with_system,
)
from lengthwise.row_values import row_id, shown, shown_keys
from lengthwise.rows import Row

_PROMPT_KEYS = ("prompt", "conversations", "messages", "instruction")
"""Where a row has what both answers answer; the first one there counts."""

_SCORE_KEYS = (
    ("chosen_score", "rejected_score"),
    ("score_chosen", "score_rejected"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
)

Turns = tuple[Message, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRow:
    """One prompt with a better and a worse answer, and where they came from."""

    id: str
    source: str
    """The file, or the hub id."""
    line: int
    """Its line in a JSONL file, else its row number; the first is 1."""
    prompt: Turns
    chosen: Turns
    """The better answer: one assistant turn."""
    rejected: Turns
    """The worse one: one assistant turn."""
    chosen_score: float | None = None
    rejected_score: float | None = None


def read_pair(given: Row) -> PairRow:
    """Turn a preference row of any known shape into a pair.

    The prompt is a text or a list of turns (`prompt`, `messages`), ShareGPT's `conversations`, or Alpaca's
    `instruction` and `input`; an answer is a text, one turn, or a list of turns. Answers may also be whole
    conversations: with a prompt they have to begin with it, without one the turns that both begin with are the
    prompt. Texts become a user and an assistant turn, to which the chat template applies (TRL would train on
    the bare text).

    Raises:
        ValueError: with the reason.

    Example:
        `{"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}`, and the same as conversations:
        `{"chosen": [user("Hi"), assistant("Hello!")], "rejected": [user("Hi"), assistant("What?")]}`.
    """
    row = given.values
    refuse_tools(row)
    _refuse_missing(row)
    prompt, chosen, rejected = _split(
        row, _turns(row["chosen"], "chosen"), _turns(row["rejected"], "rejected")
    )
    if prompt[-1].role == "assistant":
        raise ValueError("its prompt ends with an assistant turn, so there is nothing left to answer")
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        _check_answer(name, answer)
    if chosen == rejected:
        raise ValueError("chosen and rejected are equal: the pair prefers nothing")
    refuse_empty_turns(prompt)
    chosen_score, rejected_score = _scores(row)
    return PairRow(
        id=row_id(row.get("id")) or sample_id((*prompt, *chosen, *rejected)),
        source=given.place.source,
        line=given.place.number,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        chosen_score=chosen_score,
        rejected_score=rejected_score,
    )


def _refuse_missing(row: Mapping[str, Any]) -> None:
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            others = [key for key in row if key not in ("chosen", "rejected")]
            near = did_you_mean(name, others) or f"its keys are {shown_keys(row)}"
            raise ValueError(f"it has no {name} answer; {near}")


def _turns(value: Any, name: str) -> Turns:
    """Return an answer's turns; earlier turns of a whole conversation may be there."""
    if isinstance(value, str):
        return (Message(role="assistant", content=value),)
    turns = [value] if isinstance(value, Mapping) else value
    if not isinstance(turns, list | tuple) or not turns:
        raise ValueError(f"{name} is {shown(value)}, expected a text, a turn or a list of turns")
    keys = ("from", "value") if isinstance(turns[0], Mapping) and "from" in turns[0] else ("role", "content")
    try:
        return messages_of(turns, *keys)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _split(row: Mapping[str, Any], chosen: Turns, rejected: Turns) -> tuple[Turns, Turns, Turns]:
    """Return the prompt and what each answer says after it."""
    given = _given_prompt(row)
    if given is None:
        num_shared = _num_shared(chosen, rejected)
        if not num_shared:
            raise ValueError(_no_prompt(row, chosen, rejected))
        given, chosen, rejected = chosen[:num_shared], chosen[num_shared:], rejected[num_shared:]
        return with_system(row, given), chosen, rejected
    prompt = with_system(row, given)
    answers = [
        next((turns[len(start) :] for start in (prompt, given) if turns[: len(start)] == start), turns)
        for turns in (chosen, rejected)
    ]
    return prompt, answers[0], answers[1]


def _given_prompt(row: Mapping[str, Any]) -> Turns | None:
    key = next((key for key in _PROMPT_KEYS if row.get(key) is not None), None)
    if key is None:
        return None
    if key == "instruction":
        return alpaca_prompt(row)
    try:
        if key == "prompt":
            prompt = messages_or_text(row[key], "user", key, is_context=True)
        else:
            keys = ("from", "value") if key == "conversations" else ("role", "content")
            prompt = messages_of(row[key], *keys, is_context=True)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    if not any(m.content.strip() for m in prompt):
        raise ValueError(f"{key} is empty")
    return prompt


def _num_shared(chosen: Turns, rejected: Turns) -> int:
    """Return how many turns both begin with, the last of each left out: it is the answer."""
    longest = min(len(chosen), len(rejected)) - 1
    return next((i for i in range(longest) if chosen[i] != rejected[i]), longest)


def _no_prompt(row: Mapping[str, Any], chosen: Turns, rejected: Turns) -> str:
    if len(chosen) > 1 and len(rejected) > 1:
        first, other = shown(chosen[0].content), shown(rejected[0].content)
        return f"chosen and rejected have no common prompt: they begin with {first} and {other}"
    others = [key for key in row if key not in ("chosen", "rejected")]
    near = next(filter(None, (did_you_mean(key, others) for key in _PROMPT_KEYS)), "")
    return (
        f"it has no prompt; {near or f'its keys are {shown_keys(row)}'} (it needs one of {', '.join(_PROMPT_KEYS)}, "
        "or chosen and rejected as whole conversations)"
    )


def _check_answer(name: str, answer: Turns) -> None:
    if not answer:
        raise ValueError(f"{name} is the prompt without an answer")
    turn = answer[-1]
    if len(answer) > 1:
        roles = ", ".join(m.role for m in answer)
        raise ValueError(
            f"after the prompt, {name} has {len(answer)} turns ({roles}), expected one assistant turn: all "
            "tokens of an answer carry loss, those of a user would too"
        )
    if turn.role != "assistant":
        raise ValueError(f"{name} is no assistant turn but one of the role {turn.role!r}")
    if not turn.content.strip():
        raise ValueError(f"{name} is empty")


def _scores(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    keys = next((keys for keys in _SCORE_KEYS if any(row.get(key) is not None for key in keys)), None)
    return (None, None) if keys is None else (_score(row, keys[0]), _score(row, keys[1]))


def _score(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} is {shown(value)}, expected a number")
    return float(value) if math.isfinite(value) else None
