"""What a model was trained on, as the manifests of its runs say: the training runs behind it and their data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.models import ModelRef, run_of_model
from lengthwise.provenance import file_sha256
from lengthwise.row_sources import RowSource, find_rows
from lengthwise.run_dir import RunDir
from lengthwise.value_types import ConfigError

NOT_TRAINING = ("build", "eval")
"""Jobs whose runs are parents of others, but train nothing."""

_HUB = re.compile(r"hub:(?P<name>[^/]+/[^/@#]+)(?:/(?P<subset>[^@#]+))?@(?P<revision>[^#]+)#(?P<split>.+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRun:
    """A run that trained a model, finished or not."""

    folder: Path
    config: dict[str, Any]
    manifest: dict[str, Any] | None
    """None for a run that has not finished, whose checkpoints can be evaluated all the same."""


def training_runs(ref: ModelRef) -> tuple[list[TrainingRun], list[str]]:
    """Return the training runs behind a model, the last first, and what could not be followed.

    A checkpoint's run is the folder it lies in. What was trained before is named by the manifest's parents.
    """
    found: dict[Path, TrainingRun] = {}
    notes: list[str] = []
    ahead = [_run_of(path) for path in (ref.adapter, ref.path) if path is not None]
    folders = [folder for folder in ahead if folder is not None]
    while folders:
        folder = folders.pop(0).resolve()
        if folder in found:
            continue
        run = RunDir.load(folder)
        if run.job in NOT_TRAINING:
            continue
        manifest = run.manifest if run.is_finished else None
        found[folder] = TrainingRun(folder=folder, config=run.config, manifest=manifest)
        if manifest is None:
            notes.append(f"{folder} is not finished, so its data is read from its config alone")
        # A checkpoint that a run started from is in its config alone: the checkpoint's folder has no manifest.
        for parent in [*(manifest["parents"] if manifest else ()), *_config_parents(run.config)]:
            path = Path(parent["path"])
            parent_run = _run_of(path)
            if parent_run is not None:
                folders.append(parent_run)
            elif parent.get("job") not in NOT_TRAINING:
                notes.append(f"{path}, on which {folder} was trained, is no longer there")
    return list(found.values()), notes


def training_sources(run: TrainingRun) -> tuple[list[RowSource], list[str]]:
    """Return the data of one training run that is still there, and what is to be said of the rest.

    The rows of `eval_data` were not trained on and are left out.
    """
    sources: list[RowSource] = []
    notes: list[str] = []
    held_out = _held_out(run)
    held_out_hub = {*_paths(run.config.get("eval_data"))} - {*_paths(run.config.get("data"))}
    for path, sha256 in _inputs(run):
        hub = _HUB.fullmatch(path)
        if hub is not None and hub["name"] in held_out_hub:
            continue
        if hub is not None:
            split = None if hub["split"] == "its only split" else hub["split"]
            sources.append(
                RowSource(name=hub["name"], subset=hub["subset"], revision=hub["revision"], split=split)
            )
            continue
        if Path(path).resolve() in held_out:
            continue
        try:
            sources.append(find_rows(path, field=str(run.folder)))
        except ConfigError as error:
            notes.append(f"data of {error}")
            continue
        if sha256 is not None and file_sha256(path) != sha256:
            notes.append(f"{path} has changed since {run.folder} was trained on it")
    return sources, notes


def _run_of(path: Path) -> Path | None:
    """Return the run folder that a model's folder is, was merged from, or, for a checkpoint, lies in."""
    for folder in (path, run_of_model(path) or path, path.parent):
        try:
            if RunDir.load(folder).job not in ("", *NOT_TRAINING):
                return folder
        except (ConfigError, KeyError, TypeError, ValueError):  # no run, or another program's manifest.json
            continue
    return None


def _config_parents(config: dict[str, Any]) -> list[dict[str, Any]]:
    model = config.get("model")
    return [{"path": model}] if isinstance(model, str) and _run_of(Path(model)) is not None else []


def _inputs(run: TrainingRun) -> Iterator[tuple[str, str | None]]:
    """Yield each input's path and digest; of an unfinished run what its config names."""
    if run.manifest is not None:
        yield from ((entry["path"], entry.get("sha256")) for entry in run.manifest["inputs"])
        return
    for path in _paths(run.config.get("data")):
        yield path, None


def _held_out(run: TrainingRun) -> set[Path]:
    """Return the files that served for the evaluation loss only."""

    def files(data: Any) -> set[Path]:
        found: set[Path] = set()
        for path in _paths(data):
            try:
                found |= {file.resolve() for file in find_rows(path).files}
            except ConfigError:
                continue  # it is not there: `training_sources` says so of what was trained on
        return found

    return files(run.config.get("eval_data")) - files(run.config.get("data"))


def _paths(data: Any) -> Sequence[str]:
    """Return what a config's `data` names: a path, or maps with one each."""
    entries = data if isinstance(data, list) else [data]
    paths = [entry.get("path") if isinstance(entry, dict) else entry for entry in entries]
    return [path for path in paths if isinstance(path, str)]


def trained_template(run: TrainingRun) -> str | None:
    """Return the digest of the chat template that a run trained with, None if nothing says.

    The manifest says it; of an older or unfinished run, the tokenizer that it saved.
    """
    recorded = ((run.manifest or {}).get("training") or {}).get("chat_template")
    if recorded is not None:
        return recorded
    for folder in (run.folder, *sorted(run.folder.glob("checkpoint-*"))):
        if (folder / "tokenizer_config.json").is_file():
            from transformers import AutoTokenizer

            from lengthwise.engines.chat_tokenizer import template_digest

            return template_digest(AutoTokenizer.from_pretrained(folder))
    return None
