"""From a config to what will run: tasks, samples and sampling, all checked before a model loads."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_type_hints

from evals.base import Measured, Task, measured
from evals.config import EvalConfig, SamplingOverrides, TaskConfig
from evals.draws import first_slice, stratified
from evals.scorer_plan import (
    Panel,
    PlannedJudge,
    PlannedScorer,
    metrics_of,
    panels_of,
    plan_judges,
    plan_scorers,
)
from evals.sources import SHIPPED_PROMPTS, LoadedRows, find_source, sort_rows
from evals.spread import SPREAD_METRICS
from lengthwise.config import ConfigError, build_component, did_you_mean
from lengthwise.engines import build_engine
from lengthwise.engines.base import Sampling, require
from lengthwise.plugins import load_plugin, plugin_label
from lengthwise.records import Sample
from lengthwise.row_sources import RowSource
from lengthwise.run_dir import InputFile
from lengthwise.value_types import Misfit, coerce


@dataclass(kw_only=True)
class PlannedTask:
    """A task with its samples, ready to run."""

    name: str
    task: Task
    config: TaskConfig
    options: dict[str, Any]
    """What the config set of the task's own options."""
    samples: list[Sample]
    source: RowSource
    inputs: tuple[InputFile, ...]
    loaded: LoadedRows
    sampling: Sampling
    scorers: Sequence[PlannedScorer] = ()
    panels: Sequence[Panel] = ()
    num_failed: int = 0
    """Prompts that the harness could not finish."""
    num_bad_rows: int = 0
    """Rows of the data that could not be used, and were dropped as the user said."""

    @property
    def measured(self) -> Measured:
        """What its rows are measured by."""
        spread = SPREAD_METRICS if self.sampling.n > 1 else ()
        return measured(self.task, *metrics_of(self.scorers, self.panels), *spread)


def plan_tasks(config: EvalConfig) -> list[PlannedTask]:
    """Return the tasks that a config asks for, in its order.

    Raises:
        ConfigError: a task is wrong, or named twice.
    """
    judges = plan_judges(config.judges, config.engine)
    plan = [plan_task(entry, config, judges) for entry in config.tasks]
    if judges and not any(scorer.judge for planned in plan for scorer in planned.scorers):
        raise ConfigError(
            "judges are given, but no scorer asks one: add scorers: [writing_quality], or leave them out"
        )
    names = [planned.name for planned in plan]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"tasks names one task twice ({', '.join(names)}): its rows would share a file; give each entry a label"
        )
    return plan


def plan_task(entry: Any, config: EvalConfig, judges: Sequence[PlannedJudge] = ()) -> PlannedTask:
    """Return the task that one entry of `tasks` asks for, its samples loaded and drawn.

    Raises:
        ConfigError: naming the entry and what is wrong with it.
    """
    mapping: Mapping[str, Any] = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"tasks: {entry!r} is neither a name nor a map {{name, data, limit, sampling}}")
    own = {f.name for f in fields(TaskConfig)}
    spec = build_component(TaskConfig, {k: v for k, v in mapping.items() if k in own}, where="tasks")
    task = cast(Task, load_plugin("evals.tasks", spec.name, "METRICS"))
    scorers = plan_scorers([*config.scorers, *spec.scorers], judges, task, spec.name)
    make = getattr(task, "configured", None)
    given = {k: v for k, v in mapping.items() if k not in own}
    options = task_options(make or task.load, given, spec.name)
    if make is not None:
        task = cast(Task, make(**options))
    required = getattr(task, "REQUIRES", frozenset())
    if required:
        require(build_engine(config.engine, config.model, config.adapter), required, f"task {spec.name}")
    limit = config.limit if spec.limit is None else spec.limit
    if limit is not None and limit < 1:
        raise ConfigError(f"tasks: {spec.name} has limit {limit}: it must be at least 1")
    data = spec.data or published_data(task, config.data_dir)
    source = task.source(data) if hasattr(task, "source") else find_source(data)  # type: ignore[attr-defined]
    entries = task.load(data, draw_seed=config.draw_seed, **({} if make else options))
    loaded = sort_rows(entries, config.on_bad_row, data=source.name)
    if not loaded.samples:
        raise ConfigError(
            f"tasks: {spec.name} finds no sample in {source.name}: no row of it is for this task"
        )
    if config.rescore is None and task.prompt(loaded.samples[0])[-1].role == "assistant":
        # A server that cannot go on from an opening begins anew, and nothing in the reply shows it.
        engine = build_engine(config.engine, config.model, config.adapter)
        require(engine, frozenset({"prefill"}), f"task {spec.name}, which gives the opening of a reply,")
    return PlannedTask(
        name=_label(spec, task),
        task=task,
        config=spec,
        options=options,
        source=source,
        inputs=source.inputs(num_rows=loaded.sizes["rows"]),
        samples=stratified(loaded.samples, limit, config.draw_seed, partial(first_slice, task)),
        loaded=loaded,
        sampling=_sampling(task, spec, config),
        scorers=scorers,
        panels=panels_of(scorers),
    )


def _label(spec: TaskConfig, task: Task) -> str:
    label = spec.label or getattr(task, "LABEL", None) or plugin_label(spec.name)
    if "/" in label or label.startswith("."):
        raise ConfigError(f"tasks: label {label!r} is a part of a file's name: use letters, digits and _")
    return label


def published_data(task: Task, data_dir: str | None) -> str | None:
    """Return where a task without `data` finds its rows; None: the prompts that ship for every length task.

    Raises:
        ConfigError: `data_dir` is no folder, or lacks the file of a task that has no other data.
    """
    file, hub = getattr(task, "DATA_FILE", None), getattr(task, "HUB", None)
    if data_dir is not None and not Path(data_dir).is_dir():
        raise ConfigError(
            f"data_dir: there is no folder {data_dir!r}: name the one that holds the benchmarks' files"
        )
    if data_dir is not None and file is not None:
        if (Path(data_dir) / file).is_file():
            return str(Path(data_dir) / file)
        if hub is not None:
            raise ConfigError(f"data_dir: {data_dir} has no {file}: put it there, or name the task's data")
        print(f"note: {data_dir} has no {file}; the shipped prompts are taken", file=sys.stderr)
    own = getattr(task, "PROMPTS", None)
    return hub if own is None else str(SHIPPED_PROMPTS.parent / own)


def task_options(reader: Callable[..., Any], given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the values of a task's own options, in the types that `reader`, its `load` or `configured`, declares.

    Raises:
        ConfigError: the task has no such option, its value does not fit, or one is missing.
    """
    declared = inspect.signature(reader).parameters
    known = [key for key in declared if key not in ("source", "draw_seed")]
    hints = get_type_hints(reader)
    missing = [key for key in known if declared[key].default is inspect.Parameter.empty and key not in given]
    if missing:
        raise ConfigError(
            f"tasks: {name} needs {', '.join(missing)}: write {{name: {name}, {missing[0]}: ...}}"
        )
    values = {}
    for key, value in given.items():
        if key not in known:
            own = [f.name for f in fields(TaskConfig)]
            hint = did_you_mean(key, [*own, *known])
            raise ConfigError(
                f"tasks: {name} has no option {key!r}; {hint or 'it has ' + ', '.join([*own, *known])}"
            )
        try:
            values[key] = coerce(value, hints.get(key, Any), lambda _, mapping: mapping)
        except Misfit as misfit:
            raise ConfigError(f"tasks: {name}.{key} is {value!r}, expected {misfit}") from None
    return values


def _sampling(task: Task, spec: TaskConfig, config: EvalConfig) -> Sampling:
    overrides = build_component(SamplingOverrides, {**config.sampling, **spec.sampling}, where="sampling")
    given = {key: value for key, value in vars(overrides).items() if value is not None}
    if "stop" in given:
        given["stop"] = tuple(given["stop"])
    default = getattr(task, "SAMPLING", None)
    if default is None:
        default = Sampling(temperature=task.TEMPERATURE, max_tokens=task.MAX_TOKENS)
    sampling = replace(default, n=config.num_samples, **given)
    if sampling.n > 1 and sampling.temperature == 0:
        raise ConfigError(
            f"num_samples is {sampling.n}, but {spec.name} is greedy, which gives equal replies: "
            "set sampling.temperature, or num_samples to 1"
        )
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        raise ConfigError(f"sampling.max_tokens must be at least 1, not {sampling.max_tokens}")
    return sampling
