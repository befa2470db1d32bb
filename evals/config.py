"""The config of an evaluation: what `lengthwise eval` reads, and the entries of its lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lengthwise.budget import Limits
from lengthwise.config import ConfigError, option


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
