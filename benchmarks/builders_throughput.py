"""The generation stages of Self-Lengthen and long chains of thought, over the bare engine with the same calls.

    python benchmarks/builders_throughput.py [--rounds 3]

Both sides use one engine in one process and take turns. The builder's side runs journal, workflow, checks and verdicts;
the bare side makes the calls that the builder made, each sample's one after another and all samples at once, and does
nothing with the answers. Prefixes are not cached: the second side would profit from the first. The last line is one
JSON object; the exit code is 1 where a median ratio is below --least_ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from data_builders import extend, long_cot, respond
from lengthwise.budget import Meter
from lengthwise.caller import Caller
from lengthwise.engines import open_engine
from lengthwise.engines.base import Engine, Sampling
from lengthwise.journal import Journal
from lengthwise.models import EMBEDDED
from lengthwise.outcomes import Outcome
from lengthwise.records import Completion, Prompt, Sample, user
from lengthwise.workflow import run_samples

_SAMPLE: ContextVar[str] = ContextVar("sample")
Calls = dict[str, list[tuple[Prompt, Sampling]]]


class Recorded:
    """An engine that notes each sample's calls."""

    def __init__(self, engine: Engine) -> None:
        """Wrap an engine."""
        self._engine = engine
        self.calls: Calls = defaultdict(list)

    def __getattr__(self, name: str) -> Any:
        """Return what the engine has."""
        return getattr(self._engine, name)

    async def generate(
        self, prompt: Prompt, sampling: Sampling, *, adapter: str | None = None
    ) -> list[Completion]:
        """Note the call, and make it."""
        self.calls[_SAMPLE.get()].append((prompt, sampling))
        return await self._engine.generate(prompt, sampling, adapter=adapter)


def sums(number: int, label: str) -> list[Sample]:
    """Return sums to think about."""
    return [
        Sample(
            id=f"{label}-{i}",
            messages=user(f"In {label}, what is {i + 10} + {3 * i + 7}?"),
            metadata={"answer": 4 * i + 17},
        )
        for i in range(number)
    ]


def tasks(number: int, label: str) -> list[Sample]:
    """Return writing tasks with a draft each."""
    draft = "The harbour wakes early.\n\nBoats leave one by one.\n\nAt noon it is quiet.\n\nThey come back at dusk."
    return [
        Sample(id=f"{label}-{i}", messages=user(f"Write on a day in harbour {label}-{i}."), completion=draft)
        for i in range(number)
    ]


STAGES: Mapping[str, tuple[ModuleType, Any, Any]] = {
    "respond": (respond, tasks, respond.Config(max_tokens=128, tries=2)),
    "extend": (extend, tasks, extend.Config(max_tokens=128, tries=1, micro_iterations=2)),
    "long_cot": (
        long_cot,
        sums,
        long_cot.Config(max_tokens=96, num_answers=8, temperature=0.7, thinking="none"),
    ),
}
"""Builder, its samples, its options."""


async def built(
    engine: Engine, builder: ModuleType, config: Any, samples: Sequence[Sample]
) -> tuple[float, Calls]:
    """Return tokens a second of a build, and its calls."""
    recorded: Any = Recorded(engine)
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")

        async def worker(sample: Sample) -> Outcome:
            _SAMPLE.set(sample.id)
            callers = {
                role: Caller(engine=recorded, journal=journal, sample_id=sample.id, role=role, meter=meter)
                for role in builder.ROLES
            }
            return await builder.build(sample, callers, config)

        started = time.perf_counter()
        await run_samples(
            samples,
            worker,
            max_concurrent_samples=64,
            label=builder.__name__.rpartition(".")[2],
            on_outcome=lambda *_: None,
            meter=meter,
        )
        seconds = time.perf_counter() - started
        journal.close()
    return meter.fresh_tokens / seconds, recorded.calls


async def bare(engine: Engine, calls: Calls) -> float:
    """Return tokens a second of the same calls, without anything around them."""

    async def one(sequence: Sequence[tuple[Prompt, Sampling]]) -> int:
        tokens = 0
        for prompt, sampling in sequence:
            tokens += sum(reply.num_tokens for reply in await engine.generate(prompt, sampling))
        return tokens

    started = time.perf_counter()
    tokens = sum(await asyncio.gather(*(one(sequence) for sequence in calls.values())))
    return tokens / (time.perf_counter() - started)


async def main() -> int:
    """Measure each stage in turn, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--least_ratio", type=float, default=0.9)
    args = parser.parse_args()
    found: dict[str, Any] = {}
    spec = {
        "name": "vllm",
        "max_model_len": 1024,
        "cpu_kv_cache_gib": 1,
        "options": {"enable_prefix_caching": False},
    }
    async with open_engine(spec, args.model) as engine:
        for stage, (builder, samples, config) in STAGES.items():
            pairs = []
            for number in range(args.rounds + 1):
                mine, calls = await built(engine, builder, config, samples(args.samples, f"{stage} {number}"))
                pairs.append((mine, await bare(engine, calls)))
            ratios = [mine / theirs for mine, theirs in pairs[1:]]  # the first one warms up
            found[stage] = {
                "builder_tokens_per_second": round(statistics.median(mine for mine, _ in pairs[1:]), 1),
                "engine_tokens_per_second": round(statistics.median(theirs for _, theirs in pairs[1:]), 1),
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
            }
            print(stage, found[stage], flush=True)
    print(json.dumps({"benchmark": "builders_throughput", **found}))
    return 0 if all(stage["ratio"] >= args.least_ratio for stage in found.values()) else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
