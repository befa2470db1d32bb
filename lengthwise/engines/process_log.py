"""Keeps what an engine's processes print in a file, and finds in it why they died.

vLLM's processes print their tracebacks to the job's own terminal, up to hundreds of lines for a wrong number. The
user gets one line that names the cause, and the file for the rest.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LABEL = r"(?:\([^)]*\) )?(?:[A-Z]+ \S+ \S+ \[[^\]]*\] )?"
_ERROR = re.compile(rf"^{_LABEL}((?:\w+\.)*\w*(?:Error|Exception): \S.*)$", re.MULTILINE)
_ELSEWHERE = re.compile(r"root cause|stack trace", re.IGNORECASE)
_TAIL_BYTES = 1 << 20
_MEMORY = re.compile(r"memory|: -9|killed", re.IGNORECASE)
_LESS_MEMORY = (
    "It takes less memory with a lower engine.max_model_len, and a lower engine.cpu_kv_cache_gib on CPU or "
    "engine.gpu_memory_utilization on a GPU"
)


class ProcessLog:
    """The file that takes what an engine's processes print."""

    def __init__(self, path: Path):
        """Name the file; it is made when something is captured."""
        self.path = path

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Send the output of this process, and of those it starts inside the block, to the file.

        The processes go on writing there after the block; this process does not.
        """
        saved = [(fd, os.dup(fd)) for fd in (1, 2)]
        target = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            _redirect((fd, target) for fd, _ in saved)
            yield
        finally:
            _redirect(saved)
            for fd in (target, *(copy for _, copy in saved)):
                os.close(fd)

    @contextmanager
    def capture_logger(self, name: str) -> Iterator[None]:
        """Send what a library's logger in this process prints to the file too, while the block runs."""
        handlers = [h for h in logging.getLogger(name).handlers if isinstance(h, logging.StreamHandler)]
        with open(self.path, "a", encoding="utf-8", errors="replace") as stream:
            before = [(handler, handler.setStream(stream)) for handler in handlers]
            try:
                yield
            finally:
                for handler, old in before:
                    handler.setStream(old or sys.stderr)

    def cause(self) -> str | None:
        """Return the last error named in the file."""
        return find_cause(self._tail())

    def last_line(self) -> str:
        """Return the last line of the file that is not blank; empty if there is none."""
        lines = self._tail().split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def failure(self, what: str, cause: str) -> str:
        """Return one message that says what failed and why, what takes less memory, and where the rest is."""
        message = f"engine: {what}: {cause.rstrip('.')}."
        if _MEMORY.search(cause):
            message += f" {_LESS_MEMORY}."
        kept = self.keep()
        return f"{message} The whole log: {kept}." if kept else message

    def _tail(self) -> str:
        if not self.path.is_file():
            return ""
        with open(self.path, "rb") as file:
            file.seek(max(0, self.path.stat().st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")

    def keep(self) -> Path | None:
        """Copy the file to where it outlives the engine, and return its path; None if there is none."""
        if not self.path.is_file():
            return None
        fd, kept = tempfile.mkstemp(prefix="lengthwise-vllm-log-", suffix=".txt")
        os.close(fd)
        shutil.copyfile(self.path, kept)
        return Path(kept)


def _redirect(pairs: Iterable[tuple[int, int]]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    for fd, target in pairs:
        os.dup2(target, fd)


def find_cause(log: str) -> str | None:
    """Return the last error that a log names; None if there is none.

    An error that only says that another process has failed is passed over.

    Example:
        >>> find_cause("(EngineCore pid=7) ERROR 11-24 18:47:07 [core.py:1510] ValueError: no memory")
        'ValueError: no memory'
    """
    errors = [line for line in _ERROR.findall(log) if not _ELSEWHERE.search(line)]
    return errors[-1].strip() if errors else None


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, without pydantic's links."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("For further information"))
