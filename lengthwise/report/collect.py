"""Reads run folders into plain data, following each run to the runs it was made from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lengthwise.config import ConfigError
from lengthwise.report.builds import Build, Training, read_build, read_config, read_training
from lengthwise.report.evaluations import Evaluation, read_evaluation
from lengthwise.report.files import mapping, read_object
from lengthwise.run_dir import TRAINING_JOBS

_SIGNS = {
    "eval": ("results_*.json", "samples_*.jsonl"),
    "build": ("data.jsonl",),
    "train": ("metrics.jsonl", "checkpoint-*", "trainer_state.json"),
    "unknown": ("manifest.json", "journal*", "dropped.jsonl", "run_config.json"),
}
"""Files that tell the job of a folder without a manifest; the first that fits decides."""


_CHECKPOINT = re.compile(r"(?P<training>.+)/checkpoint-(?P<step>\d+)/?")


@dataclass(kw_only=True, eq=False)
class Run:
    """One run folder."""

    path: Path
    job: str
    """build, sft, dpo, grpo, eval, or, for an unfinished run, what its files look like."""
    name: str
    manifest: dict[str, Any]
    finished: bool
    given: bool
    """Named by the user, not found through another run's manifest."""
    number: int = 0
    label: str = ""
    """Name that no other run on the page has."""
    parents: list[Run] = field(default_factory=list)
    missing_parents: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    build: Build | None = None
    training: Training | None = None

    @property
    def anchor(self) -> str:
        """The id of the run's place on the page."""
        return f"run-{self.number}"


def collect(paths: Sequence[Path]) -> list[Run]:
    """Return the named runs in order, then those they were made from, each once.

    Raises:
        ConfigError: if a path is no run folder.
    """
    runs: dict[Path, Run] = {}
    queue: list[Run] = []
    for path in [member for given in paths for member in _members(given)]:
        place = path.resolve()
        if place not in runs:
            runs[place] = _open(path, given=True)
            queue.append(runs[place])
    while queue:
        run = queue.pop(0)
        measured = checkpoint_of(run) if run.job == "eval" else None
        training = _find(run, measured[0]) if measured else None
        if training is not None:  # its manifest, the last act of a training, may not have been there to name
            if training not in runs:
                runs[training] = _open(training, given=False)
                queue.append(runs[training])
            run.parents.append(runs[training])
        for entry in run.manifest.get("parents") or []:
            recorded = mapping(entry)
            place = _find(run, str(recorded.get("path") or ""))
            if place is None:
                run.missing_parents.append(
                    f"{recorded.get('job', 'run')} {recorded.get('path', '(no path)')}"
                )
                continue
            if place not in runs:
                runs[place] = _open(place, given=False)
                queue.append(runs[place])
            if runs[place] not in run.parents:
                run.parents.append(runs[place])
            _check_unchanged(run, runs[place], recorded)
    ordered = list(runs.values())
    _name(ordered)
    return ordered


def checkpoint_of(run: Run) -> tuple[str, int] | None:
    """Return the training's folder and the step of the checkpoint that an evaluation measured, None for others."""
    model = mapping(run.manifest.get("model"))
    for stated in (model.get("adapter"), model.get("name") or run.config.get("model")):
        found = _CHECKPOINT.fullmatch(str(stated or ""))
        if found:
            return found["training"], int(found["step"])
    return None


def _members(path: Path) -> list[Path]:
    """Return the folders that a folder stands for: those of the models of an evaluation of several, else itself."""
    file = path / "manifest.json"
    names = read_object(file, []).get("members") if file.is_file() else None
    return [path / str(name) for name in names or []] or [path]


def _open(path: Path, *, given: bool) -> Run:
    problems: list[str] = []
    file = path / "manifest.json"
    manifest = read_object(file, problems) if file.is_file() else {}
    job = str(manifest.get("job") or _guess_job(path))
    if not job:
        raise ConfigError(_no_run(path))
    if not manifest:
        problems.insert(0, "the run is unfinished (it has no readable manifest.json): numbers may be partial")
    run = Run(
        path=path,
        job=job,
        name=str(manifest.get("name") or path.resolve().name),
        manifest=manifest,
        finished=bool(manifest),
        given=given,
        problems=problems,
    )
    run.config = read_config(path, manifest, problems)
    if job == "eval":
        run.evaluation = read_evaluation(path, problems)
    elif job == "build":
        run.build = read_build(path, manifest, problems)
    elif job in TRAINING_JOBS or job == "train":
        run.training = read_training(path, manifest, problems)
    return run


def _guess_job(path: Path) -> str:
    """Return the job that a folder without a readable manifest looks like; empty if it is no run folder."""
    if (path / ".lock").is_file():
        # Where a job notes its kind when it starts.
        noted = read_object(path / ".lock", []).get("job")
        if noted:
            return str(noted)
    for job, patterns in _SIGNS.items():
        if any(next(path.glob(pattern), None) for pattern in patterns):
            return job
    return ""


def _no_run(path: Path) -> str:
    if not path.is_dir():
        return f"RUN: there is no folder {str(path)!r}: name a run folder, such as outputs/eval/NAME"
    inside = sorted(str(p.parent) for p in path.glob("**/manifest.json"))[:4]
    remedy = f"name the runs in it: {' '.join(inside)}" if inside else "a run folder holds a manifest.json"
    return f"RUN: {str(path)!r} is no run folder: {remedy}"


def _find(run: Run, recorded: str) -> Path | None:
    """Return the folder of a recorded parent: as written, or seen from the run or a folder above it."""
    if not recorded:
        return None
    above = run.path.resolve().parents
    for candidate in (Path(recorded), run.path / recorded, *(folder / recorded for folder in above)):
        if candidate.is_dir() and _guess_job(candidate):
            return candidate.resolve()
    return None


def _check_unchanged(run: Run, parent: Run, recorded: dict[str, Any]) -> None:
    digest, file = recorded.get("manifest_sha256"), parent.path / "manifest.json"
    if digest and (not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest):
        run.problems.append(
            f"its parent {parent.name} has changed since: the manifest.json in {parent.path} is another one"
        )


def _name(runs: list[Run]) -> None:
    names = [run.name for run in runs]
    for index, run in enumerate(runs, start=1):
        run.number = index
        twins = [other for other in runs if other.name == run.name]
        run.label = run.name
        if names.count(run.name) > 1:
            same_job = sum(1 for other in twins if other.job == run.job) > 1
            run.label = (
                f"{run.name} ({run.path.resolve().parent.name})" if same_job else f"{run.name} ({run.job})"
            )
    labels = [run.label for run in runs]
    for run in runs:
        if labels.count(run.label) > 1:
            run.label = f"{run.label} #{run.number}"
