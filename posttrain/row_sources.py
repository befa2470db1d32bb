"""The data sets of a training run: what a config says of each, and its rows as conversations or pairs.

All rows of a source are held in memory: a few hundred bytes a row beside the row's own text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from lengthwise.config import ConfigError, option
from lengthwise.row_files import read_rows
from lengthwise.row_sources import RowSource, find_rows
from lengthwise.rows import BadRow, Row, converted
from lengthwise.run_dir import InputFile

R = TypeVar("R")


@dataclass(kw_only=True)
class DataSource:
    """One data set of a mixture."""

    path: str = option(
        help="a build's run folder, a .jsonl, .json or .parquet file, or a hub id (owner/name)"
    )
    split: str = option("train", help="split of a hub data set")
    subset: str | None = option(None, help="configuration of a hub data set")
    revision: str | None = option(None, help="commit, tag or branch of a hub data set")
    weight: float | None = option(
        None, help="share of the rows drawn from this source; give it to all or none"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedRow:
    """A row that is not trained on as it stands."""

    id: str | None
    source: str
    """The file, or the hub id."""
    line: int
    """Its line in a JSONL file, else its row number; the first is 1."""
    outcome: str
    """`failed` (unreadable), `rejected` (too long) or `truncated` (trained on, but cut)."""
    reason: str
    num_tokens: int | None = None
    num_supervised_tokens: int | None = None
    num_kept_tokens: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the row's line in dropped.jsonl."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedSource(Generic[R]):
    """The rows of one source, the unreadable ones apart."""

    source: DataSource
    rows: list[R]
    refused: list[RefusedRow]
    inputs: tuple[InputFile, ...] = ()
    """What was read, for the manifest."""
    run_folder: Path | None = None
    """The finished build it belongs to."""


def data_sources(data: str | list[DataSource], *, field: str = "data") -> list[DataSource]:
    """Return the sources of a config's `data`, checked as far as possible without reading them.

    Raises:
        ConfigError: no source, a weight that is not positive, or weights for some sources only.
    """
    sources = [DataSource(path=data)] if isinstance(data, str) else list(data)
    if not sources:
        raise ConfigError(f"{field}: it is an empty list: name at least one source, as {{path: ...}}")
    weighted = [s for s in sources if s.weight is not None]
    if weighted and len(weighted) < len(sources):
        missing = ", ".join(s.path for s in sources if s.weight is None)
        raise ConfigError(
            f"{field}: some sources have a weight, but not {missing}: give each one a weight, or none"
        )
    for source in weighted:
        if not (source.weight and 0 < source.weight < float("inf")):
            raise ConfigError(f"{field}: the weight of {source.path} is {source.weight}: it must be above 0")
    for source in sources:
        _find(source, field)
    return sources


def load_source(source: DataSource, read: Callable[[Row], R], *, field: str = "data") -> LoadedSource[R]:
    """Read all rows of a source, in their order, with `read`, whose ValueError says why a row cannot be used.

    Raises:
        ConfigError: it cannot be found or opened, or belongs to an unfinished build, or holds no rows.
    """
    found = _find(source, field)
    rows: list[R] = []
    refused: list[RefusedRow] = []
    for row in converted(read_rows(found, field=field), read):
        if isinstance(row, BadRow):
            refused.append(
                RefusedRow(
                    id=None,
                    source=row.place.source,
                    line=row.place.number,
                    outcome="failed",
                    reason=row.reason,
                )
            )
        else:
            rows.append(row)
    if not rows and not refused:
        raise ConfigError(f"{field}: {source.path} holds no rows")
    inputs = found.inputs(num_rows=len(rows) + len(refused))
    return LoadedSource(source=source, rows=rows, refused=refused, inputs=inputs, run_folder=found.run_folder)


def _find(source: DataSource, field: str) -> RowSource:
    return find_rows(
        source.path, field=field, split=source.split, subset=source.subset, revision=source.revision
    )
