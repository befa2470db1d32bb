"""Numbers that papers print, to hold an own number against: one YAML file a task.

A published number is seldom measured as ours is: another temperature, cap, judge or set of rows moves a score more
than a model does. So each row carries what is known of its settings, and `differences` says where a run departs.

The numbers are in our tasks' scale and under our metrics' names; `s_q` and `s_bar` are of the judge that `judge`
names. Values that our sources print wrongly are corrected, with a note.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from evals.base import Task
from lengthwise.yaml_source import load_yaml

Confidence = Literal["paper and code", "paper", "second-hand", "recalled"]
"""How a number was checked: in the paper and the released results; in the paper; on a page that quotes it; not yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """What a source says of one model on one task."""

    model: str
    metrics: Mapping[str, float]
    source: str
    confidence: Confidence
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it was measured: temperature, max_tokens, num_rows, data, judge, options of the task. None: not known."""
    slices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Metrics of a group, by its name in our tables ("level 0")."""
    note: str | None = None


def published(task: str) -> list[PublishedRow]:
    """Return the published rows of a task, in the order of its file; an empty list where we know of none.

    Args:
        task: the task's name, which is its label unless a config gave one.

    Example:
        >>> [row.metrics["fm"] for row in published("tlg") if row.model == "gpt-4o"]
        [0.743]
    """
    file = Path(__file__).parent / f"{task}.yaml"
    if Path(task).name != task or not file.is_file():
        return []
    return [
        _row({**group, **row, "settings": {**group["settings"], **row.get("settings", {})}})
        for group in load_yaml(file)["groups"]
        for row in group["rows"]
    ]


def run_settings(task: Task, document: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Return how a task was run, under the names that published rows use.

    Args:
        task: the task's module, which knows the defaults of its options.
        document: a results file.
        label: what the task is called in it.
    """
    config = document["configs"][label]
    parameters = list(inspect.signature(task.load).parameters.values())[1:]
    sampling = config["generation_kwargs"]
    return {
        **{p.name: p.default for p in parameters if p.name != "draw_seed"},
        **config.get("options", {}),
        **{name: sampling.get(name) for name in ("temperature", "top_p", "repetition_penalty", "max_tokens")},
        "num_rows": document["n-samples"][label]["effective"],
        "data": Path(config["data"]).name,
    }


def differences(row: PublishedRow, settings: Mapping[str, Any]) -> list[str]:
    """Return in what a run differs from a published row, and what is not known of either; empty if in nothing.

    Args:
        row: the published row.
        settings: of the run, as `run_settings` returns them, with the id of the judge where one scored.

    Example:
        >>> row = PublishedRow(model="m", metrics={}, source="", confidence="paper", settings={"temperature": 0.0})
        >>> differences(row, {"temperature": 0.7}), differences(row, {"temperature": 0})
        (['temperature: published 0.0, here 0.7'], [])
    """
    found = []
    for name, value in row.settings.items():
        if value is None:
            found.append(f"{name}: not known of the published row")
        elif name not in settings:
            found.append(f"{name}: published {value}, not known here")
        elif settings[name] != value:
            here = (
                "the rest of the context"
                if name == "max_tokens" and settings[name] is None
                else settings[name]
            )
            found.append(f"{name}: published {value}, here {here}")
    return found


def _row(values: Mapping[str, Any]) -> PublishedRow:
    row = PublishedRow(**{key: value for key, value in values.items() if key != "rows"})
    assert row.confidence in get_args(Confidence), row.confidence
    return row
