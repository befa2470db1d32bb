"""Where the time of an optimizer step goes: parts that may lie within each other, each without what lies within it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class StepClock:
    """Sums up the seconds of named parts until they are taken."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """Measure with `now`; on CUDA, work that was begun is waited for first."""
        self._now = now
        self._seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens within as `name`, and no longer as the part around it."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def _charge(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = self._now()
        if self._open:
            self._seconds[self._open[-1]] += now - self._since
        self._since = now

    def take(self) -> dict[str, float]:
        """Return the seconds of each part since the last call, and begin anew.

        Example:
            >>> ticks = iter([0.0, 1.0, 4.0, 5.0])
            >>> clock = StepClock(now=lambda: next(ticks))
            >>> with clock.part("loss"):
            ...     with clock.part("generation"):
            ...         pass
            >>> clock.take()
            {'loss': 2.0, 'generation': 3.0}
        """
        found, self._seconds = dict(self._seconds), defaultdict(float)
        return found
