"""What the runs were configured with, and in what evaluations were not measured alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lengthwise.report.collect import Run
from lengthwise.report.files import mapping

_MODEL_KEYS = {"model", "model_identity", "adapter", "name", "output_dir", "max_concurrent_samples"}
"""What two evaluations may differ in and still measure the same thing: which model answered, and how fast."""


def setting_differences(base: Run, other: Run) -> list[str]:
    """Return the settings, apart from the model, in which two evaluations differ.

    A difference in them may explain a difference in scores as well as the model does. Evaluations of different tasks
    have no difference in scores.
    """
    if base.evaluation is None or other.evaluation is None:
        return []
    if base.evaluation.tasks.keys().isdisjoint(other.evaluation.tasks):
        return []
    found = _differences("", base.evaluation.settings, other.evaluation.settings, base, other)
    for name, task in base.evaluation.tasks.items():
        twin = other.evaluation.tasks.get(name)
        if twin is not None:
            old = {"version": task.version, "counter": task.counter, **task.settings}
            new = {"version": twin.version, "counter": twin.counter, **twin.settings}
            found += _differences(f"{name}, ", old, new, base, other)
    return found


def _differences(
    prefix: str, old: Mapping[str, Any], new: Mapping[str, Any], base: Run, other: Run
) -> list[str]:
    mine, theirs = _flatten(old), _flatten(new)
    return [
        f"{prefix}{key}: {_shown(mine.get(key))} in {base.label}, {_shown(theirs.get(key))} in {other.label}"
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key) and key not in _MODEL_KEYS
    ]


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        if mapping(entry):
            flat.update(_flatten(entry, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = entry
    return flat


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def package_table(runs: Sequence[Run]) -> list[tuple[str, list[str], bool]]:
    """Return (package, version per run, whether they differ), differing ones first."""
    versions = [mapping(r.manifest.get("packages")) for r in runs]
    rows = []
    for package in sorted({p for v in versions for p in v}):
        found = [str(v.get(package, "")) for v in versions]
        rows.append((package, found, len({f for f in found if f}) > 1))
    return sorted(rows, key=lambda row: not row[2])


def settings_rows(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return a config as (dotted key, value) lines.

    Example:
        >>> settings_rows({"engine": {"name": "vllm"}, "seed": 1})
        [('engine.name', 'vllm'), ('seed', '1')]
    """
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            rows += settings_rows(value, f"{prefix}{key}.")
        else:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            rows.append((f"{prefix}{key}", shown if len(shown) <= 2000 else shown[:2000] + " … (cut)"))
    return rows
