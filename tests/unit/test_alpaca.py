"""Alpaca rows for recipes: all of a file or none, and what is wrong is named with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lengthwise.alpaca import read_alpaca
from lengthwise.config import ConfigError

ROW = {"instruction": "Sing.", "input": "", "output": "La."}


def file_of(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    path = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) if name.endswith("l") else f"[{', '.join(lines)}]", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_lines_and_lists_are_read(tmp_path, name):
    assert read_alpaca(file_of(tmp_path, ROW, ROW, name=name)) == [ROW, ROW]


def test_answers_are_asked_for_only_where_they_are_used(tmp_path):
    path = file_of(tmp_path, {"instruction": "Sing."})
    assert read_alpaca(path, with_answers=False) == [{"instruction": "Sing."}]
    with pytest.raises(ConfigError, match=r"rows\.jsonl, line 1: it has no text in output"):
        read_alpaca(path)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((), "has no rows"),
        ((ROW, {"prompt": "x"}), "line 2: it has no text in instruction and output"),
        ((ROW, ROW, "{broken"), "line 3"),
        (({**ROW, "input": 3},), "no text in input"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, rows, said):
    with pytest.raises(ConfigError, match=said):
        read_alpaca(file_of(tmp_path, *rows))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="--data"):
        read_alpaca(tmp_path / "none.jsonl")
