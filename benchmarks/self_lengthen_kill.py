"""The recipe of Self-Lengthen, killed with SIGKILL at random instants and started again until it is done.

    python benchmarks/self_lengthen_kill.py [--config configs/self_lengthen/debug.yaml] [--num_kills 10]

With the embedded model on vLLM, and less in a round than the config says. At the end every input of every build must
have ended once, the engine's own log must show no finished call twice, and an adapter that was there at a kill be the
same file still. The last line is one JSON object; the exit code is 1 if one of these does not hold.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lengthwise.yaml_source import load_yaml

ROOT = Path(__file__).resolve().parents[1]
SMALLER = {
    "sampling": {"max_tokens": 320, "tries": 4},
    "extension": {"micro_iterations": 1, "min_growth": 1.0, "max_tokens": 640},
}
"""What the rounds have less of than the config says: kills are to fall into every step, not into one long one. Short
answers, too, so that extensions of them fit, and a round has a pair to train on."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/self_lengthen/debug.yaml"))
    parser.add_argument("--num_kills", type=int, default=10)
    parser.add_argument(
        "--seconds", type=float, nargs=2, default=[2, 60], help="time from a start to its kill"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the whole rows of a file that may be torn or not there."""
    text = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


def adapters(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the finished adapters, each with what changes when its file is written again."""
    found = {}
    for manifest in folder.glob("round_*/*/manifest.json"):
        weights = manifest.with_name("adapter_model.safetensors")
        if weights.exists():
            found[str(weights.relative_to(folder))] = (weights.stat().st_ino, weights.stat().st_mtime_ns)
    return found


def builds(folder: Path) -> dict[str, dict[str, int]]:
    """Return for each build its inputs, and how many of them ended, and ended once."""
    found = {}
    for manifest in sorted(folder.glob("round_*/*/manifest.json")):
        entry = json.loads(manifest.read_text())
        if entry["job"] != "build":
            continue
        ended = collections.Counter(
            row["id"] for name in ("data.jsonl", "dropped.jsonl") for row in rows(manifest.with_name(name))
        )
        found[str(manifest.parent.relative_to(folder))] = {
            "inputs": entry["counts"]["inputs"],
            "ended": len(ended),
            "ended_once": sum(number == 1 for number in ended.values()),
        }
    return found


def main() -> int:
    """Kill, finish, look."""
    args = arguments()
    draw = random.Random(args.seed)
    changed = kills = 0
    with tempfile.TemporaryDirectory(prefix="self_lengthen_kill_") as scratch:
        folder, log, said = (Path(scratch) / name for name in ("run", "requests.jsonl", "said.log"))
        config: dict[str, Any] = {**load_yaml(args.config), **SMALLER}
        config["engine"] = {**config["engine"], "request_log": str(log)}
        given = Path(scratch) / "config.yaml"
        given.write_text(json.dumps(config))
        script = str(ROOT / "recipes" / "self_lengthen.py")
        command = [sys.executable, script, f"--config={given}", f"--output_dir={folder}"]
        seen: dict[str, tuple[int, int]] = {}
        while True:
            with said.open("ab") as out:
                process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
            try:
                process.wait(draw.uniform(*args.seconds) if kills < args.num_kills else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                time.sleep(1)
                steps = sorted(
                    str(path.parent.relative_to(folder)) for path in folder.glob("round_*/*/manifest.json")
                )
                print(
                    f"killed; {len(rows(log))} lines in the engine's log, finished: {', '.join(steps)}",
                    flush=True,
                )
            now = adapters(folder)
            changed += sum(now.get(name) != mark for name, mark in seen.items())
            seen = now
            if process.returncode != -signal.SIGKILL:
                break
        if process.returncode != 0:
            raise SystemExit(f"the recipe did not end well:\n{said.read_text()[-3000:]}")
        finished = collections.Counter(row["request"] for row in rows(log) if row["event"] == "finished")
        found = {
            "kills": kills,
            "builds": builds(folder),
            "calls": len(finished),
            "finished_calls_repeated": sum(number > 1 for number in finished.values()),
            "adapters": len(seen),
            "adapters_written_again": changed,
        }
    print(json.dumps(found))
    is_whole = all(b["inputs"] == b["ended"] == b["ended_once"] for b in found["builds"].values())
    return 0 if is_whole and not found["finished_calls_repeated"] and not changed else 1


if __name__ == "__main__":
    raise SystemExit(main())
