"""Writes files whole or not at all: a reader, or a crash, meets the old content or the new, never a part."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def atomic_write(path: str | Path, text: str) -> None:
    """Write a text file so that a reader, or a crash, meets the old content or the new, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write a file of JSON lines, whole or not at all, and return its path; the same rows give the same file."""
    path = Path(path)
    atomic_write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path
