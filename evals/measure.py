"""Measures one model on the tasks of a plan: it writes, pure functions score, judges judge, and all is written out.

Every call goes through the run's journal, so that a killed run resumes without repeating one. What a model wrote
is on disk before the first judge is asked: a scorer that fails costs no generation.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from evals.config import EvalConfig
from evals.first_look import FirstLook, look_first, saved_look
from evals.judging import Stage, add_scores
from evals.measurement import Measurement, finish
from evals.plan import PlannedTask
from evals.replies import Replies, SavedReplies, ask
from evals.scorer_plan import judges_as_served
from evals.task_rows import TaskFiles, answer
from lengthwise.budget import LimitReached, Meter
from lengthwise.caller import Caller
from lengthwise.engines import open_engine
from lengthwise.engines.base import Engine
from lengthwise.journal import Journal, SavedCalls
from lengthwise.outcomes import Counts, Failed, Kept, Outcome
from lengthwise.records import Completion, Prompt, Sample
from lengthwise.response_cache import open_cache
from lengthwise.run_dir import RunDir
from lengthwise.workflow import run_async, run_samples


def measure(config: EvalConfig, plan: Sequence[PlannedTask], run: RunDir) -> None:
    """Generate, score, judge and write everything of a run, then print its table.

    Raises:
        LimitReached: saying how far the run got.
        EngineError: the engine is gone, or every prompt failed.
    """
    for stale in [*run.path.glob("samples_*.jsonl"), *run.path.glob("results_*.json")]:
        stale.unlink()  # of an unfinished run; the journal has every reply
    journal = Journal(run.file("journal.jsonl"), _earlier_verdicts(config))
    measurement = Measurement(
        config=config,
        plan=plan,
        run=run,
        journal=journal,
        meter=Meter(
            usage=journal.usage,
            num_calls=journal.num_calls,
            num_cached_calls=journal.num_cached_calls,
            limits=config,
        ),
        cache=open_cache(config.response_cache, config.response_cache_max_age_days),
    )
    try:
        run_async(_generate_and_score(measurement))
    finally:
        journal.close()
    finish(measurement)


def _earlier_verdicts(config: EvalConfig) -> SavedCalls | None:
    """Return the calls of the rescored run: what the same judges said of its replies need not be asked again."""
    if config.rescore is None:
        return None
    before = RunDir.load(config.rescore).config
    theirs = judges_as_served(before.get("judges", []), before["engine"])
    ours = judges_as_served(config.judges, config.engine)
    if any(theirs.get(label, served) != served for label, served in ours.items()):
        return None  # a judge behind another server, or served otherwise, is another judge
    return SavedCalls(Path(config.rescore) / "journal.jsonl")


async def _generate_and_score(m: Measurement) -> None:
    """Run both stages: the model's, then, with its engine closed, that of the scorers and judges."""
    await _generate_all(m)
    stage = Stage(config=m.config, journal=m.journal, meter=m.meter, cache=m.cache)
    m.judges = await add_scores(stage, m.plan, m.samples_file)


async def _generate_all(m: Measurement) -> None:
    """Write every task's samples file, and dropped.jsonl, from a model's replies or from saved ones."""
    if m.config.rescore is not None:
        saved = Path(m.config.rescore)
        m.model_identity = RunDir.load(saved).manifest["model"]["identity"]
        m.first_look = saved_look(saved)
        await _generate_tasks(m, SavedReplies(saved))
        return
    async with open_engine(m.config.engine, m.config.model, m.config.adapter) as engine:
        m.model_identity = engine.weights_identity()
        m.first_look = await look_first(engine, m.plan)
        _tell(m.first_look)
        await _generate_tasks(m, _asking(engine, m))


def _tell(look: FirstLook) -> None:
    for warning in look.warnings:
        print(f"WARNING: {warning}", file=sys.stderr)
    for note in look.notes:
        print(f"not checked: {note}", file=sys.stderr)


async def _generate_tasks(m: Measurement, replies: Replies) -> None:
    counts, began = Counts(), time.monotonic()
    with open(m.run.file("dropped.jsonl"), "w", encoding="utf-8") as dropped:
        for planned in m.plan:
            try:
                await _generate(planned, m, replies, dropped, counts)
            except LimitReached as limit:
                limit.how_far = counts.how_far(sum(len(p.samples) for p in m.plan))
                raise
    m.generation_seconds = time.monotonic() - began
    counts.refuse_total_failure()


def _asking(engine: Engine, m: Measurement) -> Replies:
    """Return what asks the run's own model."""

    async def replies(sample: Sample, planned: PlannedTask, prompt: Prompt) -> list[Completion] | Failed:
        caller = Caller(
            engine=engine,
            journal=m.journal,
            sample_id=f"{planned.name}/{sample.id}",
            run_seed=m.config.seed,
            meter=m.meter,
            cache=m.cache,
        )
        return await ask(sample, planned, prompt, caller)

    return replies


async def _generate(
    planned: PlannedTask, m: Measurement, replies: Replies, dropped: IO[str], counts: Counts
) -> None:
    """Write one task's rows, in the order of its samples."""
    number = {sample.id: index for index, sample in enumerate(planned.samples)}
    with open(m.samples_file(planned), "w", encoding="utf-8") as rows:
        files = TaskFiles(planned, rows, dropped, counts)
        for bad in planned.loaded.bad_rows:
            files.write_bad_row(bad)

        async def worker(sample: Sample) -> Outcome:
            outcome = await answer(sample, planned, replies, number[sample.id])
            if isinstance(outcome, Kept):
                for row in outcome.record["rows"]:
                    row["slices"] |= m.first_look.slices(planned.name, sample.id)
            return outcome

        await run_samples(
            planned.samples,
            worker,
            max_concurrent_samples=m.config.max_concurrent_samples,
            label=planned.name,
            on_outcome=files.write,
            meter=m.meter,
        )
