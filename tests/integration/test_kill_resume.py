"""A build on real vLLM, killed with SIGKILL in the middle and resumed: nothing lost, nothing done twice."""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.real_model, pytest.mark.timeout(1200)]

NUM_INPUTS = 8


def build_command(folder: Path, request_log: Path) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "data_builders" / "run.py"),
        "--config",
        str(ROOT / "configs" / "data" / "agent_write_debug.yaml"),
        f"--output_dir={folder}",
        f"--limit={NUM_INPUTS}",
        f"--engine.request_log={request_log}",
        "--builder.target_words=100",
    ]


def rows(path: Path) -> list[dict]:
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )


def engine_processes(owner: int) -> list[int]:
    """The processes that an engine of `owner` started, by the mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"LENGTHWISE_ENGINE_OWNER={owner}".encode() in (entry / "environ").read_bytes().split(
                    b"\0"
                ):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_for(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False


def test_a_killed_build_resumes(tmp_path):
    folder, request_log = tmp_path / "run", tmp_path / "requests.jsonl"
    journal = folder / "journal.jsonl"
    command = build_command(folder, request_log)

    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # In the middle: some calls are finished, and not every sample can be.
        assert wait_for(lambda: len(rows_safely(journal)) >= 10, 600), "the build never got to its tenth call"
        assert engine_processes(first.pid), "the mark by which this test finds engine processes is gone"
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert not (folder / "manifest.json").exists(), "killed too late: the build was over"
    assert wait_for(lambda: not engine_processes(first.pid), 10), "engine processes outlived the job by 10 s"
    before = {entry["key"]: entry["completions"] for entry in rows_safely(journal)}

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

    ended = [row["id"] for name in ("data.jsonl", "dropped.jsonl") for row in rows(folder / name)]
    assert len(ended) == len(set(ended)) == NUM_INPUTS
    counts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["counts"]
    assert counts["kept"] + counts["rejected"] + counts["failed"] == NUM_INPUTS
    after = {entry["key"]: entry["completions"] for entry in rows(journal)}
    assert before.items() <= after.items(), "a committed response was changed or lost"
    events = collections.Counter((e["event"], e["request"]) for e in rows(request_log))
    repeated = [request for (event, request), n in events.items() if event == "finished" and n > 1]
    assert not repeated, f"{len(repeated)} finished calls were made again"
    assert sum(event == "finished" for event, _ in events) == len(after)
    assert not os.path.exists(f"/proc/{first.pid}")


def rows_safely(path: Path) -> list[dict]:
    """Rows of a file that is being written: a line without its end is not one yet."""
    if not path.exists():
        return []
    text = path.read_bytes()
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
