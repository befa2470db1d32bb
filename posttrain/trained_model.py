"""What a training left: from the folder that a user names to the weights in it, and where they came from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.config import ConfigError
from lengthwise.models import ModelRef, folder_digest, resolve_model
from lengthwise.provenance import file_sha256
from lengthwise.run_dir import RUN_CONFIG, TRAINING_JOBS, RunDir
from posttrain.resume import is_complete, last_checkpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    """Weights that a training left, or an adapter from elsewhere."""

    folder: Path
    """Where they lie: a run folder, a checkpoint in it, or an adapter's."""
    model: ModelRef
    """The base with the adapter; or, without an adapter, the whole model."""
    run: RunDir | None
    """The training they are from."""

    @property
    def name(self) -> str:
        """What to call it: the run's name, with the checkpoint's."""
        folder = self.folder.resolve()
        if self.run is None or folder == self.run.path.resolve():
            return folder.name
        return f"{self.run.name}-{folder.name}"

    @property
    def training(self) -> dict[str, Any]:
        """The manifest's `training` entry, empty where the run has not finished or is not known."""
        if self.run is None or not self.run.is_finished:
            return {}
        return self.run.manifest.get("training", {})

    @property
    def was_quantized(self) -> bool:
        """Whether the base had 4 bits a weight in training, which no merged model has."""
        lora = None if self.run is None else self.run.config.get("lora")
        return bool(lora) and lora.get("quantization", "none") != "none"

    def lineage(self) -> dict[str, Any]:
        """Return where the weights came from, JSON-ready."""
        base = self.model.path
        of_hub = base.parent.name == "snapshots"  # the hub's cache names a snapshot by its commit
        manifest = None if self.run is None else self.run.path / "manifest.json"
        return {
            "run": None if self.run is None else str(self.run.path),
            "job": None if self.run is None else self.run.job,
            "run_manifest_sha256": file_sha256(manifest) if manifest and manifest.is_file() else None,
            "weights": str(self.folder),
            "base_model": {
                "name": self.training.get("base_model", {}).get("name") or self.model.name,
                "revision": base.name if of_hub else None,
                "identity": folder_digest(base),
            }
            if self.model.adapter
            else self.training.get("base_model"),
            "adapter_identity": folder_digest(self.model.adapter) if self.model.adapter else None,
            "identity": self.model.identity,
        }


def find_trained(given: Path, base: str | None = None) -> TrainedModel:
    """Find the weights of a run folder, a checkpoint or an adapter.

    Args:
        given: the folder. Of an unfinished run its last checkpoint is taken.
        base: the adapter's base, where it is no longer where the adapter says.

    Raises:
        ConfigError: there are none, or they are not what can be merged; with what to do.
    """
    if not given.is_dir():
        raise ConfigError(
            f"RUN: there is no folder {given}: give the run folder of a training, or an adapter's"
        )
    run = _run_of(given)
    folder = given if run is None else _weights_of(run, given)
    if (folder / "adapter_config.json").is_file():
        _check_adapter(folder)
        model = _with_base(folder, base)
    elif not (folder / "config.json").is_file():
        raise ConfigError(
            f"RUN: {folder} holds neither an adapter (adapter_config.json) nor a model (config.json): a sharded "
            "checkpoint, as DeepSpeed and FSDP write it, has none; give the folder of the finished run"
        )
    elif run is None:
        raise ConfigError(
            f"RUN: {folder} is a whole model and of no training here: there is nothing to merge"
        )
    elif base is not None:
        raise ConfigError(f"--base: {folder} is a whole model, which has no base: leave --base out")
    else:
        model = resolve_model(str(folder))
    trained = TrainedModel(folder=folder, model=model, run=run)
    _refuse_other_base(trained)
    return trained


def _run_of(given: Path) -> RunDir | None:
    """Return the training that a folder is of, None for one of no run.

    Raises:
        ConfigError: it is another job's run.
    """
    given = given.resolve()
    for folder in (given, given.parent) if given.name.startswith("checkpoint-") else (given,):
        if not (folder / RUN_CONFIG).is_file():
            continue
        run = RunDir.load(folder)
        if run.job not in TRAINING_JOBS:
            raise ConfigError(
                f"RUN: {folder} is the run folder of {run.job or 'unknown'!r}, and --merge is for the "
                "model of a training (sft, dpo): name its run folder; an evaluation is exported with --format"
            )
        return run
    return None


def _weights_of(run: RunDir, given: Path) -> Path:
    """Return the folder of a run's weights: the one given, or of an unfinished run its last checkpoint."""
    if given.resolve() != run.path.resolve():
        if not is_complete(given):
            raise ConfigError(
                f"RUN: {given} was not written to its end: give an earlier checkpoint, or the run"
            )
        return given
    if run.is_finished:
        return given
    last = last_checkpoint(given)
    if last is None:
        raise ConfigError(
            f"RUN: {given} is not finished (it has no manifest.json) and holds no complete checkpoint: start its "
            "command again to resume it, then export"
        )
    return last


def _check_adapter(folder: Path) -> None:
    try:
        kind = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("peft_type")
    except ValueError as error:
        raise ConfigError(f"RUN: {folder}/adapter_config.json is damaged ({error}): save it again") from error
    if kind != "LORA":
        raise ConfigError(f"RUN: {folder} is an adapter of the kind {kind}: only LORA is merged here")
    if not (folder / "adapter_model.safetensors").is_file():
        raise ConfigError(f"RUN: {folder} has no adapter_model.safetensors: save the adapter again")


def _with_base(adapter: Path, base: str | None) -> ModelRef:
    try:
        model = resolve_model(str(adapter)) if base is None else resolve_model(base, str(adapter))
    except ConfigError as error:
        hint = "" if base else " (here: --base MODEL)"
        raise ConfigError(f"RUN: the base of {adapter} is not to be had: {error}{hint}") from error
    config = json.loads((model.path / "config.json").read_text(encoding="utf-8"))
    if "quantization_config" in config:
        raise ConfigError(
            f"RUN: the base {model.path} is quantised, and an adapter cannot be added to packed weights: name the "
            "unquantised model with --base"
        )
    return model


def _refuse_other_base(trained: TrainedModel) -> None:
    """Refuse a base whose files are not those that were trained on."""
    known = trained.training.get("base_model", {}).get("identity")
    if trained.model.adapter is None or known is None or folder_digest(trained.model.path) == known:
        return
    raise ConfigError(
        f"RUN: the base {trained.model.path} is not the one that {trained.folder} was trained on "
        f"({trained.training['base_model']['name']}; its files differ): name the right one with --base"
    )
