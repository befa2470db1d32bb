"""From a config to what will run: tasks, samples and sampling, all checked before a model loads."""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, get_type_hints

from evals.base import Measured, Task, measured
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
from lengthwise.apportion import apportion
from lengthwise.budget import Limits
from lengthwise.config import ConfigError, build_component, did_you_mean, option
from lengthwise.engines import build_engine
from lengthwise.engines.base import Sampling, require
from lengthwise.plugins import load_plugin, plugin_label
from lengthwise.records import Sample
from lengthwise.row_sources import RowSource
from lengthwise.run_dir import InputFile
from lengthwise.value_types import Misfit, coerce


@dataclass(kw_only=True)
class EvalConfig(Limits):
    """Measure a model on length tasks."""

    EXAMPLE: ClassVar[str] = "lengthwise eval --config configs/evals/length_control.yaml --model MODEL"

    name: str = option("eval", help="the run's name; its folder is outputs/eval/<name> by default")
    output_dir: str | None = option(
        None, help="the run's folder, instead of outputs/eval/<name>", operational=True
    )
    model: str = option("", help="hub id, local folder, run folder, or embedded:smollm2-135m")
    adapter: str | None = option(None, help="folder or hub id of a LoRA adapter on the model")
    models: list[Any] = option(
        default_factory=list,
        help="several models in place of model: ids, folders, patterns such as outputs/sft/mine/checkpoint-*, or maps "
        "{model, adapter, name, engine}; each gets a folder of its own, and the limits hold for each",
    )
    aa_run: bool = option(
        False, help="measure each model a second time with the next seed: the difference is noise"
    )
    rescore: str | None = option(
        None, help="take the replies of this finished evaluation, with its settings, and ask no model"
    )
    engine: dict[str, Any] = option(
        default_factory=lambda: {"name": "vllm"},
        help="what generates: {name: vllm, its options}",
        component="lengthwise.engines",
    )
    tasks: list[Any] = option(
        default_factory=list,
        help="task names, or maps {name, data (file, folder, build run or hub id), limit, sampling, label, and the "
        "task's own options}",
    )
    scorers: list[Any] = option(
        default_factory=list,
        help="further measures of every task's replies: names (degeneration, writing_quality, pairwise, yes_no), files "
        "of your own, or maps {name, its options}",
    )
    judges: list[Any] = option(
        default_factory=list,
        help="who judges for the scorers that ask: models, or maps {model, adapter, engine, name, temperature, "
        "max_tokens, max_attempts, timeout_seconds}; of several, each scores and so does their mean",
    )
    data_dir: str | None = option(
        None,
        help="folder with the benchmarks' files under their published names, for tasks that name no data",
    )
    on_bad_row: Literal["raise", "drop"] = option(
        "raise", help="what to do with rows of the data that cannot be used"
    )
    limit: int | None = option(
        None,
        help="samples per task: a seeded draw from each kind of prompt (the task's first slice, such as length bin or "
        "level) in proportion, never the first N; null takes all",
    )
    num_samples: int = option(1, help="completions per prompt; more than 1 needs a temperature above 0")
    seed: int = option(42, help="seed of the sampling; each request's own seed derives from it")
    draw_seed: int = option(
        0, help="seed of what is drawn from the data (subset, tlg's targets): keep it to compare runs"
    )
    sampling: dict[str, Any] = option(
        default_factory=dict,
        help="replaces the tasks' defaults: temperature, top_p, top_k, repetition_penalty, max_tokens, stop",
    )
    max_concurrent_samples: int = option(256, help="samples under way at once (at least 1)", operational=True)
    response_cache: str | None = option(
        None,
        help="folder of greedy answers and judgements that runs share: a call that any of them has made of the same "
        "weights and settings is not made again. It repeats answers that would differ by a batch's rounding, and of a "
        "remote server knows the name and address only",
        operational=True,
    )
    response_cache_max_age_days: float | None = option(
        None,
        help="ask anew what the cache has held for longer; null keeps answers for good",
        operational=True,
    )

    def __post_init__(self) -> None:
        """Refuse numbers below 1 and an empty list of tasks."""
        age = self.response_cache_max_age_days
        if age is not None and age <= 0:
            raise ConfigError(
                f"response_cache_max_age_days is {age:g}: it must be above 0, or null for no limit"
            )
        for name in ("limit", "num_samples", "max_concurrent_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        # The config of a rescored run also names the model whose replies it took.
        given = [name for name in ("model", "models") if getattr(self, name)]
        if len(given) + (self.rescore is not None and not self.model) != 1:
            found = [*given, *(["rescore"] if self.rescore is not None else [])]
            raise ConfigError(
                f"{' and '.join(found) or 'model'} {'are given' if found else 'is missing'}: give one of model, models "
                f"and rescore, for example\n  {self.EXAMPLE}"
            )
        if self.rescore is not None and self.aa_run:
            raise ConfigError("aa_run asks a model twice, and rescore none: leave one of them out")
        if self.models and self.adapter is not None:
            raise ConfigError(
                "adapter is of one model: with models, write {model: ..., adapter: ...} as an entry"
            )
        if self.aa_run and self.response_cache is not None:
            raise ConfigError("aa_run measures what response_cache takes away: leave one of them out")
        if not self.tasks and self.rescore is None:
            raise ConfigError("tasks is empty: name at least one, for example tasks: [longbench_write]")
        super().__post_init__()


@dataclass(kw_only=True)
class SamplingOverrides:
    """What a config may change of a task's sampling; None keeps the task's default."""

    temperature: float | None = option(None, help="0 is greedy")
    top_p: float | None = option(None, help="nucleus, in (0, 1]")
    top_k: int | None = option(None, help="the k likeliest tokens only")
    repetition_penalty: float | None = option(None, help="above 0; 1 is none")
    max_tokens: int | None = option(None, help="cap on new tokens; without it, what is left of the context")
    stop: list[str] | None = option(None, help="strings that end a reply")

    def __post_init__(self) -> None:
        """Refuse values that no sampler has; an engine would fail every call on them, or take them otherwise."""
        allowed: dict[str, tuple[Callable[[float], bool], str]] = {
            "temperature": (lambda value: value >= 0, "at least 0"),
            "top_p": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
            "top_k": (lambda value: value >= -1, "at least -1"),
            "repetition_penalty": (lambda value: value > 0, "above 0"),
        }
        for name, (fits, bounds) in allowed.items():
            value = getattr(self, name)
            if value is not None and not fits(value):
                raise ConfigError(f"{name} is {value}: it must be {bounds}")


@dataclass(kw_only=True)
class TaskConfig:
    """One entry of `tasks`."""

    name: str = option(help="the task: a file of evals/tasks, or the path of your own")
    label: str | None = option(None, help="what it is called in files and tables, where one task runs twice")
    data: str | None = option(
        None,
        help="a file, folder, build run or hub id; null: data_dir's, the task's hub id, or the shipped prompts",
    )
    limit: int | None = option(None, help="samples of this task, instead of the run's limit")
    sampling: dict[str, Any] = option(default_factory=dict, help="sampling of this task, over the run's")
    scorers: list[Any] = option(default_factory=list, help="scorers of this task, beside the run's")


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
        return measured(self.task, *metrics_of(self.scorers, self.panels))


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


def stratified(
    samples: Sequence[Sample], limit: int | None, seed: int, stratum: Callable[[Sample], str]
) -> list[Sample]:
    """Return `limit` samples drawn at random from each stratum, in the order of the source.

    Each stratum gives in proportion to its size, so that a small run shows every kind; the first N of a file that
    is sorted would show one. The draw depends on `seed` and the samples only. None, or a limit of at least all,
    returns all.
    """
    if limit is None or limit >= len(samples):
        return list(samples)
    members: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        members.setdefault(stratum(sample), []).append(index)
    names = sorted(members)
    stream = random.Random(seed)
    shares = apportion(limit, [len(members[name]) for name in names])
    chosen = [
        i for name, share in zip(names, shares, strict=True) for i in stream.sample(members[name], share)
    ]
    return [samples[index] for index in sorted(chosen)]


def first_slice(task: Task, sample: Sample) -> str:
    """Return what a limited run of a task is stratified by: the first kind of its slices, such as the length bin."""
    return next(iter(task.slices(sample).values()), "")
