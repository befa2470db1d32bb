"""Reads rows one at a time from JSONL, JSON lists, Parquet and the hub, each with its place.

A line that is no UTF-8, no JSON or no object becomes a `BadRow`; the rows around it are read. What makes the
rest of a file unreadable (a JSON list or a Parquet file that is cut off, UTF-16) is a `ConfigError`.

In memory at a time: of JSONL one line, of Parquet one batch of 256 rows and what pyarrow holds of their row
group, of a hub data set one row. A .json list is parsed as a whole. NaN and Infinity in numbers are read as
such; `row_values` says what becomes of them.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.row_sources import RowSource
from lengthwise.row_values import plain, shown
from lengthwise.rows import BadRow, Place, Row
from lengthwise.value_types import ConfigError

if TYPE_CHECKING:
    import pyarrow

_BATCH_ROWS = 256


def read_rows(source: RowSource, *, field: str = "data") -> Iterator[Row | BadRow]:
    """Yield the rows in their order.

    Raises:
        ConfigError: the whole of a file is unreadable, or the hub data set is not to be had.
    """
    if not source.files:
        yield from _hub(source, field)
    for file in source.files:
        reader = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}[file.suffix]
        try:
            yield from reader(file)
        except OSError as error:
            raise ConfigError(f"{field}: {file} cannot be read: {error}") from error


def _row(place: Place, values: object) -> Row | BadRow:
    if isinstance(values, Exception):
        return BadRow(place, f"a value cannot be read: {values}")
    if not isinstance(values, Mapping):
        return BadRow(place, f"a row must be an object with columns, not {shown(values)}")
    row = {}
    for column, value in values.items():
        try:
            row[sys.intern(plain(str(column)))] = plain(value)
        except ValueError as error:
            return BadRow(place, f"column {shown(column)} {error}")
    return Row(place, row)


def _jsonl(file: Path) -> Iterator[Row | BadRow]:
    with open(file, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1:
                _refuse_utf16(file, line)
            place = Place(str(file), number)
            try:
                text = _decoded(line, is_start=number == 1)
                if text.strip():
                    yield _row(place, _parsed(text))
            except ValueError as error:
                yield BadRow(place, str(error))


def _json(file: Path) -> Iterator[Row | BadRow]:
    content = file.read_bytes()
    _refuse_utf16(file, content)
    try:
        text = _decoded(content, is_start=True)
        rows = _parsed(text) if text.strip() else []
    except ValueError as error:
        raise ConfigError(
            f"{file}: {error}. Correct it; or, if it holds one row a line, name it .jsonl"
        ) from None
    if not isinstance(rows, list):
        raise ConfigError(f"{file} must hold a list of rows, not {shown(rows)}; one row a line is .jsonl")
    for number, values in enumerate(rows, start=1):
        yield _row(Place(str(file), number, "row"), values)


def _refuse_utf16(file: Path, start: bytes) -> None:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigError(f"{file} is UTF-16: convert it, as in `iconv -f UTF-16 -t UTF-8 {file} > new`")


def _decoded(data: bytes, *, is_start: bool) -> str:
    """Return UTF-8 bytes as text, without the mark that some editors put at a file's start."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = error.start - data.rfind(b"\n", 0, error.start)
        where = f"byte {byte}" + (f" of line {line}" if line > 1 else "")
        raise ValueError(f"not UTF-8 text: {where} is 0x{data[error.start]:02x}") from None
    return text.removeprefix("\ufeff") if is_start else text


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        where = f"column {error.colno}" + (f" of line {error.lineno}" if error.lineno > 1 else "")
        raise ValueError(f"not valid JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise ValueError("not valid JSON: its lists and maps are nested too deeply") from None
    except ValueError as error:  # a key that stands twice, a whole number of thousands of digits
        raise ValueError(f"not valid JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; Python's own reader would lose the first of two equal keys in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return found


def _parquet(file: Path) -> Iterator[Row | BadRow]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            if len(set(names)) < len(names):
                raise ConfigError(f"{file} has two columns of one name ({', '.join(names)}): rename one")
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
                for values in _batch_rows(batch):
                    number += 1
                    yield _row(Place(str(file), number, "row"), values)
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f"{file}, after row {number}: not a readable Parquet file: {error}") from error


def _batch_rows(batch: pyarrow.RecordBatch) -> Iterator[Any]:
    """Yield the rows of a batch; in place of one that Python cannot hold, the error."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):  # text that is no UTF-8, a date past the year 9999
        for index in range(batch.num_rows):
            try:
                yield from batch.slice(index, 1).to_pylist()
            except (ValueError, OverflowError) as error:
                yield error


def _hub(source: RowSource, field: str) -> Iterator[Row | BadRow]:
    import datasets

    try:
        split = source.split or _only_split(source, field)
        rows = datasets.load_dataset(source.name, source.subset, split=split, revision=source.revision)
    except ConfigError:
        raise
    except Exception as error:  # the library raises its own, the hub's and the network's errors
        raise ConfigError(
            f"{field}: the hub data set {source.name!r} (subset {source.subset}, split {source.split}) cannot "
            f"be loaded: {error}. Check id, subset, split and network, or download it and give its path"
        ) from error
    for number, values in enumerate(rows, start=1):
        yield _row(Place(source.name, number, "row"), values)


def _only_split(source: RowSource, field: str) -> str:
    """Return the split to take where none is named: `test`, or the only one."""
    import datasets

    splits = datasets.get_dataset_split_names(source.name, source.subset, revision=source.revision)
    if "test" in splits:
        return "test"
    if len(splits) != 1:
        raise ConfigError(f"{field}: {source.name!r} has the splits {', '.join(splits)}: name one")
    return splits[0]
