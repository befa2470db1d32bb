"""Reads an evaluation's results and samples (the files are named as lm-eval names them)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lengthwise import lengths
from lengthwise.pooled import Columns, columns_of, pooled_interval
from lengthwise.report.beside import Beside, Published, read_beside, read_published, read_warnings
from lengthwise.report.dropped import DroppedRow, Reason, count_reasons, read_dropped
from lengthwise.report.files import count, mapping, number, read_object, read_rows
from lengthwise.report.outputs import Output, read_output
from lengthwise.report.wording import is_pass_at_k
from lengthwise.result_keys import metric_keys
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
    columns: tuple[str | None, ...] = ()
    """Of an estimate that is made of sums: the rows' metrics that are summed, see `lengthwise.pooled`."""
    worst: float | None = None
    """The estimate if all that is unscored had scored the worst; None if nothing is."""
    best: float | None = None
    beside: Beside = field(default_factory=Beside)


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
    published: list[Published] = field(default_factory=list)
    """What others state for it."""
    rounds: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What is followed over rounds of refinement -> its `rounds` and `stops_after`."""
    parts: dict[str, list[Score]] = field(default_factory=dict)
    """What is followed through a text -> the scores of its parts, in order; they are none of `scores`."""

    @property
    def primary(self) -> str | None:
        """The metric to lead with: S_l where there is one, else the first with a direction that replies have."""
        if "s_l" in self.scores:
            return "s_l"
        directed = [
            m for m, s in self.scores.items() if s.higher_is_better is not None and not is_pass_at_k(m)
        ]
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
    warnings: list[str] = field(default_factory=list)
    """What a reader must know before the numbers, as the evaluation itself says."""

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
        warnings=read_warnings(results),
    )


def _newest_samples(path: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(path.glob("samples_*.jsonl")):
        match = _SAMPLES_FILE.fullmatch(file.name)
        found[match["task"] if match else file.stem.removeprefix("samples_")] = file
    return found


def _read_task(name: str, results: Mapping[str, Any], samples: Path | None, problems: list[str]) -> Task:
    counters = mapping(mapping(results.get("counters")).get(name))
    counter = _word_counter(counters)
    outputs = []
    if samples is None:
        problems.append(f"task {name}: there is no samples file, so its outputs cannot be shown or compared")
    else:
        outputs = [
            read_output(name, i, row, counter, problems)
            for i, row in enumerate(read_rows(samples, problems), start=1)
        ]
    scores = _read_scores(name, results, outputs, counters)
    rounds = mapping(mapping(results.get("rounds")).get(name))
    parts = _taken(scores, mapping(mapping(results.get("parts")).get(name)))
    _taken(
        scores,
        {key: [f"{key}_round_{p['round']}" for p in curve["rounds"]] for key, curve in rounds.items()},
    )
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
        published=read_published(results, name),
        rounds=rounds,
        parts=parts,
    )


def _taken(scores: dict[str, Score], names: Mapping[str, Any]) -> dict[str, list[Score]]:
    """Return the scores of each curve, and take them out of those that stand for themselves."""
    found = {
        key: [scores.pop(metric) for metric in metrics if metric in scores] for key, metrics in names.items()
    }
    return {key: points for key, points in found.items() if points}


def _word_counter(counters: Mapping[str, Any]) -> str:
    """Return the counter of a task's lengths: S_l's, else the first that counts words."""
    named = [str(counters.get("s_l")), *map(str, counters.values())]
    return next((name for name in named if name in lengths.COUNTERS), DEFAULT_COUNTER)


def _read_scores(
    name: str, results: Mapping[str, Any], outputs: list[Output], counters: Mapping[str, Any]
) -> dict[str, Score]:
    stated = mapping(mapping(results.get("results")).get(name))
    better = mapping(mapping(results.get("higher_is_better")).get(name))
    summaries = mapping(mapping(results.get("summaries")).get(name))
    columns = mapping(mapping(results.get("columns")).get(name))
    effective = count(mapping(mapping(results.get("n-samples")).get(name)).get("effective"))
    scores: dict[str, Score] = {}
    for key in metric_keys(stated):
        metric, _, variant = key.rpartition(",")
        shown = metric if variant == "none" else f"{metric} ({variant})"
        low, high = _interval(stated, metric, variant)
        scored = len({o.id for o in outputs if o.metrics.get(metric) is not None})
        bounds = stated.get(f"{metric}_bounds,{variant}")
        worst, best = bounds if isinstance(bounds, list) and len(bounds) == 2 else (None, None)
        direction = better.get(metric, True if is_pass_at_k(metric) else None)
        scores[shown] = Score(
            metric=metric,
            estimate=number(stated[key]),
            low=low,
            high=high,
            n=count(stated.get(f"{metric}_n,{variant}")) or scored or effective,
            counter=str(counters[metric]) if counters.get(metric) else None,
            higher_is_better=direction if isinstance(direction, bool) else None,
            summary=as_summary(summaries.get(metric)),
            columns=tuple(columns.get(metric) or ()),
            worst=number(worst),
            best=number(best),
            beside=read_beside(results, name, metric, stated.get(f"{metric}_mdd,{variant}")),
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


def estimate_of(
    outputs: Iterable[Output], metric: str, summary: Summary, columns: Columns = ()
) -> Interval | None:
    """Return a metric's estimate over outputs as their evaluation would state it; None if none was scored."""
    if columns:
        sums = ((o, columns_of(o.metrics, columns)) for o in outputs)
        return pooled_interval(
            ((o.id, o.cluster, values) for o, values in sums if values is not None), summary
        )
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
            "scored": sum(o.scored for o in outputs),
            "empty": sum(o.empty for o in outputs),
            "truncated": sum(o.truncated for o in outputs),
            "repetitive": sum(o.repetitive for o in outputs),
        }
        accounts = {key: seen.get(key) if value is None else value for key, value in accounts.items()}
    return accounts
