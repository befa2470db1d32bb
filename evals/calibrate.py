"""Holds a judge against human labels: `lengthwise calibrate FILE --scorer writing_quality --judge MODEL`.

FILE is JSON Lines (or a .json list, or Parquet) with {"prompt", "output", "human": score} a row. The judge scores
each output as it would in an evaluation, its score is put on the human scale, and the two are compared: rank
correlation, Cohen's kappa with quadratic weights on the rounded scores (a near miss counts little), and which
scores stand against which. What the judge could not score is counted and left out, not guessed.

With `--output`, calls are kept beside it, so that the same command goes on after an interruption.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from evals.base import Metric, Score
from evals.scorer_plan import PlannedScorer, plan_judges, plan_scorer
from evals.scorers.base import Reply
from lengthwise.agreement import cohen_kappa, confusion
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, config_to_dict, option, parse_config
from lengthwise.engines import started
from lengthwise.job import run_main
from lengthwise.journal import Journal
from lengthwise.judge import Judge
from lengthwise.length_bias import score_length_correlation
from lengthwise.outcomes import Kept, Outcome
from lengthwise.records import Sample, user
from lengthwise.row_files import read_rows
from lengthwise.row_sources import find_rows
from lengthwise.row_values import row_id, shown
from lengthwise.rows import Row, accepted, converted
from lengthwise.run_dir import atomic_write
from lengthwise.statistics import Interval
from lengthwise.workflow import run_async, run_samples


@dataclass(kw_only=True)
class CalibrateConfig:
    """Compare a judge's scores with people's."""

    EXAMPLE: ClassVar[str] = "lengthwise calibrate labels.jsonl --scorer writing_quality --judge MODEL"

    file: str = option(help="JSON Lines, a .json list or Parquet: prompt, output and human (a number)")
    scorer: str = option("writing_quality", help="how the judge scores: a scorer of single replies")
    scorer_options: dict[str, Any] = option(default_factory=dict, help="the scorer's own options")
    judge: str = option(help="the judge: hub id, folder, embedded:smollm2-135m, or the served name")
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
    seed: int = option(42, help="seed of the judge's calls")
    output: str | None = option(None, help="a new .json file for the results; null writes nothing")
    max_concurrent_samples: int = option(64, help="rows under way at once (at least 1)", operational=True)

    def __post_init__(self) -> None:
        """Refuse an empty scale and an output that is there."""
        if self.human_most - self.human_least < 1:
            raise ConfigError(f"human_most is {self.human_most:g}: it must be 1 or more above human_least")
        if self.output is not None and Path(self.output).exists():
            raise ConfigError(f"output: {self.output} exists and is not overwritten: give another name")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words = ["--file", *words]
    return run_main(_run, words)


def _run(words: Sequence[str]) -> int:
    calibrate(parse_config(CalibrateConfig, words, prog="lengthwise calibrate"))
    return 0


def calibrate(config: CalibrateConfig) -> dict[str, Any]:
    """Ask the judge for every row, print the agreement and return the results.

    Raises:
        ConfigError: a wrong file, scorer or judge, before the judge loads.
    """
    source = find_rows(config.file, field="file")
    rows = converted(read_rows(source, field="file"), lambda row: _labelled(row, config))
    samples, _ = accepted(rows, "raise", data=config.file, field="file")
    (judge,) = plan_judges([{"model": config.judge, **config.judge_options}], config.engine)
    (planned,) = plan_scorer({"name": config.scorer, **config.scorer_options}, [judge], [])
    metric = planned.metrics[0]
    if planned.judge is None or metric.length_delta is not None:
        raise ConfigError(
            f"scorer: {config.scorer} gives no grade of a single reply: name writing_quality or yes_no"
        )
    scores = run_async(_judged(config, planned, samples))
    document = {
        "metric": metric.name,
        **agreement(
            [score.metrics.get(metric.name) for score in scores],
            [sample.metadata["human"] for sample in samples],
            metric,
            (config.human_least, config.human_most),
        ),
        "unscored": _reasons(scores, metric),
        "config": config_to_dict(config),
        "rows": [
            {
                "id": sample.id,
                "human": sample.metadata["human"],
                "judge": score.metrics.get(metric.name),
                "notes": dict(score.notes),
            }
            for sample, score in zip(samples, scores, strict=True)
        ],
    }
    print(format_agreement(document))
    if config.output is not None:
        atomic_write(Path(config.output), json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return document


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
    assert metric.worst is not None and metric.best is not None
    least, most = scale
    pairs = [
        (least + (most - least) * (ours - metric.worst) / (metric.best - metric.worst), theirs)
        for ours, theirs in zip(judge, human, strict=True)
        if ours is not None
    ]
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
    return "\n".join(lines)


async def _judged(config: CalibrateConfig, planned: PlannedScorer, samples: Sequence[Sample]) -> list[Score]:
    assert planned.judge is not None
    scores: list[Score] = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lengthwise_"))
        kept = Path(folder) if config.output is None else Path(config.output).parent
        name = "journal.jsonl" if config.output is None else f"{Path(config.output).stem}.journal.jsonl"
        journal = Journal(kept / name)
        stack.callback(journal.close)
        async with started(planned.judge.build()) as engine:

            async def worker(sample: Sample) -> Outcome:
                judge = planned.judge
                assert judge is not None
                caller = Caller(
                    engine=engine,
                    journal=journal,
                    sample_id=sample.id,
                    run_seed=config.seed,
                    role=f"judge:{judge.label}",
                    timeout_seconds=judge.settings.timeout_seconds,
                )
                handle = Judge(id=planned.judge_id, settings=judge.settings, caller=caller)
                return Kept({"score": await planned.scorer.score(planned.config, _reply(sample), handle)})

            def take(sample: Sample, outcome: Outcome) -> None:
                reason = outcome.reason or outcome.end
                unscored = Score(metrics={}, unscored={planned.key: reason})
                scores.append(outcome.record["score"] if isinstance(outcome, Kept) else unscored)

            await run_samples(
                samples,
                worker,
                max_concurrent_samples=config.max_concurrent_samples,
                label=f"judged by {planned.judge.label}",
                on_outcome=take,
            )
    return scores


def _reply(sample: Sample) -> Reply:
    return Reply(
        task="calibration",
        sample=sample,
        prompt=sample.messages,
        index=0,
        text=sample.metadata["output"],
        finish_reason="stop",
        metrics={},
    )


def _labelled(row: Row, config: CalibrateConfig) -> Sample:
    """Return a row as a sample.

    Raises:
        ValueError: saying what is wrong with it.
    """
    values = row.values
    for key in ("prompt", "output"):
        if not isinstance(values.get(key), str):
            raise ValueError(f"{key} is {shown(values.get(key))}, expected a text")
    human: Any = values.get("human")
    is_number = isinstance(human, int | float) and not isinstance(human, bool)
    if not is_number or not config.human_least <= human <= config.human_most:
        raise ValueError(
            f"human is {shown(human)}, expected a number from {config.human_least:g} to {config.human_most:g} "
            "(--human_least and --human_most set the scale)"
        )
    return Sample(
        id=f"{row_id(values.get('id')) or row.place}",
        messages=user(values["prompt"]),
        metadata={"output": values["output"], "human": human},
    )


def _reasons(scores: Sequence[Score], metric: Metric) -> dict[str, int]:
    found: dict[str, int] = {}
    for score in scores:
        if metric.name in score.unscored:
            found[score.unscored[metric.name]] = found.get(score.unscored[metric.name], 0) + 1
    return found


def _rounded(value: float) -> int:
    """Round halves up: Python's own rounding would put 2.5 and 1.5 both at 2."""
    return math.floor(value + 0.5)


def _value(interval: Interval) -> dict[str, Any]:
    return {"value": interval.estimate, "ci": [interval.low, interval.high], "n": interval.n}


if __name__ == "__main__":
    raise SystemExit(main())
