"""The records that every part of Lengthwise speaks.

A `Sample` is what a builder or an evaluation asks a model, a `Completion` what comes back. Between the jobs
lie files: a builder's rows are conversations, which training reads as any other tool's. Nothing here imports
anything heavier than the standard library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]

Role = Literal["system", "user", "assistant"]
Unit = Literal["words", "tokens", "characters"]
Relation = Literal["about", "at_least", "at_most", "range"]
FinishReason = Literal["stop", "length", "content_filter", "abort"]

MAX_LENGTH = 10**9
"""The longest length that can be asked for; a larger number in a data file is no length."""


def digest(value: Any) -> str:
    """Return the sha256 (hex) of the canonical JSON form of `value`."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One chat turn."""

    role: Role
    content: str

    def to_dict(self) -> dict[str, str]:
        """Return the turn in the shape that chat templates and OpenAI-style servers take."""
        return {"role": self.role, "content": self.content}


Prompt = tuple[Message, ...]
"""What an engine is asked. A last turn of the assistant is a prefill: the reply continues it."""


def user(content: str) -> Prompt:
    """Return a prompt of one user turn."""
    return (Message(role="user", content=content),)


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthTarget:
    """How long a text should be.

    `about` carries its number in both bounds, `at_least` only in `min`, `at_most` only in `max`.

    Example:
        >>> LengthTarget.about(1500).nominal
        1500.0
        >>> LengthTarget(min=400, max=600, relation="range").nominal
        500.0
    """

    min: int | None = None
    max: int | None = None
    unit: Unit = "words"
    relation: Relation = "about"

    def __post_init__(self) -> None:
        """Refuse what is no length: a target is often read from somebody's data."""
        if self.relation not in get_args(Relation) or self.unit not in get_args(Unit):
            raise ValueError(
                f"a length target has relation {self.relation!r} and unit {self.unit!r}; relations are "
                f"{', '.join(get_args(Relation))}, units are {', '.join(get_args(Unit))}"
            )
        for bound in (self.min, self.max):
            if bound is not None and (not isinstance(bound, int) or isinstance(bound, bool)):
                raise ValueError(f"a bound of a length target must be a whole number, not {bound!r}")
            if bound is not None and bound > MAX_LENGTH:
                raise ValueError(f"a length target must not be above {MAX_LENGTH:,}")
        needs = {
            "about": (True, True),
            "at_least": (True, False),
            "at_most": (False, True),
            "range": (True, True),
        }[self.relation]
        if (self.min is not None, self.max is not None) != needs:
            raise ValueError(
                f"a length target with relation {self.relation!r} has min={self.min} and max={self.max}: "
                "'about' and 'range' need both, 'at_least' only min, 'at_most' only max"
            )
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"a length target has min={self.min} above max={self.max}: swap them")
        if any(bound is not None and bound <= 0 for bound in (self.min, self.max)):
            raise ValueError(f"a length target must be positive, not min={self.min}, max={self.max}")

    @classmethod
    def about(cls, length: int, unit: Unit = "words") -> LengthTarget:
        """Return the target "about `length` units"."""
        return cls(min=length, max=length, unit=unit, relation="about")

    @property
    def nominal(self) -> float:
        """The one number to plot: the stated length, or the middle of a range (units as in `unit`)."""
        if self.min is None:
            return float(self.max or 0)
        if self.max is None:
            return float(self.min)
        return (self.min + self.max) / 2

    def to_dict(self) -> dict[str, JSON]:
        """Return a JSON-ready map."""
        return {"min": self.min, "max": self.max, "unit": self.unit, "relation": self.relation}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> LengthTarget:
        """Rebuild a target written by `to_dict`; of a table's cells, null is absent and 500.0 is 500.

        Raises:
            ValueError: it has other keys, or bounds that are no length.
        """
        unknown = value.keys() - {"min", "max", "unit", "relation"}
        if unknown:
            keys = ", ".join(sorted(unknown))
            raise ValueError(f"a length target is a map of min, max, unit and relation, and has no {keys}")
        given: dict[str, Any] = {
            key: int(entry) if isinstance(entry, float) and entry.is_integer() else entry
            for key, entry in value.items()
            if entry is not None
        }
        return cls(**given)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One prompt with what is known about it."""

    id: str
    """Stable across runs: the source's own id, else a digest of the content."""
    messages: tuple[Message, ...]
    completion: str | None = None
    """The answer that it came with, where it is a row of a finished data set."""
    target: str | None = None
    """The reference answer, where there is one."""
    length: LengthTarget | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    lineage: tuple[str, ...] = ()
    """One entry for each stage that made this sample."""

    @property
    def instruction(self) -> str:
        """The last user turn."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens one completion cost. The prompt of several completions counts once where it was read once."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """The part of `prompt_tokens` that a prefix cache served."""
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Sum two accounts."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )

    def to_list(self) -> list[int]:
        """Return [prompt, cached, completion], the short form of the journal."""
        return [self.prompt_tokens, self.cached_tokens, self.completion_tokens]

    @classmethod
    def from_list(cls, value: Sequence[int]) -> Usage:
        """Rebuild an account written by `to_list`."""
        prompt_tokens, cached_tokens, completion_tokens = value
        return cls(
            prompt_tokens=prompt_tokens, cached_tokens=cached_tokens, completion_tokens=completion_tokens
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """A text that led to an answer, or stands beside it: an earlier draft, a critique, an independent try."""

    kind: str
    """What it is to the answer, as the task that made it names it."""
    text: str
    finish_reason: FinishReason
    num_tokens: int
    """Generated tokens, those of a thinking part too."""
    reasoning: str | None = None
    num_reasoning_tokens: int = 0
    note: Mapping[str, Any] = field(default_factory=dict)
    """What was said of it before the next one was asked for: test results, feedback. JSON-ready."""

    @classmethod
    def of(cls, kind: str, completion: Completion, note: Mapping[str, Any] | None = None) -> Attempt:
        """Return an attempt of what a model returned."""
        return cls(
            kind=kind,
            text=completion.text,
            finish_reason=completion.finish_reason,
            num_tokens=completion.num_tokens,
            reasoning=completion.reasoning,
            num_reasoning_tokens=completion.num_reasoning_tokens,
            note=note or {},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready map that `Attempt(**map)` restores."""
        return {
            "kind": self.kind,
            "text": self.text,
            "finish_reason": self.finish_reason,
            "num_tokens": self.num_tokens,
            "reasoning": self.reasoning,
            "num_reasoning_tokens": self.num_reasoning_tokens,
            "note": dict(self.note),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a model returned. `finish_reason` travels with the text: a cut text is never called long."""

    text: str
    """The answer. What a model thinks before it is in `reasoning`."""
    finish_reason: FinishReason
    num_tokens: int
    """All generated tokens, of the thinking part too."""
    token_ids: tuple[int, ...] | None = None
    """All generated tokens, as `num_tokens` counts them."""
    reasoning: str | None = None
    num_reasoning_tokens: int = 0
    """The part of `num_tokens` up to and with the end of the thinking part."""
    model: str = ""
    logprobs: tuple[float, ...] | None = None
    """Log-probability of each generated token, shape [num_tokens], raw distribution (no temperature)."""
    usage: Usage = Usage()
    attempts: tuple[Attempt, ...] = ()
    """What led to this answer, in order, and what stands beside it; empty where one call gave it."""
    total_tokens: int | None = None
    """Generated tokens of all calls that the answer took; None: `num_tokens`, since one call gave it."""

    @property
    def num_answer_tokens(self) -> int:
        """The generated tokens without those of the thinking part."""
        return self.num_tokens - self.num_reasoning_tokens

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready map that `from_dict` restores exactly."""
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "num_tokens": self.num_tokens,
            "token_ids": None if self.token_ids is None else list(self.token_ids),
            "reasoning": self.reasoning,
            "num_reasoning_tokens": self.num_reasoning_tokens,
            "model": self.model,
            "logprobs": None if self.logprobs is None else list(self.logprobs),
            "usage": self.usage.to_list(),
            **({"attempts": [attempt.to_dict() for attempt in self.attempts]} if self.attempts else {}),
            **({} if self.total_tokens is None else {"total_tokens": self.total_tokens}),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Completion:
        """Rebuild a completion written by `to_dict`."""
        return cls(
            **{
                **value,
                "token_ids": None if value["token_ids"] is None else tuple(value["token_ids"]),
                "logprobs": None if value["logprobs"] is None else tuple(value["logprobs"]),
                "usage": Usage.from_list(value["usage"]),
                "attempts": tuple(Attempt(**attempt) for attempt in value.get("attempts", ())),
            }
        )


def unique_ids(samples: Iterable[Sample]) -> tuple[list[Sample], int]:
    """Return the samples with a number behind each id that is taken ("7", "7#2"), and how many got one."""
    taken: set[str] = set()
    last: dict[str, int] = {}  # to count from 1 at each of 100,000 equal ids would take hours
    unique: list[Sample] = []
    num_renamed = 0
    for sample in samples:
        name = sample.id
        while name in taken:
            last[sample.id] = last.get(sample.id, 1) + 1
            name = f"{sample.id}#{last[sample.id]}"
        taken.add(name)
        num_renamed += name != sample.id
        unique.append(sample if name == sample.id else replace(sample, id=name))
    return unique, num_renamed


def sample_id(messages: Sequence[Message]) -> str:
    """Return a stable id for a prompt that came without one: 16 hex digits of its content's digest."""
    return digest([m.to_dict() for m in messages])[:16]
