"""Rows of data to prompts: which column is the prompt, the id, the length; what else a row says is kept.

All samples of a source are held in memory: a few hundred bytes a row beside the row's own text.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lengthwise.config import did_you_mean
from lengthwise.records import LengthTarget, Sample, digest, sample_id, unique_ids
from lengthwise.row_files import read_rows
from lengthwise.row_formats import read_row
from lengthwise.row_sources import find_rows
from lengthwise.row_values import length_target, prompt_turns, row_id, shown_keys, without_nan
from lengthwise.rows import BadRow, BadRowPolicy, Row, accepted, converted
from lengthwise.run_dir import InputFile

SHIPPED = Path(__file__).parent / "prompts" / "writing_instructions.jsonl"
"""The project's own writing instructions, used where a config names no data."""

DEFAULT_PROMPT = "prompt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Which column holds what."""

    prompt: str = DEFAULT_PROMPT
    """A text, or a list of {role, content} turns. Where the default has nothing, `messages` is taken: a build's
    rows have it."""
    id: str | None = "id"
    length: str | None = "length"
    """A number of words, or a LengthTarget as a map; null ignores the column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What was read."""

    samples: tuple[Sample, ...]
    inputs: tuple[InputFile, ...]
    parents: tuple[Path, ...] = ()
    """Run folders that the data came from."""
    num_renamed: int = 0
    """Rows whose id was taken and got a number behind it."""
    bad_rows: tuple[BadRow, ...] = ()
    """Rows that could not be used, and were dropped as the user said."""


def read_source(
    data: str | None,
    columns: Columns,
    *,
    with_answers: bool = False,
    on_bad_row: BadRowPolicy = "raise",
    split: str = "train",
    subset: str | None = None,
    revision: str | None = None,
) -> Source:
    """Read every row as a `Sample`; ids are made unique, other columns become metadata.

    In metadata NaN and the infinities are null: our outputs are JSON, which has no word for them.

    Args:
        data: a file, a folder, a build run, a hub id (owner/name), or None for the shipped instructions.
        columns: the columns with a meaning.
        with_answers: whether the rows are finished conversations, in any shape that training takes, of which the
            last turn is the sample's `completion`.
        on_bad_row: what to do about rows that cannot be used.
        split: split of a hub data set.
        subset: configuration of a hub data set.
        revision: commit, tag or branch of a hub data set.

    Raises:
        ConfigError: nothing there, no usable row, or bad rows, named by file and line, that may not be dropped.
    """
    found = find_rows(str(SHIPPED) if data is None else data, split=split, subset=subset, revision=revision)
    read = partial(_answered if with_answers else _sample, columns=columns)
    rows = converted(read_rows(found), read)
    samples, bad_rows = accepted(rows, on_bad_row, data=found.name)
    unique, num_renamed = unique_ids(samples)
    return Source(
        samples=tuple(unique),
        inputs=found.inputs(num_rows=len(samples) + len(bad_rows)),
        parents=() if found.run_folder is None else (found.run_folder,),
        num_renamed=num_renamed,
        bad_rows=tuple(bad_rows),
    )


def limited(samples: Sequence[Sample], limit: int | None, seed: int) -> list[Sample]:
    """Return `limit` random samples in their old order; a larger limit only adds to them."""
    if limit is None or limit >= len(samples):
        return list(samples)
    order = list(range(len(samples)))
    random.Random(seed).shuffle(order)
    return [samples[index] for index in sorted(order[:limit])]


def repeated(samples: Sequence[Sample], times: int) -> tuple[list[Sample], dict[str, str]]:
    """Return each sample `times` times in a row, the copies with new ids, and of each id the one it came from.

    Example:
        >>> from lengthwise.records import user
        >>> copies, origin = repeated([Sample(id="a", messages=user("Hi"))], 2)
        >>> [sample.id for sample in copies], origin
        (['a', 'a#2'], {'a': 'a', 'a#2': 'a'})
    """
    taken = {sample.id for sample in samples}
    copies: list[Sample] = []
    origin: dict[str, str] = {}
    for sample in samples:
        names = [sample.id]
        number = 1
        while len(names) < times:
            number += 1
            if (name := f"{sample.id}#{number}") not in taken:
                names.append(name)
        taken.update(names)
        origin |= dict.fromkeys(names, sample.id)
        copies += [replace(sample, id=name) for name in names]
    return copies, origin


class Refusal(NamedTuple):
    """Why a sample is refused before anything is made of it."""

    reason: str
    """One of few: they are counted."""
    detail: str


DUPLICATE = "duplicate prompt"


def duplicate_prompts(samples: Iterable[Sample], *columns: str | None) -> dict[str, Refusal]:
    """Return the id of every sample that asks exactly what an earlier one asked.

    Args:
        samples: in the order that decides which one is first.
        *columns: metadata that belongs to the question (a given plan, material).
    """
    first: dict[bytes, str] = {}
    repeats: dict[str, Refusal] = {}
    for sample in samples:
        parts = [[m.to_dict() for m in sample.messages], sample.length and sample.length.to_dict()]
        parts += [sample.metadata.get(column) for column in columns if column]
        key = bytes.fromhex(digest(parts))  # not the text, which would be in memory twice
        if key in first:
            repeats[sample.id] = Refusal(DUPLICATE, f"as {first[key]}")
        else:
            first[key] = sample.id
    return repeats


def _sample(given: Row, columns: Columns) -> Sample:
    """Return a row as a sample.

    Raises:
        ValueError: saying which column is wrong.
    """
    row = given.values
    prompt = columns.prompt
    if prompt == DEFAULT_PROMPT and row.get(prompt) is None and row.get("messages") is not None:
        prompt = "messages"
    if prompt not in row:
        hint = did_you_mean(prompt, list(row)) or f"the row has {shown_keys(row)}"
        raise ValueError(f"there is no column {prompt!r}: {hint}; set prompt_column")
    try:
        messages = prompt_turns(row[prompt])
    except ValueError as error:
        raise ValueError(f"column {prompt!r} {error}") from None
    return Sample(
        id=(row_id(row.get(columns.id)) if columns.id else None) or sample_id(messages),
        messages=messages,
        length=_length(row, columns),
        metadata=_rest(row, columns, {prompt}),
        lineage=_lineage(row),
    )


_CONVERSATION = frozenset(
    (
        "messages",
        "prompt",
        "completion",
        "conversations",
        "instruction",
        "input",
        "output",
        "history",
        "system",
    )
)
"""Columns that a finished conversation may stand in."""


def _answered(given: Row, columns: Columns) -> Sample:
    """Return a row of a finished data set as a sample with its answer.

    Raises:
        ValueError: it is no conversation, or ends without an answer, or has a wrong length.
    """
    row, messages = given.values, read_row(given).messages
    *asked, answer = messages
    if answer.role != "assistant":
        raise ValueError("its last turn is no answer of the assistant")
    length, rest = row.get(columns.length or ""), dict(_rest(row, columns, _CONVERSATION))
    if isinstance(length, Mapping) and isinstance(length.get("tokens"), int):  # as our builds have it
        rest.setdefault("num_tokens", length["tokens"])
    return Sample(
        id=(row_id(row.get(columns.id)) if columns.id else None) or sample_id(messages),
        messages=tuple(asked),
        completion=answer.content,
        length=_length(row, columns),
        metadata=rest,
        lineage=_lineage(row),
    )


def _length(row: Mapping[str, Any], columns: Columns) -> LengthTarget | None:
    try:
        return length_target(row.get(columns.length)) if columns.length else None
    except ValueError as error:
        raise ValueError(f"column {columns.length!r}: {error}; `length_column: null` ignores it") from None


def _rest(row: Mapping[str, Any], columns: Columns, without: Collection[str]) -> Mapping[str, Any]:
    taken = {columns.id, columns.length, *without}
    return without_nan({key: value for key, value in row.items() if key not in taken})


def _lineage(row: Mapping[str, Any]) -> tuple[str, ...]:
    lineage = row.get("lineage")
    return tuple(str(entry) for entry in lineage) if isinstance(lineage, list) else ()
