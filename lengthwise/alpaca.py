"""Rows in Alpaca form, {instruction, input, output}, as recipes split and rewrite them: all of a file, or none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lengthwise.row_files import read_rows
from lengthwise.row_sources import find_rows
from lengthwise.rows import BadRow
from lengthwise.value_types import ConfigError


def read_alpaca(path: Path, *, with_answers: bool = True) -> list[dict[str, Any]]:
    """Return the rows of a file; a recipe's comparison would not say that it left one out, so that none may be bad.

    Args:
        path: JSON lines, a JSON list or Parquet.
        with_answers: whether each row needs an `output`.

    Raises:
        ConfigError: there is no such file, it has no row, or one has not what is needed; with its line.
    """
    needed = ("instruction", "output") if with_answers else ("instruction",)
    found = []
    for row in read_rows(find_rows(str(path), field="--data"), field="--data"):
        if isinstance(row, BadRow):
            raise ConfigError(f"--data {row}")
        missing = [name for name in needed if not isinstance(row.values.get(name), str)]
        missing += [] if isinstance(row.values.get("input") or "", str) else ["input"]
        if missing:
            raise ConfigError(
                f"--data {row.place}: it has no text in {' and '.join(missing)}: give rows in Alpaca form "
                "(instruction, input, output)"
            )
        found.append(row.values)
    if not found:
        raise ConfigError(f"--data {path} has no rows: give rows in Alpaca form (instruction, input, output)")
    return found


def asked(row: Mapping[str, Any], between: str = "\n\n") -> str:
    r"""Return what a row asks: its instruction, and its input where it has one.

    Example:
        >>> asked({"instruction": "Translate.", "input": "Hallo"}), asked({"instruction": "Sing.", "input": ""})
        ('Translate.\n\nHallo', 'Sing.')
    """
    return between.join(part for part in (row["instruction"], row.get("input")) if part)
