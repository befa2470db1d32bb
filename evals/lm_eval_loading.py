"""Finds a task of lm-eval, refuses what cannot be measured here, and reads its metrics and its sampling."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from evals.base import Metric
from lengthwise.config import ConfigError, did_you_mean
from lengthwise.engines.base import Sampling

FEWSHOT_SEED = 1234
"""lm-eval's default, so that the examples are those of its own runs."""

ZERO_OR_ONE = ("acc", "acc_norm", "acc_bytes", "exact_match")
"""Metrics that lm-eval's own scoring gives as 0 or 1 for a document."""

_log = logging.getLogger(__name__)


@lru_cache(maxsize=4)
def _manager(include_path: str | None, include_defaults: bool) -> Any:
    """Return lm-eval's index of tasks; to read the 14,000 files of its own takes seconds."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ConfigError(f"tasks: lm_eval needs lm-eval ({error}): `pip install -e .[lm-eval]`") from error
    if include_path is not None and not Path(include_path).is_dir():
        raise ConfigError(f"tasks: lm_eval.include_path: there is no folder {include_path!r}")
    return TaskManager(include_path=include_path, include_defaults=include_defaults)


def load_task(name: str, include_path: str | None) -> Any:
    """Return lm-eval's task of a name, its data read."""
    manager = _manager(include_path, include_path is None)
    if name not in manager.all_tasks:
        manager = _manager(include_path, True)
    groups = {*manager.all_groups, *manager.all_tags}
    if name in groups:
        members = ", ".join(_members(manager, name))
        raise ConfigError(
            f"tasks: lm-eval's {name!r} is a group: give each member an entry of its own. They are {members}"
        )
    if name not in manager.all_subtasks:
        hint = did_you_mean(name, manager.all_subtasks)
        raise ConfigError(f"tasks: lm-eval has no task {name!r}; {hint or '`lm_eval ls tasks` lists them'}")
    from datasets.exceptions import DatasetsError

    try:
        (task,) = manager.load([name])["tasks"].values()
    except ImportError as error:
        raise ConfigError(f"tasks: lm-eval's {name!r} needs a package: {error}") from error
    except (OSError, DatasetsError) as error:
        raise ConfigError(
            f"tasks: the data of lm-eval's {name!r} are not to be had: {error}. Without a network, point its YAML "
            "to a local file (dataset_path: json, dataset_kwargs: {data_files: ...}) and name its folder as "
            "include_path"
        ) from error
    return task


def _members(manager: Any, group: str) -> list[str]:
    """Return the names that a group or a tag holds, without loading them."""
    entry = manager.task_index[group]
    members = (entry.cfg or {}).get("task", []) if group in manager.all_groups else entry.tags
    named = [
        member.get("task") or member.get("group") if isinstance(member, dict) else member
        for member in members
    ]
    return sorted(str(name) for name in named)


def refuse_unfit(task: Any, name: str) -> None:
    """Refuse what would be measured wrongly, or is no matter for us."""
    repeats = task.config.repeats
    reasons = {
        "executes what the model writes, inside this process: use lm-eval in a sandbox": getattr(
            task, "UNSAFE_CODE", False
        ),
        "shows pictures or plays sound": getattr(task, "MULTIMODAL", False),
        "measures the perplexity of whole documents, which a chat has none of": (
            task.OUTPUT_TYPE == "loglikelihood_rolling"
        ),
        f"asks each question {repeats} times and votes: set repeats: 1 in its YAML, and num_samples here": repeats
        > 1,
        "compares likelihoods with those without a prompt (acc_mutual_info), which a chat has none of": (
            "acc_mutual_info" in task.aggregation()
        ),
        "is written in Python in a way of its own, without lm-eval's filters": not hasattr(task, "_filters"),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ConfigError(f"tasks: lm-eval's {name!r} {reason}")


def set_fewshot(task: Any, name: str, wanted: int | None) -> int:
    """Set the number of examples as lm-eval does, and return it."""
    own = task.get_config("num_fewshot")
    if wanted is not None and wanted < 0:
        raise ConfigError(f"tasks: {name}.num_fewshot is {wanted}: it must be at least 0")
    if wanted and own == 0:
        raise ConfigError(
            f"tasks: lm-eval's {name!r} is made for num_fewshot 0, and lm-eval ignores {wanted}"
        )
    number = int(own or 0) if wanted is None else wanted
    task.set_config(key="num_fewshot", value=number)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    return number


def read_metrics(task: Any, name: str) -> tuple[Metric, ...]:
    """Return the task's metrics that are a mean over documents; name the others."""
    from lm_eval.api.metrics import mean, nanmean

    aggregations, better = task.aggregation(), task.higher_is_better()
    taken = [metric for metric, function in aggregations.items() if function in (mean, nanmean)]
    left_out = sorted(set(aggregations) - set(taken))
    if not taken:
        raise ConfigError(
            f"tasks: no metric of lm-eval's {name!r} is a mean over documents: it has {', '.join(left_out)}"
        )
    if left_out:
        _log.warning(
            "%s: %s of lm-eval are no means over documents and are left out", name, ", ".join(left_out)
        )
    is_plain = task.config.process_results is None
    return tuple(
        Metric(
            name=metric_name(task, metric, ensemble.name),
            counter="none",
            higher_is_better=bool(better.get(metric, True)),
            summary="proportion" if is_plain and metric in ZERO_OR_ONE else "mean",
        )
        for ensemble in task._filters
        for metric in taken
    )


def metric_name(task: Any, metric: str, filter_name: str) -> str:
    """Return a metric's name; where a task filters replies in several ways, the filter is a part of it."""
    return metric if len(task._filters) == 1 else f"{metric}_{filter_name}"


def read_sampling(kwargs: Mapping[str, Any], name: str) -> Sampling:
    """Return how a task's replies are sampled, by its `generation_kwargs`; lm-eval's default cap is 256 tokens.

    What says nothing of sampling is greedy, as lm-eval documents; its vLLM model would sample at temperature 1.
    """
    from lm_eval.models.utils import normalize_gen_kwargs

    given: dict[str, Any] = dict(normalize_gen_kwargs(dict(kwargs)))
    until = given.pop("until", None) or []
    taken: dict[str, Any] = {
        key: given.pop(key) for key in ("top_p", "top_k", "repetition_penalty") if key in given
    }
    sampling = Sampling(
        temperature=float(given.pop("temperature", 1.0 if given.get("do_sample") else 0.0)),
        max_tokens=int(given.pop("max_gen_toks")),
        stop=tuple(text for text in ([until] if isinstance(until, str) else until) if text),
        **taken,
    )
    ignored = sorted(set(given) - {"do_sample"})
    if ignored:
        _log.warning(
            "%s: generation_kwargs %s of lm-eval's task have no effect here", name, ", ".join(ignored)
        )
    return sampling
