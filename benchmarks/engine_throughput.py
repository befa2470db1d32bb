"""Tokens a second of our vllm engine under the workflow, over `vllm.LLM.generate`: same prompts, same sampling.

    python benchmarks/engine_throughput.py --rounds 5

Both engines are loaded in one process and take turns, so that a busy neighbour slows both. The last line is one
JSON object with the medians and their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lengthwise.budget import Meter
from lengthwise.caller import Caller
from lengthwise.engines import open_engine
from lengthwise.engines.base import Engine, Sampling
from lengthwise.journal import Journal
from lengthwise.models import EMBEDDED, resolve_model
from lengthwise.outcomes import Kept, Outcome
from lengthwise.records import Sample, sample_id, user
from lengthwise.workflow import run_samples

_TOPICS = ("a river", "an old clock", "bread", "a night train", "bees", "a harbour", "chess", "rain")


def make_samples(num: int, round_number: int) -> list[Sample]:
    """Return prompts no engine has seen before in this run, so that no prefix cache helps one side."""
    prompts = [
        user(f"Round {round_number}, text {i}: write a text about {_TOPICS[i % 8]}.") for i in range(num)
    ]
    return [Sample(id=sample_id(prompt), messages=prompt) for prompt in prompts]


async def time_ours(engine: Engine, samples: list[Sample], sampling: Sampling) -> float:
    """Return generated tokens a second through journal and workflow."""
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")

        async def worker(sample: Sample) -> Outcome:
            caller = Caller(engine=engine, journal=journal, sample_id=sample.id, meter=meter)
            await caller(sample.messages, sampling, step="generate")
            return Kept({})

        started = time.perf_counter()
        await run_samples(
            samples, worker, max_concurrent_samples=len(samples), label="ours", on_outcome=lambda *_: None
        )
        seconds = time.perf_counter() - started
        journal.close()
    return meter.fresh_tokens / seconds


def time_stock(llm: Any, engine: Any, samples: list[Sample], sampling: Sampling) -> float:
    """Return generated tokens a second of `LLM.generate` on the same token ids."""
    from vllm import SamplingParams

    params = SamplingParams(
        temperature=sampling.temperature, max_tokens=sampling.max_tokens, seed=sampling.seed
    )
    prompts = [{"prompt_token_ids": engine._tokenizer.encode(sample.messages)} for sample in samples]
    started = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - started
    return sum(len(part.token_ids) for output in outputs for part in output.outputs) / seconds


async def main() -> None:
    """Measure in turn and print medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--num_prompts", type=int, default=32)
    parser.add_argument("--max_tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    # One explicit seed on both sides: a seeded request samples with a generator of its own.
    sampling = Sampling(temperature=0.7, max_tokens=args.max_tokens, seed=1)
    spec = {"name": "vllm", "max_model_len": 1024, "cpu_kv_cache_gib": 1}
    ours: list[float] = []
    stock: list[float] = []
    async with open_engine(spec, args.model) as engine:
        from vllm import LLM
        from vllm.platforms import current_platform

        options = engine._arguments(current_platform.is_cpu())  # type: ignore[attr-defined]
        llm = LLM(**{**options, "model": str(resolve_model(args.model).path)})
        for number in range(args.rounds + 1):
            samples = make_samples(args.num_prompts, number)
            first_ours = number % 2 == 0
            for turn_is_ours in (first_ours, not first_ours):
                if turn_is_ours:
                    speed = await time_ours(engine, samples, sampling)
                else:
                    speed = await asyncio.to_thread(time_stock, llm, engine, samples, sampling)
                if number > 0:  # the first round warms both up
                    (ours if turn_is_ours else stock).append(speed)
        llm.llm_engine.engine_core.shutdown()
    print(
        json.dumps(
            {
                "benchmark": "engine_throughput",
                "ours_tokens_per_second": round(statistics.median(ours), 1),
                "vllm_tokens_per_second": round(statistics.median(stock), 1),
                "ratio": round(statistics.median(ours) / statistics.median(stock), 3),
                "ratio_per_round": [round(a / b, 3) for a, b in zip(ours, stock, strict=True)],
                "num_prompts": args.num_prompts,
                "sampling": asdict(sampling),
                "cores": os.cpu_count(),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
