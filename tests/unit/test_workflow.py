from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lengthwise.engines.base import ContextOverflow, EngineDead, EngineError, Sampling
from lengthwise.engines.scripted import Config as EngineConfig
from lengthwise.engines.scripted import Engine
from lengthwise.journal import Journal, JournalError
from lengthwise.records import Prompt, Sample, Usage, user
from lengthwise.workflow import (
    Caller,
    Counts,
    Failed,
    Kept,
    Meter,
    Outcome,
    Rejected,
    call_seed,
    run_async,
    run_samples,
)

GREEDY = Sampling(temperature=0.0, max_tokens=20)


def samples(number: int) -> list[Sample]:
    return [Sample(id=f"s{i}", messages=user(f"prompt {i}")) for i in range(number)]


def run(inputs, worker, *, places: int = 4, **options: Any) -> tuple[Counts, list[tuple[str, Outcome]]]:
    written: list[tuple[str, Outcome]] = []
    counts = asyncio.run(
        run_samples(
            inputs,
            worker,
            max_concurrent_samples=places,
            label="test",
            on_outcome=lambda sample, outcome: written.append((sample.id, outcome)),
            **options,
        )
    )
    return counts, written


# --- run_samples ----------------------------------------------------------------------------------


def test_outcomes_come_in_input_order_whatever_finishes_first():
    draw = random.Random(0)

    async def worker(sample: Sample) -> Outcome:
        await asyncio.sleep(draw.random() / 100)
        return Kept({"id": sample.id})

    counts, written = run(samples(60), worker, places=8)
    assert [name for name, _ in written] == [f"s{i}" for i in range(60)]
    assert written[7][1] == Kept({"id": "s7"})
    assert counts == Counts(kept=60)


@pytest.mark.parametrize("places", [1, 3, 100])
def test_samples_run_side_by_side_and_no_more_than_allowed(places):
    under_way = most = 0

    async def worker(sample: Sample) -> Outcome:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        return Kept({})

    run(samples(20), worker, places=places)
    assert most == min(places, 20)


def test_the_oldest_samples_start_first():
    started: list[str] = []
    draw = random.Random(1)

    async def worker(sample: Sample) -> Outcome:
        started.append(sample.id)
        await asyncio.sleep(draw.random() / 200)
        return Kept({})

    run(samples(30), worker, places=5)
    assert started == [f"s{i}" for i in range(30)]


def test_an_engine_error_fails_its_sample_and_spares_the_others():
    async def worker(sample: Sample) -> Outcome:
        await asyncio.sleep(0)
        if sample.id == "s1":
            raise EngineError("HTTP 500 until the retries were used up")
        if sample.id == "s2":
            raise ContextOverflow("too long")
        return Kept({})

    counts, written = run(samples(6), worker)
    assert (counts.kept, counts.failed) == (4, 2)
    outcomes = dict(written)
    assert outcomes["s1"] == Failed(
        "engine: EngineError", {"error": "HTTP 500 until the retries were used up"}
    )
    assert counts.reasons == {"engine: EngineError": 1, "engine: ContextOverflow": 1}


@pytest.mark.parametrize("error", [EngineDead("gone"), KeyError("a bug"), JournalError("disk full")])
def test_a_dead_engine_or_a_bug_stops_the_run(error):
    closed: list[str] = []

    async def worker(sample: Sample) -> Outcome:
        try:
            await asyncio.sleep(0.001 if sample.id == "s2" else 60)
        finally:
            closed.append(sample.id)
        raise error

    with pytest.raises(type(error)) as caught:
        run(samples(50), worker, places=4)
    assert caught.value is error
    assert sorted(closed) == ["s0", "s1", "s2", "s3"]  # the siblings were stopped and could clean up


def test_counts_add_up_with_their_reasons():
    def outcome(number: int) -> Outcome:
        if number % 5 == 0:
            return Rejected("refusal")
        if number % 7 == 0:
            return Rejected("too short", {"words": 3})
        return Failed("judge") if number % 11 == 0 else Kept({})

    async def worker(sample: Sample) -> Outcome:
        return outcome(int(sample.id[1:]))

    counts, written = run(samples(100), worker)
    assert counts.total == 100 == len(written)
    assert counts == Counts(
        kept=61, rejected=32, failed=7, reasons={"refusal": 20, "too short": 12, "judge": 7}
    )


def test_a_slow_first_sample_does_not_drain_the_source():
    drawn = 0
    ahead: list[int] = []
    others_wait = asyncio.Event()

    def source() -> Iterator[Sample]:
        nonlocal drawn
        for sample in samples(1000):
            drawn += 1
            yield sample

    async def worker(sample: Sample) -> Outcome:
        if sample.id == "s0":
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(others_wait.wait(), 0.2)
            ahead.append(drawn)
        return Kept({})

    counts, written = run(source(), worker, places=4)
    assert ahead == [8]  # twice the places
    assert counts.kept == drawn == 1000
    assert [name for name, _ in written[:3]] == ["s0", "s1", "s2"]


def test_no_input_is_no_error():
    async def worker(sample: Sample) -> Outcome:
        raise AssertionError

    assert run([], worker) == (Counts(), [])
    assert run(iter(()), worker) == (Counts(), [])


def test_places_must_be_positive():
    async def worker(sample: Sample) -> Outcome:
        return Kept({})

    with pytest.raises(ValueError, match="max_concurrent_samples must be at least 1, not 0"):
        run(samples(1), worker, places=0)


def test_a_writer_that_fails_stops_the_run():
    async def worker(sample: Sample) -> Outcome:
        return Kept({})

    def on_outcome(sample: Sample, outcome: Outcome) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        asyncio.run(
            run_samples(samples(5), worker, max_concurrent_samples=2, label="t", on_outcome=on_outcome)
        )


# --- Caller ---------------------------------------------------------------------------------------


class Counting(Engine):
    """A scripted engine that counts the requests which reach it."""

    def __init__(self, model: str = "m", **options: Any):
        super().__init__(model, EngineConfig(**options))
        self.asked: list[Sampling] = []

    async def generate(self, prompt: Prompt, sampling: Sampling, *, adapter: str | None = None):
        self.asked.append(sampling)
        return await super().generate(prompt, sampling, adapter=adapter)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.jsonl")
    yield opened
    opened.close()


def caller(journal: Journal, engine: Engine | None = None, **fields: Any) -> Caller:
    return Caller(**({"engine": engine or Counting(), "journal": journal, "sample_id": "s0"} | fields))


def call(handle: Caller, *steps: str, attempt: int = 0, sampling: Sampling = GREEDY, prompt: str = "Write."):
    async def ask():
        return [await handle(user(prompt), sampling, step=step, attempt=attempt) for step in steps]

    return asyncio.run(ask())


def test_a_finished_call_is_replayed_without_the_engine(journal):
    engine = Counting()
    first = caller(journal, engine)
    (before,) = call(first, "plan")
    again = caller(journal, engine)
    (after,) = call(again, "plan")
    assert after == before
    assert len(engine.asked) == 1
    assert (again.meter.num_calls, again.meter.num_replayed, again.meter.fresh_tokens) == (1, 1, 0)
    # What a run cost does not depend on where it was interrupted, nor does what a row says of its calls.
    assert again.meter.to_dict() == first.meter.to_dict()
    assert again.calls == first.calls


def test_a_replay_survives_the_process(journal):
    call(caller(journal), "plan", "write")
    journal.close()
    engine = Counting()
    call(caller(Journal(journal.path), engine), "plan", "write", "polish")
    assert len(engine.asked) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"fields": {"sample_id": "s1"}},
        {"fields": {"run_seed": 1}},
        {"fields": {"role": "writer"}},
        {"fields": {"adapter": "other"}},
        {"fields": {"engine": Counting("another model")}},
        {"step": "write"},
        {"attempt": 1},
        {"sampling": replace(GREEDY, temperature=0.5)},
        {"sampling": replace(GREEDY, stop=("x",))},
        {"sampling": replace(GREEDY, json_schema={"type": "array"})},
        {"prompt": "Write more."},
    ],
    ids=str,
)
def test_another_call_is_not_a_replay(journal, change):
    engine = Counting()
    call(caller(journal, engine), "plan")
    fields = {"engine": engine} | change.get("fields", {})
    options = {key: change[key] for key in ("attempt", "sampling", "prompt") if key in change}
    call(caller(journal, **fields), change.get("step", "plan"), **options)
    assert len(journal) == 2


def test_seeds_differ_by_sample_step_and_attempt_and_are_stable(journal):
    seeds = {}
    for run_seed in (0, 1):
        for sample_id in ("s0", "s1"):
            for attempt in (0, 1):
                engine = Counting()
                handle = caller(journal, engine, run_seed=run_seed, sample_id=sample_id)
                call(handle, "plan", "write", attempt=attempt)
                for step, asked in zip(("plan", "write"), engine.asked, strict=True):
                    seeds[run_seed, sample_id, step, attempt] = asked.seed
    assert len(set(seeds.values())) == 16
    assert all(0 <= seed < 2**31 for seed in seeds.values())
    # A literal: the seed of a call is the same in every version, else a resumed run would ask anew.
    assert seeds[0, "s0", "plan", 0] == call_seed(0, ["s0", "model", "plan", 0]) == 1849693260


def test_a_seed_that_the_method_gave_is_kept(journal):
    engine = Counting()
    call(caller(journal, engine), "plan", sampling=replace(GREEDY, seed=5))
    assert engine.asked[0].seed == 5


def test_calls_say_what_was_asked_and_how_it_ended(journal):
    handle = caller(journal, role="writer")
    sampling = Sampling(n=2, temperature=0.5, top_p=0.9, max_tokens=7)
    call(handle, "plan", attempt=3, sampling=sampling, prompt="Write about 20 words.")
    assert handle.calls == [
        {
            "role": "writer",
            "step": "plan",
            "attempt": 3,
            "model": "m",
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 7,
            "seed": call_seed(0, ["s0", "writer", "plan", 3]),
            "finish_reasons": ["length", "length"],
            "prompt_tokens": 4,  # once, not for each of the two
            "completion_tokens": 14,
        }
    ]
    assert handle.meter.usage == Usage(prompt_tokens=4, completion_tokens=14)
    assert handle.meter.fresh_tokens == 14


def test_a_failed_call_is_not_kept(journal):
    handle = caller(journal, Counting(faults={"error": 1.0}))
    with pytest.raises(EngineError):
        call(handle, "plan")
    assert len(journal) == 0
    assert handle.calls == []
    assert handle.meter.num_calls == 0


def test_a_caller_shows_its_engine(journal):
    handle = caller(journal, Counting("name", context_length=99, json_schema=False))
    assert (handle.model, handle.context_length, handle.count_tokens(user("a b c"))) == ("name", 99, 3)
    assert handle.capabilities.seeds and not handle.capabilities.json_schema


def test_a_stopped_run_resumes_to_the_same_outcomes_and_repeats_no_finished_call(tmp_path):
    def start(name: str, stop_after: int | None) -> tuple[list[tuple[str, Outcome]], int, Meter]:
        journal = Journal(tmp_path / name)
        engine, meter = Counting(), Meter()
        written: list[tuple[str, Outcome]] = []

        async def worker(sample: Sample) -> Outcome:
            handle = caller(journal, engine, sample_id=sample.id, meter=meter)
            texts = []
            for step in ("plan", "write"):
                if stop_after is not None and len(engine.asked) >= stop_after:
                    raise EngineDead("killed")
                (reply,) = await handle(sample.messages, GREEDY, step=step)
                texts.append(reply.text)
            return Kept({"texts": texts, "calls": handle.calls})

        try:
            asyncio.run(
                run_samples(
                    samples(12),
                    worker,
                    max_concurrent_samples=3,
                    label="t",
                    on_outcome=lambda sample, outcome: written.append((sample.id, outcome)),
                )
            )
        except EngineDead:
            pass
        finally:
            journal.close()
        return written, len(engine.asked), meter

    whole, _, spent = start("whole", None)
    _, before, _ = start("resumed", 9)
    resumed, after, resumed_spent = start("resumed", None)
    assert resumed == whole
    assert (before, after) == (9, 24 - 9)
    assert resumed_spent.to_dict() == spent.to_dict()


# --- signals --------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
from lengthwise.records import Sample, user
from lengthwise.workflow import Kept, run_async, run_samples

async def worker(sample):
    try:
        print("started", flush=True)
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0)  # cleaning up may itself take turns of the loop
        print("cleaned up", flush=True)

async def main():
    try:
        await run_samples(
            [Sample(id="a", messages=user("x"))], worker, max_concurrent_samples=1, label="t",
            on_outcome=lambda sample, outcome: None,
        )
    finally:
        await asyncio.sleep(0)
        print("stopped", flush=True)

try:
    run_async(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_run_with_everything_closed(number):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(number)
    rest, _ = process.communicate(timeout=30)
    assert rest.split("\n") == ["cleaned up", "stopped", "interrupted", ""]
    assert process.returncode == 130


def test_run_async_returns_what_main_returns_and_raises_what_it_raises():
    async def fine() -> int:
        return 3

    async def broken() -> int:
        raise EngineError("no")

    assert run_async(fine()) == 3
    with pytest.raises(EngineError, match="no"):
        run_async(broken())
