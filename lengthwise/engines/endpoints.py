"""Several servers of one model: who takes the next request, how many at once, and who rests.

Nothing here sleeps or talks to a server, and the clock is given: the engine reports what happened and asks who
may take the next request. Three rules, each server on its own:

- The window, the number of requests under way at once, is halved when a server is overloaded and grows again with
  its answers, as TCP's does (additive increase, multiplicative decrease).
- A server that cannot be reached, or gives several bad answers in a row, is down. It gets no request until a check
  has found it well, and then starts with a window of 1 which doubles with each round.
- A server fails from its first fault until its next good answer or check. When all have failed for long and none
  has a request left, all are dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

BAD_ANSWERS_IN_A_ROW = 5
"""One bad answer may be its request's own fault; so many in a row are the server's."""
LONGEST_PAUSE_SECONDS = 120.0
"""The most of a Retry-After that is honoured: servers have been seen to ask for hours."""
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_OWN_PAUSE_SECONDS = 30.0


@dataclass(slots=True)
class Endpoint:
    """One server and what is known of its health."""

    url: str
    window: float
    """Requests that may be under way at once."""
    threshold: float
    """Below it the window doubles with each round of answers, above it it grows by 1."""
    in_flight: int = 0
    num_bad: int = 0
    """Bad answers since the last good one."""
    num_pauses: int = 0
    """Pauses since the last good answer."""
    paused_until: float = 0.0
    window_cut_at: float = float("-inf")
    is_down: bool = False
    failing_since: float | None = None
    last_error: str = ""


class Endpoints:
    """The servers of one engine."""

    def __init__(
        self, urls: Sequence[str], *, ceiling: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start with every server well and its window at `ceiling`, the most it may ever be."""
        self._ceiling = float(ceiling)
        self._clock = clock
        self.all = [Endpoint(url=url, window=self._ceiling, threshold=self._ceiling) for url in urls]

    # --- who is next ----------------------------------------------------------------------------------

    def choose(self, avoid: Endpoint | None = None) -> Endpoint | None:
        """Return the least busy server that may take a request now, None if all have to wait.

        Args:
            avoid: the server that has just failed this request; it is taken only if no other can.
        """
        now = self._clock()
        free = [
            e for e in self.all if not e.is_down and e.paused_until <= now and e.in_flight < int(e.window)
        ]
        return min(free, key=lambda e: (e is avoid, e.in_flight / e.window), default=None)

    def seconds_to_next_pause_end(self) -> float | None:
        """Return the time until a paused server takes requests again; None if none is paused."""
        now = self._clock()
        ends = [e.paused_until - now for e in self.all if not e.is_down and e.paused_until > now]
        return min(ends, default=None)

    def seconds_dead(self) -> float | None:
        """Return for how long no server has worked; None while one works, or has a request under way."""
        since = [e.failing_since for e in self.all if e.in_flight == 0 and e.failing_since is not None]
        return self._clock() - max(since) if len(since) == len(self.all) else None

    # --- what happened --------------------------------------------------------------------------------

    def started(self, endpoint: Endpoint) -> float:
        """Note that a request is under way; return the time, which `overloaded` asks for."""
        endpoint.in_flight += 1
        return self._clock()

    def ended(self, endpoint: Endpoint) -> None:
        """Note that a request is no longer under way, however it ended."""
        endpoint.in_flight -= 1

    def answered(self, endpoint: Endpoint) -> None:
        """Note a good answer."""
        endpoint.is_down, endpoint.failing_since = False, None
        endpoint.num_bad = endpoint.num_pauses = 0
        growth = 1.0 if endpoint.window < endpoint.threshold else 1.0 / endpoint.window
        endpoint.window = min(self._ceiling, endpoint.window + growth)

    def overloaded(
        self, endpoint: Endpoint, started: float, error: str, retry_after_seconds: float | None = None
    ) -> None:
        """Note that a server refused a request as one too many, before `ended` is called for it.

        Args:
            endpoint: the server.
            started: when the request was sent. Of the requests that were under way together only the first
                halves the window.
            error: what the server said.
            retry_after_seconds: how long it asks to be left alone.
        """
        self._fails(endpoint, error)
        now = self._clock()
        if started >= endpoint.window_cut_at:
            self._halve(endpoint)
            endpoint.num_pauses += 1
        doublings = min(max(endpoint.num_pauses - 1, 0), 16)  # a thousand of them would overflow
        pause = min(_FIRST_PAUSE_SECONDS * 2**doublings, _LONGEST_OWN_PAUSE_SECONDS)
        if retry_after_seconds is not None:
            # A server that says 0 while it refuses would be asked in a tight loop.
            pause = min(max(retry_after_seconds, _FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        endpoint.paused_until = max(endpoint.paused_until, now + pause)

    def slow(self, endpoint: Endpoint, started: float, error: str) -> bool:
        """Note an answer that did not come in time: fewer requests at once may help. As `bad` returns."""
        if started >= endpoint.window_cut_at:
            self._halve(endpoint)
        return self.bad(endpoint, error)

    def bad(self, endpoint: Endpoint, error: str) -> bool:
        """Note a fault that may be the request's or the server's; return whether the server is down by it."""
        endpoint.num_bad += 1
        endpoint.last_error = error
        return endpoint.num_bad >= BAD_ANSWERS_IN_A_ROW and self.unreachable(endpoint, error)

    def unreachable(self, endpoint: Endpoint, error: str) -> bool:
        """Note that a server is down; return False if it was already."""
        self._fails(endpoint, error)
        was_up, endpoint.is_down = not endpoint.is_down, True
        return was_up

    def recovered(self, endpoint: Endpoint) -> None:
        """Note that a check found a server well: it is tried again, gently."""
        endpoint.is_down, endpoint.failing_since, endpoint.num_bad = False, None, 0
        endpoint.threshold = max(1.0, endpoint.window / 2)
        endpoint.window = 1.0

    def _fails(self, endpoint: Endpoint, error: str) -> None:
        endpoint.last_error = error
        if endpoint.failing_since is None:
            endpoint.failing_since = self._clock()

    def _halve(self, endpoint: Endpoint) -> None:
        # The window may be far above what was ever under way: halving it alone would change nothing.
        endpoint.window = endpoint.threshold = max(1.0, min(endpoint.window, endpoint.in_flight) / 2)
        endpoint.window_cut_at = self._clock()
