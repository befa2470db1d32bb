"""The progress bar of a run: how the samples ended, tokens a second, time left, cost."""

from __future__ import annotations

import sys
import time

from lengthwise.budget import Meter
from lengthwise.outcomes import Counts, Outcome

TERMINAL_INTERVAL_SECONDS, LOG_INTERVAL_SECONDS = 0.5, 30.0
"""Between two looks at the bar: where stderr is no terminal each is a line, and a log of a day should stay readable."""


class Progress:
    """A bar on stderr while its block runs; counts samples as they finish, whatever their order."""

    def __init__(self, label: str, total: int | None, meter: Meter, *, num_ended: int = 0) -> None:
        """Open the bar.

        Args:
            label: what the bar says.
            total: number of samples, those that ended before included, for the time left.
            meter: what is spent.
            num_ended: samples that an earlier start has ended; they count as done, not as speed.
        """
        from tqdm import tqdm

        self.interval_seconds = TERMINAL_INTERVAL_SECONDS if sys.stderr.isatty() else LOG_INTERVAL_SECONDS
        self._counts = Counts()
        self._meter = meter
        self._shown = time.monotonic()
        self._bar = tqdm(total=total, initial=num_ended, desc=label, unit="sample", dynamic_ncols=True)

    def __enter__(self) -> Progress:
        """Return the bar."""
        return self

    def __exit__(self, *_: object) -> None:
        """Show the last state and close the bar."""
        self._bar.set_postfix(status(self._counts, self._meter))
        self._bar.close()

    def add(self, outcome: Outcome) -> None:
        """Count one sample."""
        self._counts.add(outcome.end, outcome.reason)
        self._bar.n += 1

    def show(self) -> None:
        """Draw the bar if the last time is long enough ago; also between samples, since one may take an hour."""
        now = time.monotonic()
        if now - self._shown >= self.interval_seconds:
            self._shown = now
            self._bar.set_postfix(status(self._counts, self._meter))


def status(counts: Counts, meter: Meter) -> dict[str, str | int]:
    """Return what stands behind the bar; the cost, of all starts, only where prices are given."""
    shown: dict[str, str | int] = {
        "kept": counts.kept,
        "rejected": counts.rejected,
        "failed": counts.failed,
        "tok/s": f"{meter.tokens_per_second:.0f}",
    }
    if meter.cost_usd is not None:
        shown["USD"] = f"{meter.cost_usd:.4f}"
    return shown
