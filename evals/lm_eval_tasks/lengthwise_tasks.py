"""What the YAMLs of this folder call: lm-eval asks our prompts and gives our scores.

Our own `load`, `prompt` and `score` do it, so the numbers are those of `lengthwise eval` by construction. Two things
differ, since lm-eval has no place for them: the reason why a reply ended is unknown, and a metric that could not be
scored is left out without being counted.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, cast

from evals.base import Score, Task
from evals.plan import published_data
from evals.sources import find_source, sort_rows
from lengthwise.plugins import load_plugin
from lengthwise.records import Sample

DATA_VARIABLE = "LENGTHWISE_DATA"
"""Environment variable: the folder with the benchmarks' files under their published names."""

_samples: dict[tuple[str, str], Sample] = {}
"""What lm-eval was given, by task and sample id: its documents must be plain rows."""


def documents(task: str, options: Mapping[str, Any] | None = None, **_: Any) -> dict[str, Any]:
    """Return a task's samples as lm-eval's documents, in a data set with the split `test`.

    Args:
        task: a file of `evals/tasks`, or the path of your own.
        options: the task's own options, and `draw_seed`.
        _: what lm-eval adds of its own (a task's `metadata`).

    Raises:
        ConfigError: the data is not there, or a row of it is bad.
        ValueError: if a prompt has several turns, which lm-eval's tasks have no field for.
    """
    from datasets import Dataset

    module = cast(Task, load_plugin("evals.tasks", task, "METRICS"))
    data = published_data(module, os.environ.get(DATA_VARIABLE))
    entries = module.load(data, **{"draw_seed": 0, **(options or {})})
    samples = sort_rows(entries, "raise", data=find_source(data).name).samples
    rows = []
    for sample in samples:
        turns = module.prompt(sample)
        if [turn.role for turn in turns] != ["user"]:
            raise ValueError(
                f"{task}: the prompt of sample {sample.id} is not one user turn: use lengthwise eval"
            )
        _samples[task, sample.id] = sample
        rows.append({"task": task, "id": sample.id, "prompt": turns[0].content, "target": _target(sample)})
    return {"test": Dataset.from_list(rows)}


def process_results(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Return the metrics of one reply, as the task's `score` gives them."""
    module = cast(Task, load_plugin("evals.tasks", doc["task"], "METRICS"))
    found = module.score(_samples[doc["task"], doc["id"]], results[0], None)
    return dict(found.metrics if isinstance(found, Score) else found)


def median(values: Sequence[float]) -> float:
    """Return the median; of an even number of values, lm-eval's own takes the upper of the two in the middle."""
    return statistics.median(values)


def root_mean_square(values: Sequence[float]) -> float:
    """Return the root of the mean of the squared values, for metrics that are errors."""
    return (sum(value * value for value in values) / len(values)) ** 0.5


def _target(sample: Sample) -> str:
    """Return the reference answer, else the length that was asked, for lm-eval's own log of samples."""
    if sample.target is not None:
        return sample.target
    return "" if sample.length is None else json.dumps(sample.length.to_dict())
