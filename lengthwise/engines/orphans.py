"""Engine processes must not outlive the job that started them, not even when it is killed with SIGKILL.

vLLM's processes watch each other but nobody watches the job: after `kill -9` they stay and hold their memory.
Linux can send a child a signal when its parent dies (`PR_SET_PDEATHSIG`), but the child has to ask for it.
`die_with_parent` runs in every process vLLM starts, as a vLLM plugin (see `pyproject.toml`), and asks, if and
only if the process descends from a Lengthwise engine, which says so in the environment.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

OWNER = "LENGTHWISE_ENGINE_OWNER"
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform.startswith("linux") else None


@contextmanager
def children_die_with_us() -> Iterator[None]:
    """Mark the processes started inside this block as ours."""
    os.environ[OWNER] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(OWNER, None)


def end_with_parent() -> None:
    """Ask the kernel to kill this process when its parent goes; kept across exec, and safe between fork and exec."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent goes; a no-op outside our engines' processes."""
    owner = os.environ.get(OWNER)
    if owner is None or owner == str(os.getpid()) or not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    end_with_parent()
    # A parent that died before the request sends no signal. In a container the job itself may be process 1.
    if os.getppid() != parent or (parent == 1 and owner != "1") or not os.path.exists(f"/proc/{owner}"):
        os.kill(os.getpid(), signal.SIGKILL)
