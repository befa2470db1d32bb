from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from engines_that_count import Counting

from lengthwise import workflow
from lengthwise.budget import LimitReached, Limits, Meter
from lengthwise.caller import Caller
from lengthwise.engines.base import ContextOverflow, EngineDead, EngineError, Sampling
from lengthwise.journal import Journal, JournalError
from lengthwise.outcomes import Counts, Failed, Kept, Outcome, Rejected
from lengthwise.records import Sample, user
from lengthwise.workflow import run_async, run_samples

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
    assert ahead == [4 * workflow.WINDOW]
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


def test_one_slow_sample_neither_blocks_nor_starves_the_rest():
    release = asyncio.Event()
    ended: list[str] = []

    async def worker(sample: Sample) -> Outcome:
        if sample.id == "s5":
            await release.wait()
        else:
            await asyncio.sleep(0)
        ended.append(sample.id)
        if len(ended) == 5 + 3 * workflow.WINDOW - 1:  # all that the window holds beside the slow one
            release.set()
        return Kept({})

    counts, written = run(samples(200), worker, places=3)
    assert counts == Counts(kept=200)
    assert [name for name, _ in written] == [f"s{i}" for i in range(200)]
    assert ended[5 : ended.index("s5")] == [f"s{i}" for i in range(6, 5 + 3 * workflow.WINDOW)]


# --- limits ---------------------------------------------------------------------------------------


class Clock:
    """Seconds that pass only as told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def limited_run(inputs, worker, meter: Meter, places: int = 4):
    written: list[str] = []
    with pytest.raises(LimitReached) as caught:
        asyncio.run(
            run_samples(
                inputs,
                worker,
                max_concurrent_samples=places,
                label="t",
                on_outcome=lambda sample, outcome: written.append(sample.id),
                meter=meter,
            )
        )
    return written, caught.value


def test_a_limit_that_a_sample_meets_lets_the_others_finish_and_starts_none():
    started: list[str] = []

    async def worker(sample: Sample) -> Outcome:
        started.append(sample.id)
        await asyncio.sleep(0 if sample.id == "s2" else 0.01)
        if sample.id == "s2":
            raise LimitReached("max_cost_usd", "5 of 5")
        return Kept({})

    written, limit = limited_run(samples(50), worker, Meter())
    assert started == ["s0", "s1", "s2", "s3"]
    assert written == ["s0", "s1"]  # s3 has finished too, but it waits for s2 and is made again
    assert limit.name == "max_cost_usd"


def test_the_time_limit_starts_nothing_more_and_the_rest_may_finish():
    clock = Clock()

    async def worker(sample: Sample) -> Outcome:
        await asyncio.sleep(0)
        clock.now += 10
        return Kept({})

    meter = Meter(limits=Limits(max_minutes=1), clock=clock)
    written, limit = limited_run(samples(50), worker, meter, places=1)
    assert written == [f"s{i}" for i in range(6)]
    assert "max_minutes is reached: 1.0 of 1 minutes" in str(limit)
    assert "start the same command again to go on" in str(limit)


def test_a_call_that_hangs_does_not_outlive_the_grace(monkeypatch):
    monkeypatch.setattr(workflow, "GRACE_SECONDS", 0.05)
    closed: list[str] = []

    async def worker(sample: Sample) -> Outcome:
        try:
            await asyncio.sleep(3600 if sample.id == "s1" else 0)
        finally:
            closed.append(sample.id)
        return Kept({})

    written, _ = limited_run(samples(9), worker, Meter(limits=Limits(max_minutes=0.001)), places=1)
    assert written == ["s0"]
    assert closed == ["s0", "s1"]


def test_a_limit_that_is_reached_with_the_last_sample_stops_nothing():
    clock = Clock()

    async def worker(sample: Sample) -> Outcome:
        clock.now += 100
        return Kept({})

    async def whole(meter: Meter) -> Counts:
        return await run_samples(
            iter(samples(1)),
            worker,
            max_concurrent_samples=4,
            label="t",
            on_outcome=lambda *_: None,
            meter=meter,
        )

    assert asyncio.run(whole(Meter(limits=Limits(max_minutes=1), clock=clock))) == Counts(kept=1)


# --- with an engine and a journal ----------------------------------------------------------------


def test_a_stopped_run_resumes_to_the_same_outcomes_and_repeats_no_finished_call(tmp_path):
    def start(name: str, stop_after: int | None) -> tuple[list[tuple[str, Outcome]], int, Meter]:
        journal = Journal(tmp_path / name)
        engine, meter = Counting(), Meter(usage=journal.usage, num_calls=journal.num_calls)
        written: list[tuple[str, Outcome]] = []

        async def worker(sample: Sample) -> Outcome:
            handle = Caller(engine=engine, journal=journal, sample_id=sample.id, meter=meter)
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
from lengthwise.outcomes import Kept
from lengthwise.workflow import run_async, run_samples

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
