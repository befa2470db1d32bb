"""Asks a judge for its scores of labelled outputs, as it would score them in an evaluation."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from evals.base import Score
from evals.scorer_plan import PlannedScorer
from evals.scorers.base import Reply
from lengthwise.caller import Caller
from lengthwise.engines import started
from lengthwise.journal import Journal
from lengthwise.judge import Judge
from lengthwise.outcomes import Kept, Outcome
from lengthwise.records import Sample
from lengthwise.workflow import run_samples


async def judge_labels(
    planned: PlannedScorer,
    samples: Sequence[Sample],
    *,
    seed: int,
    output: Path | None,
    max_concurrent_samples: int,
) -> list[Score]:
    """Return what a scorer's judge says of each labelled output, in their order; what failed is unscored.

    Args:
        planned: the scorer, with its judge.
        samples: from `evals.labels.read_label`.
        seed: of the judge's calls.
        output: the results' file: calls are kept beside it, so that they are not asked again; None keeps none.
        max_concurrent_samples: outputs under way at once.
    """
    assert planned.judge is not None
    scores: list[Score] = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lengthwise_"))
        name = "journal.jsonl" if output is None else f"{output.stem}.journal.jsonl"
        journal = Journal((Path(folder) if output is None else output.parent) / name)
        stack.callback(journal.close)
        async with started(planned.judge.build()) as engine:

            async def worker(sample: Sample) -> Outcome:
                judge = planned.judge
                assert judge is not None
                caller = Caller(
                    engine=engine,
                    journal=journal,
                    sample_id=sample.id,
                    run_seed=seed,
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
                max_concurrent_samples=max_concurrent_samples,
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
