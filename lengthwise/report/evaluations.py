"""Reads an evaluation's results and samples (the files are named as lm-eval names them)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lengthwise import lengths
from lengthwise.degeneration import REPETITIVE_FRAC
from lengthwise.records import LengthTarget
from lengthwise.report.dropped import DroppedRow, Reason, count_reasons, read_dropped
from lengthwise.report.files import count, mapping, number, read_object, read_rows
from lengthwise.statistics import Interval
from lengthwise.summaries import Summary, as_summary, summary_interval

DEFAULT_COUNTER = "cjk_alpha"
ACCOUNTS = ("scored", "empty", "truncated", "repetitive", "failed")
_SAMPLES_FILE = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[^_]*)\.jsonl")


@dataclass(kw_only=True)
class Score:
    """One metric of one task, as the results file states it."""

    metric: str
    estimate: float | None
    low: float | None
    high: float | None
    n: int | None
    counter: str | None
    higher_is_better: bool | None
    summary: Summary = "mean"
    """How items become the estimate."""
    worst: float | None = None
    """The estimate if every prompt that the harness failed on had scored the worst; None if none failed."""
    best: float | None = None


@dataclass(kw_only=True)
class Output:
    """One prompt with what the model wrote and how it scored."""

    task: str
    id: str
    row: int
    """Number of the row in its samples file, from 1."""
    prompt: str
    texts: list[str]
    requested: LengthTarget | None
    length: int | None
    """Length of the first text in the unit of the request."""
    finish_reason: str
    num_tokens: int | None
    words: int | None
    """Length of the first text under the task's counter, whatever unit was asked for."""
    metrics: dict[str, float | None]
    flags: dict[str, Any]
    slices: dict[str, str]
    prompt_hash: str
    summaries: dict[str, str] = field(default_factory=dict)
    """How each metric is summed up, as the row says; the results file of a finished run says it too."""

    @property
    def cluster(self) -> str:
        """What tells outputs that are not independent: the prompt's digest, else the item's id."""
        return self.prompt_hash or self.id

    @property
    def log_ratio(self) -> float | None:
        """Return ln(actual / requested); an empty text counts as half a unit, so that it is farthest."""
        if self.requested is None or self.length is None:
            return None
        return math.log(max(self.length, 0.5) / self.requested.nominal)

    @property
    def truncated(self) -> bool:
        """Whether the text was cut at its cap."""
        return self.finish_reason == "length" or bool(self.flags.get("truncated"))

    @property
    def empty(self) -> bool:
        """Whether nothing but white space came back."""
        return bool(self.flags.get("empty")) or not any(text.strip() for text in self.texts)

    @property
    def repetitive(self) -> bool:
        """Whether the text repeats itself."""
        share = number(self.flags.get("repetition"))
        return bool(self.flags.get("repetitive")) or (share is not None and share >= REPETITIVE_FRAC)

    @property
    def marks(self) -> list[str]:
        """What is wrong with the text, in words that stand beside it."""
        marks = {"cut": self.truncated, "empty": self.empty, "repetitive": self.repetitive}
        return [name for name, is_so in marks.items() if is_so]


@dataclass(kw_only=True)
class Task:
    """One task of an evaluation."""

    name: str
    version: str
    counter: str
    scores: dict[str, Score]
    num_original: int | None
    """Prompts of the source."""
    num_effective: int | None
    """Of them, those that were asked."""
    settings: dict[str, Any]
    """How the task was asked: data, sampling, number of samples."""
    slices: dict[str, dict[str, dict[str, Any]]]
    """Property -> value -> metric -> estimate, where the results file has them."""
    accounts: dict[str, int | None]
    """How many samples were scored, empty, truncated, repetitive, failed; None where nothing says."""
    outputs: list[Output]
    samples_file: Path | None

    @property
    def primary(self) -> str | None:
        """The metric to lead with: S_l where there is one, else the first that has a direction."""
        if "s_l" in self.scores:
            return "s_l"
        directed = [m for m, s in self.scores.items() if s.higher_is_better is not None]
        return (directed or list(self.scores) or [None])[0]


@dataclass(kw_only=True)
class Evaluation:
    """What an evaluation's run folder holds."""

    tasks: dict[str, Task] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    """The results file's `config`: model, engine, sampling, seed."""
    model_identity: str = ""
    seconds: float | None = None
    dropped: list[DroppedRow] = field(default_factory=list)
    """Prompts that the harness could not finish."""

    @property
    def reasons(self) -> list[Reason]:
        """Why it could not."""
        return count_reasons(self.dropped)


def read_evaluation(path: Path, problems: list[str]) -> Evaluation:
    """Read the newest results and samples of a run folder."""
    files = sorted(path.glob("results_*.json"))
    if not files:
        problems.append("there is no results file: scores below are computed from the samples, if any")
    elif len(files) > 1:
        problems.append(f"{len(files)} results files: the newest, {files[-1].name}, is shown")
    results = read_object(files[-1], problems) if files else {}
    sample_files = _newest_samples(path)
    names = list(mapping(results.get("results"))) + [
        t for t in sample_files if t not in results.get("results", {})
    ]
    return Evaluation(
        tasks={name: _read_task(name, results, sample_files.get(name), problems) for name in names},
        settings=mapping(results.get("config")),
        model_identity=str(results.get("model_identity") or ""),
        seconds=number(results.get("total_evaluation_time_seconds")),
        dropped=read_dropped(path / "dropped.jsonl", problems),
    )


def _newest_samples(path: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(path.glob("samples_*.jsonl")):
        match = _SAMPLES_FILE.fullmatch(file.name)
        found[match["task"] if match else file.stem.removeprefix("samples_")] = file
    return found


def _read_task(name: str, results: Mapping[str, Any], samples: Path | None, problems: list[str]) -> Task:
    counters = mapping(mapping(results.get("counters")).get(name))
    counter = str(counters.get("s_l") or next(iter(counters.values()), DEFAULT_COUNTER))
    outputs = []
    if samples is None:
        problems.append(f"task {name}: there is no samples file, so its outputs cannot be shown or compared")
    else:
        outputs = [
            _read_output(name, i, row, counter, problems)
            for i, row in enumerate(read_rows(samples, problems), start=1)
        ]
    scores = _read_scores(name, results, outputs, counters)
    sizes = mapping(mapping(results.get("n-samples")).get(name))
    return Task(
        name=name,
        version=str(mapping(results.get("versions")).get(name, "unknown")),
        counter=counter,
        scores=scores,
        num_original=count(sizes.get("original")),
        num_effective=count(sizes.get("effective")),
        settings={
            **mapping(mapping(results.get("configs")).get(name)),
            **({"items": hashes[name]} if (hashes := mapping(results.get("task_hashes"))).get(name) else {}),
        },
        slices=mapping(mapping(results.get("slices")).get(name)),
        accounts=_read_accounts(name, results, outputs),
        outputs=outputs,
        samples_file=samples,
    )


def _read_scores(
    name: str, results: Mapping[str, Any], outputs: list[Output], counters: Mapping[str, Any]
) -> dict[str, Score]:
    stated = mapping(mapping(results.get("results")).get(name))
    better = mapping(mapping(results.get("higher_is_better")).get(name))
    summaries = mapping(mapping(results.get("summaries")).get(name))
    effective = count(mapping(mapping(results.get("n-samples")).get(name)).get("effective"))
    scores: dict[str, Score] = {}
    for key, value in stated.items():
        metric, comma, variant = key.partition(",")
        if not comma or metric.endswith(("_stderr", "_ci", "_n", "_bounds", "_mdd")):
            continue
        shown = metric if variant == "none" else f"{metric} ({variant})"
        low, high = _interval(stated, metric, variant)
        scored = len({o.id for o in outputs if o.metrics.get(metric) is not None})
        bounds = stated.get(f"{metric}_bounds,{variant}")
        worst, best = bounds if isinstance(bounds, list) and len(bounds) == 2 else (None, None)
        direction = better.get(metric)
        scores[shown] = Score(
            metric=metric,
            estimate=number(value),
            low=low,
            high=high,
            n=count(stated.get(f"{metric}_n,{variant}")) or scored or effective,
            counter=str(counters[metric]) if counters.get(metric) else None,
            higher_is_better=direction if isinstance(direction, bool) else None,
            summary=as_summary(summaries.get(metric)),
            worst=number(worst),
            best=number(best),
        )
    return scores or _scores_of(outputs)


def _interval(stated: Mapping[str, Any], metric: str, variant: str) -> tuple[float | None, float | None]:
    bounds = stated.get(f"{metric}_ci,{variant}")
    if isinstance(bounds, list) and len(bounds) == 2:
        return number(bounds[0]), number(bounds[1])
    estimate, stderr = (
        number(stated.get(f"{metric},{variant}")),
        number(stated.get(f"{metric}_stderr,{variant}")),
    )
    if estimate is None or not stderr:  # no spread, no interval
        return None, None
    return estimate - 1.96 * stderr, estimate + 1.96 * stderr


def _scores_of(outputs: list[Output]) -> dict[str, Score]:
    """Return the estimates of an unfinished run's samples, each summed up as its rows say."""
    scores: dict[str, Score] = {}
    for metric in dict.fromkeys(m for o in outputs for m in o.metrics):
        summary = as_summary(next((s for o in outputs if (s := o.summaries.get(metric))), "mean"))
        found = estimate_of(outputs, metric, summary)
        if found is not None:
            scores[metric] = Score(
                metric=metric,
                estimate=found.estimate,
                low=found.low,
                high=found.high,
                n=found.n,
                counter=None,
                higher_is_better=True if metric == "s_l" else None,
                summary=summary,
            )
    return scores


def estimate_of(outputs: Iterable[Output], metric: str, summary: Summary) -> Interval | None:
    """Return a metric's estimate over outputs as their evaluation would state it; None if none was scored."""
    return summary_interval(
        ((o.id, o.cluster, value) for o in outputs if (value := o.metrics.get(metric)) is not None),
        summary,
    )


def _read_accounts(name: str, results: Mapping[str, Any], outputs: list[Output]) -> dict[str, int | None]:
    stated: dict[str, Any] = {}
    for key in ("n-scored", "counts"):
        stated.update(mapping(mapping(results.get(key)).get(name)))
    accounts = {key: count(stated.get(key)) for key in ACCOUNTS}
    if count(stated.get("truncated_unknown")):
        accounts["end unknown"] = count(stated.get("truncated_unknown"))
    if outputs:
        seen = {
            "scored": sum(1 for o in outputs if any(v is not None for v in o.metrics.values())),
            "empty": sum(o.empty for o in outputs),
            "truncated": sum(o.truncated for o in outputs),
            "repetitive": sum(o.repetitive for o in outputs),
        }
        accounts = {key: seen.get(key) if value is None else value for key, value in accounts.items()}
    return accounts


def _read_output(task: str, index: int, row: dict[str, Any], counter: str, problems: list[str]) -> Output:
    doc = mapping(row.get("doc"))
    texts = [_as_text(t) for t in _flat(row.get("resps"))] or [""]
    counts, num_tokens = mapping(row.get("counts")), count(row.get("num_tokens"))
    words = count(counts.get(counter))
    if words is None and counter in lengths.COUNTERS:
        words = lengths.COUNTERS[counter](texts[0])
    requested = _target(row.get("requested"), index, task, problems)
    length = words
    if requested is not None and requested.unit != "words":
        length = count(counts.get("tokens", num_tokens)) if requested.unit == "tokens" else len(texts[0])
    return Output(
        task=task,
        id=str(row.get("id") if row.get("id") is not None else row.get("doc_id", index)),
        row=index,
        prompt=_as_text(doc["prompt"]) if doc.get("prompt") else _last_message(row.get("arguments")),
        texts=texts,
        requested=requested,
        length=length,
        finish_reason=str(row.get("finish_reason") or "unknown"),
        num_tokens=num_tokens,
        words=words,
        metrics={str(k): number(v) for k, v in mapping(row.get("metrics")).items()},
        flags=mapping(row.get("flags")),
        slices={str(k): str(v) for k, v in mapping(row.get("slices")).items()},
        prompt_hash=str(row.get("prompt_hash") or ""),
        summaries={str(k): str(v) for k, v in mapping(row.get("summaries")).items()},
    )


def _target(value: Any, index: int, task: str, problems: list[str]) -> LengthTarget | None:
    if not isinstance(value, dict):
        return None
    try:
        return LengthTarget.from_dict(value)
    except (TypeError, ValueError) as error:
        problems.append(f"task {task}, row {index}: the requested length is not understood ({error})")
        return None


def _flat(value: Any) -> list[Any]:
    """Return replies as one list; lm-eval nests them one deeper."""
    if not isinstance(value, list):
        return [] if value is None else [value]
    return [item for entry in value for item in (entry if isinstance(entry, list) else [entry])]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _last_message(arguments: Any) -> str:
    for message in reversed(_flat(arguments)):
        if isinstance(message, dict) and message.get("role") == "user":
            return _as_text(message.get("content"))
        if isinstance(message, str):
            return message
    return ""
