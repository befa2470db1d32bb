"""Reads the rows of a samples file: what was asked, what came back, and how it scored."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from lengthwise import lengths
from lengthwise.degeneration import REPETITIVE_FRAC
from lengthwise.records import LengthTarget
from lengthwise.report.files import count, mapping, number

TOKENS = "num_tokens"
"""The metric that every task has: the tokens of a reply."""


@dataclass(kw_only=True)
class Output:
    """One prompt with what the model wrote and how it scored."""

    task: str
    id: str
    row: int
    """Number of the row in its samples file, from 1."""
    prompt: str
    texts: list[str]
    requested: LengthTarget | None
    length: int | None
    """Length of the first text in the unit of the request."""
    finish_reason: str
    num_tokens: int | None
    words: int | None
    """Length of the first text under the task's counter, whatever unit was asked for."""
    metrics: dict[str, float | None]
    flags: dict[str, Any]
    slices: dict[str, str]
    prompt_hash: str
    stated_cluster: str = ""
    summaries: dict[str, str] = field(default_factory=dict)
    """How each metric is summed up, as the row says; the results file of a finished run says it too."""
    answer: str | None = None
    """What was read from the first text and compared, where that is not the text itself."""
    target: str = ""
    """The reference answer, if the task has one."""
    notes: dict[str, str] = field(default_factory=dict)
    """What the scoring says of the reply: a verifier's time-out, a judge's words."""

    @property
    def cluster(self) -> str:
        """What tells outputs that are not independent: what the task named, else the prompt's digest, else the id."""
        return self.stated_cluster or self.prompt_hash or self.id

    @property
    def log_ratio(self) -> float | None:
        """Return ln(actual / requested); an empty text counts as half a unit, so that it is farthest."""
        if self.requested is None or self.length is None:
            return None
        return math.log(max(self.length, 0.5) / self.requested.nominal)

    @property
    def scored(self) -> bool:
        """Whether any metric of the task or of a judge is known; the number of tokens always is."""
        return any(v is not None for name, v in self.metrics.items() if name != TOKENS)

    @property
    def truncated(self) -> bool:
        """Whether the text was cut at its cap."""
        return self.finish_reason == "length" or bool(self.flags.get("truncated"))

    @property
    def empty(self) -> bool:
        """Whether nothing but white space came back."""
        return bool(self.flags.get("empty")) or not any(text.strip() for text in self.texts)

    @property
    def repetitive(self) -> bool:
        """Whether the text repeats itself."""
        share = number(self.flags.get("repetition"))
        return bool(self.flags.get("repetitive")) or (share is not None and share >= REPETITIVE_FRAC)

    @property
    def marks(self) -> list[str]:
        """What is wrong with the text, in words that stand beside it."""
        marks = {"cut": self.truncated, "empty": self.empty, "repetitive": self.repetitive}
        return [name for name, is_so in marks.items() if is_so]


def read_output(task: str, index: int, row: dict[str, Any], counter: str, problems: list[str]) -> Output:
    """Return a row of a samples file.

    Args:
        task: the task's name.
        index: the row's number, from 1.
        row: the row.
        counter: id of the counter of the task's lengths.
        problems: gets what cannot be understood.
    """
    doc = mapping(row.get("doc"))
    texts = [_as_text(t) for t in _flat(row.get("resps"))] or [""]
    counts, num_tokens = mapping(row.get("counts")), count(row.get("num_tokens"))
    words = count(counts.get(counter))
    if words is None and counter in lengths.COUNTERS:
        words = lengths.COUNTERS[counter](texts[0])
    requested = _target(row.get("requested"), index, task, problems)
    length = words
    if requested is not None and requested.unit != "words":
        length = count(counts.get("tokens", num_tokens)) if requested.unit == "tokens" else len(texts[0])
    return Output(
        task=task,
        id=str(row.get("id") if row.get("id") is not None else row.get("doc_id", index)),
        row=index,
        prompt=_as_text(doc["prompt"]) if doc.get("prompt") else _last_message(row.get("arguments")),
        texts=texts,
        requested=requested,
        length=length,
        finish_reason=str(row.get("finish_reason") or "unknown"),
        num_tokens=num_tokens,
        words=words,
        metrics={str(k): number(v) for k, v in mapping(row.get("metrics")).items()},
        flags=mapping(row.get("flags")),
        slices={str(k): str(v) for k, v in mapping(row.get("slices")).items()},
        prompt_hash=str(row.get("prompt_hash") or ""),
        stated_cluster=str(row.get("cluster") or ""),
        summaries={str(k): str(v) for k, v in mapping(row.get("summaries")).items()},
        answer=_answer(row.get("filtered_resps"), texts[0]),
        target=_shown(row.get("target")),
        notes={str(k): _shown(v) for k, v in mapping(row.get("notes")).items()},
    )


def _answer(filtered: Any, text: str) -> str | None:
    """Return what was read from a reply, or None where that is the reply itself, or nothing was noted."""
    if not isinstance(filtered, list) or not filtered:
        return None
    answer = filtered[0] if not isinstance(filtered[0], list) else next(iter(filtered[0]), None)
    shown = "nothing could be read" if answer is None else _as_text(answer) or "(empty)"
    return None if answer is not None and _as_text(answer).strip() == text.strip() else shown


def _shown(value: Any) -> str:
    """Return a value of a row as a reader would have it."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _target(value: Any, index: int, task: str, problems: list[str]) -> LengthTarget | None:
    if not isinstance(value, dict):
        return None
    try:
        return LengthTarget.from_dict(value)
    except (TypeError, ValueError) as error:
        problems.append(f"task {task}, row {index}: the requested length is not understood ({error})")
        return None


def _flat(value: Any) -> list[Any]:
    """Return replies as one list; lm-eval nests them one deeper."""
    if not isinstance(value, list):
        return [] if value is None else [value]
    return [item for entry in value for item in (entry if isinstance(entry, list) else [entry])]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _last_message(arguments: Any) -> str:
    for message in reversed(_flat(arguments)):
        if isinstance(message, dict) and message.get("role") == "user":
            return _as_text(message.get("content"))
        if isinstance(message, str):
            return message
    return ""
