"""Scores anybody's outputs without a model: `lengthwise score FILE --task T [--output OUT.json]`.

FILE is JSON Lines (or a .json list, or Parquet), one output a row, in one of these forms:

- {"output": ..., "length": 500}, or a length in words ("about 500 words", ">800"), or a length map
  {"min", "max", "unit", "relation"};
- {"output": ..., "prompt": ...}: the length is read from the prompt's words;
- {"output": ..., "target": ...} or, as in the task's own data, {"output": ..., "answer": ...}, for tasks that compare
  with a reference answer, such as gsm8k: these need no length;
- a row of our `samples_*.jsonl`.

Further fields count where they are there: `finish_reason` (without it, whether a reply was cut is unknown,
not fine), `num_tokens`, `id` (rows that share one are replies to one prompt, and with `num_tokens` the spread of their
lengths is given), `prompt` (rows
that share one are not independent) and `language`. Nothing is
written unless `--output` names a file. Of each output only its scores are held in memory.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from evals.base import Task, measured, score_completion
from evals.results import Tally, results_document, summarise
from evals.results_table import format_table, warnings_of
from evals.spread import with_spreads
from lengthwise.config import ConfigError, is_dry_run, option, parse_config
from lengthwise.files import atomic_write
from lengthwise.job import run_main
from lengthwise.length_wishes import parse_length_wish
from lengthwise.plugins import load_plugin, plugin_label
from lengthwise.records import LengthTarget, Sample, digest, user
from lengthwise.row_files import read_rows
from lengthwise.row_sources import find_rows
from lengthwise.row_values import length_target, row_id, shown
from lengthwise.rows import Row, accepted, converted, named

FINISH_REASONS = {
    **{reason: reason for reason in ("stop", "length", "content_filter", "abort")},
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence"), "stop"),
    "max_tokens": "length",
}
"""How servers say why a reply ended. Any other word is unknown."""


_REPLY_FIELDS = (
    "output",
    "resps",
    "finish_reason",
    "num_tokens",
    "id",
    "prompt",
    "target",
    "answer",
    "solution",
)
"""What a row says of the reply, not of the question's kind."""


@dataclass(kw_only=True)
class ScoreConfig:
    """Score outputs that are already there; no model is loaded."""

    EXAMPLE: ClassVar[str] = "lengthwise score outputs.jsonl --task longbench_write"
    RENAMED: ClassVar[dict[str, str]] = {"skip_bad_rows": "on_bad_row: drop"}

    file: str = option(
        help="JSON Lines, a .json list or Parquet: output with length, prompt or target, or our samples_*.jsonl"
    )
    task: str = option(help="the task whose metrics to use, for example longbench_write, tlg or gsm8k")
    output: str | None = option(None, help="a new .json file for the results; null writes nothing")
    on_bad_row: Literal["raise", "drop"] = option(
        "raise",
        help="what to do with rows that cannot be scored, for example without output, length or target",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words = ["--file", *words]
    return run_main(_run, words)


def _run(words: Sequence[str]) -> int:
    config = parse_config(ScoreConfig, words, prog="lengthwise score")
    if config.output is not None and Path(config.output).exists():
        raise ConfigError(f"output: {config.output} exists and is not overwritten: give another name")
    if is_dry_run(words):
        score(replace(config, output=None))
        print("dry run     nothing was written")
    else:
        score(config)
    return 0


def score(config: ScoreConfig) -> dict[str, Any]:
    """Score the file of `config`, print the table and return the results.

    Raises:
        ConfigError: if the file is missing, or a row is bad and may not be dropped.
    """
    source = find_rows(config.file, field="file")
    if not source.files:
        raise ConfigError(f"file: there is no {config.file!r}: give a file of outputs")
    task = cast(Task, load_plugin("evals.tasks", config.task, "METRICS"))
    name = plugin_label(config.task)
    if hasattr(task, "configured"):
        raise ConfigError(
            f"task: {name} scores only documents it has loaded itself: run it with lengthwise eval, and score a "
            "finished run again with lengthwise eval --rescore RUN"
        )
    tally = Tally()

    def score_row(row: Row) -> None:
        for scored in _scored(task, row):
            tally.add(scored)

    rows = converted(read_rows(source, field="file"), score_row)
    _, bad_rows = accepted(rows, config.on_bad_row, data=config.file, field="file")
    tally.num_bad_rows = len(bad_rows)
    tally.rows, spread = with_spreads(tally.rows)
    known = {name: measured(task, *spread)}
    summaries = {name: summarise(known[name], tally)}
    print(format_table(known, summaries))
    for warning in warnings_of(summaries):
        print(f"WARNING: {warning}", file=sys.stderr)
    if bad_rows:
        print(f"bad rows:{named(bad_rows)}", file=sys.stderr)
    document = {
        **results_document(known, summaries),
        "config": {"file": config.file, "task": config.task, "on_bad_row": config.on_bad_row},
        "dropped": [row.to_dict() for row in bad_rows],
    }
    if config.output is not None:
        atomic_write(Path(config.output), json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return document


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
    if isinstance(value, str):
        if value.strip().isdecimal():
            return LengthTarget.about(int(value))
        more_than = re.fullmatch(r"\s*>\s*(\d+)\s*", value)
        if more_than:
            return LengthTarget(min=int(more_than[1]) + 1, relation="at_least")
        wish = parse_length_wish(value)
        if wish is not None:
            return wish
        raise ValueError(
            f'length {shown(value)} is not understood: write 500, "about 500 words", ">800" or a map'
        )
    try:
        length = length_target(value)
    except ValueError as error:
        raise ValueError(f"length: {error}") from None
    if length is None:
        raise ValueError("length: none was requested")
    return length


def _scored(task: Task, given_row: Row) -> list[dict[str, Any]]:
    row = given_row.values
    given = row["resps"] if "resps" in row else [row.get("output")]
    texts = [text for text in given if isinstance(text, str)] if isinstance(given, list) else []
    if not texts or len(texts) < len(given):
        raise ValueError("no output: give the field output, a text (it may be empty)")
    read_target = getattr(task, "read_target", None)
    if read_target is None:
        target, length = None, row_length(row)
    else:
        target, length = read_target(row), _length_of(row["requested"]) if row.get("requested") else None
    metadata = _metadata(row, all_fields=read_target is not None)
    sample = Sample(
        id=row_id(row.get("id")) or str(given_row.place),
        messages=user(_prompt_of(row) or ""),
        target=target,
        length=length,
        metadata=metadata,
    )
    finish_reason, num_tokens = FINISH_REASONS.get(str(row.get("finish_reason"))), _num_tokens(row)
    known = {"id": sample.id, "prompt_hash": _prompt_hash(given_row, sample)}
    thinking = row.get("num_reasoning_tokens")
    num_thinking = thinking if isinstance(thinking, int) else 0
    return [
        {**known, **score_completion(task, sample, text, finish_reason, num_tokens, num_thinking)}
        for text in texts
    ]


def _metadata(row: Mapping[str, Any], *, all_fields: bool) -> dict[str, Any]:
    """Return what a row says of its question: our `doc`, or else, where a task needs no length, its own fields."""
    doc = row.get("doc")
    if isinstance(doc, dict):
        known = doc
    else:
        known = {key: value for key, value in row.items() if key not in _REPLY_FIELDS} if all_fields else {}
    return {**known, **({"language": row["language"]} if "language" in row else {})}


def _prompt_hash(row: Row, sample: Sample) -> str | None:
    """Return what tells equal prompts of a file; None where the row says nothing of its prompt."""
    stated = row.values.get("prompt_hash")
    if isinstance(stated, str) and stated:
        return stated
    return digest(sample.instruction) if sample.instruction else None


def _num_tokens(row: Mapping[str, Any]) -> int | None:
    """Return how many tokens a row says were generated; None where it does not (null, or a table's NaN)."""
    value = row.get("num_tokens")
    if value is None or value != value:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or value < 0 or value % 1:
        raise ValueError(f"num_tokens is {shown(value)}, expected a whole number of tokens, 0 or more")
    return int(value)


def _prompt_of(row: Mapping[str, Any]) -> str | None:
    if isinstance(row.get("prompt"), str):
        return row["prompt"]
    turns = row.get("arguments")
    if isinstance(turns, list):
        asked = [t for t in turns if isinstance(t, Mapping) and t.get("role") == "user"]
        return next((t["content"] for t in reversed(asked) if isinstance(t.get("content"), str)), None)
    return None


if __name__ == "__main__":
    raise SystemExit(main())
