"""AgentWrite on 32 instructions at once, over one after another, on the same engine: tokens a second.

    python benchmarks/agent_write_throughput.py --rounds 3

The plan is given, so that both sides write the same number of sections. The side that goes one after another
writes `--num_sequential` instructions, enough for a speed. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from data_builders import agent_write
from lengthwise.budget import Meter
from lengthwise.caller import Caller
from lengthwise.config import build_component
from lengthwise.engines import open_engine
from lengthwise.engines.base import Engine
from lengthwise.journal import Journal
from lengthwise.models import EMBEDDED
from lengthwise.outcomes import Outcome
from lengthwise.records import Sample, user
from lengthwise.workflow import run_samples

_SUBJECTS = (
    "a harbour town",
    "the first snow",
    "a bicycle shop",
    "growing beans",
    "an old radio",
    "a long walk",
)


def make_samples(num: int, label: str) -> list[Sample]:
    """Return instructions with a two-section plan each."""
    return [
        Sample(
            id=f"{label}-{i}",
            messages=user(f"Text {label}-{i}: write about 120 words on {_SUBJECTS[i % len(_SUBJECTS)]}."),
            metadata={"plan": [f"Set the scene of text {i}", "Tell what happens next and how it ends"]},
        )
        for i in range(num)
    ]


async def speed(engine: Engine, samples: list[Sample], concurrent: int, config: agent_write.Config) -> float:
    """Return generated tokens a second over a whole build of `samples`."""
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")

        async def worker(sample: Sample) -> Outcome:
            caller = Caller(engine=engine, journal=journal, sample_id=sample.id, meter=meter)
            return await agent_write.build(sample, {"planner": caller, "writer": caller}, config)

        started = time.perf_counter()
        await run_samples(
            samples,
            worker,
            max_concurrent_samples=concurrent,
            label=f"{concurrent} at once",
            on_outcome=lambda *_: None,
            meter=meter,
        )
        seconds = time.perf_counter() - started
        journal.close()
    return meter.fresh_tokens / seconds


async def main() -> None:
    """Measure in turn and print medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--num_concurrent", type=int, default=32)
    parser.add_argument("--num_sequential", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    # Sampled as the paper does, at temperature 1 without a nucleus.
    paper = {"planner_temperature": 1.0, "writer_temperature": 1.0, "top_p": 1.0}
    tolerated = ["language", "too_short", "too_long", "overlap", "early_conclusion"]
    config = build_component(
        agent_write.Config,
        {
            **paper,
            "min_section_words": 40,
            "max_section_words": 100,
            "tolerate": tolerated,
            "min_length_score": 0.0,
        },
        where="builder",
    )
    at_once: list[float] = []
    in_turn: list[float] = []
    spec = {"name": "vllm", "max_model_len": 2048, "cpu_kv_cache_gib": 1}
    async with open_engine(spec, args.model) as engine:
        await speed(engine, make_samples(args.num_concurrent, "warm"), args.num_concurrent, config)
        for number in range(args.rounds):
            one = make_samples(args.num_sequential, f"one-{number}")
            all_ = make_samples(args.num_concurrent, f"all-{number}")
            in_turn.append(await speed(engine, one, 1, config))
            at_once.append(await speed(engine, all_, args.num_concurrent, config))
    print(
        json.dumps(
            {
                "benchmark": "agent_write_throughput",
                "at_once_tokens_per_second": round(statistics.median(at_once), 1),
                "one_after_another_tokens_per_second": round(statistics.median(in_turn), 1),
                "ratio": round(statistics.median(at_once) / statistics.median(in_turn), 2),
                "ratio_per_round": [round(a / b, 2) for a, b in zip(at_once, in_turn, strict=True)],
                "num_concurrent": args.num_concurrent,
                "cores": os.cpu_count(),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
