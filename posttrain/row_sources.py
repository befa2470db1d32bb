"""Where training rows are read from: a build's run folder, JSONL, JSON, Parquet, or a data set's hub id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.config import ConfigError, option
from lengthwise.run_dir import RUN_CONFIG
from posttrain.row_formats import BadRow, TrainRow, read_row

_FILE_KINDS = (".jsonl", ".json", ".parquet")


@dataclass(kw_only=True)
class DataSource:
    """One data set of a mixture."""

    path: str = option(
        help="a build's run folder, a .jsonl, .json or .parquet file, or a hub id (owner/name)"
    )
    split: str = option("train", help="split of a hub data set")
    subset: str | None = option(None, help="configuration of a hub data set")
    weight: float | None = option(
        None, help="share of the rows drawn from this source; give it to all or none"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedRow:
    """A row that is not trained on as it stands."""

    id: str | None
    source: str
    line: int
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
class LoadedSource:
    """The rows of one source, the unreadable ones apart."""

    source: DataSource
    rows: list[TrainRow]
    refused: list[RefusedRow]
    file: Path | None
    """The local file that was read."""
    run_folder: Path | None
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
        _locate(source, field)
    return sources


def load_source(source: DataSource, *, field: str = "data") -> LoadedSource:
    """Read all rows of a source, in their order.

    Raises:
        ConfigError: it cannot be found or opened, or belongs to an unfinished build, or holds no rows.
    """
    file, run_folder = _locate(source, field)
    rows: list[TrainRow] = []
    refused: list[RefusedRow] = []
    for line, raw in _raw_rows(source, file, field):
        try:
            rows.append(read_row(_parse(raw), source=source.path, line=line))
        except BadRow as error:
            refused.append(
                RefusedRow(id=None, source=source.path, line=line, outcome="failed", reason=str(error))
            )
    if not rows and not refused:
        raise ConfigError(f"{field}: {source.path} holds no rows")
    return LoadedSource(source=source, rows=rows, refused=refused, file=file, run_folder=run_folder)


def _locate(source: DataSource, field: str) -> tuple[Path | None, Path | None]:
    """Return the file to read and the run folder it is from; neither for a hub id or a plain folder."""
    path = Path(source.path).expanduser()
    if path.is_file():
        if path.suffix not in _FILE_KINDS:
            raise ConfigError(
                f"{field}: {source.path} ends in {path.suffix!r}; known are {', '.join(_FILE_KINDS)}"
            )
        if path.name == "data.jsonl" and (path.parent / RUN_CONFIG).is_file():
            return path, _finished_build(path.parent, field)
        return path, None
    if path.is_dir():
        if any((path / name).exists() for name in ("manifest.json", "data.jsonl")):
            return path / "data.jsonl", _finished_build(path, field)
        return None, None
    if path.suffix in _FILE_KINDS or path.is_absolute() or source.path.count("/") != 1:
        raise ConfigError(
            f"{field}: there is no file or folder {source.path!r} (looked in {Path.cwd()}), and it is no "
            "hub id (owner/name) either"
        )
    return None, None


def _finished_build(folder: Path, field: str) -> Path:
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise ConfigError(
            f"{field}: {folder} has no manifest.json: that build has not finished. Run its command again, "
            "it goes on where it stopped; or, to train on what is there, copy its data.jsonl elsewhere and "
            "name the copy"
        )
    job = json.loads(manifest.read_text(encoding="utf-8")).get("job")
    if job != "build" or not (folder / "data.jsonl").is_file():
        raise ConfigError(f"{field}: {folder} is the folder of a {job} run: name the run folder of a build")
    return folder


def _raw_rows(source: DataSource, file: Path | None, field: str) -> Iterator[tuple[int, Any]]:
    if file is None:
        yield from enumerate(_hub_rows(source, field), start=1)
    elif file.suffix == ".jsonl":
        with open(file, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, line
    elif file.suffix == ".json":
        try:
            rows = json.loads(file.read_bytes())
        except ValueError as error:
            raise ConfigError(f"{field}: {source.path} is not valid JSON: {error}") from error
        if not isinstance(rows, list):
            raise ConfigError(f"{field}: {source.path} must hold a list of rows, not a {type(rows).__name__}")
        yield from enumerate(rows, start=1)
    else:
        yield from enumerate(_parquet_rows(file, field), start=1)


def _parse(raw: Any) -> Any:
    if not isinstance(raw, bytes):
        return raw
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadRow(f"it is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise BadRow(f"it is not valid JSON: {error}") from error


def _parquet_rows(file: Path, field: str) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{field}: {file} is not a readable Parquet file: {error}") from error


def _hub_rows(source: DataSource, field: str) -> Iterator[dict[str, Any]]:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        rows = datasets.load_dataset(source.path, source.subset, split=source.split)
    except (OSError, ValueError, DatasetsError) as error:
        raise ConfigError(
            f"{field}: the data set {source.path!r} (subset {source.subset}, split {source.split!r}) "
            f"cannot be loaded: {error}. Without a network, name a local file"
        ) from error
    for row in rows:
        yield dict(row)
