"""Reads a build's rows and a training run's curve."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lengthwise.records import LengthTarget
from lengthwise.report.files import count, mapping, number, read_object, read_rows
from lengthwise.run_dir import RUN_CONFIG

EXCERPT_CHARACTERS = 400
MAX_LISTED = 25
"""Rows of a kind that the page lists; the rest are in the file that it names."""


@dataclass(kw_only=True)
class KeptRow:
    """One row of `data.jsonl`, without its full text."""

    id: str
    requested: LengthTarget | None
    words: int | None
    score: float | None
    prompt: str
    excerpt: str


@dataclass(kw_only=True)
class DroppedRow:
    """One row of `dropped.jsonl`."""

    id: str
    outcome: str
    reason: str

    @property
    def kind(self) -> str:
        """The reason, or that there is none."""
        return self.reason.strip() or "no reason given"


@dataclass(kw_only=True)
class Build:
    """What a build's run folder holds."""

    kept: int | None = None
    rejected: int | None = None
    failed: int | None = None
    inputs: int | None = None
    """Number of inputs, where the manifest states it apart from the outcomes."""
    rows: list[KeptRow] = field(default_factory=list)
    dropped: list[DroppedRow] = field(default_factory=list)
    reasons: list[tuple[str, str, int]] = field(default_factory=list)
    """(outcome, reason, rows), most frequent first."""
    usage: dict[str, int | None] = field(default_factory=dict)


@dataclass(kw_only=True)
class Training:
    """What a training run's folder holds."""

    curve: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """The manifest's `training`: rows, tokens, supervised tokens, over-length rows, base model."""
    dropped: list[DroppedRow] = field(default_factory=list)
    reasons: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def supervised_frac(self) -> float | None:
        """Share of the tokens that the loss saw."""
        supervised, tokens = (
            number(self.facts.get("num_supervised_tokens")),
            number(self.facts.get("num_tokens")),
        )
        return None if supervised is None or not tokens else supervised / tokens

    @property
    def over_length(self) -> dict[str, Any]:
        """What was over the limit: rows, tokens, policy."""
        return mapping(self.facts.get("over_length"))

    @property
    def base_model(self) -> str:
        """What training started from; empty if unknown."""
        recorded = self.facts.get("base_model")
        return str(mapping(recorded).get("name") or (recorded if isinstance(recorded, str) else ""))

    @property
    def last_step(self) -> int | None:
        """The last step that was logged."""
        return max((int(row["step"]) for row in self.curve), default=None)


def read_build(path: Path, manifest: dict[str, Any], problems: list[str]) -> Build:
    """Read a build's rows and counts, and say where the manifest and the files disagree."""
    data, dropped_file = path / "data.jsonl", path / "dropped.jsonl"
    rows = [_kept(row, i) for i, row in enumerate(read_rows(data, problems), 1)] if data.is_file() else []
    dropped = read_dropped(dropped_file, problems)
    if not data.is_file():
        problems.append("there is no data.jsonl: no kept rows to show")
    counts = mapping(manifest.get("counts"))
    found = {
        "kept": len(rows),
        "rejected": sum(1 for d in dropped if d.outcome == "rejected"),
        "failed": sum(1 for d in dropped if d.outcome == "failed"),
    }
    stated = {key: count(counts.get(key)) for key in found}
    for key, value in stated.items():
        if value is not None and value != found[key] and (data if key == "kept" else dropped_file).is_file():
            problems.append(f"the manifest states {value} {key} rows, the file holds {found[key]}")
    ended = {key: found[key] if value is None else value for key, value in stated.items()}
    inputs = count(counts.get("inputs", counts.get("total")))
    if inputs is not None and inputs != sum(ended.values()):
        problems.append(f"the outcomes add up to {sum(ended.values())}, but there were {inputs} inputs")
    usage = mapping(manifest.get("usage"))
    keys = ("prompt_tokens", "cached_tokens", "completion_tokens", "num_calls")
    return Build(
        **ended,
        inputs=inputs,
        rows=rows,
        dropped=dropped,
        reasons=count_reasons(dropped),
        usage={key: count(usage.get(key)) for key in keys},
    )


def read_training(path: Path, manifest: dict[str, Any], problems: list[str]) -> Training:
    """Read a training run's metrics and what it says of its rows."""
    metrics = path / "metrics.jsonl"
    if not metrics.is_file():
        problems.append("there is no metrics.jsonl: no training curve to show")
    dropped = read_dropped(path / "dropped.jsonl", problems)
    return Training(
        curve=[r for r in read_rows(metrics, problems) if number(r.get("step")) is not None]
        if metrics.is_file()
        else [],
        facts=mapping(manifest.get("training")),
        dropped=dropped,
        reasons=count_reasons(dropped),
    )


def read_config(path: Path, manifest: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Return the run's settings: the manifest's, else those the job wrote when it started."""
    if mapping(manifest.get("config")):
        return manifest["config"]
    file = path / RUN_CONFIG
    return read_object(file, problems) if file.is_file() else {}


def read_dropped(path: Path, problems: list[str]) -> list[DroppedRow]:
    """Read `dropped.jsonl`; a run that dropped nothing may have none."""
    if not path.is_file():
        return []
    return [
        DroppedRow(
            id=str(row.get("id") or f"{row.get('source', 'row')} line {row.get('line', i)}"),
            outcome=str(row.get("outcome") or "dropped"),
            reason=str(row.get("reason") or "no reason given"),
        )
        for i, row in enumerate(read_rows(path, problems), start=1)
    ]


def count_reasons(dropped: list[DroppedRow]) -> list[tuple[str, str, int]]:
    """Return (outcome, reason, rows), most frequent first."""
    counted = Counter((d.outcome, d.kind) for d in dropped)
    return [(outcome, kind, n) for (outcome, kind), n in counted.most_common()]


def _kept(row: dict[str, Any], index: int) -> KeptRow:
    length = mapping(row.get("length"))
    turns = [mapping(m) for m in row.get("messages") or [] if isinstance(m, dict)]
    prompt = next((str(m.get("content", "")) for m in turns if m.get("role") == "user"), "")
    reply = next((str(m.get("content", "")) for m in reversed(turns) if m.get("role") == "assistant"), "")
    requested = None
    if isinstance(length.get("requested"), dict):
        try:
            requested = LengthTarget.from_dict(length["requested"])
        except (TypeError, ValueError):
            requested = None  # shown as unknown; the row itself is still a row
    return KeptRow(
        id=str(row.get("id", f"row {index}")),
        requested=requested,
        words=count(length.get("words_longbench")),
        score=number(mapping(row.get("scores")).get("s_l")),
        prompt=prompt[:EXCERPT_CHARACTERS],
        excerpt=reply[:EXCERPT_CHARACTERS] + ("…" if len(reply) > EXCERPT_CHARACTERS else ""),
    )
