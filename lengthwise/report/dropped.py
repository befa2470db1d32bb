"""Reads what a run dropped, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.report.files import mapping, read_rows

EXCERPT_CHARACTERS = 400
MAX_EXAMPLES = 5
"""Dropped rows that the page shows of each reason."""


@dataclass(kw_only=True)
class DroppedRow:
    """One row of `dropped.jsonl`."""

    id: str
    outcome: str
    reason: str
    detail: str = ""
    """What the file says beyond the reason, such as the value that was too small."""
    prompt: str = ""
    excerpt: str = ""
    """The beginning of what was written, if anything was."""

    @property
    def kind(self) -> str:
        """The reason, or that there is none."""
        return self.reason.strip() or "no reason given"


@dataclass(kw_only=True)
class Reason:
    """Why rows were dropped, and the first of them."""

    outcome: str
    text: str
    num_rows: int
    examples: list[DroppedRow]


def read_dropped(path: Path, problems: list[str]) -> list[DroppedRow]:
    """Read `dropped.jsonl`; a run that dropped nothing may have none."""
    if not path.is_file():
        return []
    return [_dropped(row, i) for i, row in enumerate(read_rows(path, problems), start=1)]


def count_reasons(dropped: Sequence[DroppedRow]) -> list[Reason]:
    """Return the reasons, most frequent first, each with its first rows."""
    groups: dict[tuple[str, str], list[DroppedRow]] = {}
    for row in dropped:
        groups.setdefault((row.outcome, row.kind), []).append(row)
    ordered = sorted(groups.items(), key=lambda entry: -len(entry[1]))
    return [
        Reason(outcome=outcome, text=kind, num_rows=len(rows), examples=rows[:MAX_EXAMPLES])
        for (outcome, kind), rows in ordered
    ]


def _dropped(row: dict[str, Any], index: int) -> DroppedRow:
    prompt, reply = turns(row)
    prompt = prompt or str(mapping(row.get("doc")).get("prompt") or "")
    facts = [
        f"{key} {row[key]}" for key in ("num_tokens", "num_kept_tokens", "num_prompt_tokens") if row.get(key)
    ]
    return DroppedRow(
        id=str(row.get("id") or f"{row.get('source', 'row')} line {row.get('line', index)}"),
        outcome=str(row.get("outcome") or "dropped"),
        reason=str(row.get("reason") or "no reason given"),
        detail="; ".join(filter(None, [str(row.get("detail") or ""), *facts]))[:EXCERPT_CHARACTERS],
        prompt=beginning(prompt),
        excerpt=beginning(reply),
    )


def turns(row: dict[str, Any]) -> tuple[str, str]:
    """Return the first user turn and the last assistant turn."""
    turns = [mapping(m) for m in row.get("messages") or [] if isinstance(m, dict)]
    prompt = next((str(m.get("content", "")) for m in turns if m.get("role") == "user"), "")
    reply = next((str(m.get("content", "")) for m in reversed(turns) if m.get("role") == "assistant"), "")
    return prompt, reply


def beginning(text: str) -> str:
    """Return as much of a text as an example shows."""
    return text[:EXCERPT_CHARACTERS] + ("…" if len(text) > EXCERPT_CHARACTERS else "")
