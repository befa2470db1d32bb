"""A finished evaluation's own files, opened for those that pass its numbers on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.config import ConfigError, did_you_mean
from lengthwise.run_dir import TRAINING_JOBS, RunDir

_SUFFIXES = ("_stderr", "_ci", "_n", "_bounds")
"""Of a results file's keys that belong to the metric whose name stands before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResults:
    """What a finished evaluation left: manifest, results file, and its rows on disk."""

    folder: Path
    manifest: dict[str, Any]
    results: dict[str, Any]

    @property
    def tasks(self) -> list[str]:
        """The tasks' names, in the order of the run."""
        return list(self.results["results"])

    def named(self, task: str | None) -> list[str]:
        """Return one task's name, or all.

        Raises:
            ConfigError: the run has no such task.
        """
        if task is not None and task not in self.tasks:
            hint = did_you_mean(task, self.tasks) or f"it has {', '.join(self.tasks)}"
            raise ConfigError(f"--task: {self.folder} has no task {task!r}; {hint}")
        return self.tasks if task is None else [task]

    def rows(self, task: str) -> Iterator[dict[str, Any]]:
        """Yield a task's scored replies.

        Raises:
            ConfigError: the file is gone.
        """
        yield from _lines(_only(self.folder, f"samples_{task}_[0-9]*.jsonl"))

    def dropped(self, task: str) -> Iterator[dict[str, Any]]:
        """Yield the prompts of a task that the harness could not finish; rows of the data that are bad have no id."""
        file = self.folder / "dropped.jsonl"
        if file.is_file():
            yield from (row for row in _lines(file) if row.get("task") == task and "doc" in row)

    def table(self, task: str) -> Iterator[dict[str, Any]]:
        """Yield a task's estimates as {task, slice, metric, value, stderr, low, high, n}; the slice "all" first."""
        for metric, found in _overall(self.results["results"][task]).items():
            yield _entry(task, "all", metric, found)
        for kind, members in self.results["slices"][task].items():
            for value, group in members.items():
                for metric, found in group.items():
                    if metric != "counts":
                        yield _entry(task, f"{kind} {value}", metric, found)


def open_results(folder: Path) -> RunResults:
    """Open a finished evaluation.

    Raises:
        ConfigError: it is another job's run, or not finished.
    """
    run = RunDir.load(folder)
    if run.job in TRAINING_JOBS:
        raise ConfigError(
            f"RUN: {folder} is a training run, which has no results to export: name an evaluation; its model is "
            f"written by `lengthwise export {folder} --merge`, and `lengthwise report` shows the training"
        )
    if run.job != "eval":
        raise ConfigError(
            f"RUN: {folder} is a {run.job or 'unknown'} run, which has no results to export: name an evaluation, "
            "such as outputs/eval/NAME"
        )
    if not run.is_finished:
        raise ConfigError(
            f"RUN: {folder} is not finished (it has no manifest.json): start its evaluation again to resume it, "
            "then export"
        )
    results = json.loads(_only(folder, "results_*.json").read_text(encoding="utf-8"))
    return RunResults(folder=folder, manifest=run.manifest, results=results)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ConfigError(
            f"RUN: {folder} holds {len(found)} files {pattern}, and should hold one: the run was changed by hand"
        )
    return found[0]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as stream:
        yield from (json.loads(line) for line in stream if line.strip())


def _overall(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the results row of a task as one map for each metric."""
    names = [key.removesuffix(",none") for key in row if key.endswith(",none")]
    metrics = [
        name
        for name in names
        if not any(name.endswith(end) and name.removesuffix(end) in names for end in _SUFFIXES)
    ]
    return {
        name: {"value": row[f"{name},none"], **{end[1:]: row.get(f"{name}{end},none") for end in _SUFFIXES}}
        for name in metrics
    }


def _entry(task: str, group: str, metric: str, found: Mapping[str, Any]) -> dict[str, Any]:
    low, high = found.get("ci") or (None, None)
    return {
        "task": task,
        "slice": group,
        "metric": metric,
        "value": found["value"],
        "stderr": found.get("stderr"),
        "low": low,
        "high": high,
        "n": found.get("n"),
    }
