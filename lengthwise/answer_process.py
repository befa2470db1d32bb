"""Compares answers, by algebra where their writing does not tell, within limits of time and memory.

The algebra is that of the library math-verify 0.9, which can hang on an answer such as 9^{9^{9^{9}}} or fill the
memory. Its own time limits rest on SIGALRM, which works on the main thread only, and scores are computed on
others. So it runs in a process of its own (`lengthwise.answer_worker`), which starts with the first question
that needs it, serves all threads one after the other, and ends with this process, however this one ends.

A comparison that runs out of time is tried once more, because the machine may have been busy; then the answer
counts as different, and `Comparison.note` says so. A process that dies is started once more; if it dies again,
nobody compared the answers, which is the harness's fault: `ComparisonFailed`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from lengthwise.answer_equality import same_answer
from lengthwise.engines.orphans import OWNER

TIME_LIMIT_SECONDS = 5.0
"""Of one comparison, as in SkyThought's rejection sampling (arXiv 2502.07374)."""

START_SECONDS = 120.0
"""Until the library has loaded; a cold disk takes its time."""
GRACE_SECONDS = 10.0
"""Beyond its limit, until the process that keeps the limit is held for stuck."""

WORKER = "lengthwise.answer_worker"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether an answer is the reference answer, and what a reader should know of how that was found."""

    same: bool
    note: str | None = None


class ComparisonFailed(Exception):
    """Nobody could compare the answers; the message says why."""


class AnswerProcess:
    """The process that compares, seen from the asker; safe to call from several threads.

    Args:
        seconds: time limit of one comparison.
        worker: the module to run, which speaks as `lengthwise.answer_worker` does.
    """

    def __init__(self, *, seconds: float = TIME_LIMIT_SECONDS, worker: str = WORKER) -> None:
        """Start nothing yet."""
        self.seconds = seconds
        self.worker = worker
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def compare(self, given: str, gold: str) -> Comparison:
        """Return whether an answer is the reference answer.

        Raises:
            ComparisonFailed: the process cannot be started, or died twice.
        """
        failed = []
        for _ in range(2):
            answer = self._ask(given, gold)
            if answer["verdict"] in ("same", "different"):
                return Comparison(answer["verdict"] == "same", answer.get("detail"))
            failed.append(answer["verdict"])
        if failed == ["crashed", "crashed"]:
            raise ComparisonFailed(f"the comparison of answers crashed twice: {answer['detail']}")
        return Comparison(
            False, "timed out twice" if len(set(failed)) == 1 else "timed out once, crashed once"
        )

    def close(self) -> None:
        """End the process; the next question starts another."""
        with self._lock:
            self._end()

    @property
    def pid(self) -> int | None:
        """The process's number while one runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def _ask(self, given: str, gold: str) -> dict[str, Any]:
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:
                process = self._start()
            question = {"given": given, "gold": gold, "seconds": self.seconds}
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(question).encode() + b"\n")
                process.stdin.flush()
            except OSError:  # it died while nobody asked
                self._end()
                return {"verdict": "crashed", "detail": "the process was gone when it was asked"}
            answer = _read_line(process, self.seconds + GRACE_SECONDS)
            if answer["verdict"] == "crashed" or answer.get("stuck"):
                self._end()
            return answer

    def _start(self) -> subprocess.Popen[bytes]:
        self._end()
        environment = {key: value for key, value in os.environ.items() if key != OWNER}
        # -P: files of the folder we happen to be in must not pass for modules.
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": ""}
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", self.worker],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
        except OSError as error:
            raise ComparisonFailed(f"the process that compares answers cannot be started: {error}") from None
        self._process = process
        ready = _read_line(process, START_SECONDS)
        if ready["verdict"] != "ready":
            self._end()
            raise ComparisonFailed(
                f"the process that compares answers did not start: {ready.get('detail', ready['verdict'])}"
            )
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()  # the comparison under way has asked the kernel to go with it
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # a question that was never read cannot be flushed
                pipe.close()

    def _forget(self) -> None:
        """In a forked child: the process is the parent's, and so may be the lock."""
        self._lock = threading.Lock()
        self._process = None


_shared = AnswerProcess()


def compare_answers(given: str, gold: str) -> Comparison:
    r"""Return whether an answer is the reference answer, by its writing, else by algebra.

    Raises:
        ComparisonFailed: algebra was needed and its process cannot be started, or died twice.

    Example:
        >>> compare_answers("10001", "10000").same, compare_answers("2(x + 1)", "2x + 2").same
        (False, True)
    """
    same = same_answer(given, gold)
    return _shared.compare(given, gold) if same is None else Comparison(same)


def _read_line(process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
    """Return the next answer, "timed out" without one in time, "crashed" at the end of the output."""
    assert process.stdout is not None
    pipe, received = process.stdout.fileno(), b""
    deadline = time.monotonic() + seconds
    while not received.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            return {"verdict": "timed out", "stuck": True, "detail": f"no answer within {seconds:g} seconds"}
        chunk = os.read(pipe, 65536)
        if not chunk:
            return {"verdict": "crashed", "detail": f"it ended with status {process.wait()}"}
        received += chunk
    return json.loads(received)
