"""Where rows lie: a file, a folder of files, the run folder of a finished build, or a data set of the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lengthwise.provenance import InputFile
from lengthwise.value_types import ConfigError

SUFFIXES = (".jsonl", ".json", ".parquet")

_SPLITS = ("train", "test", "val", "dev")
"""How the names of files begin that hold one split of a data set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSource:
    """Data that was found; `read_rows` reads it."""

    name: str
    """As the user wrote it."""
    files: tuple[Path, ...] = ()
    """Empty for a hub data set."""
    run_folder: Path | None = None
    """The finished build that the rows are from."""
    split: str | None = "train"
    subset: str | None = None
    revision: str | None = None

    def inputs(self, num_rows: int | None = None) -> tuple[InputFile, ...]:
        """Return what a manifest records; `num_rows` is for a hub data set, whose rows cannot be recounted."""
        if self.files:
            return tuple(InputFile.of(file) for file in self.files)
        subset = f"/{self.subset}" if self.subset else ""
        path = f"hub:{self.name}{subset}@{self.revision or 'main'}#{self.split or 'its only split'}"
        return (InputFile(path=path, num_rows=num_rows),)


def find_rows(
    data: str,
    *,
    field: str = "data",
    split: str | None = "train",
    subset: str | None = None,
    revision: str | None = None,
) -> RowSource:
    """Find data without reading it.

    Args:
        data: a file, a folder, a build's run folder (or a file in it), or a hub id (owner/name).
        field: the config's field, for messages.
        split: split of a hub data set; None takes `test`, or the only one.
        subset: configuration of a hub data set.
        revision: commit, tag or branch of a hub data set.

    Raises:
        ConfigError: nothing is there, it is of no known kind, or it is the run of an unfinished build.
    """
    try:
        path = Path(data).expanduser()
        is_file, is_folder = path.is_file(), path.is_dir() and data != ""
    except (OSError, RuntimeError) as error:  # a name that is too long, the home of nobody
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{field}: {data[:80]!r} cannot be looked up: {reason}") from None
    if is_file:
        if path.suffix not in SUFFIXES:
            raise ConfigError(
                f"{field}: {data} is no {', '.join(SUFFIXES)} file: convert it, or name another one"
            )
        run_folder = _finished_build(path.parent, field) if path.stem == "data" else None
        return RowSource(name=data, files=(path,), run_folder=run_folder)
    if is_folder:
        run_folder = _finished_build(path, field)
        return RowSource(name=data, files=_files_of(path, field), run_folder=run_folder)
    if data.count("/") != 1 or data.startswith((".", "/", "~")) or path.suffix in SUFFIXES:
        raise ConfigError(
            f"{field}: there is no file or folder {data!r} (looked in {Path.cwd()}), and it is no hub id "
            "(owner/name) either"
        )
    return RowSource(name=data, split=split, subset=subset, revision=revision)


def _finished_build(folder: Path, field: str) -> Path | None:
    """Return the folder if it is the run of a finished build, None if it is not the folder of a run."""
    job = _job_of(folder)
    if job is None:
        return None
    if job != "build":
        raise ConfigError(f"{field}: {folder} is the run folder of {job!r}: name that of a build")
    if not (folder / "manifest.json").is_file():
        raise ConfigError(
            f"{field}: {folder} has no manifest.json: that build has not finished. Run its command again, "
            "it goes on where it stopped; or, to use what is there, copy its data.jsonl elsewhere and name "
            "the copy"
        )
    return folder


def _job_of(folder: Path) -> str | None:
    """Return the job whose run folder this is, by its manifest or, in an unfinished run, by its lock."""
    for name in ("manifest.json", ".lock"):
        try:
            return json.loads((folder / name).read_text(encoding="utf-8"))["job"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not there, or another program's
    return None


def _files_of(folder: Path, field: str) -> tuple[Path, ...]:
    """Return the data files of a folder, in the order of their names; .json beside others is about them."""
    if (folder / "data.jsonl").is_file():
        return (folder / "data.jsonl",)  # of a build, whose data.parquet repeats it
    there = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    files = [file for file in there if file.suffix in (".jsonl", ".parquet")]
    files = files or [file for file in there if file.suffix == ".json"]
    if not files:
        raise ConfigError(f"{field}: the folder {folder} holds no {', '.join(SUFFIXES)} file")
    names = ", ".join(file.name for file in files)
    if len({file.suffix for file in files}) > 1:  # perhaps the same rows twice
        raise ConfigError(f"{field}: the folder {folder} holds several formats ({names}): name one file")
    splits = {word for word in _SPLITS for file in files if file.stem.lower().startswith(word)}
    if len(splits) > 1:  # to read all would train on the test set
        raise ConfigError(f"{field}: the folder {folder} holds several splits ({names}): name one file")
    return tuple(files)
