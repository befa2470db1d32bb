"""Builds and evaluations, each killed with SIGKILL at random instants and started again until it is done.

    python benchmarks/kill_resume.py --engine scripted
    python benchmarks/kill_resume.py --engine vllm --num_inputs 24
    python benchmarks/kill_resume.py --engine vllm --jobs refinement --num_inputs 8 --num_kills 2

The jobs `build` and `eval` ask for one text an input, with any engine; those of `refinement`, with vLLM only, are one
of each task and builder that makes several calls an input which depend on each other, or several replies.

With the scripted engine the files must be byte-equal to those of a run that nobody killed. Real sampling is not
reproducible, so with vLLM (the embedded model) every input must have ended once, no committed answer may have
changed, and the engine's own log must show no finished call twice. Ten seconds after each kill no process of the
engine may be left. The last line is one JSON object; the exit code is 1 if one of these does not hold.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILD, EVAL = "data_builders/run.py", "evals/run.py"
FAULTS = '{"empty": 0.05, "truncated": 0.05, "error": 0.05, "refusal": 0.05, "malformed": 0.05}'
SHORT = "--sampling.max_tokens=96"
CODE = {"data": "configs/data/code_tasks.jsonl", "allow_code_execution": True}
JUDGE = '--judges={"model": "embedded:smollm2-135m", "max_tokens": 64}'


@dataclass(frozen=True)
class Kind:
    """A job on vLLM: its script, its config, what is changed of it, and the calls that nearly every input makes."""

    script: str
    config: str
    flags: Sequence[str]
    least_calls: int = 1
    most: int = 48
    """Inputs that there are."""


def _task(**entry: Any) -> str:
    return f"--tasks={json.dumps([entry])}"


KINDS = {
    "build": Kind(BUILD, "data/agent_write_debug.yaml", (), 2, most=1000),
    "eval": Kind(EVAL, "evals/debug.yaml", ("--tasks=longen", "--sampling.temperature=0.8"), most=72),
    "code_refine": Kind(
        EVAL, "evals/code_refine.yaml", (_task(name="code_refine", max_rounds=2, **CODE), SHORT), 3
    ),
    "cycle_prompt": Kind(
        EVAL, "evals/refinement.yaml", (_task(name="cycle_prompt", max_cycles=1, **CODE), SHORT), 3
    ),
    "writing_refine": Kind(
        EVAL, "evals/refinement.yaml", (_task(name="writing_refine", task="longen", rounds=1), SHORT), 3
    ),
    "golden_thread": Kind(
        EVAL,
        "evals/golden_thread.yaml",
        (_task(name="golden_thread", num_entries=12, num_once=3, num_tasks=48), SHORT),
    ),
    "judged": Kind(
        EVAL,
        "evals/debug.yaml",
        (_task(name="writing", data=None), "--scorers=checklist", JUDGE, SHORT),
        2,
        most=8,
    ),
    "several_replies": Kind(EVAL, "evals/debug.yaml", ("--tasks=longen", "--num_samples=3", SHORT)),
    "build_code_refine": Kind(
        BUILD, "data/code_refine.yaml", ("--rows_per_prompt=1", "--builder.max_tokens=96")
    ),
    "build_consistent_code": Kind(
        BUILD, "data/consistent_code.yaml", ("--builder.max_tokens=96", "--builder.judge_max_tokens=64"), 2
    ),
    "build_writing_refine": Kind(
        BUILD, "data/writing_refine.yaml", ("--builder.max_tokens=96", "--builder.rounds=1"), 3
    ),
}
REFINEMENT = "refinement"
"""Names all jobs but the first two."""


class Job:
    """One job in a folder of its own."""

    def __init__(self, verb: str, engine: str, folder: Path, num_inputs: int, prompts: Path) -> None:
        """Note the command; nothing starts yet."""
        self.verb, self.folder = verb, folder / "run"
        self.log = folder / "requests.jsonl"
        self.num_inputs = num_inputs = min(num_inputs, KINDS[verb].most)
        self.least_calls = KINDS[verb].least_calls
        folder.mkdir()
        self.command = [
            *(sys.executable, str(ROOT / KINDS[verb].script)),
            *_flags(verb, engine, num_inputs, prompts),
            *(f"--output_dir={self.folder}", f"--engine.request_log={self.log}"),
        ]
        self._said = folder / "said.log"

    def start(self) -> subprocess.Popen[bytes]:
        """Start or resume it."""
        with self._said.open("ab") as said:
            return subprocess.Popen(self.command, cwd=ROOT, stdout=said, stderr=said)

    def finish(self) -> None:
        """Run it to its end."""
        if self.start().wait() != 0:
            raise SystemExit(f"{self.verb} did not end well:\n{self._said.read_text()[-3000:]}")

    def committed(self) -> dict[str, Any]:
        """Return the answers in the journal by key."""
        return {entry["key"]: entry["completions"] for entry in rows(self.folder / "journal.jsonl")}

    def num_committed(self) -> int:
        """Return the number of answers in the journal."""
        journal = self.folder / "journal.jsonl"
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    def products(self) -> dict[str, bytes]:
        """Return the row files by name, their time stamps left out."""
        names = ("data.jsonl", "dropped.jsonl", "samples_*.jsonl")
        return {file.name.split("_20")[0]: file.read_bytes() for n in names for file in self.folder.glob(n)}

    def ended(self) -> list[str]:
        """Return what ended, each input by its name: of several replies to one the first."""
        names = [
            f"{file.name.split('_20')[0] if file.name.startswith('samples') else ''}/{row['id']}"
            for pattern in ("data.jsonl", "samples_*.jsonl")
            for file in self.folder.glob(pattern)
            for row in rows(file)
            if row.get("completion_index", 0) == 0
        ]
        dropped = rows(self.folder / "dropped.jsonl")
        return names + [f"{'samples_' + row['task'] if 'task' in row else ''}/{row['id']}" for row in dropped]

    def num_repeated(self) -> int:
        """Return how many calls the engine finished more than once."""
        events = collections.Counter(row["request"] for row in rows(self.log) if row["event"] == "finished")
        return sum(number > 1 for number in events.values())


def _flags(verb: str, engine: str, num_inputs: int, prompts: Path) -> list[str]:
    if engine == "vllm":
        kind = KINDS[verb]
        # Few at once, so that the answers come one by one and a run is not over before its last kill.
        given = [
            f"--config={ROOT / 'configs' / kind.config}",
            f"--limit={num_inputs}",
            "--max_concurrent_samples=4",
            *kind.flags,
        ]
        return [*given, f"--data={programs(prompts)}"] if verb == "build_consistent_code" else given
    given = ["--model=script", "--engine.name=scripted", f"--engine.faults={FAULTS}"]
    given += ["--engine.delay_seconds=0.02", "--max_concurrent_samples=4"]
    if verb == "eval":
        return [*given, "--tasks=longen", f"--limit={num_inputs}"]
    return [*given, f"--data={prompts}"]


def programs(beside: Path) -> Path:
    """Write our tasks with a solution each, as conversations, and return the file."""
    path = beside.with_name("programs.jsonl")
    with path.open("w") as file:
        for task in rows(ROOT / CODE["data"]):
            answer = f"```python\n{task['solutions'][0]}\n```"
            turns = [{"role": "user", "content": task["prompt"]}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"id": task["id"], "messages": turns}) + "\n")
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the whole rows of a file that may be torn or not there."""
    if not path.exists():
        return []
    text = path.read_bytes()
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


def engine_processes(owner: int) -> list[int]:
    """Return the processes that an engine of `owner` started, by the mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"LENGTHWISE_ENGINE_OWNER={owner}".encode() in (
                entry / "environ"
            ).read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether a condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def kill_and_resume(job: Job, num_kills: int, draw: random.Random) -> dict[str, Any]:
    """Kill the job at random instants, run it to its end, and return what was seen."""
    # So many calls between two kills that the job is not done before the last; 0 is a kill while it starts.
    most = 2 * job.least_calls * job.num_inputs // (num_kills + 1)
    gaps = [0, *(draw.randint(0, most) for _ in range(num_kills - 1))]
    committed: dict[str, Any] = {}
    num_lost = num_left = kills = 0
    at: list[int] = []
    for gap in gaps:
        target = job.num_committed() + gap
        process = job.start()
        wait_for(lambda: job.num_committed() >= target or process.poll() is not None, 600)  # noqa: B023
        time.sleep(draw.random() * (0.5 if gap == 0 else 0.05))
        if process.poll() is not None:
            break  # done before its last kills
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        if not wait_for(lambda: not engine_processes(process.pid), 10):  # noqa: B023
            num_left += len(engine_processes(process.pid))
        now = job.committed()
        num_lost += sum(now.get(key) != answer for key, answer in committed.items())
        committed = now
        at.append(len(now))
        print(f"{job.verb}: killed with {len(now)} calls committed", flush=True)
    if not (job.folder / "manifest.json").exists():
        job.finish()
    final = job.committed()
    ended = job.ended()
    return {
        "kills": kills,
        "calls_committed_at_each_kill": at,
        "calls": len(final),
        "inputs": job.num_inputs,
        "inputs_ended_once": sum(number == 1 for number in collections.Counter(ended).values()),
        "rows": len(ended),
        "committed_answers_changed_or_lost": num_lost
        + sum(final.get(key) != answer for key, answer in committed.items()),
        "finished_calls_repeated": job.num_repeated(),
        "processes_left_10_s_after_a_kill": num_left,
    }


def main() -> int:
    """Kill the jobs, print what was seen, and return 1 if something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engine", choices=("scripted", "vllm"), default="scripted")
    parser.add_argument("--jobs", nargs="+", choices=(*KINDS, REFINEMENT), default=["build", "eval"])
    parser.add_argument("--num_inputs", type=int, default=60)
    parser.add_argument("--num_kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    jobs = [j for job in args.jobs for j in ([*KINDS][2:] if job == REFINEMENT else [job])]
    if args.engine == "scripted" and not {"build", "eval"}.issuperset(jobs):
        parser.error("--jobs: with the scripted engine there are build and eval")
    draw = random.Random(args.seed)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        prompts = Path(name) / "prompts.jsonl"
        texts = [f"Write a story of {200 + 5 * i} words." for i in range(args.num_inputs)]
        prompts.write_text(
            "".join(json.dumps({"id": f"p{i}", "prompt": t}) + "\n" for i, t in enumerate(texts))
        )
        for verb in jobs:
            job = Job(verb, args.engine, Path(name) / verb, args.num_inputs, prompts)
            found[verb] = kill_and_resume(job, args.num_kills, draw)
            if args.engine == "scripted":
                whole = Job(verb, args.engine, Path(name) / f"{verb}_whole", args.num_inputs, prompts)
                whole.finish()
                found[verb]["byte_equal_to_an_uninterrupted_run"] = job.products() == whole.products()
    print(json.dumps({"benchmark": "kill_resume", "engine": args.engine, "seed": args.seed, **found}))
    return 0 if all(holds(seen) for seen in found.values()) else 1


def holds(seen: dict[str, Any]) -> bool:
    """Return whether nothing was lost, done twice or left behind."""
    return (
        seen["inputs_ended_once"] == seen["inputs"] == seen["rows"]
        and seen["committed_answers_changed_or_lost"] == 0
        and seen["finished_calls_repeated"] == 0
        and seen["processes_left_10_s_after_a_kill"] == 0
        and seen.get("byte_equal_to_an_uninterrupted_run", True)
    )


if __name__ == "__main__":
    raise SystemExit(main())
