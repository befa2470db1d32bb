"""A small run of the benchmark with the faulty servers: each input ends rightly, and dead servers stop the run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_every_input_ends_rightly_however_the_servers_fail():
    command = [sys.executable, "benchmarks/faulty_server.py", "--num_inputs", "60", "--faulty_frac", "0.8"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["storm"]["num_kept"] + found["storm"]["num_failed"] == 60
    assert found["storm"]["num_fault_kinds_served"] >= 12
    assert found["death"]["num_kept_after_resume"] == 12
