"""A build of 1,000 and of 100,000 rows: does the cost of a row grow with their number?

    python benchmarks/large_build.py --sizes 1000 100000

The builder makes one call for a row of about 700 words and the scripted engine answers at once, so that what is
measured is the run loop: journal, row files, order, progress. Each size runs in processes of its own. The largest
is killed when a share of its rows is written and started again, to see after how many seconds the first new call
is made. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

BUILDER = """
from dataclasses import dataclass

from lengthwise.engines.base import Sampling
from lengthwise.outcomes import Kept


@dataclass(kw_only=True)
class Config:
    pass


TEXT = "The river gathers under the bridge and nobody counts the boats. " * 64


def reply(prompt, sampling, draw):
    return f"{draw} {TEXT}"


async def build(sample, callers, config):
    (completion,) = await callers["model"](sample.messages, Sampling(max_tokens=2000), step="write")
    return Kept({
        "id": sample.id,
        "messages": [m.to_dict() for m in sample.messages] + [{"role": "assistant", "content": completion.text}],
        "scores": {},
        "length": {
            "requested": None, "words_longbench": 700, "words_longen": 700, "tokens": completion.num_tokens,
        },
        "calls": callers["model"].calls,
    })
"""


class Build:
    """One build in a process of its own."""

    def __init__(self, folder: Path, num_rows: int) -> None:
        """Write the prompts of a build in `folder`."""
        self.num_rows = num_rows
        self.run = folder / f"run_{num_rows}"
        self.log = folder / f"requests_{num_rows}.jsonl"
        self._prompts = folder / f"prompts_{num_rows}.jsonl"
        with self._prompts.open("w", encoding="utf-8") as file:
            for index in range(num_rows):
                file.write(json.dumps({"id": f"p{index}", "prompt": f"Write about subject {index}."}) + "\n")

    def start(self, **env: str) -> subprocess.Popen[str]:
        """Start or resume it."""
        folders = self.run.parent.parent
        command = [
            *(sys.executable, str(ROOT / "data_builders" / "run.py"), "--model=script"),
            *("--engine.name=scripted", "--engine.responder=large_build_builder:reply"),
            *(f"--builder.name={folders}/large_build_builder.py", f"--data={self._prompts}"),
            f"--output_dir={self.run}",
            f"--engine.request_log={self.log}",
        ]
        path = os.pathsep.join([str(ROOT), str(folders)])
        return subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": path, **env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )


def watch(process: subprocess.Popen[str]) -> dict[str, float]:
    """Wait for a process and return its wall and CPU seconds and its peak memory in MiB."""
    started = time.monotonic()
    assert process.stderr is not None
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(process.stderr.read()))  # type: ignore[union-attr]
    reader.start()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    reader.join()
    if process.returncode != 0:
        raise SystemExit(f"the build ended with {process.returncode}:\n{said[0][-3000:]}")
    return {
        "wall_seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_mib": round(used.ru_maxrss / 1024),
    }


def seconds_to_first_new_call(build: Build, share: float) -> dict[str, Any]:
    """Kill a build when a share of its calls is made, start it again, and wait for its next call."""
    process = build.start()
    while num_lines(build.log) < 2 * share * build.num_rows:
        time.sleep(0.05)
        if process.poll() is not None:
            raise SystemExit("the build ended before it was killed")
    process.send_signal(signal.SIGKILL)
    process.wait()
    size = build.log.stat().st_size
    rows_before = num_lines(build.run / "data.jsonl")
    started = time.monotonic()
    process = build.start()
    while build.log.stat().st_size == size:
        time.sleep(0.02)
        if process.poll() is not None:
            raise SystemExit("the resumed build ended without a new call")
    seconds = time.monotonic() - started
    return {"rows_before": rows_before, "seconds_to_first_new_call": round(seconds, 1), **watch(process)}


def num_lines(path: Path) -> int:
    """Return the number of lines of a file that may not be there yet."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def main() -> None:
    """Measure every size and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--killed_at", type=float, default=0.9, help="share of the largest build's calls")
    args = parser.parse_args()
    sizes = sorted(args.sizes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "large_build_builder.py").write_text(BUILDER)
        # What a build of one row takes is start and end, not rows.
        fixed = min(watch(Build(_made(folder, f"fixed{i}"), 1).start())["cpu_seconds"] for i in range(3))
        found: dict[str, Any] = {}
        for size in sizes:
            runs = [
                watch(Build(_made(folder, f"{size}_{i}"), size).start())
                for i in range(5 if size <= 5000 else 1)
            ]
            best = min(runs, key=lambda used: used["cpu_seconds"])
            per_row = 1000 * (best["cpu_seconds"] - fixed) / size
            rows = round(size / best["wall_seconds"], 1)
            found[str(size)] = {**best, "rows_per_second": rows, "cpu_ms_per_row": round(per_row, 3)}
            print(size, found[str(size)], flush=True)
        resumed = seconds_to_first_new_call(Build(_made(folder, "resumed"), sizes[-1]), args.killed_at)
    ratio = found[str(sizes[-1])]["cpu_ms_per_row"] / found[str(sizes[0])]["cpu_ms_per_row"]
    print(
        json.dumps(
            {
                "benchmark": "large_build",
                "sizes": found,
                "cpu_seconds_of_one_row": fixed,
                "cost_of_a_row_largest_over_smallest": round(ratio, 3),
                "resumed": resumed,
                "cores": os.cpu_count(),
            }
        )
    )


def _made(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


if __name__ == "__main__":
    main()
