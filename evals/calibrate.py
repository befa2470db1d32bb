"""Holds a judge against human labels: `lengthwise calibrate FILE --scorer writing_quality --judge MODEL`.

FILE is JSON Lines (or a .json list, or Parquet) with {"prompt", "output", "human": score} a row. The judge scores
each output as it would in an evaluation, its score is put on the human scale, and the two are compared: rank
correlation, Cohen's kappa with quadratic weights on the rounded scores (a near miss counts little), and which
scores stand against which. What the judge could not score is counted and left out, not guessed.

With several people's "ratings": [4, 6, 8] in place of "human", the judge and an individual person are both held
against the other people (`lengthwise.review_metrics`), and where the row has a "decision", their decisions too. Rows
that have a "prediction" need no judge.

With `--output`, calls are kept beside it, so that the same command goes on after an interruption.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from evals.base import Metric, Score
from evals.label_judging import judge_labels
from evals.labels import read_label
from evals.reviews import review_document, review_lines
from evals.scorer_plan import PlannedScorer, plan_judges, plan_scorer
from lengthwise.agreement import cohen_kappa, confusion
from lengthwise.config import ConfigError, config_to_dict, is_dry_run, option, parse_config
from lengthwise.dry_run import check_models
from lengthwise.files import atomic_write
from lengthwise.job import run_main
from lengthwise.length_bias import score_length_correlation
from lengthwise.records import Sample
from lengthwise.row_files import read_rows
from lengthwise.row_sources import find_rows
from lengthwise.rows import accepted, converted
from lengthwise.statistics import Interval
from lengthwise.workflow import run_async


@dataclass(kw_only=True)
class CalibrateConfig:
    """Compare a judge's scores with people's."""

    EXAMPLE: ClassVar[str] = "lengthwise calibrate labels.jsonl --scorer writing_quality --judge MODEL"

    file: str = option(
        help="JSON Lines, a .json list or Parquet: prompt, output, and human (a number) or ratings (several)"
    )
    scorer: str = option("writing_quality", help="how the judge scores: a scorer of single replies")
    scorer_options: dict[str, Any] = option(default_factory=dict, help="the scorer's own options")
    judge: str | None = option(
        None,
        help="hub id, folder, embedded:smollm2-135m, or the served name; null: rows have their prediction",
    )
    judge_options: dict[str, Any] = option(
        default_factory=dict, help="adapter, name, temperature, max_tokens, max_attempts, timeout_seconds"
    )
    engine: dict[str, Any] = option(
        default_factory=lambda: {"name": "vllm"}, help="what runs the judge", component="lengthwise.engines"
    )
    human_least: float = option(
        1.0, help="the least score a person could give; the judge's least is put there"
    )
    human_most: float = option(5.0, help="the greatest score a person could give")
    accept_from: float | None = option(
        None, help="with ratings and decisions: the rating from which on a text counts as accepted"
    )
    seed: int = option(42, help="seed of the judge's calls")
    output: str | None = option(None, help="a new .json file for the results; null writes nothing")
    max_concurrent_samples: int = option(64, help="rows under way at once (at least 1)", operational=True)

    def __post_init__(self) -> None:
        """Refuse an empty scale and an output that is there."""
        if self.human_most - self.human_least < 1:
            raise ConfigError(f"human_most is {self.human_most:g}: it must be 1 or more above human_least")
        if self.accept_from is not None and not self.human_least <= self.accept_from <= self.human_most:
            raise ConfigError(
                f"accept_from is {self.accept_from:g}: it must lie from {self.human_least:g} to {self.human_most:g}"
            )
        if self.output is not None and Path(self.output).exists():
            raise ConfigError(f"output: {self.output} exists and is not overwritten: give another name")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words = ["--file", *words]
    return run_main(_run, words)


def _run(words: Sequence[str]) -> int:
    config = parse_config(CalibrateConfig, words, prog="lengthwise calibrate")
    if is_dry_run(words):
        dry_run(config)
    else:
        calibrate(config)
    return 0


def dry_run(config: CalibrateConfig) -> None:
    """Say what would be asked; nothing is loaded, nothing written.

    Raises:
        ConfigError: whatever would stop the command, as far as it shows without the judge.
    """
    samples = _labelled(config)
    print(f"rows        {len(samples):,} of {config.file}")
    if config.judge is None:
        _stated_scores(config, samples)
        print("judge       none: the rows have their prediction")
    else:
        judge = _planned(config, samples).judge
        assert judge is not None, "refused before"
        check_models([(judge.settings.model, judge.settings.adapter, judge.engine)])
        print(
            f"judge       {judge.settings.model} through {judge.engine.get('name', 'vllm')}, of {len(samples):,} rows"
        )
    print("dry run     nothing was written")


def calibrate(config: CalibrateConfig) -> dict[str, Any]:
    """Ask the judge for every row, print the agreement and return the results.

    Raises:
        ConfigError: a wrong file, scorer or judge, before the judge loads.
    """
    scale = (config.human_least, config.human_most)
    samples = _labelled(config)
    is_judged = config.judge is not None
    metric, scores = _judge_scores(config, samples) if is_judged else _stated_scores(config, samples)
    values = [score.metrics.get(metric.name) for score in scores]
    document = {
        "metric": metric.name,
        **agreement(values, [sample.metadata["human"] for sample in samples], metric, scale),
        "reviews": review_document(
            samples, [_on_human_scale(v, metric, scale) for v in values], config.accept_from
        ),
        "unscored": _reasons(scores, metric),
        "config": config_to_dict(config),
        "rows": [
            {
                "id": sample.id,
                "human": sample.metadata["human"],
                "judge": value,
                "notes": dict(score.notes),
            }
            for sample, value, score in zip(samples, values, scores, strict=True)
        ],
    }
    print(format_agreement(document))
    if config.output is not None:
        atomic_write(Path(config.output), json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return document


def _labelled(config: CalibrateConfig) -> list[Sample]:
    """Return the file's rows; one that cannot be used stops the command."""
    scale = (config.human_least, config.human_most)
    source = find_rows(config.file, field="file")
    rows = converted(
        read_rows(source, field="file"),
        lambda row: read_label(row, scale, is_judged=config.judge is not None),
    )
    return accepted(rows, "raise", data=config.file, field="file")[0]


def _planned(config: CalibrateConfig, samples: Sequence[Sample]) -> PlannedScorer:
    """Return the scorer with its judge.

    Raises:
        ConfigError: it grades no single reply, or rows bring a prediction.
    """
    if any(sample.metadata["prediction"] is not None for sample in samples):
        raise ConfigError(
            "judge: rows of the file have a prediction already: leave the judge out, or the column"
        )
    (judge,) = plan_judges([{"model": config.judge, **config.judge_options}], config.engine)
    (planned,) = plan_scorer({"name": config.scorer, **config.scorer_options}, [judge], [])
    metric = planned.metrics[0]
    if planned.judge is None or metric.length_delta is not None:
        raise ConfigError(
            f"scorer: {config.scorer} gives no grade of a single reply: name writing_quality or yes_no"
        )
    return planned


def _judge_scores(config: CalibrateConfig, samples: Sequence[Sample]) -> tuple[Metric, list[Score]]:
    """Ask the judge for every sample; return its metric and its scores."""
    planned = _planned(config, samples)
    return planned.metrics[0], run_async(
        judge_labels(
            planned,
            samples,
            seed=config.seed,
            output=None if config.output is None else Path(config.output),
            max_concurrent_samples=config.max_concurrent_samples,
        )
    )


def _stated_scores(config: CalibrateConfig, samples: Sequence[Sample]) -> tuple[Metric, list[Score]]:
    """Return the predictions that the rows have; one that is missing or cannot be read is unscored."""
    metric = Metric(name="prediction", counter="-", worst=config.human_least, best=config.human_most)
    found = [sample.metadata["prediction"] for sample in samples]
    if all(value is None for value in found):
        raise ConfigError(
            f"judge: none is named, and no row of {config.file} has a prediction on the human scale: name the judge "
            "(--judge MODEL), or give the rows a prediction"
        )
    missing = Score(metrics={}, unscored={metric.name: "no rating on the scale"})
    return metric, [missing if v is None else Score(metrics={metric.name: v}) for v in found]


def agreement(
    judge: Sequence[float | None], human: Sequence[float], metric: Metric, scale: tuple[float, float]
) -> dict[str, Any]:
    """Return how far a judge's scores and people's agree, over the items that the judge scored.

    A measure that is not defined (one side gave one score only) is None.

    Args:
        judge: scores between the metric's ends; None where there is none.
        human: scores of the same items on `scale`.
        metric: the judge's metric.
        scale: the least and the greatest human score.

    Example:
        >>> metric = Metric(name="q", counter="-", worst=0.0, best=100.0)
        >>> found = agreement([0.0, 50.0, 100.0, None], [1, 3, 5, 2], metric, (1, 5))
        >>> found["n"], found["kappa"]["value"], found["confusion"]["counts"][0]
        (3, 1.0, [1, 0, 0, 0, 0])
    """
    least, most = scale
    placed = [_on_human_scale(ours, metric, scale) for ours in judge]
    pairs = [(ours, theirs) for ours, theirs in zip(placed, human, strict=True) if ours is not None]
    found: dict[str, Any] = {"n": len(pairs), "num_unscored": len(judge) - len(pairs)}
    grades = list(range(_rounded(least), _rounded(most) + 1))
    first, second = [_rounded(ours) for ours, _ in pairs], [_rounded(theirs) for _, theirs in pairs]
    found["kappa"] = found["spearman"] = found["confusion"] = None
    if pairs:
        counts = confusion(first, second, grades)
        found["confusion"] = {"grades": grades, "counts": [[int(n) for n in row] for row in counts]}
    if len({*first, *second}) > 1:
        found["kappa"] = _value(cohen_kappa(first, second, categories=grades, weighting="quadratic"))
    if all(len({pair[side] for pair in pairs}) > 1 for side in (0, 1)):
        # Spearman's of any two lists, whatever the second holds.
        found["spearman"] = _value(score_length_correlation(*map(list, zip(*pairs, strict=True))))
    return found


def format_agreement(document: Mapping[str, Any]) -> str:
    """Return the results as text: measures, then rows of the judge's grades against columns of people's."""
    num = document["n"] + document["num_unscored"]
    lines = [f"{document['metric']} against people, {document['n']} of {num} rows scored"]
    for name, label in (("spearman", "rank correlation"), ("kappa", "kappa, quadratic weights")):
        found = document[name]
        if found is None:
            lines.append(f"{label}: not defined")
            continue
        low, high = ("-" if end is None else f"{end:.3f}" for end in found["ci"])
        lines.append(f"{label}: {found['value']:.3f} [{low}, {high}]")
    if document["unscored"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in document["unscored"].items())
        lines.append(f"unscored: {document['num_unscored'] / num:.1%} ({reasons})")
    if document["confusion"]:
        grades, counts = document["confusion"]["grades"], document["confusion"]["counts"]
        lines.append("judge \\ people " + "".join(f"{grade:>5}" for grade in grades))
        lines += [
            f"{grade:>14} " + "".join(f"{n:>5}" for n in row)
            for grade, row in zip(grades, counts, strict=True)
        ]
    return "\n".join([*lines, *review_lines(document["reviews"])])


def _on_human_scale(value: float | None, metric: Metric, scale: tuple[float, float]) -> float | None:
    """Return a judge's score with the metric's ends put on those of the human scale."""
    assert metric.worst is not None and metric.best is not None
    if value is None:
        return None
    return scale[0] + (scale[1] - scale[0]) * (value - metric.worst) / (metric.best - metric.worst)


def _reasons(scores: Sequence[Score], metric: Metric) -> dict[str, int]:
    left_out = "the scorer leaves the row out"
    missed = [score for score in scores if metric.name not in score.metrics]
    return dict(Counter(score.unscored.get(metric.name, left_out) for score in missed))


def _rounded(value: float) -> int:
    """Round halves up: Python's own rounding would put 2.5 and 1.5 both at 2."""
    return math.floor(value + 0.5)


def _value(interval: Interval) -> dict[str, Any]:
    return {"value": interval.estimate, "ci": [interval.low, interval.high], "n": interval.n}


if __name__ == "__main__":
    raise SystemExit(main())
