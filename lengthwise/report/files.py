"""Reads JSON files that may be missing, cut or malformed: what is wrong is said, never raised."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_object(path: Path, problems: list[str]) -> dict[str, Any]:
    """Return the JSON object in `path`, or an empty one with a line added to `problems`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{path.name} holds no JSON object")
        return {}
    return value


def read_rows(path: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a JSONL file; unreadable lines are skipped and counted in `problems`.

    A job that was killed leaves a torn last line: the rows before it still count.
    """
    bad: list[int] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if isinstance(row, dict):
                    yield row
                else:
                    bad.append(number)
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error}")
    if bad:
        lines = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        problems.append(f"{path.name}: {len(bad)} unreadable line(s) skipped (line {lines})")


def mapping(value: Any) -> dict[str, Any]:
    """Return `value` if it is a map, else an empty one: files come from other versions and other tools."""
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    """Return `value` if it is a finite number (a bool counts as 0 or 1), else None."""
    if isinstance(value, (bool, int, float)) and float("-inf") < value < float("inf"):
        return float(value)
    return None


def count(value: Any) -> int | None:
    """Return `value` if it is a whole number, else None (unknown)."""
    found = number(value)
    return int(found) if found is not None else None
