"""Processes that an engine starts die with the job, however it ends; others are left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lengthwise.engines import orphans
from lengthwise.engines.orphans import OWNER, children_die_with_us, die_with_parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")

JOB = """
import subprocess, sys, time
from contextlib import nullcontext
from lengthwise.engines.orphans import children_die_with_us

with children_die_with_us() if sys.argv[1] == "marked" else nullcontext():
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2]], stdout=subprocess.PIPE, text=True)
print(child.pid, flush=True)
print(child.stdout.readline(), end="", flush=True)
time.sleep(60)
"""
SLEEPS = "import lengthwise, time; print('asleep', flush=True); time.sleep(60)"
IMPORTS_LATE = "import time; print('starting', flush=True); time.sleep(1.5); " + SLEEPS
FORKS = (
    "import lengthwise, subprocess, sys, time; "
    f"subprocess.Popen([sys.executable, '-c', {SLEEPS!r}]); time.sleep(60)"
)


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def is_gone_within(seconds: float, pid: int) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Job:
    """A job with one child, which has said that it is up."""

    def __init__(self, mark: str, child: str):
        command = [sys.executable, "-c", JOB, mark, child]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.child = int(self.process.stdout.readline())
        self.said = self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def jobs() -> Iterator[list[Job]]:
    started: list[Job] = []
    yield started
    for job in started:
        job.kill()
        if is_alive(job.child):
            os.kill(job.child, signal.SIGKILL)


def test_a_marked_child_is_gone_soon_after_a_kill(jobs):
    jobs.append(job := Job("marked", SLEEPS))
    assert job.said == "asleep" and is_alive(job.child)
    job.kill()
    assert is_gone_within(5, job.child)


def test_an_unmarked_child_lives_on(jobs):
    jobs.append(job := Job("unmarked", SLEEPS))
    job.kill()
    assert not is_gone_within(1, job.child)


def test_a_child_that_starts_slower_than_its_job_dies_still_goes(jobs):
    jobs.append(job := Job("marked", IMPORTS_LATE))
    assert job.said == "starting"
    job.kill()
    assert is_alive(job.child)
    assert is_gone_within(10, job.child)


def test_the_childrens_children_go_too(jobs):
    jobs.append(job := Job("marked", FORKS))
    assert job.said == "asleep"  # the grandchild, on the pipe it shares with its parent
    grandchildren = Path(f"/proc/{job.child}/task/{job.child}/children").read_text().split()
    assert len(grandchildren) == 1
    job.kill()
    assert is_gone_within(5, job.child)
    assert is_gone_within(5, int(grandchildren[0]))


def test_only_what_starts_inside_the_block_is_marked(monkeypatch):
    monkeypatch.delenv(OWNER, raising=False)
    with children_die_with_us():
        assert os.environ[OWNER] == str(os.getpid())
        die_with_parent()  # the job itself is not bound to its own parent
    assert OWNER not in os.environ
    with pytest.raises(KeyError), children_die_with_us():
        raise KeyError
    assert OWNER not in os.environ


@pytest.mark.parametrize(("owner", "is_killed"), [("1", False), ("2", True)])
def test_a_job_that_is_process_1_of_a_container_has_living_children(monkeypatch, owner, is_killed):
    """Process 1 as parent tells that the real one is gone, but not where it is the real one."""
    killed = []
    monkeypatch.setenv(OWNER, owner)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    monkeypatch.setattr(os, "kill", lambda pid, signum: killed.append(signum))
    monkeypatch.setattr(
        orphans.ctypes, "CDLL", lambda *args, **options: SimpleNamespace(prctl=lambda *args: 0)
    )
    die_with_parent()
    assert killed == ([signal.SIGKILL] if is_killed else [])
