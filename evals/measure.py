"""Measures one model on the tasks of a plan: it writes, pure functions score, judges judge, and all is written out.

Every call goes through the run's journal, so that a killed run resumes without repeating one. What a model wrote
is on disk before the first judge is asked: a scorer that fails costs no generation.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

from evals.base import score_completion
from evals.guards import ModelCheck, check_model
from evals.judging import JudgeUse, Stage, add_scores
from evals.overlap import OverlapCheck, check_overlap, prompts_of
from evals.plan import EvalConfig, PlannedTask
from evals.published import differences, published, run_settings
from evals.replies import Replies, SavedReplies, ask
from evals.results import Tally, format_table, results_document, summarise, warnings_of
from evals.scorer_plan import judges_as_served
from evals.sources import doc_of, identity_hashes
from lengthwise.budget import LimitReached, Meter
from lengthwise.caller import Caller
from lengthwise.config import config_to_dict
from lengthwise.engines import open_engine
from lengthwise.engines.base import Engine, ShowsModel
from lengthwise.journal import Journal, SavedCalls
from lengthwise.outcomes import Counts, Failed, Kept, Outcome
from lengthwise.plugins import plugin_label
from lengthwise.records import Completion, Prompt, Sample, digest
from lengthwise.response_cache import ResponseCache, open_cache
from lengthwise.rows import BadRow
from lengthwise.run_dir import RunDir, atomic_write
from lengthwise.workflow import run_async, run_samples


@dataclass(kw_only=True)
class Measurement:
    """One model's evaluation under way."""

    config: EvalConfig
    plan: Sequence[PlannedTask]
    run: RunDir
    journal: Journal
    meter: Meter
    cache: ResponseCache | None
    started: float = field(default_factory=time.monotonic)
    model_identity: str = ""
    model_check: ModelCheck | None = None
    overlap: OverlapCheck | None = None
    """What of the tasks' prompts the model was trained on; None where its files are not here."""
    generation_seconds: float = 0.0
    """Time the tasks took, without the start of the engine."""
    judges: dict[str, JudgeUse] = field(default_factory=dict)
    """What the judges did, by label."""

    def samples_file(self, planned: PlannedTask) -> Path:
        """Return where a task's rows go."""
        return self.run.file(f"samples_{planned.name}_{self.stamp}.jsonl")

    @property
    def guard_warnings(self) -> list[str]:
        """What the looks before the first reply found."""
        return list(dict.fromkeys(w for check in self._checks for w in check.warnings))

    @property
    def guard_notes(self) -> list[str]:
        """What they could not look at."""
        return list(dict.fromkeys(note for check in self._checks for note in check.unchecked))

    @property
    def _checks(self) -> list[ModelCheck | OverlapCheck]:
        return [check for check in (self.model_check, self.overlap) if check is not None]

    @property
    def stamp(self) -> str:
        """When the run was first started: a resumed run writes the same files."""
        return self.run.created[:19].replace(":", "-")


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
    _finish(measurement)


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
        await _generate_tasks(m, SavedReplies(saved))
        return
    async with open_engine(m.config.engine, m.config.model, m.config.adapter) as engine:
        m.model_identity = engine.weights_identity()
        await _look_first(m, engine)
        await _generate_tasks(m, _asking(engine, m))


async def _look_first(m: Measurement, engine: Engine) -> None:
    """Look for what would spoil the scores without an error; it is said now, and stands beside them at the end."""
    asked = [planned for planned in m.plan if planned.samples]
    m.model_check = check_model(engine, {p.name: p.task.prompt(p.samples[0]) for p in asked})
    if isinstance(engine, ShowsModel):
        prompts = {p.name: prompts_of(p.task, p.samples) for p in asked}
        m.overlap = await asyncio.to_thread(check_overlap, prompts, engine.model_ref)
    for warning in m.guard_warnings:
        print(f"WARNING: {warning}", file=sys.stderr)
    for note in m.guard_notes:
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
        files = _Files(planned, rows, dropped, counts)
        for bad in planned.loaded.bad_rows:
            files.write_bad_row(bad)

        async def worker(sample: Sample) -> Outcome:
            outcome = await answer(sample, planned, replies, number[sample.id])
            found = m.overlap and m.overlap.tasks.get(planned.name)
            if found and isinstance(outcome, Kept):
                for row in outcome.record["rows"]:
                    row["slices"]["overlap"] = found.slice_of(sample.id)
            return outcome

        await run_samples(
            planned.samples,
            worker,
            max_concurrent_samples=m.config.max_concurrent_samples,
            label=planned.name,
            on_outcome=files.write,
            meter=m.meter,
        )


async def answer(sample: Sample, planned: PlannedTask, replies: Replies, doc_id: int) -> Outcome:
    """Get one sample's completions and score them."""
    prompt = planned.task.prompt(sample)
    completions = await replies(sample, planned, prompt)
    if isinstance(completions, Failed):
        return completions
    doc = doc_of(sample)
    base = {
        "doc_id": doc_id,  # lm-eval's key: the place among the samples drawn
        "id": sample.id,
        "doc": doc,
        "target": sample.target,
        "arguments": [message.to_dict() for message in prompt],
        "summaries": {metric.name: metric.summary for metric in planned.measured.METRICS},
        **identity_hashes(doc, prompt, [sample.target, sample.length and sample.length.to_dict()]),
    }
    rows = [partial(_row, base, sample, planned, index, reply) for index, reply in enumerate(completions)]
    # In a thread: long texts and hard answers would stall the event loop.
    return Kept({"rows": await asyncio.to_thread(lambda: [row() for row in rows])})


def _row(
    base: Mapping[str, Any], sample: Sample, planned: PlannedTask, index: int, completion: Completion
) -> dict[str, Any]:
    scored = score_completion(
        planned.task,
        sample,
        completion.text,
        completion.finish_reason,
        completion.num_tokens,
        completion.num_reasoning_tokens,
    )
    thinking = {} if completion.reasoning is None else {"reasoning": completion.reasoning}
    return {**base, "completion_index": index, "resps": [completion.text], **thinking, **scored}


@dataclass(frozen=True, slots=True)
class _Files:
    """Where a task's rows and its dropped prompts go, in the order of the source."""

    planned: PlannedTask
    rows: IO[str]
    dropped: IO[str]
    counts: Counts

    def write_bad_row(self, bad: BadRow) -> None:
        """Write a row of the task's data that could not be used, and count it."""
        self.planned.num_bad_rows += 1
        write_line(self.dropped, {**bad.to_dict(), "task": self.planned.name})

    def write(self, sample: Sample, outcome: Outcome) -> None:
        """Write what a prompt gave, and count it."""
        self.counts.add(outcome.end, outcome.reason)
        if isinstance(outcome, Kept):
            for row in outcome.record["rows"]:
                write_line(self.rows, row)
            return
        self.planned.num_failed += 1
        entry = {
            "id": sample.id,
            "task": self.planned.name,
            "outcome": outcome.end,
            "reason": outcome.reason,
        }
        write_line(self.dropped, {**entry, **outcome.record, "doc": doc_of(sample)})


def write_line(file: IO[str], row: Mapping[str, Any]) -> None:
    """Write one row, at once: a reader of an unfinished run sees all that has ended."""
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    file.flush()


def _finish(m: Measurement) -> None:
    """Sum up the rows, write results and manifest, print the table."""
    summaries = {planned.name: summarise(planned.measured, _tally(m, planned)) for planned in m.plan}
    results = m.run.file(f"results_{m.stamp}.json")
    document = _document(m, summaries)
    atomic_write(results, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    num_scored = sum(summary["counts"]["scored"] for summary in summaries.values())
    cost = m.meter.cost_dict(num_scored)
    config = m.config
    read = (config.model, config.adapter, config.rescore, *(p.source.run_folder for p in m.plan))
    m.run.finish(
        seed=config.seed,
        inputs={item.path: item for planned in m.plan for item in planned.inputs}.values(),
        outputs=[results, *map(m.samples_file, m.plan), m.run.file("dropped.jsonl")],
        parents=dict.fromkeys(
            Path(spec) for spec in read if spec is not None and (Path(spec) / "manifest.json").is_file()
        ),
        counts={name: summary["counts"] for name, summary in summaries.items()},
        usage=m.meter.to_dict(),
        extra={
            "model": {"name": config.model, "adapter": config.adapter, "identity": m.model_identity},
            **({} if cost is None else {"cost": cost}),
        },
    )
    print(format_table({p.name: p.measured for p in m.plan}, summaries))
    print(f"{m.run.path}: {m.meter.summary(num_scored, 'scored reply')}")
    for label, use in m.judges.items():
        told = f"{use.num_calls:,} calls, replayed ones included, {use.completion_tokens:,} generated tokens"
        print(f"judge {label}: {told}")
    for warning in document["warnings"]:
        print(f"WARNING: {warning}", file=sys.stderr)


def _tally(m: Measurement, planned: PlannedTask) -> Tally:
    """Return what the summary needs of a task's rows, read back from the file that readers will get."""
    tally = Tally(num_failed=planned.num_failed, num_bad_rows=planned.num_bad_rows)
    with open(m.samples_file(planned), encoding="utf-8") as rows:
        for line in rows:
            tally.add(json.loads(line))
    return tally


def _document(m: Measurement, summaries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole results file."""
    document = {
        **results_document({planned.name: planned.measured for planned in m.plan}, summaries),
        "warnings": [*m.guard_warnings, *warnings_of(summaries)],
        "guards": None if m.model_check is None else m.model_check.to_dict(),
        "overlap": None if m.overlap is None else m.overlap.to_dict(),
        "n-samples": {p.name: {**p.loaded.sizes, "effective": len(p.samples)} for p in m.plan},
        "n-shot": {p.name: getattr(p.task, "NUM_FEWSHOT", 0) for p in m.plan},
        "configs": {
            p.name: {
                "task": p.config.name,
                "data": p.source.name,
                "options": p.options,
                "scorers": [*m.config.scorers, *p.config.scorers],
                "generation_kwargs": p.sampling.to_dict(),
                "num_samples": m.config.num_samples,
                "draw_seed": m.config.draw_seed,
            }
            for p in m.plan
        },
        "task_hashes": {p.name: digest([[s.id, doc_of(s)] for s in p.samples]) for p in m.plan},
        "judges": {label: asdict(use) for label, use in m.judges.items()},
        "config": config_to_dict(m.config),
        "model_identity": m.model_identity,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "generation_time_seconds": m.generation_seconds,
        "total_evaluation_time_seconds": time.monotonic() - m.started,
    }
    return document | {"published": {p.name: _published(p, document) for p in m.plan}}


def _published(planned: PlannedTask, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what papers print for a task, each row with the settings in which this run departs from it."""
    settings = run_settings(planned.task, document, planned.name)
    return [
        {
            "model": row.model,
            "metrics": dict(row.metrics),
            "source": row.source,
            "confidence": row.confidence,
            "differs": differences(row, settings),
        }
        for row in published(plugin_label(planned.config.name))
    ]
