"""One run, one folder: its config first, its manifest last.

`run_config.json` is what `--config` would read again (a `config.json` would be taken for the model's by its
loaders). `manifest.json` is written last and atomically and ties the outputs to config, code, inputs and parent
runs; a folder without it is unfinished and can be resumed.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from lengthwise.config import config_to_dict, result_affecting
from lengthwise.files import atomic_write
from lengthwise.provenance import InputFile, count_rows, file_sha256, git_commit, package_versions
from lengthwise.records import digest
from lengthwise.value_types import ConfigError

__all__ = ["LOCATION", "RUN_CONFIG", "TRAINING_JOBS", "InputFile", "RunDir", "git_commit", "run_folder"]

SCHEMA_VERSION = 1

_Decide = Callable[[dict[str, Any]], dict[str, Any]]
"""Picks the result-affecting part of a config."""

RUN_CONFIG = "run_config.json"
_MANIFEST, _LOCK, _JOURNAL = "manifest.json", ".lock", "journal.jsonl"
TRAINING_JOBS = frozenset({"sft", "dpo", "kto", "orpo", "grpo"})
"""Jobs that leave a trained model, and that a launcher starts once per device."""

LOCATION = frozenset({"name", "output_dir"})
"""Where a run lies is no part of what it does: a moved folder resumes."""


def run_folder(job: str, name: str | None = None, output_dir: str | Path | None = None) -> Path:
    """Return the folder of a run: `output_dir` itself if given, else outputs/<job>/<name>.

    Raises:
        ConfigError: neither is given, or the name is not a plain folder name.
    """
    if output_dir:
        return Path(output_dir)
    if not name:
        raise ConfigError(f"the {job} run has neither a name nor an output_dir: give --name my_run")
    if name in {".", ".."} or "/" in name or "\\" in name:
        raise ConfigError(f"name is {name!r}: it is one folder's name; for another place give output_dir")
    return Path("outputs") / job / name


def _now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(slots=True)
class RunDir:
    """The folder of one run. Open one with `open_for` to write, with `load` to read."""

    path: Path
    job: str
    config: dict[str, Any]
    config_digest: str = ""
    created: str = ""
    resumed: bool = False
    """Whether `open_for` found an unfinished run to go on with."""
    writes: bool = False
    """Whether this process owns the folder; in distributed training only rank 0 does."""
    _started: float = field(default_factory=time.monotonic, repr=False)
    _lock: IO[str] | None = field(default=None, repr=False)

    @classmethod
    def open_for(
        cls,
        job: str,
        path: str | Path,
        config: Any,
        *,
        checked_by_job: Iterable[str] = (),
        starts_anew: bool = False,
    ) -> RunDir:
        """Start a run in a folder, or go on with an unfinished one.

        Args:
            job: "build", "sft", "dpo" or "eval".
            path: the run folder, as `run_folder` gives it.
            config: the job's config dataclass; or a map, all of which then affects the result.
            checked_by_job: result-affecting keys that may differ on resume, since the job itself decides
                whether their new values give the same result.
            starts_anew: an unfinished run there left nothing to go on from, so its settings bind nobody.

        Raises:
            ConfigError: the run there is finished, differs in result-affecting keys (named with both values),
                is in use by another process, the folder holds something else or cannot be made.
        """
        run, decide = cls._described(job, path, config)
        if job in TRAINING_JOBS and os.environ.get("RANK", "0") != "0":  # a cluster may set RANK for any job
            return run
        run._refuse_occupied()
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run._take_lock()
        except OSError as error:
            raise ConfigError(_unusable(run.path, error.strerror)) from error
        run._refuse_finished()
        run._resume(decide, checked_by_job, starts_anew)
        run._write_start()
        run.writes = True
        return run

    @classmethod
    def check(
        cls,
        job: str,
        path: str | Path,
        config: Any,
        *,
        checked_by_job: Iterable[str] = (),
        starts_anew: bool = False,
    ) -> RunDir:
        """Raise what `open_for` would raise, as far as that can be told without writing.

        Returns:
            The run, not opened; `resumed` tells whether it would go on with one that is there.
        """
        run, decide = cls._described(job, path, config)
        run._refuse_occupied()
        run._refuse_finished()
        run._resume(decide, checked_by_job, starts_anew)
        there = next(p for p in (run.path, *run.path.absolute().parents) if os.path.lexists(p))
        if not there.is_dir() or not os.access(there, os.W_OK):
            reason = "is not writable" if there.is_dir() else "is no folder"
            raise ConfigError(_unusable(run.path, f"{there} {reason}"))
        return run

    @classmethod
    def describe(cls, job: str, path: str | Path, config: Any) -> RunDir:
        """Return the run that a config describes, whatever lies in its folder."""
        return cls._described(job, path, config)[0]

    @classmethod
    def _described(cls, job: str, path: str | Path, config: Any) -> tuple[RunDir, _Decide]:
        """Return the run that a config describes, and what picks the settings that decide its result."""
        is_config = dataclasses.is_dataclass(config)
        full = config_to_dict(config) if is_config else {**config}
        full = json.loads(json.dumps(full, ensure_ascii=False))

        def decide(values: dict[str, Any]) -> dict[str, Any]:
            also = getattr(config, "also_decisive", ())
            decisive = result_affecting(type(config), values, also=also) if is_config else values
            return {key: value for key, value in decisive.items() if key not in LOCATION}

        run = cls(path=Path(path), job=job, config=full, config_digest=digest(decide(full)), created=_now())
        return run, decide

    @classmethod
    def load(cls, path: str | Path) -> RunDir:
        """Open a run folder for reading, finished or not.

        Raises:
            ConfigError: no run folder is there.
        """
        path = Path(path)
        source = next((path / n for n in (_MANIFEST, RUN_CONFIG) if (path / n).is_file()), None)
        if source is None:
            raise ConfigError(f"{path} is not a run folder: it has neither {_MANIFEST} nor {RUN_CONFIG}")
        content = json.loads(source.read_text(encoding="utf-8"))
        if source.name == RUN_CONFIG:
            return cls(path=path, job=_read_state(path).get("job", ""), config=content)
        return cls(
            path=path,
            job=content["job"],
            config=content["config"],
            config_digest=content["config_digest"],
            created=content["created"],
        )

    @property
    def name(self) -> str:
        """The run's name: the last part of its path."""
        return self.path.resolve().name

    @property
    def is_finished(self) -> bool:
        """Whether the manifest, which is written last, is there."""
        return (self.path / _MANIFEST).is_file()

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of a finished run.

        Raises:
            ConfigError: the run is not finished.
        """
        if not self.is_finished:
            raise ConfigError(
                f"{self.path} has no {_MANIFEST}: the run is not finished; start it again to resume"
            )
        return json.loads((self.path / _MANIFEST).read_text(encoding="utf-8"))

    def file(self, name: str) -> Path:
        """Return the path of a file in the folder, its parent folder made."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def finish(
        self,
        *,
        seed: int,
        inputs: Iterable[InputFile] = (),
        outputs: Iterable[str | Path] = (),
        parents: Iterable[str | Path] = (),
        counts: Mapping[str, Any] | None = None,
        usage: Mapping[str, int] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write the manifest, the last act of a run, and give the folder free.

        Args:
            seed: the run's seed.
            inputs: what was read.
            outputs: files or folders of this run, absolute or relative to the run folder; folders count with
                all their files.
            parents: run folders whose products were read (data, model).
            counts: how many inputs ended how.
            usage: tokens and calls.
            extra: more top-level entries, such as "model" or "training".

        Returns:
            The manifest as written; other ranks of a distributed run write nothing.
        """
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "job": self.job,
            "name": self.name,
            "created": self.created,
            "finished": _now(),
            "config": self.config,
            "config_digest": self.config_digest,
            "git_commit": git_commit(),
            "packages": package_versions(),
            "seed": seed,
            "inputs": [dataclasses.asdict(item) for item in inputs],
            "outputs": [],
            "parents": [_parent(Path(parent)) for parent in parents],
            "counts": dict(counts or {}),
            "usage": dict(usage or {}),
            # Of the last process only: the time between a crash and its resume is not the run's.
            "wall_seconds": round(time.monotonic() - self._started, 3),
        }
        clash = sorted(set(manifest) & set(extra or {}))
        if clash:
            raise ValueError(f"extra may not replace the manifest's own entries: {', '.join(clash)}")
        manifest.update(extra or {})
        if not self.writes:
            return manifest
        manifest["outputs"] = self._describe_outputs(outputs)
        atomic_write(self.path / _MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        self.close()
        return manifest

    def rows(self, name: str = "data.jsonl") -> list[dict[str, Any]]:
        """Return the rows of a file of JSON lines; texts may hold what `str.splitlines` takes for the end of one."""
        with self.file(name).open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Give the folder free without finishing; the end of the process does so too."""
        self.writes = False
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _describe_outputs(self, outputs: Iterable[str | Path]) -> list[dict[str, Any]]:
        """Return path, digest and row count of each output file."""
        described = []
        for output in outputs:
            # `run.file(...)` already starts with the run folder; a bare name is meant inside it.
            path = Path(output)
            if not path.is_absolute() and not path.is_relative_to(self.path):
                path = self.path / path
            for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
                _to_disk(file)
                resolved, base = file.resolve(), self.path.resolve()
                shown = resolved.relative_to(base) if resolved.is_relative_to(base) else resolved
                described.append(
                    {"path": str(shown), "sha256": file_sha256(file), "num_rows": count_rows(file)}
                )
        return described

    def _refuse_occupied(self) -> None:
        """Refuse a folder that holds something other than a run; a log opened there by the shell is fine."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise ConfigError(f"output folder {self.path} is a file: choose another output_dir")
        if (self.path / RUN_CONFIG).exists() or (self.path / _MANIFEST).exists():
            return
        others = [p.name for p in self.path.iterdir() if not p.name.startswith(".") and p.suffix != ".log"]
        if others:
            raise ConfigError(
                f"{self.path} is not empty and is no run folder (it holds {', '.join(sorted(others)[:3])}): "
                "choose another name or output_dir"
            )

    def _refuse_finished(self) -> None:
        """Refuse to touch a finished run, and say where it is not the one that was asked for."""
        if not self.is_finished:
            return
        before = {key: value for key, value in self.manifest["config"].items() if key not in LOCATION}
        now = {key: value for key, value in self.config.items() if key not in LOCATION}
        differences = _differences(before, now, "done")
        raise ConfigError(
            f"{self.path} holds a finished run, which is never overwritten: choose another --name (or "
            "--output_dir), or delete the folder"
            + ("\nit had other settings:\n" + differences if differences else "")
        )

    def _take_lock(self) -> None:
        """Keep a second process out; the system frees the lock when this process ends, however it ends."""
        stream = (self.path / _LOCK).open("a+", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.close()
            raise ConfigError(
                f"{self.path} is in use by another process: wait for it to end, or choose another --name"
            ) from None
        self._lock = stream

    def _resume(self, decide: _Decide, checked_by_job: Iterable[str], starts_anew: bool) -> None:
        """Take over the state of an unfinished run, if there is one and it is this run."""
        state = _read_state(self.path)
        config_file = self.path / RUN_CONFIG
        if not config_file.is_file():
            return
        if state.get("job", self.job) != self.job:
            raise ConfigError(
                f"{self.path} holds a {state['job']} run, not {self.job}: choose another --name"
            )
        if starts_anew:
            return
        journal = self.path / _JOURNAL
        if journal.is_file() and not journal.stat().st_size:
            return  # no model has answered yet, as after a wrong model's name: there is nothing to keep to
        before, now = decide(json.loads(config_file.read_text(encoding="utf-8"))), decide(self.config)
        for key in checked_by_job:
            before.pop(key, None)
            now.pop(key, None)
        _refuse_differences(self.path, before, now)
        self.created, self.resumed = state.get("created", self.created), True

    def _write_start(self) -> None:
        """Write the config and note in the lock file what runs here."""
        for draft in self.path.glob(".*.tmp"):  # of a process that was killed while it wrote
            draft.unlink()
        atomic_write(self.path / RUN_CONFIG, json.dumps(self.config, indent=2, ensure_ascii=False) + "\n")
        assert self._lock is not None
        self._lock.seek(0)
        self._lock.truncate()
        json.dump({"job": self.job, "created": self.created, "pid": os.getpid()}, self._lock)
        self._lock.flush()


def _read_state(path: Path) -> dict[str, Any]:
    """Return what the lock file notes about a run; empty if it was torn by a crash."""
    try:
        return json.loads((path / _LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _refuse_differences(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise if a resumed run would not be the run that was begun, naming each key with both values."""
    differences = _differences(before, now, "begun")
    if differences:
        raise ConfigError(
            f"{path} holds an unfinished run with other settings:\n{differences}\n"
            "resume it with the settings it began with, or choose another --name"
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], verb: str) -> str:
    """Return a line for each key of two configs that differs, with both values; a run was `verb` with the first."""
    missing = object()
    keys = sorted(set(before) | set(now))
    return "\n".join(
        f"  {key}: {verb} with {_shown(before, key)}, now {_shown(now, key)}"
        for key in keys
        if before.get(key, missing) != now.get(key, missing)
    )


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk: a manifest must not outlive, after a power cut, what it describes."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _unusable(path: Path, reason: str | None) -> str:
    """Return the message for a run folder that cannot be made."""
    return f"output folder {path} cannot be written: {reason}: choose another --name or --output_dir"


def _shown(config: Mapping[str, Any], key: str) -> str:
    """Return a setting for a message."""
    return json.dumps(config[key], ensure_ascii=False) if key in config else "not set"


def _parent(path: Path) -> dict[str, Any]:
    """Return the manifest entry of a run that this one builds on; nulls where it has no manifest (yet)."""
    manifest = path / _MANIFEST
    if not manifest.is_file():
        return {"path": str(path), "job": None, "manifest_sha256": None}
    content = json.loads(manifest.read_text(encoding="utf-8"))
    return {"path": str(path), "job": content.get("job"), "manifest_sha256": file_sha256(manifest)}
