"""The models of one evaluation: several are measured one after another, each in a run folder of its own.

`models` may name base, checkpoints, adapters and merged models together; a pattern such as
`outputs/sft/mine/checkpoint-*` stands for the folders it matches, in the order of their steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from glob import glob
from typing import Any

from evals.config import EvalConfig
from lengthwise.config import ConfigError, build_component, option
from lengthwise.run_dir import run_folder


@dataclass(kw_only=True)
class ModelEntry:
    """One entry of `models`."""

    model: str = option(help="hub id, local folder, run folder, pattern of folders, or embedded:smollm2-135m")
    adapter: str | None = option(None, help="folder or hub id of a LoRA adapter on the model")
    name: str | None = option(None, help="what the model is called in folders and tables")
    engine: dict[str, Any] | None = option(None, help="its own engine, instead of the run's")


def members(config: EvalConfig) -> dict[str, EvalConfig]:
    """Return a config for each model of a run, by the name of its folder; an A/A run has each model twice.

    Raises:
        ConfigError: an entry is wrong, a pattern matches nothing, or two models would share a name.
    """
    folder = run_folder("eval", config.name, config.output_dir)
    found: dict[str, EvalConfig] = {}
    entries = config.models or [{"model": config.model, "adapter": config.adapter}]
    for entry in [one for given in entries for one in _expanded(given)]:
        name = entry.name or _name_of(entry)
        if not re.fullmatch(r"[\w+-][\w.+-]*", name):
            raise ConfigError(f"models: name {name!r} is to be a folder's: use letters, digits, . - + _")
        runs = {name: config.seed}
        if config.aa_run:
            runs[f"{name}__again"] = config.seed + 1
        for label, seed in runs.items():
            if label in found:
                raise ConfigError(f"models: two are called {label!r}: give each a name")
            found[label] = replace(
                config,
                models=[],
                aa_run=False,
                model=entry.model,
                adapter=entry.adapter,
                engine=entry.engine or config.engine,
                judges=[with_engine(judge, config.engine) for judge in config.judges],
                seed=seed,
                name=label,
                output_dir=str(folder / label),
            )
    return found


def with_engine(judge: Any, engine: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of `judges` with the engine that runs it, so that every model meets the same judge.

    Example:
        >>> with_engine("lab/judge", {"name": "vllm"})
        {'model': 'lab/judge', 'engine': {'name': 'vllm'}}
    """
    mapping = {"model": judge} if isinstance(judge, str) else dict(judge)
    return {**mapping, "engine": mapping.get("engine") or engine}


def _expanded(given: Any) -> list[ModelEntry]:
    """Return the models that an entry stands for: one, or all that its pattern matches."""
    mapping: Mapping[str, Any] = {"model": given} if isinstance(given, str) else given
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"models: {given!r} is neither a model nor a map {{model, adapter, name, engine}}")
    entry = build_component(ModelEntry, mapping, where="models")
    if not any(sign in entry.model for sign in "*?["):
        return [entry]
    folders = sorted(glob(entry.model), key=_step)
    if not folders:
        raise ConfigError(
            f"models: no folder matches {entry.model!r}: name one, or check the training's folder"
        )
    if entry.name is not None and len(folders) > 1:
        raise ConfigError(
            f"models: {entry.model!r} matches {len(folders)} folders, which cannot share a name"
        )
    return [replace(entry, model=folder) for folder in folders]


def _step(folder: str) -> list[Any]:
    """Return what checkpoints are sorted by: checkpoint-8 comes before checkpoint-16."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", folder)]


def _name_of(entry: ModelEntry) -> str:
    """Return a folder's name for a model: its last two parts, as lm-eval joins a model's path.

    Example:
        >>> _name_of(ModelEntry(model="outputs/sft/mine/checkpoint-8"))
        'mine__checkpoint-8'
    """
    parts = [
        part for spec in (entry.model, entry.adapter) if spec for part in spec.strip("/").split("/")[-2:]
    ]
    return re.sub(r"[^\w.+-]+", "_", "__".join(parts)).lstrip(".") or "model"
