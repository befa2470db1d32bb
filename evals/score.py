"""Scores anybody's outputs without a model: `lengthwise score FILE --task T [--output OUT.json]`.

FILE is JSON Lines, one output a row, in one of these forms:

- {"output": ..., "length": 500}, or a length in words ("about 500 words", ">800"), or a length map
  {"min", "max", "unit", "relation"};
- {"output": ..., "prompt": ...}: the length is read from the prompt's words;
- a row of our `samples_*.jsonl`.

Further fields count where they are there: `finish_reason` (without it, whether a reply was cut is unknown,
not fine), `num_tokens`, `id` (rows that share one are replies to one prompt) and `language`. Nothing is
written unless `--output` names a file.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

from evals.base import Task, score_completion
from evals.results import Tally, format_table, results_document, summarise, warnings_of
from lengthwise.config import ConfigError, option, parse_config
from lengthwise.job import run_main
from lengthwise.length_wishes import parse_length_wish
from lengthwise.plugins import load_plugin
from lengthwise.records import LengthTarget, Sample, user
from lengthwise.run_dir import atomic_write

MAX_NAMED_ROWS = 20
"""Bad rows that a message names; a wrong file has thousands."""

FINISH_REASONS = {
    **{reason: reason for reason in ("stop", "length", "content_filter", "abort")},
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence"), "stop"),
    "max_tokens": "length",
}
"""How servers say why a reply ended. Any other word is unknown."""


@dataclass(kw_only=True)
class ScoreConfig:
    """Score outputs that are already there; no model is loaded."""

    EXAMPLE: ClassVar[str] = "lengthwise score outputs.jsonl --task longbench_write"

    file: str = option(help="JSON Lines: output with length or prompt, or our samples_*.jsonl")
    task: str = option(help="the task whose metrics to use, for example longbench_write, longen or tlg")
    output: str | None = option(None, help="a new .json file for the results; null writes nothing")
    skip_bad_rows: bool = option(False, help="count rows without output or length instead of stopping")


@dataclass(kw_only=True)
class ScoredFile:
    """A file's scored rows and its bad ones."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    bad_rows: list[str] = field(default_factory=list)
    """Each with its line number and what is wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words = ["--file", *words]
    return run_main(_run, words)


def _run(words: Sequence[str]) -> int:
    score(parse_config(ScoreConfig, words, prog="lengthwise score"))
    return 0


def score(config: ScoreConfig) -> dict[str, Any]:
    """Score the file of `config`, print the table and return the results.

    Raises:
        ConfigError: if the file is missing, a row is bad and not to be skipped, or `output` exists.
    """
    path = Path(config.file).expanduser()
    if not path.is_file():
        raise ConfigError(f"file: there is no {config.file!r}: give a JSON Lines file of outputs")
    if config.output is not None and Path(config.output).exists():
        raise ConfigError(f"output: {config.output} exists and is not overwritten: give another name")
    task = cast(Task, load_plugin("evals.tasks", config.task, "METRICS"))
    name = Path(config.task).stem
    scored = score_rows(task, path)
    if scored.bad_rows and not config.skip_bad_rows:
        raise ConfigError(_complaint(path, scored.bad_rows))
    if not scored.rows:
        raise ConfigError(f"file: {path} has no row to score ({len(scored.bad_rows)} bad ones)")
    tally = Tally()
    for row in scored.rows:
        tally.add(row)
    summaries = {name: summarise(task, tally)}
    summaries[name]["counts"]["bad_rows"] = len(scored.bad_rows)
    print(format_table({name: task}, summaries))
    for warning in warnings_of(summaries):
        print(f"WARNING: {warning}", file=sys.stderr)
    if scored.bad_rows:
        print(f"WARNING: skipped {_complaint(path, scored.bad_rows)}", file=sys.stderr)
    document = {
        **results_document({name: task}, summaries),
        "config": {"file": str(path), "task": config.task},
    }
    if config.output is not None:
        atomic_write(Path(config.output), json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return document


def score_rows(task: Task, path: Path) -> ScoredFile:
    """Score every output in a JSON Lines file, in order; bad rows are described, not scored."""
    result = ScoredFile()
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                result.rows += _score_line(task, number, line)
            except ValueError as error:
                result.bad_rows.append(f"line {number}: {error}")
    return result


def row_length(row: Mapping[str, Any]) -> LengthTarget:
    """Return the length that a row asks for, by its field `requested`, `length` or `prompt`.

    Raises:
        ValueError: if none of them says it.

    Example:
        >>> row_length({"length": "at least 300 words"}).relation
        'at_least'
    """
    value = row.get("requested") or row.get("length")
    if value is not None:
        return _length_of(value)
    prompt = _prompt_of(row)
    if prompt is None:
        raise ValueError("no length: give the field length, or the prompt that states it")
    wish = parse_length_wish(prompt)
    if wish is None:
        raise ValueError("the prompt states no length, or several: give the field length")
    return wish


def _length_of(value: Any) -> LengthTarget:
    if isinstance(value, Mapping):
        try:
            return LengthTarget.from_dict(value)
        except TypeError:
            raise ValueError(f"length {dict(value)!r} is no map of min, max, unit and relation") from None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return LengthTarget.about(value)
    if isinstance(value, str):
        if value.strip().isdecimal():
            return LengthTarget.about(int(value))
        more_than = re.fullmatch(r"\s*>\s*(\d+)\s*", value)
        if more_than:
            return LengthTarget(min=int(more_than[1]) + 1, relation="at_least")
        wish = parse_length_wish(value)
        if wish is not None:
            return wish
    raise ValueError(f'length {value!r} is not understood: write 500, "about 500 words", ">800" or a map')


def _score_line(task: Task, number: int, line: str) -> list[dict[str, Any]]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg})") from None
    if not isinstance(row, dict):
        raise ValueError(f"a row must be a JSON object, not {type(row).__name__}")
    given = row["resps"] if "resps" in row else [row.get("output")]
    texts = [text for text in given if isinstance(text, str)] if isinstance(given, list) else []
    if not texts or len(texts) < len(given):
        raise ValueError("no output: give the field output, a text (it may be empty)")
    doc = row.get("doc")
    metadata = {
        **(doc if isinstance(doc, dict) else {}),
        **({"language": row["language"]} if "language" in row else {}),
    }
    sample = Sample(
        id=str(row.get("id", f"line {number}")),
        messages=user(_prompt_of(row) or ""),
        length=row_length(row),
        metadata=metadata,
    )
    finish_reason, num_tokens = FINISH_REASONS.get(str(row.get("finish_reason"))), row.get("num_tokens")
    return [
        {"id": sample.id, **score_completion(task, sample, text, finish_reason, num_tokens)} for text in texts
    ]


def _prompt_of(row: Mapping[str, Any]) -> str | None:
    if isinstance(row.get("prompt"), str):
        return row["prompt"]
    turns = row.get("arguments")
    if isinstance(turns, list):
        return next((t["content"] for t in reversed(turns) if t.get("role") == "user"), None)
    return None


def _complaint(path: Path, bad_rows: Sequence[str]) -> str:
    named = "\n".join(f"  {path}, {text}" for text in bad_rows[:MAX_NAMED_ROWS])
    more = len(bad_rows) - MAX_NAMED_ROWS
    rest = f"\n  and {more} more" if more > 0 else ""
    return f"{len(bad_rows)} bad rows (--skip_bad_rows counts them and goes on):\n{named}{rest}"


if __name__ == "__main__":
    raise SystemExit(main())
