"""What becomes of an evaluation whose servers fail in over 20 ways at once: every input has to end, and rightly.

    python benchmarks/faulty_server.py --num_inputs 500

A real `lengthwise eval` job asks three servers of one model (see `faulty_http.py`). One of them dies on the way and
comes back. Then all die for good: the job has to stop with a message, and the same command has to end the run when
they are back, without a finished call made again. Passing faults must cost no input, lasting ones fail theirs with
the right reason, and odd replies are kept and counted. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faulty_http import FAULTS, LASTING, MODEL, FaultyServer, Record, fault_of

SCRIPT = Path(__file__).parents[1] / "evals" / "run.py"
TIMEOUT_SECONDS = 2.0
DEAD_AFTER_SECONDS = 4.0
SLACK_SECONDS = 10.0
"""What a busy machine may add to a wait."""


def write_inputs(path: Path, number: int) -> dict[str, str]:
    """Write prompts; return prompt by id."""
    rows = [
        {"id": f"row-{i}", "prompt": f"Input {i}: write about 60 words on rain.", "length": 60}
        for i in range(number)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {row["id"]: row["prompt"] for row in rows}


def run_job(folder: Path, data: Path, servers: Sequence[FaultyServer]) -> subprocess.CompletedProcess[str]:
    """Run the evaluation in its own process."""
    options = {
        "base_urls": [server.url for server in servers],
        "timeout_seconds": TIMEOUT_SECONDS,
        "dead_after_seconds": DEAD_AFTER_SECONDS,
        "max_retries": 3,
        "max_in_flight": 64,
        "wait_seconds": 20,
    }
    command = [sys.executable, str(SCRIPT), "--model", MODEL, "--engine.name", "openai_http"]
    command += [f"--engine.{key}={json.dumps(value)}" for key, value in options.items()]
    command += [
        f"--tasks={json.dumps([{'name': 'longbench_write', 'data': str(data)}])}",
        *("--output_dir", str(folder), "--max_concurrent_samples", "64"),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def read_ends(folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return how each input ended, by id: "kept" or its reason, and its row."""
    ends: dict[str, tuple[str, dict[str, Any]]] = {}
    (samples,) = folder.glob("samples_*.jsonl")
    for path in (samples, folder / "dropped.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            assert row["id"] not in ends, f"{row['id']} ended twice"
            ends[row["id"]] = (row.get("reason", "kept"), row)
    return ends


def is_right(fault: str | None, end: str, row: dict[str, Any]) -> bool:
    """Tell whether an input ended as its fault asks."""
    if fault in LASTING:
        return end == LASTING[fault]
    if end != "kept":
        return False
    is_empty, is_cut = row["flags"]["empty"], row["finish_reason"] == "length"
    thought = row["num_reasoning_tokens"] > 0
    odd = {
        "empty": (True, False, False),
        "cut": (False, True, False),
        "thinking": (False, False, True),
        "thinking cut": (True, True, True),
    }
    return (is_empty, is_cut, thought) == odd.get(str(fault), (False, False, False))


def print_table(faults: dict[str, str | None], ends: dict[str, Any], served: Counter[str]) -> None:
    """Print one line for each fault."""
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for key, (end, _) in ends.items():
        groups[faults[key] or "none"][end] += 1
    print(f"{'fault':<26}{'served':>7}{'inputs':>7}  how they ended")
    for fault in ("none", *FAULTS, "429 over capacity"):
        told = ", ".join(f"{number} {end}" for end, number in groups[fault].most_common())
        print(f"{fault:<26}{served[fault]:>7}{groups[fault].total():>7}  {told}")


def storm(num_inputs: int, seed: int, faulty_frac: float, folder: Path) -> dict[str, Any]:
    """Run the job through all faults, one server dying and coming back; check every end."""
    record = Record()
    servers = [
        FaultyServer(record, seed=seed, faulty_frac=faulty_frac, capacity=12, dies_after=dies_after)
        for dies_after in (None, None, max(5, num_inputs // 10))
    ]
    for server in servers:
        server.start()
    prompts = write_inputs(folder / "data.jsonl", num_inputs)
    faults = {key: fault_of(prompt, seed, faulty_frac) for key, prompt in prompts.items()}
    mortal, deaths = servers[-1], []

    def revive() -> None:
        while mortal.is_up:
            time.sleep(0.05)
        deaths.append(time.monotonic())
        time.sleep(2.0)
        mortal.dies_after = None
        mortal.start()

    threading.Thread(target=revive, daemon=True).start()
    started = time.monotonic()
    done = run_job(folder / "run", folder / "data.jsonl", servers)
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr[-3000:]
    ends = read_ends(folder / "run")
    print_table(faults, ends, record.served)
    assert set(ends) == set(prompts), f"{len(ends)} of {num_inputs} inputs ended"
    wrong = {
        key: (faults[key], end) for key, (end, row) in ends.items() if not is_right(faults[key], end, row)
    }
    assert not wrong, f"ended wrongly: {wrong}"
    (results,) = (folder / "run").glob("results_*.json")
    counts = json.loads(results.read_text(encoding="utf-8"))["counts"]["longbench_write"]
    num_kept = sum(end == "kept" for end, _ in ends.values())
    assert (counts["scored"], counts["failed"]) == (num_kept, num_inputs - num_kept), counts
    # Only what a server had under way when it died may be done twice.
    num_repeated = sum(record.answers[prompts[key]] - 1 for key, (end, _) in ends.items() if end == "kept")
    assert num_repeated <= mortal.capacity, f"{num_repeated} finished requests were made again"
    assert deaths, "the server that was to die did not"
    longest = max(record.held_seconds, default=0.0)
    assert longest < TIMEOUT_SECONDS + SLACK_SECONDS, (
        f"an answer that never came was waited for {longest:.1f} s"
    )
    for server in servers:
        server.kill()
    return {
        "num_inputs": num_inputs,
        "num_kept": num_kept,
        "num_failed": num_inputs - num_kept,
        "num_repeated": num_repeated,
        "num_fault_kinds_served": sum(number > 0 for number in record.served.values()),
        "num_faults_served": record.served.total(),
        "longest_wait_seconds": round(longest, 2),
        "seconds": round(seconds, 1),
    }


def death_and_resume(num_inputs: int, seed: int, folder: Path) -> dict[str, Any]:
    """Let all servers die for good after half of the inputs; then bring them back and resume."""
    record = Record()
    servers = [
        FaultyServer(record, seed=seed, faulty_frac=0.0, capacity=8, dies_after=num_inputs // 4)
        for _ in range(2)
    ]
    for server in servers:
        server.start()
    prompts = write_inputs(folder / "data.jsonl", num_inputs)
    started = time.monotonic()
    dead = run_job(folder / "run", folder / "data.jsonl", servers)
    seconds = time.monotonic() - started
    assert dead.returncode == 1, dead.stderr[-3000:]
    assert "stopped: no server has worked for" in dead.stderr, dead.stderr[-3000:]
    assert "start the same command again to resume" in dead.stderr and "Traceback" not in dead.stderr
    num_before = record.answers.total()
    for server in servers:
        server.dies_after = None
        server.start()
    done = run_job(folder / "run", folder / "data.jsonl", servers)
    assert done.returncode == 0, done.stderr[-3000:]
    ends = read_ends(folder / "run")
    assert set(ends) == set(prompts) and all(end == "kept" for end, _ in ends.values()), Counter(
        end for end, _ in ends.values()
    )
    num_repeated = sum(number - 1 for number in record.answers.values())
    assert num_repeated <= sum(server.capacity for server in servers), (
        f"{num_repeated} requests were made again"
    )
    for server in servers:
        server.kill()
    print(dead.stderr.splitlines()[-2])
    return {
        "num_before_death": num_before,
        "num_repeated": num_repeated,
        "seconds_to_stop": round(seconds, 1),
        "num_kept_after_resume": len(ends),
    }


def main() -> None:
    """Run both parts and print what became of the inputs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--num_inputs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--faulty_frac", type=float, default=0.5, help="share of prompts that a fault strikes"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("storm", "death"):
            (Path(folder) / name).mkdir()
        first = storm(arguments.num_inputs, arguments.seed, arguments.faulty_frac, Path(folder) / "storm")
        second = death_and_resume(max(8, arguments.num_inputs // 5), arguments.seed, Path(folder) / "death")
    print(json.dumps({"storm": first, "death": second}))


if __name__ == "__main__":
    main()
