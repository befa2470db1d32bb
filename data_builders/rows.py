"""The rows of a data set on disk: JSON lines, Parquet, and what the card says of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lengthwise.lengths import count_cjk_alpha, count_cjk_ws
from lengthwise.records import LengthTarget, Sample
from lengthwise.run_dir import RunDir

PAIR = ("prompt", "chosen", "rejected")
"""The conversations of a preference row."""


@dataclass(kw_only=True)
class Tally:
    """What the card says of the rows."""

    words: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    length_scores: list[float] = field(default_factory=list)
    languages: Counter[str] = field(default_factory=Counter)
    counted_by: str | None = None
    """The entry of a row by which the builder counts its rows."""
    groups: Counter[str] = field(default_factory=Counter)

    def add(self, record: Mapping[str, Any]) -> None:
        """Note one kept row."""
        self.words.append(record["length"]["words_longbench"])
        if record["length"]["tokens"] is not None:
            self.tokens.append(record["length"]["tokens"])
        self.languages[record.get("language", "other")] += 1
        if self.counted_by is not None:
            self.groups[str(record[self.counted_by])] += 1
        score = record["scores"].get("s_l")
        if score is not None:
            self.length_scores.append(score)


def write_parquet(run: RunDir, counted_by: str | None = None) -> Tally:
    """Write data.parquet: the conversations and the numbers as columns, the rest of each row as JSON text.

    All runs of messages have one schema, empty ones included, and all runs of pairs another, so that files of several
    runs load together.

    Args:
        run: the build, with its data.jsonl.
        counted_by: an entry of the rows whose values are counted.

    Returns:
        What there is to say of the rows.
    """
    import pyarrow
    import pyarrow.parquet

    conversations = PAIR if _are_pairs(run.file("data.jsonl")) else ("messages",)
    turn = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
    schema = pyarrow.schema(
        [
            ("id", pyarrow.string()),
            ("builder", pyarrow.string()),
            *((name, pyarrow.list_(turn)) for name in conversations),
            ("language", pyarrow.string()),
            ("words_longbench", pyarrow.int64()),
            ("words_longen", pyarrow.int64()),
            ("tokens", pyarrow.int64()),
            ("requested_length", pyarrow.float64()),
            ("s_l", pyarrow.float64()),
            ("provenance", pyarrow.string()),
        ]
    )
    tally, rows = Tally(counted_by=counted_by), []
    with (
        pyarrow.parquet.ParquetWriter(run.file("data.parquet"), schema) as writer,
        run.file("data.jsonl").open(encoding="utf-8") as lines,
    ):
        for line in lines:
            record = json.loads(line)
            tally.add(record)
            rows.append(_parquet_row(record, conversations))
            if len(rows) == 1000:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
                rows.clear()
        writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
    return tally


def _are_pairs(file: Path) -> bool:
    """Return whether a file's rows are pairs: a builder makes rows of one kind."""
    with file.open(encoding="utf-8") as lines:
        first = lines.readline()
    return bool(first) and "messages" not in json.loads(first)


def _parquet_row(record: Mapping[str, Any], conversations: Sequence[str]) -> dict[str, Any]:
    length = record["length"]
    requested = length.get("requested")
    top = {"id", "builder", *conversations, "language"}
    return {
        **{key: record.get(key) for key in top},
        "words_longbench": length["words_longbench"],
        "words_longen": length["words_longen"],
        "tokens": length["tokens"],
        "requested_length": None if requested is None else LengthTarget.from_dict(requested).nominal,
        "s_l": record["scores"].get("s_l"),
        "provenance": to_line({k: v for k, v in record.items() if k not in top}).rstrip("\n"),
    }


def bare_record(sample: Sample, detail: str | None = None) -> dict[str, Any]:
    """Return what is known of a sample that the builder said nothing of."""
    record: dict[str, Any] = {
        "id": sample.id,
        "messages": turns(sample),
        "source": dict(sample.metadata),
        "lineage": list(sample.lineage),
    }
    return record if detail is None else {**record, "detail": detail}


def length_entry(text: str, *, requested: LengthTarget | None, tokens: int | None) -> dict[str, Any]:
    """Return what a row says of the length of its text; `tokens` is None where nobody counted them.

    Example:
        >>> length_entry("Two words.", requested=None, tokens=3)
        {'requested': None, 'words_longbench': 2, 'words_longen': 2, 'tokens': 3}
    """
    return {
        "requested": None if requested is None else requested.to_dict(),
        "words_longbench": count_cjk_alpha(text),
        "words_longen": count_cjk_ws(text),
        "tokens": tokens,
    }


def scores_of(sample: Sample) -> dict[str, Any]:
    """Return the scores that a row came with, where it has a map of them."""
    scores = sample.metadata.get("scores")
    return dict(scores) if isinstance(scores, Mapping) else {}


def turns(sample: Sample) -> list[dict[str, str]]:
    """Return the turns of a sample, and of a finished row its answer."""
    answer = [] if sample.completion is None else [{"role": "assistant", "content": sample.completion}]
    return [*(message.to_dict() for message in sample.messages), *answer]


def to_line(record: Mapping[str, Any]) -> str:
    """Return a record as one line of JSON, the line's end included."""
    return json.dumps(record, ensure_ascii=False) + "\n"
