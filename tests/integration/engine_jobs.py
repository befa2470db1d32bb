"""Jobs with an engine, in a process of their own that a test can kill, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lengthwise.engines.orphans import OWNER
from lengthwise.models import EMBEDDED

JOB = """
import asyncio, json, sys
from lengthwise.engines import open_engine
from lengthwise.engines.base import Sampling
from lengthwise.job import run_main
from lengthwise.records import user

async def main():
    spec = {"name": "vllm", "max_model_len": 2048, "cpu_kv_cache_gib": 1, **json.loads(sys.argv[2])}
    async with open_engine(spec, sys.argv[1]) as engine:
        print("started", flush=True)
        for _ in range(1000):
            await asyncio.gather(*[
                engine.generate(user(f"Write a long story about the number {i}."), Sampling(max_tokens=1000))
                for i in range(4)
            ])

if __name__ == "__main__":
    raise SystemExit(run_main(lambda: asyncio.run(main())))
"""


@contextmanager
def job_with(folder: Path, **options: object) -> Iterator[subprocess.Popen[str]]:
    """Start a job that generates until it is stopped; its stderr is in the folder's file `log`."""
    script = folder / "job.py"
    script.write_text(JOB)
    command = [sys.executable, str(script), EMBEDDED, json.dumps(options)]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "TMPDIR": str(folder)}
        )
        yield process
        process.kill()
        process.wait()
        for pid in started_by(process.pid):
            os.kill(pid, signal.SIGKILL)


def started_by(owner: int) -> dict[int, str]:
    """Return the processes, with their command lines, whose environment names `owner` as their engine's owner."""
    mark = f"{OWNER}={owner}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == owner:
            continue
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has just ended, or belongs to someone else
    return found


def gone_within(seconds: float, owner: int) -> bool:
    deadline = time.monotonic() + seconds
    while started_by(owner):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
