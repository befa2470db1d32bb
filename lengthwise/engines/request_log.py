"""An engine's own log of what it was asked, apart from the journal.

A journal that claims never to repeat a call cannot be its own witness. With `request_log` set, an engine
writes a line when a request starts and one when it has finished; repeated work shows there.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Literal

from lengthwise.engines.base import Sampling
from lengthwise.records import Message, Prompt, digest


class RequestLog:
    """Appends one JSON line per event: `{"event", "request", "adapter", "time"}`."""

    def __init__(self, path: str | None):
        """Name the log; the file is made with its first line. None keeps no log."""
        self._path = path
        self._fd = -1

    def write(
        self, event: Literal["started", "finished"], prompt: Prompt, sampling: Sampling, adapter: str | None
    ) -> None:
        """Log one event. `request` is a digest of the prompt and sampling, seed included."""
        if self._path is None:
            return
        if self._fd < 0:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        request = digest([[m.to_dict() for m in prompt], sampling.to_dict(), adapter])[:16]
        line = {"event": event, "request": request, "adapter": adapter, "time": time.time()}
        os.write(self._fd, json.dumps(line).encode() + b"\n")

    def write_likelihood(
        self, event: Literal["started", "finished"], prompt: Prompt, continuation: str, adapter: str | None
    ) -> None:
        """Log one event of a request that generates nothing: the continuation stands as the reply."""
        reply = Message(role="assistant", content=continuation)
        self.write(event, (*prompt, reply), Sampling(temperature=0.0, max_tokens=0), adapter)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
