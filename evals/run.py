"""Measures a model on length tasks: `lengthwise eval --config F`, or `python evals/run.py --config F`.

First the model writes (every call goes through the run's journal, so a killed run resumes without repeating
one), then pure functions score what it wrote.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from evals.base import score_completion
from evals.plan import EvalConfig, PlannedTask, plan_tasks
from evals.results import format_table, results_document, summarise, warnings_of
from evals.sources import doc_of, identity_hashes
from lengthwise.budget import LimitReached, Meter
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, config_to_dict, is_dry_run, parse_config
from lengthwise.dry_run import LOCAL_ENGINES, asked_words, check_models, run_line
from lengthwise.engines import build_engine, open_engine
from lengthwise.engines.base import Engine
from lengthwise.job import run_main
from lengthwise.journal import Journal
from lengthwise.models import resolve_model
from lengthwise.outcomes import Counts, Failed, Kept, Outcome
from lengthwise.records import Sample, digest
from lengthwise.rows import BadRow
from lengthwise.run_dir import RunDir, atomic_write, run_folder
from lengthwise.workflow import run_async, run_samples


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return run_main(_run, argv)


def _run(argv: Sequence[str] | None) -> int:
    config = parse_config(EvalConfig, argv, prog="lengthwise eval")
    if is_dry_run(argv):
        dry_run(config)
    else:
        evaluate(config)
    return 0


def dry_run(config: EvalConfig) -> None:
    """Say what the evaluation would ask; nothing is loaded, nothing written.

    Raises:
        ConfigError: whatever would stop the run, as far as it shows without the model.
    """
    plan = plan_tasks(config)
    build_engine(config.engine, config.model, config.adapter)
    check_models([(config.model, config.adapter, config.engine)])
    run = RunDir.check("eval", run_folder("eval", config.name, config.output_dir), config)
    print(run_line(run))
    adapter = f"+{config.adapter}" if config.adapter else ""
    print(f"model       {config.model}{adapter} through {config.engine.get('name', 'vllm')}")
    for planned in plan:
        sampling = planned.sampling
        cap = "the rest of the context" if sampling.max_tokens is None else f"{sampling.max_tokens:,} tokens"
        print(
            f"task        {planned.name}: {len(planned.samples):,} of {planned.loaded.sizes['original']:,} prompts, "
            f"{sampling.n} completion{'s' if sampling.n > 1 else ''} each, of at most {cap}; "
            f"{asked_words(planned.samples)}"
        )
    print(f"calls       {sum(len(planned.samples) for planned in plan):,}\ndry run     nothing was written")


def evaluate(config: EvalConfig) -> RunDir:
    """Run every task of `config`, print the table and return the finished run.

    Raises:
        ConfigError: for wrong tasks, data or sampling, before the model is loaded.
    """
    started = time.monotonic()
    plan = plan_tasks(config)
    check_model(config)
    run = RunDir.open_for("eval", run_folder("eval", config.name, config.output_dir), config)
    try:
        _measure(config, plan, run, started)
    finally:
        run.close()
    return run


def _measure(config: EvalConfig, plan: Sequence[PlannedTask], run: RunDir, started: float) -> None:
    """Generate, score and write everything of a run."""
    stamp = run.created[:19].replace(":", "-")  # of the first start: a resumed run writes the same files
    for stale in [*run.path.glob("samples_*.jsonl"), *run.path.glob("results_*.json")]:
        stale.unlink()  # of an unfinished run; the journal has every reply
    journal = Journal(run.file("journal.jsonl"))
    meter = Meter(usage=journal.usage, num_calls=journal.num_calls, limits=config)
    try:
        identity = run_async(_generate_all(config, plan, run, journal, meter, stamp))
    finally:
        journal.close()
    summaries = {planned.name: summarise(planned.task, planned.tally) for planned in plan}
    document = _document(config, plan, summaries, identity, time.monotonic() - started)
    results = run.file(f"results_{stamp}.json")
    atomic_write(results, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    num_scored = sum(summary["counts"]["scored"] for summary in summaries.values())
    cost = meter.cost_dict(num_scored)
    run.finish(
        seed=config.seed,
        inputs={item.path: item for planned in plan for item in planned.inputs}.values(),
        outputs=[results, *(run.file(_samples_name(p.name, stamp)) for p in plan), run.file("dropped.jsonl")],
        parents=dict.fromkeys(
            Path(spec)
            for spec in (config.model, config.adapter, *(p.source.run_folder for p in plan))
            if spec is not None and (Path(spec) / "manifest.json").is_file()
        ),
        counts={name: summary["counts"] for name, summary in summaries.items()},
        usage=meter.to_dict(),
        extra={
            "model": {"name": config.model, "adapter": config.adapter, "identity": identity},
            **({} if cost is None else {"cost": cost}),
        },
    )
    print(format_table({p.name: p.task for p in plan}, summaries))
    print(f"{run.path}: {meter.summary(num_scored, 'scored reply')}")
    for warning in warnings_of(summaries):
        print(f"WARNING: {warning}", file=sys.stderr)


def check_model(config: EvalConfig) -> None:
    """Refuse a wrong engine, or a model that is not to be had, before there is a run folder to clean up.

    Raises:
        ConfigError: naming the field and the remedy.
    """
    build_engine(config.engine, config.model, config.adapter)
    if config.engine.get("name", "vllm") in LOCAL_ENGINES:
        try:
            resolve_model(config.model, config.adapter)
        except ValueError as error:
            raise ConfigError(str(error)) from None


async def _generate_all(
    config: EvalConfig,
    plan: Sequence[PlannedTask],
    run: RunDir,
    journal: Journal,
    meter: Meter,
    stamp: str,
) -> str:
    """Generate and score every task; return the identity of the weights that answered.

    Raises:
        LimitReached: saying how far the run got.
    """
    counts = Counts()
    async with open_engine(config.engine, config.model, config.adapter) as engine:
        with open(run.file("dropped.jsonl"), "w", encoding="utf-8") as dropped:
            for planned in plan:
                with open(run.file(_samples_name(planned.name, stamp)), "w", encoding="utf-8") as rows:
                    files = _Files(planned, rows, dropped, counts)
                    try:
                        await _run_task(planned, config, engine, journal, meter, files)
                    except LimitReached as limit:
                        limit.how_far = counts.how_far(sum(len(p.samples) for p in plan))
                        raise
        counts.refuse_total_failure()
        return engine.weights_identity()


@dataclass(frozen=True, slots=True)
class _Files:
    """Where a task's rows and its dropped prompts go, in the order of the source."""

    planned: PlannedTask
    rows: IO[str]
    dropped: IO[str]
    counts: Counts

    def write_bad_row(self, bad: BadRow) -> None:
        """Write a row of the task's data that could not be used, and count it."""
        self.planned.tally.num_bad_rows += 1
        _write_line(self.dropped, {**bad.to_dict(), "task": self.planned.name})

    def write(self, sample: Sample, outcome: Outcome) -> None:
        """Write what a prompt gave, and count it."""
        self.counts.add(outcome.end, outcome.reason)
        if isinstance(outcome, Kept):
            for row in outcome.record["rows"]:
                _write_line(self.rows, row)
                self.planned.tally.add(row)
            return
        self.planned.tally.num_failed += 1
        entry = {
            "id": sample.id,
            "task": self.planned.name,
            "outcome": outcome.end,
            "reason": outcome.reason,
        }
        _write_line(self.dropped, {**entry, **outcome.record, "doc": doc_of(sample)})


async def _run_task(
    planned: PlannedTask,
    config: EvalConfig,
    engine: Engine,
    journal: Journal,
    meter: Meter,
    files: _Files,
) -> None:
    """Run one task's samples."""
    for bad in planned.loaded.bad_rows:
        files.write_bad_row(bad)
    number = {sample.id: index for index, sample in enumerate(planned.samples)}

    async def worker(sample: Sample) -> Outcome:
        caller = Caller(
            engine=engine,
            journal=journal,
            sample_id=f"{planned.name}/{sample.id}",
            run_seed=config.seed,
            meter=meter,
        )
        return await _answer(sample, planned, caller, number[sample.id])

    await run_samples(
        planned.samples,
        worker,
        max_concurrent_samples=config.max_concurrent_samples,
        label=planned.name,
        on_outcome=files.write,
        meter=meter,
    )


async def _answer(sample: Sample, planned: PlannedTask, caller: Caller, doc_id: int) -> Outcome:
    """Ask for one sample's completions and score them."""
    prompt = planned.task.prompt(sample)
    num_prompt_tokens = caller.count_tokens(prompt)
    room = caller.context_length - num_prompt_tokens
    if room < 1 and caller.capabilities.exact_token_counts:  # of an estimate the server has the last word
        return Failed(
            "prompt longer than the context",
            {"num_prompt_tokens": num_prompt_tokens, "context_length": caller.context_length},
        )
    sampling = planned.sampling
    if sampling.max_tokens is not None:
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room) if room > 0 else None)
    ask = getattr(planned.task, "ask", None)
    if ask is None:
        completions = await caller(prompt, sampling, step="generate")
    else:
        completions = await ask(sample, caller, sampling)
    doc = doc_of(sample)
    base = {
        "doc_id": doc_id,  # lm-eval's key: the place among the samples drawn
        "id": sample.id,
        "doc": doc,
        "target": sample.target,
        "arguments": [message.to_dict() for message in prompt],
        "summaries": {metric.name: metric.summary for metric in planned.task.METRICS},
        **identity_hashes(doc, prompt, [sample.target, sample.length and sample.length.to_dict()]),
    }

    def score_all() -> list[dict[str, Any]]:
        return [
            {
                **base,
                "completion_index": index,
                "resps": [completion.text],
                **score_completion(
                    planned.task,
                    sample,
                    completion.text,
                    completion.finish_reason,
                    completion.num_tokens,
                    completion.num_reasoning_tokens,
                ),
            }
            for index, completion in enumerate(completions)
        ]

    return Kept({"rows": await asyncio.to_thread(score_all)})  # long texts would stall the event loop


def _document(
    config: EvalConfig,
    plan: Sequence[PlannedTask],
    summaries: Mapping[str, Any],
    identity: str,
    seconds: float,
) -> dict[str, Any]:
    """Return the whole results file."""
    return {
        **results_document({planned.name: planned.task for planned in plan}, summaries),
        "n-samples": {p.name: {**p.loaded.sizes, "effective": len(p.samples)} for p in plan},
        "n-shot": {p.name: 0 for p in plan},
        "configs": {
            p.name: {
                "task": p.config.name,
                "data": p.source.name,
                "options": p.options,
                "generation_kwargs": p.sampling.to_dict(),
                "num_samples": config.num_samples,
                "draw_seed": config.draw_seed,
            }
            for p in plan
        },
        "task_hashes": {p.name: digest([[s.id, doc_of(s)] for s in p.samples]) for p in plan},
        "config": config_to_dict(config),
        "model_identity": identity,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "total_evaluation_time_seconds": seconds,
    }


def _samples_name(task: str, stamp: str) -> str:
    return f"samples_{task}_{stamp}.jsonl"


def _write_line(file: IO[str], row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    file.flush()


if __name__ == "__main__":
    raise SystemExit(main())
