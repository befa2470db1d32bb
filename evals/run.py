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
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from evals.base import score_completion
from evals.plan import EvalConfig, PlannedTask, plan_task
from evals.results import format_table, results_document, summarise, warnings_of
from evals.sources import doc_of, identity_hashes
from lengthwise.config import ConfigError, config_to_dict, parse_config
from lengthwise.engines import build_engine, open_engine
from lengthwise.engines.base import Engine
from lengthwise.job import run_main
from lengthwise.journal import Journal
from lengthwise.models import resolve_model
from lengthwise.records import Sample, digest
from lengthwise.run_dir import RunDir, atomic_write, run_folder
from lengthwise.workflow import Caller, Failed, Kept, Meter, Outcome, run_async, run_samples

LOCAL_ENGINES = ("vllm", "hf")
"""Engines that load weights on this machine, where a model id can be checked at once."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return run_main(_run, argv)


def _run(argv: Sequence[str] | None) -> int:
    evaluate(parse_config(EvalConfig, argv, prog="lengthwise eval"))
    return 0


def evaluate(config: EvalConfig) -> RunDir:
    """Run every task of `config`, print the table and return the finished run.

    Raises:
        ConfigError: for wrong tasks, data or sampling, before the model is loaded.
    """
    started = time.monotonic()
    plan = [plan_task(entry, config) for entry in config.tasks]
    names = [planned.name for planned in plan]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"tasks names one task twice ({', '.join(names)}): its rows would share a file; run it apart"
        )
    check_model(config)
    run = RunDir.open_for("eval", run_folder("eval", config.name, config.output_dir), config)
    meter = Meter()
    stamp = run.created[:19].replace(":", "-")  # of the first start: a resumed run writes the same files
    for stale in [*run.path.glob("samples_*.jsonl"), *run.path.glob("results_*.json")]:
        stale.unlink()  # of an unfinished run; the journal has every reply
    identity = run_async(_generate_all(config, plan, run, meter, stamp))
    summaries = {planned.name: summarise(planned.task, planned.tally) for planned in plan}
    document = _document(config, plan, summaries, identity, time.monotonic() - started)
    results = run.file(f"results_{stamp}.json")
    atomic_write(results, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    print(format_table({p.name: p.task for p in plan}, summaries))
    for warning in warnings_of(summaries):
        print(f"WARNING: {warning}", file=sys.stderr)
    run.finish(
        seed=config.seed,
        inputs={planned.source.path: planned.source for planned in plan}.values(),
        outputs=[results, *(run.file(_samples_name(p.name, stamp)) for p in plan), run.file("dropped.jsonl")],
        parents=[
            Path(spec)
            for spec in (config.model, config.adapter)
            if spec is not None and (Path(spec) / "manifest.json").is_file()
        ],
        counts={name: summary["counts"] for name, summary in summaries.items()},
        usage=meter.to_dict(),
        extra={"model": {"name": config.model, "adapter": config.adapter, "identity": identity}},
    )
    return run


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
    config: EvalConfig, plan: Sequence[PlannedTask], run: RunDir, meter: Meter, stamp: str
) -> str:
    """Generate and score every task; return the identity of the weights that answered."""
    async with open_engine(config.engine, config.model, config.adapter) as engine:
        journal = Journal(run.file("journal.jsonl"))
        try:
            with open(run.file("dropped.jsonl"), "w", encoding="utf-8") as dropped:
                for planned in plan:
                    path = run.file(_samples_name(planned.name, stamp))
                    with open(path, "w", encoding="utf-8") as rows:
                        await _run_task(planned, config, engine, journal, meter, rows, dropped)
        finally:
            journal.close()
        return engine.weights_identity()


async def _run_task(
    planned: PlannedTask,
    config: EvalConfig,
    engine: Engine,
    journal: Journal,
    meter: Meter,
    rows: IO[str],
    dropped: IO[str],
) -> None:
    """Run one task's samples; rows and dropped prompts are written in the order of the source."""
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

    def on_outcome(sample: Sample, outcome: Outcome) -> None:
        if isinstance(outcome, Kept):
            for row in outcome.record["rows"]:
                _write_line(rows, row)
                planned.tally.add(row)
            return
        planned.tally.num_failed += 1
        entry = {"id": sample.id, "task": planned.name, "outcome": "failed", "reason": outcome.reason}
        _write_line(dropped, {**entry, **outcome.record, "doc": doc_of(sample)})

    await run_samples(
        planned.samples,
        worker,
        max_concurrent_samples=config.max_concurrent_samples,
        label=planned.name,
        on_outcome=on_outcome,
        meter=meter,
    )


async def _answer(sample: Sample, planned: PlannedTask, caller: Caller, doc_id: int) -> Outcome:
    """Ask for one sample's completions and score them."""
    prompt = planned.task.prompt(sample)
    num_prompt_tokens = caller.count_tokens(prompt)
    room = caller.context_length - num_prompt_tokens
    if room < 1:
        return Failed(
            "prompt longer than the context",
            {"num_prompt_tokens": num_prompt_tokens, "context_length": caller.context_length},
        )
    sampling = planned.sampling
    if sampling.max_tokens is not None:
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room))
    completions = await caller(prompt, sampling, step="generate")
    if any(completion.finish_reason == "abort" for completion in completions):
        return Failed("the engine aborted the request")
    doc = doc_of(sample)
    base = {
        "doc_id": doc_id,
        "id": sample.id,
        "doc": doc,
        "target": sample.target,
        "arguments": [message.to_dict() for message in prompt],
        **identity_hashes(doc, prompt, [sample.target, sample.length and sample.length.to_dict()]),
    }

    def score_all() -> list[dict[str, Any]]:
        return [
            {
                **base,
                "completion_index": index,
                "resps": [completion.text],
                "filtered_resps": [completion.text],
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
        "n-samples": {p.name: {"original": p.num_original, "effective": len(p.samples)} for p in plan},
        "n-shot": {p.name: 0 for p in plan},
        "configs": {
            p.name: {
                "data": p.config.data,
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
