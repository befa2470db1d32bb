"""Reads a build's rows and a training run's curve."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lengthwise.records import LengthTarget
from lengthwise.report.dropped import DroppedRow, Reason, beginning, count_reasons, read_dropped, turns
from lengthwise.report.files import count, mapping, number, read_rows
from lengthwise.run_dir import RunDir
from lengthwise.value_types import ConfigError

MAX_LISTED = 25
"""Kept rows that the page lists; the rest are in the file that it names."""


@dataclass(kw_only=True)
class KeptRow:
    """One row of `data.jsonl`, without its full text."""

    id: str
    requested: LengthTarget | None
    words: int | None
    score: float | None
    prompt: str
    excerpt: str
    sections: list[tuple[int | None, int | None, bool]] = field(default_factory=list)
    """(planned words, written words, whether asked for again) of each section, in order."""


@dataclass(kw_only=True)
class SectionLengths:
    """The sections at one place of all kept texts; lengths are words."""

    index: int
    """From 1."""
    num_texts: int
    planned: float | None
    """Median."""
    written: float | None
    """Median; `lower` and `upper` are its quartiles."""
    lower: float | None
    upper: float | None
    num_rewritten: int


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
    reasons: list[Reason] = field(default_factory=list)
    """Most frequent first."""
    usage: dict[str, int | None] = field(default_factory=dict)


@dataclass(kw_only=True)
class Training:
    """What a training run's folder holds."""

    curve: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """The manifest's `training`: rows, tokens, supervised tokens, over-length rows, base model."""
    dropped: list[DroppedRow] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    counts: dict[str, int | None] = field(default_factory=dict)
    """The manifest's account of the rows: read, kept, truncated (of the kept), rejected, failed, drawn."""

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
        counts={key: count(value) for key, value in mapping(manifest.get("counts")).items()},
    )


def read_config(path: Path, manifest: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Return the run's settings: the manifest's, else those the job wrote when it started."""
    if mapping(manifest.get("config")):
        return manifest["config"]
    try:
        return mapping(RunDir.load(path).config)
    except ConfigError:
        return {}  # samples of another tool: no run of ours wrote here
    except (ValueError, KeyError) as error:
        problems.append(f"its config cannot be read: {error}")
        return {}


def sections_by_index(rows: Sequence[KeptRow]) -> list[SectionLengths]:
    """Return planned and written words by the place of the section; texts end at different places."""
    found = []
    for index in range(max((len(row.sections) for row in rows), default=0)):
        here = [row.sections[index] for row in rows if len(row.sections) > index]
        planned = [p for p, _, _ in here if p is not None]
        written = [w for _, w, _ in here if w is not None]
        quartiles = (
            statistics.quantiles(written, n=4, method="inclusive") if len(written) > 1 else written * 3
        )
        found.append(
            SectionLengths(
                index=index + 1,
                num_texts=len(here),
                planned=statistics.median(planned) if planned else None,
                written=statistics.median(written) if written else None,
                lower=quartiles[0] if quartiles else None,
                upper=quartiles[2] if quartiles else None,
                num_rewritten=sum(rewritten for _, _, rewritten in here),
            )
        )
    return found


def _section(value: Any) -> tuple[int | None, int | None, bool]:
    section = mapping(value)
    tries = [mapping(one) for one in section.get("tries") or []]
    rewritten = any((count(one.get("attempt")) or 0) > 0 for one in tries)
    return count(section.get("planned_words")), count(section.get("words")), rewritten


def _kept(row: dict[str, Any], index: int) -> KeptRow:
    length = mapping(row.get("length"))
    prompt, reply = turns(row)
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
        prompt=beginning(prompt),
        excerpt=beginning(reply),
        sections=[_section(value) for value in row.get("sections") or []],
    )
