"""Reads prompts: a JSONL, JSON or Parquet file, a folder of them, a build run, or a data set of the hub."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.config import ConfigError, did_you_mean
from lengthwise.records import LengthTarget, Message, Sample, sample_id, unique_ids
from lengthwise.run_dir import InputFile

SHIPPED = Path(__file__).parent / "prompts" / "writing_instructions.jsonl"
"""The project's own writing instructions, used where a config names no data."""

SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Which column holds what."""

    prompt: str = "prompt"
    """A text, or a list of {role, content} turns."""
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


def read_source(
    data: str | None, columns: Columns, *, split: str = "train", revision: str | None = None
) -> Source:
    """Read every row as a `Sample`; ids are made unique, other columns become metadata.

    Args:
        data: a file, a folder, a build run, a hub id (owner/name), or None for the shipped instructions.
        columns: the columns with a meaning.
        split: split of a hub data set.
        revision: commit, tag or branch of a hub data set.

    Raises:
        ConfigError: nothing there, no rows, or a row that cannot be read, named by file and line.
    """
    path = SHIPPED if data is None else Path(data).expanduser()
    if path.exists():
        files = _files(path)
        rows = [row for file in files for row in _rows(file)]
        inputs = tuple(InputFile.of(file) for file in files)
        parents = (path,) if (path / "manifest.json").is_file() else ()
    else:
        rows, inputs = _hub_rows(str(data), split, revision)
        parents = ()
    if not rows:
        raise ConfigError(f"data: {path} holds no rows: give a file with at least one prompt")
    samples, num_renamed = unique_ids(_samples(rows, columns))
    return Source(samples=tuple(samples), inputs=inputs, parents=parents, num_renamed=num_renamed)


def limited(samples: Sequence[Sample], limit: int | None, seed: int) -> list[Sample]:
    """Return `limit` random samples in their old order; a larger limit only adds to them."""
    if limit is None or limit >= len(samples):
        return list(samples)
    order = list(range(len(samples)))
    random.Random(seed).shuffle(order)
    return [samples[index] for index in sorted(order[:limit])]


def duplicate_prompts(samples: Iterable[Sample], *columns: str | None) -> dict[str, str]:
    """Return the id of every sample that asks exactly what an earlier one asked, with the earlier one's id.

    Args:
        samples: in the order that decides which one is first.
        *columns: metadata that belongs to the question (a given plan, material).
    """
    first: dict[str, str] = {}
    repeats: dict[str, str] = {}
    for sample in samples:
        parts = [[m.to_dict() for m in sample.messages], sample.length and sample.length.to_dict()]
        parts += [sample.metadata.get(column) for column in columns if column]
        key = json.dumps(parts, sort_keys=True, ensure_ascii=False)
        if key in first:
            repeats[sample.id] = first[key]
        else:
            first[key] = sample.id
    return repeats


# --- files and hub --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    where: str
    """File and line, for messages."""
    values: Mapping[str, Any]


def _files(path: Path) -> list[Path]:
    """Return the data files at a path; of a build run its data.jsonl, which data.parquet repeats."""
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise ConfigError(
                f"data: {path} is no {', '.join(SUFFIXES)} file: convert it, or name another one"
            )
        return [path]
    if (path / "data.jsonl").is_file():
        return [path / "data.jsonl"]
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not files:
        raise ConfigError(f"data: the folder {path} holds no {', '.join(SUFFIXES)} file")
    return files


def _rows(file: Path) -> Iterator[_Row]:
    if file.suffix == ".parquet":
        import pyarrow.parquet

        for index, values in enumerate(pyarrow.parquet.read_table(file).to_pylist(), start=1):
            yield _Row(f"{file}, row {index}", _plain(values))
    elif file.suffix == ".json":
        try:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise ConfigError(f"{file}: not valid JSON ({error}): mend it, or name a .jsonl file") from None
        if not isinstance(content, list):
            raise ConfigError(f"{file}: a .json file must hold a list of rows; one row a line is .jsonl")
        for index, values in enumerate(content, start=1):
            yield _Row(f"{file}, row {index}", _object(values, f"{file}, row {index}"))
    else:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _Row(f"{file}:{number}", _json_line(line, f"{file}:{number}"))


def _json_line(line: str, where: str) -> Mapping[str, Any]:
    try:
        return _object(json.loads(line), where)
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}: not valid JSON ({error}): mend or delete the line") from None


def _object(values: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: a row must be a JSON object with columns, not {str(values)[:60]!r}")
    return values


def _hub_rows(data: str, split: str, revision: str | None) -> tuple[list[_Row], tuple[InputFile, ...]]:
    if data.count("/") != 1 or data.startswith((".", "/", "~")) or Path(data).suffix in SUFFIXES:
        raise ConfigError(
            f"data: there is no file or folder {data!r}, and it is no hub id (owner/name) either"
        )
    import datasets

    try:
        loaded = datasets.load_dataset(data, split=split, revision=revision)
    except Exception as error:  # the library raises its own, the hub's and the network's errors
        raise ConfigError(
            f"data: the hub data set {data!r} (split {split!r}) cannot be loaded: {error}. Check the id, the "
            "split and the network, or download it and give its path"
        ) from error
    rows = [_Row(f"{data}, row {i}", _plain(dict(row))) for i, row in enumerate(loaded, start=1)]  # type: ignore[arg-type]
    return rows, (InputFile(path=f"hub:{data}@{revision or 'main'}#{split}", num_rows=len(rows)),)


def _plain(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row as JSON would hold it: dates and the like become texts."""
    return json.loads(json.dumps(values, ensure_ascii=False, default=str))


# --- rows to samples ------------------------------------------------------------------------------


def _samples(rows: Sequence[_Row], columns: Columns) -> Iterator[Sample]:
    lacking = [row for row in rows if columns.prompt not in row.values]
    if lacking:
        found = list(lacking[0].values)
        hint = did_you_mean(columns.prompt, found) or f"its columns are {', '.join(found) or 'none'}"
        more = f" (and {len(lacking) - 1} more rows)" if len(lacking) > 1 else ""
        raise ConfigError(
            f"{lacking[0].where}{more}: there is no column {columns.prompt!r}: {hint}; set prompt_column"
        )
    for row in rows:
        messages = _messages(row.values[columns.prompt], f"{row.where}: column {columns.prompt!r}")
        known = {columns.prompt, columns.id, columns.length}
        name = row.values.get(columns.id) if columns.id else None
        yield Sample(
            id=sample_id(messages) if name is None else str(name),
            messages=messages,
            length=_length(row, columns.length),
            metadata={key: value for key, value in row.values.items() if key not in known},
            lineage=tuple(str(entry) for entry in row.values.get("lineage") or ()),
        )


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    """Return the turns up to the last one of the user's: what came after is an answer, not a prompt."""
    if value is None or isinstance(value, str):
        return (Message(role="user", content=value or ""),)
    if not isinstance(value, list) or not all(
        isinstance(t, Mapping)
        and t.get("role") in ("system", "user", "assistant")
        and isinstance(t.get("content"), str)
        for t in value
    ):
        raise ConfigError(
            f"{where} must be a text or a list of {{role, content}} turns, not {str(value)[:80]!r}"
        )
    turns = [Message(role=t["role"], content=t["content"]) for t in value]
    while turns and turns[-1].role == "assistant":
        turns.pop()
    return tuple(turns)


def _length(row: _Row, column: str | None) -> LengthTarget | None:
    value = row.values.get(column) if column else None
    if isinstance(value, Mapping) and "requested" in value:  # a row of a build run
        value = value["requested"]
    if value is None:
        return None
    try:
        if isinstance(value, Mapping):
            return LengthTarget.from_dict(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and value == round(value):
            return LengthTarget.about(int(value))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{row.where}: column {column!r}: {error}") from None
    raise ConfigError(
        f"{row.where}: column {column!r} is {value!r}, expected a number of words or a map of min, max, "
        "unit, relation; `length_column: null` ignores it"
    )
