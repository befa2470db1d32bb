"""Where the samples of a task come from: a local file, a hub id, or the shipped prompts.

The shipped file `prompts/length_control.jsonl` serves every length task. Its rows are {id, language,
category, instruction, prompt, length}: `prompt` holds the wish in words and `length` the same as a map, for
tasks that ask as the row asks; `instruction` holds no wish, for tasks that add one of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lengthwise.config import ConfigError
from lengthwise.records import LengthTarget, Message, Sample, digest, sample_id, user

SHIPPED_PROMPTS = Path(__file__).parent / "prompts" / "length_control.jsonl"
"""Our own prompts, the source of every task that is given none."""


def read_rows(source: str | None) -> list[tuple[str, dict[str, Any]]]:
    """Return the rows of a task's source, each with the place to name in a complaint.

    Args:
        source: a JSON Lines file, a JSON list, a hub id `owner/name` or `owner/name:split`, or None for the
            shipped prompts.

    Raises:
        ConfigError: if there is no such file, or a row is not a JSON object.
    """
    path = SHIPPED_PROMPTS if source is None else Path(source).expanduser()
    if path.is_file():
        return list(_rows_of_file(path))
    assert source is not None  # the shipped file exists
    name, _, split = source.partition(":")
    if path.suffix in (".json", ".jsonl") or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ConfigError(
            f"data: there is no file {source!r}: give a .jsonl file or a hub id, owner/name[:split]"
        )
    return list(_rows_of_hub(name, split))


def row_sample(row: Mapping[str, Any], prompt: str, length: LengthTarget) -> Sample:
    """Return the sample of a source row; its fields other than id, prompt and length become metadata."""
    messages = user(prompt)
    rest = {key: value for key, value in row.items() if key not in ("id", "prompt", "length")}
    return Sample(
        id=str(row["id"]) if "id" in row else sample_id(messages),
        messages=messages,
        length=length,
        metadata=rest,
    )


def own_schema(row: Mapping[str, Any]) -> bool:
    """Tell whether a row has the fields of the shipped prompts (its length is a map)."""
    return isinstance(row.get("length"), Mapping)


def own_sample(where: str, row: Mapping[str, Any]) -> Sample:
    """Return the sample of a row with the shipped fields: prompt with the wish in words, and length.

    Raises:
        ConfigError: naming the row and what is wrong with it.
    """
    try:
        return row_sample(row, text_field(where, row, "prompt"), LengthTarget.from_dict(row["length"]))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from None


def text_field(where: str, row: Mapping[str, Any], *names: str) -> str:
    """Return the first of the named fields that holds text.

    Raises:
        ConfigError: naming the row, the fields looked for and the fields there are.
    """
    for name in names:
        if isinstance(row.get(name), str) and row[name].strip():
            return row[name]
    raise ConfigError(f"{where}: no text in {' or '.join(names)}; the row has {', '.join(sorted(row))}")


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


def _rows_of_file(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".json":
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}: not JSON ({error})") from None
        if not isinstance(rows, list):
            raise ConfigError(f"{path}: holds no JSON list: give a list of rows, or a .jsonl file")
        numbered = [(f"{path}, row {number}", row) for number, row in enumerate(rows, 1)]
    else:
        numbered = []
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                numbered.append((f"{path}, line {number}", json.loads(line)))
            except json.JSONDecodeError as error:
                raise ConfigError(f"{path}, line {number}: not JSON ({error.msg})") from None
    for where, row in numbered:
        if not isinstance(row, dict):
            raise ConfigError(f"{where}: a row must be a JSON object, not {type(row).__name__}")
        yield where, row


def _rows_of_hub(name: str, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from datasets import load_dataset

    try:
        loaded = load_dataset(name)
    except Exception as error:  # datasets raises a dozen kinds; each means that the set is not to be had
        raise ConfigError(
            f"data: the set {name!r} cannot be loaded ({type(error).__name__}: {error}). Without a network, "
            "download it elsewhere and give the path of its .jsonl file"
        ) from error
    splits = list(loaded)  # type: ignore[arg-type]
    wanted = split or ("test" if "test" in splits else splits[0] if len(splits) == 1 else "")
    if wanted not in splits:
        raise ConfigError(f"data: {name!r} has the splits {', '.join(map(str, splits))}: give {name}:SPLIT")
    for number, row in enumerate(loaded[wanted], 1):  # type: ignore[index]
        yield f"{name}:{wanted}, row {number}", dict(row)
