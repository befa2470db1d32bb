"""The program of the process that compares answers by algebra: `python -m lengthwise.answer_worker`.

One line of JSON asks, one line answers, in the order asked: {"given", "gold", "seconds"} is answered by
{"verdict": "same" | "different" | "timed out" | "crashed"}, with `detail` where there is more to say. The first
line written is {"verdict": "ready"}, or "unusable" where math-verify cannot be loaded.

This process has one thread and only waits. Each comparison runs in a child forked from it, where the library is
already loaded: a child that hangs, even inside one multiplication that no signal handler or thread can
interrupt, or that eats its memory, is killed at no cost to the next. When the asker dies, however it dies, this
process ends with the child under way: it sees the end of its input, and its parent's number change in case some
other process holds that pipe open. The child asks the kernel for the same. (It is not this process that does so:
its signal would come when the *thread* that started it ends, and any of the asker's threads may have.)
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import resource
import select
import signal
import sys
import time
from typing import Any

from lengthwise.answer_equality import same_answer

MEMORY_BYTES = 4 * 2**30
"""Address space of a comparison; one that wants more has no answer."""

_WARM_UP = (
    (r"\frac{x^2}{2} + \sqrt{3}", r"\sqrt{3} + 0.5x^2"),
    (r"\{1, \pi\} \cup (2, 3]", r"(2, 3] \cup \{1, \pi\}"),
)
"""Compared at the start: the parser fills its tables with what it meets, and each child would fill them anew."""

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 1.0


def main() -> int:
    """Answer lines until the input ends or the asker is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the asker's, which may still finish its work
    asker = os.getppid()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library that prints must not speak on our line
    logging.disable(logging.CRITICAL)  # math-verify warns that it has no time limit: ours is the process
    try:
        for given, gold in _WARM_UP:
            assert equal_by_algebra(given, gold)
    except Exception as error:
        _write(answers, {"verdict": "unusable", "detail": f"math-verify cannot be loaded: {error}"})
        return 1
    _write(answers, {"verdict": "ready"})
    pending = b""
    while True:
        while b"\n" not in pending:
            if not select.select([0], [], [], _POLL_SECONDS)[0]:
                if os.getppid() != asker:
                    return 0
                continue
            received = os.read(0, 65536)
            if not received:
                return 0
            pending += received
        line, _, pending = pending.partition(b"\n")
        question = json.loads(line)
        answer = _compared_in_child(question, asker)
        if answer is None:
            return 0
        _write(answers, answer)


def equal_by_algebra(given: str, gold: str) -> bool:
    r"""Tell by math-verify whether two expressions in LaTeX are equal; what it cannot read equals nothing.

    Example:
        >>> equal_by_algebra("2(x + 1)", "2x + 2")
        True
    """
    from math_verify import LatexExtractionConfig, parse, verify

    config = [LatexExtractionConfig(boxed_match_priority=0)]
    read = [
        # Its own limits rest on SIGALRM. Without `no_fallback` it would compare what it cannot read as text.
        parse(f"\\boxed{{{text}}}", config, fallback_mode="no_fallback", parsing_timeout=None)  # pyright: ignore[reportArgumentType]
        for text in (gold, given)
    ]
    return all(read) and verify(read[0], read[1], timeout_seconds=None)


def _compared_in_child(question: dict[str, Any], asker: int) -> dict[str, Any] | None:
    """Compare in a child; None if the asker went meanwhile."""
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _compare_and_exit(question, writing, parent)
    os.close(writing)
    deadline = time.monotonic() + question["seconds"]
    answer: dict[str, Any] = {"verdict": "timed out"}
    is_asked = True
    while (left := deadline - time.monotonic()) > 0:
        ready = select.select([reading, 0], [], [], min(left, _POLL_SECONDS))[0]
        if reading in ready:
            written = os.read(reading, 65536)
            answer = json.loads(written) if written else {"verdict": "crashed"}
            break
        if 0 in ready or os.getppid() != asker:  # nobody asks before the answer: this is the end of the input
            is_asked = False
            break
    os.close(reading)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if answer == {"verdict": "crashed"}:
        how = (
            f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
        )
        answer["detail"] = f"the comparing process ended with {how}"
    return answer if is_asked else None


def _compare_and_exit(question: dict[str, Any], writing: int, parent: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the request, which then sends no signal
            os._exit(1)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        same = same_answer(question["given"], question["gold"], equal_by_algebra)
        answer = {"verdict": "same" if same else "different"}
    except (
        MemoryError,
        RecursionError,
    ) as error:  # of an answer like 10^{10^{10}}; it has no value to compare
        answer = {"verdict": "different", "detail": type(error).__name__}
    os.write(writing, json.dumps(answer).encode())
    os._exit(0)


def _write(file: Any, answer: dict[str, Any]) -> None:
    file.write(json.dumps(answer) + "\n")
    file.flush()


if __name__ == "__main__":
    raise SystemExit(main())
