"""Where the samples of a task come from: local data, a build's run, a hub id, or the shipped prompts.

The shipped file `prompts/length_control.jsonl` serves every length task. Its rows are {id, language,
category, instruction, prompt, length}: `prompt` holds the wish in words and `length` the same as a map, for
tasks that ask as the row asks; `instruction` holds no wish, for tasks that add one of their own. A row of a
build is read as such a row: its prompt is `messages` up to the last user turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.config import did_you_mean
from lengthwise.records import LengthTarget, Message, Prompt, Sample, digest, sample_id, unique_ids, user
from lengthwise.row_files import read_rows
from lengthwise.row_sources import RowSource, find_rows
from lengthwise.row_values import length_target, prompt_turns, row_id, shown, shown_keys, without_nan
from lengthwise.rows import BadRow, BadRowPolicy, accepted, converted

SHIPPED_PROMPTS = Path(__file__).parent / "prompts" / "length_control.jsonl"
"""Our own prompts, the source of every task that is given none."""


Entry = Sample | tuple[Sample, ...] | BadRow | None
"""What a task's `load` returns for each row of its source: the sample or samples made of it, or None if it is
not for this task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedRows:
    """What became of the rows of a task's source."""

    num_rows: int
    samples: list[Sample]
    bad_rows: list[BadRow]
    num_left_aside: int
    """Rows that are not for this task."""
    num_renamed: int
    """Samples whose id was taken and got a number behind it."""

    @property
    def sizes(self) -> dict[str, int]:
        """Return how many rows there were, and what became of them."""
        return {
            "rows": self.num_rows,
            "original": len(self.samples),
            "left_aside": self.num_left_aside,
            "bad_rows": len(self.bad_rows),
            "renamed_ids": self.num_renamed,
        }


def find_source(source: str | None) -> RowSource:
    """Find a task's data: a file, a folder, a build's run folder, a hub id, None: ours.

    A hub id is owner/name, with a split behind a colon, and with a subset owner/name/subset:split, whose colon stays
    where the split is left open: without it, it could be a file's path.

    Raises:
        ConfigError: nothing is there.

    Example:
        >>> found = find_source("openai/gsm8k/main:test")
        >>> found.name, found.subset, found.split
        ('openai/gsm8k', 'main', 'test')
    """
    if source is None:
        return find_rows(str(SHIPPED_PROMPTS))
    name, colon, split = source.rpartition(":")
    if (
        colon
        and name.count("/") in (1, 2)
        and not name.startswith((".", "/", "~"))
        and not os.path.exists(source)
    ):
        owner, own_name, *subset = name.split("/")
        return find_rows(f"{owner}/{own_name}", split=split or None, subset=subset[0] if subset else None)
    return find_rows(source, split=None)


def read_samples(
    source: str | None, convert: Callable[[dict[str, Any]], Sample | tuple[Sample, ...] | None]
) -> list[Entry]:
    """Return what `convert` makes of each row of a source; the body of a task's `load`.

    Args:
        source: see `find_source`.
        convert: returns a row's sample or samples, or None if the row is not for this task; a `ValueError` says
            what is wrong with it.

    Raises:
        ConfigError: the source is not there, or the whole of it is unreadable.
    """
    return list(converted(read_rows(find_source(source)), lambda row: convert(_own(row.values))))


def sort_rows(entries: Iterable[Entry], on_bad_row: BadRowPolicy, *, data: str) -> LoadedRows:
    """Return a task's rows by what becomes of them, ids made unique.

    Raises:
        ConfigError: there is no row, no usable one, or a bad one that may not be dropped.
    """
    usable, bad_rows = accepted(entries, on_bad_row, data=data)
    made = [entry if isinstance(entry, tuple) else (entry,) for entry in usable if entry is not None]
    samples, num_renamed = unique_ids(sample for entry in made for sample in entry)
    return LoadedRows(
        num_rows=len(usable) + len(bad_rows),
        samples=samples,
        bad_rows=bad_rows,
        num_left_aside=len(usable) - len(made),
        num_renamed=num_renamed,
    )


def row_sample(
    row: Mapping[str, Any], prompt: str | Prompt, length: LengthTarget | None, *, target: str | None = None
) -> Sample:
    """Return the sample of a source row; its fields other than id, prompt and length become metadata.

    In metadata NaN and the infinities are null: our outputs are JSON, which has no word for them.
    """
    messages = user(prompt) if isinstance(prompt, str) else prompt
    rest = {key: value for key, value in row.items() if key not in ("id", "prompt", "length")}
    return Sample(
        id=row_id(row.get("id")) or sample_id(messages),
        messages=messages,
        target=target,
        length=length,
        metadata=without_nan(rest),
    )


def own_schema(row: Mapping[str, Any]) -> bool:
    """Tell whether a row has the fields of the shipped prompts (its length is a map)."""
    return isinstance(row.get("length"), Mapping)


def own_sample(row: Mapping[str, Any]) -> Sample:
    """Return the sample of a row with the shipped fields: prompt with the wish in words, and length.

    Raises:
        ValueError: saying what is wrong with the row.
    """
    length = length_target(row.get("length"))
    if length is None:
        raise ValueError("it states no length")
    turns = prompt_turns(row["prompt"]) if isinstance(row.get("prompt"), list) else ()
    return row_sample(row, turns or text_field(row, "prompt"), length)


def text_field(row: Mapping[str, Any], *names: str) -> str:
    """Return the first of the named fields that holds text.

    Raises:
        ValueError: naming the fields looked for and the fields there are.
    """
    for name in names:
        if isinstance(row.get(name), str) and row[name].strip():
            return row[name]
    there = [name for name in names if name in row]
    if there:
        raise ValueError(f"{there[0]} is {shown(row[there[0]])}, expected a text")
    hint = did_you_mean(names[0], list(row)) if len(names) == 1 else ""
    raise ValueError(f"no text in {' or '.join(names)}: {hint or 'the row has ' + shown_keys(row)}")


def answer_field(row: Mapping[str, Any], *names: str) -> str:
    """Return the first of the named fields that holds a reference answer, a text or a number, as text.

    Raises:
        ValueError: naming the fields looked for and the fields there are.

    Example:
        >>> answer_field({"answer": 204}, "target", "answer"), answer_field({"answer": 0.5}, "answer")
        ('204', '0.5')
    """
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
            return f"{value:.0f}" if value == int(value) else str(value)
    raise ValueError(
        f"it has no reference answer to compare with: give a text or a number in {' or '.join(names)}; the row "
        f"has {shown_keys(row)}"
    )


def doc_of(sample: Sample) -> dict[str, Any]:
    """Return the sample as a JSON map: the prompt's last user turn and the source's own fields."""
    return {"prompt": sample.instruction, **sample.metadata}


def identity_hashes(doc: Mapping[str, Any], prompt: Sequence[Message], target: Any) -> dict[str, str]:
    """Return digests of a sample, its prompt and its target: a changed data file is noticed."""
    return {
        "doc_hash": digest(doc),
        "prompt_hash": digest([m.to_dict() for m in prompt]),
        "target_hash": digest(target),
    }


def _own(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of a build with the shipped fields, any other row as it is."""
    length = row.get("length")
    if not isinstance(length, Mapping) or "requested" not in length:
        return row
    rest = {key: value for key, value in row.items() if key != "messages"}
    turns = prompt_turns(row.get("messages"))
    is_plain = [turn.role for turn in turns] == ["user"]
    prompt = turns[0].content if is_plain else [turn.to_dict() for turn in turns]
    return {**rest, "prompt": prompt, "length": length["requested"]}
