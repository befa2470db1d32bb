"""Runs one async function per sample: bounded, oldest first, every input ending in exactly one outcome.

A builder's `build` and the evaluation's `_answer` are both `async def f(sample, ...) -> Outcome`. Samples run
side by side, so that continuous batching stays full; the steps inside one sample run in order. Outcomes reach the
writer in the order of the inputs, whatever order they finish in.
"""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from lengthwise.budget import LimitReached, Meter
from lengthwise.engines.base import EngineDead, EngineError
from lengthwise.outcomes import Counts, Failed, Outcome
from lengthwise.progress import Progress
from lengthwise.records import Sample

T = TypeVar("T")

Worker = Callable[[Sample], Awaitable[Outcome]]

WINDOW = 8
"""Started samples for each place, the ended ones included that wait for an older one. It bounds the memory; a
sample that takes this many times longer than the others leaves places empty until it ends."""

GRACE_SECONDS = 120.0
"""How long the calls under way may go on once a limit is reached: they are paid for, but one may hang."""


async def run_samples(
    samples: Iterable[Sample],
    worker: Worker,
    *,
    max_concurrent_samples: int,
    label: str,
    on_outcome: Callable[[Sample, Outcome], None],
    total: int | None = None,
    num_ended: int = 0,
    meter: Meter | None = None,
) -> Counts:
    """Run `worker` on every sample and hand each outcome to `on_outcome` in input order.

    At most `max_concurrent_samples` are under way, the oldest first. An `EngineError` fails its sample and
    spares the others; `EngineDead` and any bug stop the run (finished calls stay in the journal).

    Args:
        samples: the inputs; an iterator is drawn from only as places free up.
        worker: the method, one sample to one outcome.
        max_concurrent_samples: samples under way at once.
        label: what the progress bar says.
        on_outcome: called once per sample, in input order.
        total: number of samples for the time left, those in `num_ended` included.
        num_ended: samples that an earlier start has ended and that are not in `samples`.
        meter: what the run has spent, and its limits.

    Returns:
        The counts; their total equals the number of samples.

    Raises:
        LimitReached: samples are left when a limit of the meter is. None was started after that, and what was
            under way had `GRACE_SECONDS` to finish.
    """
    if max_concurrent_samples < 1:
        raise ValueError(f"max_concurrent_samples must be at least 1, not {max_concurrent_samples}")
    if total is None and isinstance(samples, Sequence):
        total = num_ended + len(samples)
    meter = meter or Meter()
    meter.begin_samples()
    counts, source = Counts(), iter(samples)
    with Progress(label, total, meter, num_ended=num_ended) as progress:
        window = _Window(worker, max_concurrent_samples, progress.add)
        stop = _Stop(meter)
        try:
            while True:
                if not stop.is_due(window.limit):
                    window.fill(source)
                if not window.num_running or stop.is_overdue():
                    break
                await window.change(min(stop.patience_seconds, progress.interval_seconds))
                for sample, outcome in window.take_ended():
                    counts.add(outcome.end, outcome.reason)
                    on_outcome(sample, outcome)
                progress.show()
        finally:
            await window.cancel()
    if stop.limit is not None and (window.num_left or next(source, None) is not None):
        raise stop.limit
    return counts


class _Window:
    """The samples that were started and not yet handed on, in input order."""

    def __init__(self, worker: Worker, places: int, on_finished: Callable[[Outcome], None]) -> None:
        """Take the method, the samples that may run at once, and whom to tell of each that finished."""
        self.limit: LimitReached | None = None
        """The limit that kept a sample from its next call."""
        self.num_running = 0
        self._worker, self._places, self._on_finished = worker, places, on_finished
        self._started: deque[tuple[Sample, asyncio.Task[Outcome]]] = deque()
        self._changed = asyncio.Event()
        self._error: BaseException | None = None

    @property
    def num_left(self) -> int:
        """Samples without an outcome that could be handed on."""
        return len(self._started)

    def fill(self, source: Iterator[Sample]) -> None:
        """Start samples while there are places."""
        while self.num_running < self._places and len(self._started) < WINDOW * self._places:
            sample = next(source, None)
            if sample is None:
                return
            task = asyncio.create_task(_guarded(self._worker, sample))
            task.add_done_callback(self._finished)
            self._started.append((sample, task))
            self.num_running += 1

    async def change(self, timeout_seconds: float) -> None:
        """Wait until a sample finishes, but no longer than this; raise what stops the run."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._changed.wait()
        self._changed.clear()
        if self._error is not None:
            raise self._error

    def take_ended(self) -> Iterator[tuple[Sample, Outcome]]:
        """Yield the oldest samples with their outcomes, up to the first that has none."""
        while self._started and self._started[0][1].done():
            sample, task = self._started[0]
            if not task.cancelled() and isinstance(task.exception(), LimitReached):
                return
            self._started.popleft()
            yield sample, task.result()

    async def cancel(self) -> None:
        """Stop what still runs and wait until it has cleaned up."""
        for _, task in self._started:
            task.cancel()
        await asyncio.gather(*(task for _, task in self._started), return_exceptions=True)

    def _finished(self, task: asyncio.Task[Outcome]) -> None:
        self.num_running -= 1
        self._changed.set()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, LimitReached):
            self.limit = self.limit or error
        elif error is not None:
            self._error = self._error or error
        elif not task.cancelled():
            self._on_finished(task.result())


class _Stop:
    """When to start nothing more, and when to wait no longer."""

    def __init__(self, meter: Meter) -> None:
        """Watch the limits of `meter`."""
        self.limit: LimitReached | None = None
        self._meter = meter
        self._deadline = math.inf

    def is_due(self, met: LimitReached | None) -> bool:
        """Return whether the time is up, or a sample has `met` a limit.

        Replayed calls meet none: a run that goes on comes as far as it was before it stops again.
        """
        if self.limit is None:
            self.limit = met or self._meter.time_reached()
            if self.limit is not None:
                self._deadline = time.monotonic() + GRACE_SECONDS
        return self.limit is not None

    def is_overdue(self) -> bool:
        """Return whether what is under way has had its time."""
        return time.monotonic() >= self._deadline

    @property
    def patience_seconds(self) -> float:
        """Time until a limit or the end of the grace may be reached without any sample finishing."""
        if self.limit is None:
            return self._meter.seconds_left
        return max(0.0, self._deadline - time.monotonic())


async def _guarded(worker: Worker, sample: Sample) -> Outcome:
    try:
        return await worker(sample)
    except EngineDead:
        raise
    except EngineError as error:
        return Failed(f"engine: {type(error).__name__}", {"error": str(error)})


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end; SIGTERM stops it as Ctrl-C does, with every `finally` honoured.

    Raises:
        KeyboardInterrupt: after the first Ctrl-C or SIGTERM, once everything is closed.
    """

    async def guarded() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await main

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
