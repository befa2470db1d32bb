"""Prints what the command line answers to wrong configs, flags and files, and how fast.

    python benchmarks/wrong_inputs.py

The cases are those of tests/integration/test_wrong_configs.py, run one after another. The last line is one JSON
object.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.integration.test_wrong_configs import CASES, run


def main() -> int:
    """Run every case and print its command, the seconds and the message."""
    seconds, refused = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(CASES):
            begun = time.monotonic()
            done = run(case, Path(folder) / str(number))
            seconds.append(time.monotonic() - begun)
            refused += done.returncode == 2 and "Traceback" not in done.stderr
            message = done.stderr.replace(folder, "").rstrip().replace("\n", "\n    ")
            print(f"{case.name}\n    {message}\n    (exit code {done.returncode}, {seconds[-1]:.2f} s)")
    figures = {
        "benchmark": "wrong_inputs",
        "cases": len(CASES),
        "refused_with_a_message": refused,
        "median_seconds": round(statistics.median(seconds), 2),
        "slowest_seconds": round(max(seconds), 2),
    }
    print(json.dumps(figures))
    return 0 if refused == len(CASES) else 1


if __name__ == "__main__":
    raise SystemExit(main())
