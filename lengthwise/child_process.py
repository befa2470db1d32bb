"""Runs a command to its end as a child that gets our signals, once each, and goes when we go."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lengthwise.engines.orphans import OWNER, end_with_parent

EXIT_CODE_FILE = "LENGTHWISE_EXIT_CODE_FILE"
"""Environment variable that names the file in which a launched job leaves its exit code: launchers turn every failure
into 1."""


def run_process(command: Sequence[str], script: str | None = None) -> int:
    """Run a command to its end with our own stdout and stderr and return its exit code.

    Ctrl-C, SIGTERM and SIGUSR1 are handed to the job, which saves and stops; we wait for that. Where we are killed, the
    job goes too: started again, a recipe would find its folder in use.

    Args:
        command: the command line.
        script: the job's script if `command` only launches it. The launcher would die of the signal and leave
            the script behind, so the signal goes to the script's processes, and the launcher ends after them.
    """
    with tempfile.TemporaryDirectory(prefix="lengthwise_") as scratch:
        told = Path(scratch) / "exit_code"
        # In its own session the job is out of the terminal's reach, so that each signal arrives once, through us.
        process = subprocess.Popen(
            list(command),
            start_new_session=True,
            env={**os.environ, EXIT_CODE_FILE: str(told), OWNER: str(os.getpid())},
            preexec_fn=_as_launcher if script else end_with_parent,
        )
        with _forwarded(process, script):
            while True:
                try:
                    code = process.wait()
                    break
                except KeyboardInterrupt:
                    continue
        if code != 0 and told.is_file():
            return int(told.read_text(encoding="ascii"))
    return code if code >= 0 else 128 - code


def _as_launcher() -> None:
    """Let a launcher outlive SIGUSR1, which Slurm sends to every process and the job itself listens to, but not us."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    end_with_parent()


@contextmanager
def _forwarded(process: subprocess.Popen[bytes], script: str | None) -> Iterator[None]:
    """Hand signals on while the block runs; only the main thread can do this."""

    def forward(signum: int, _frame: Any) -> None:
        for pid in _targets(process.pid, script):
            _send(pid, signal.SIGTERM if signum == signal.SIGHUP else signum)

    before = {}
    try:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            before[signum] = signal.signal(signum, forward)
    except ValueError:
        before.clear()
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _targets(pid: int, script: str | None) -> list[int]:
    """Return the processes that a signal is meant for: the script's under a launcher, else `pid`."""
    if script is None:
        return [pid]
    import psutil

    try:
        children = psutil.Process(pid).children()
        return [child.pid for child in children if script in child.cmdline()] or [pid]
    except psutil.Error:
        return [pid]


def _send(pid: int, signum: int) -> None:
    """Send a signal to a process that may just have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signum)
