"""Does a killed training run go on exactly where it was? Measured against a run that nobody disturbed.

LoRA (with dropout, so that the random state counts) on the embedded model and a few rows, on the CPU. The run is
killed with SIGKILL at a random step of its first epoch and of its second, and started again with the same
command. Rows per step, losses and final weights are compared with those of an undisturbed run.

    python benchmarks/train_resume.py
    python benchmarks/train_resume.py --processes 2 --sampling group_by_length
    python benchmarks/train_resume.py --processes 2 --batching token_budget
    python benchmarks/train_resume.py --batching packed
    python benchmarks/train_resume.py --curriculum length_buckets --processes 2
    python benchmarks/train_resume.py --job dpo --processes 2 --batching token_budget
    python benchmarks/train_resume.py --job grpo
    python benchmarks/train_resume.py --processes 1 --resumed_processes 2

With other processes after the kill the rows of each step stay the same, dealt out anew: no dropout then, float32,
and losses that may differ by what the order of a sum does.

A few minutes on two cores. The last line is one JSON object; the exit code is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from posttrain.trainers.rollout_log import read_rollouts

REPO = Path(__file__).resolve().parents[1]
EPOCHS, STEPS_PER_EPOCH = 2, 8
ROWS_OF_A_PACK, PACK_TOKENS = 2, 192
LARGEST_LOSS_DIFFERENCE = 1e-6
LARGEST_AFTER_NEW_LAYOUT = 1e-4
CURRICULA = {
    "length_buckets": ["odds=grow_p2", "cycles=4", "num_buckets=3"],
    "dataset_decomposition": ["odds=grow_p2", "cycles=2", "min_log2=3", "max_log2=5"],
    "competence_window": ["until=0.8"],
    "cyclical": ["score=loss"],
}
"""The curricula with options under which a small run has several cycles; losses as scores have to be kept."""


ANSWERS = 4
"""To each prompt of a GRPO run; one prompt of each process a step."""
GRPO_FLAGS = [
    '--rewards={"budget_length": {"shape": "log_ratio"}, "repetition": {"weight": 0.5}}',
    '--budget={"kind": "uniform", "initial": 8, "final": 4}',
    f"--num_generations={ANSWERS}",
    "--max_completion_length=16",
    "--guards.cut_steps=0",
]
KINDS = {"sft": "conversations", "dpo": "pairs", "grpo": "prompts"}
"""What a row is, by job."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run both, compare, print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="decides the steps at which the run is killed")
    parser.add_argument("--processes", type=int, default=1, help="processes of a run (through torchrun)")
    parser.add_argument("--resumed_processes", type=int, help="processes after the first kill, if others")
    parser.add_argument("--sampling", default="random", help="train_sampling_strategy")
    parser.add_argument(
        "--batching", default="padded", choices=["padded", "token_budget", "packed"], help="batching.name"
    )
    parser.add_argument("--job", default="sft", choices=list(KINDS))
    parser.add_argument("--curriculum", choices=list(CURRICULA), help="curriculum.name; needs no --batching")
    args = parser.parse_args(argv)
    args.resumed_processes = args.resumed_processes or args.processes
    if args.curriculum:
        args.batching = "token_budget"
    with tempfile.TemporaryDirectory(prefix="train_resume_") as scratch:
        figures = measure(Path(scratch), args)
    print(json.dumps(figures))
    same = [figures[name] for name in ("same_rows", "same_losses", "same_weights", "same_answers")]
    return 1 if False in same else 0


def measure(scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return what a disturbed and an undisturbed run have in common."""
    data = scratch / "rows.jsonl"
    same_layout = args.resumed_processes == args.processes
    number = STEPS_PER_EPOCH * rows_per_step(args) * (ROWS_OF_A_PACK if args.batching == "packed" else 1)
    if args.job == "grpo":
        number = number // ANSWERS
    kind = "texts" if args.curriculum == "dataset_decomposition" else KINDS[args.job]
    write_rows(data, number, kind)
    whole, killed = scratch / "whole", scratch / "killed"
    finish(command(whole, data, args, args.processes))
    num_steps = len(per_step(whole / "step_rows.jsonl", "rows"))
    per_epoch = num_steps // EPOCHS
    rng = random.Random(args.seed)
    kills = []
    for epoch in range(EPOCHS):
        # Not the last step of an epoch: the kill would fall into the next one.
        at = epoch * per_epoch + rng.randint(3, per_epoch - 2)
        processes = args.resumed_processes if kills else args.processes
        reached = kill_at(command(killed, data, args, processes), killed, at, delay=rng.random())
        kills.append({"epoch": epoch, "step": reached})
    finish(command(killed, data, args, args.resumed_processes))
    rows = [per_step(folder / "step_rows.jsonl", "rows") for folder in (whole, killed)]
    losses = [per_step(folder / "metrics.jsonl", "loss") for folder in (whole, killed)]
    assert list(rows[0]) == list(losses[0]) == list(range(1, num_steps + 1))
    assert not any("unknown" in step for step in rows[0].values())
    if not same_layout:
        rows = [{step: sorted(ids) for step, ids in steps.items()} for steps in rows]
    largest = LARGEST_LOSS_DIFFERENCE if same_layout else LARGEST_AFTER_NEW_LAYOUT
    difference = max(abs(losses[0][step] - losses[1].get(step, float("inf"))) for step in losses[0])
    return {
        "benchmark": "train_resume",
        "job": args.job,
        "processes": args.processes,
        "resumed_processes": args.resumed_processes,
        "sampling": args.sampling,
        "batching": args.batching,
        "curriculum": args.curriculum,
        "steps": len(rows[0]),
        "killed_after": kills,
        "same_rows": rows[0] == rows[1],
        "same_losses": list(losses[0]) == list(losses[1]) and difference <= largest,
        "largest_loss_difference": difference,
        "first_loss": losses[0][1],
        "last_loss": losses[0][len(losses[0])],
        "same_answers": None
        if args.job != "grpo"
        else answers(whole, num_steps) == answers(killed, num_steps),
        "same_weights": weights(whole) == weights(killed) if same_layout else None,
    }


def rows_per_step(args: argparse.Namespace) -> int:
    """Return the rows of one step: two of each process, where the more are at work; of GRPO its answers."""
    return (ANSWERS if args.job == "grpo" else 2) * max(args.processes, args.resumed_processes)


def write_rows(file: Path, number: int, kind: str) -> None:
    """Write short conversations, pairs or plain texts of different lengths."""
    counts = [" ".join(map(str, range(1, i + 2))) for i in range(number)]
    lines = []
    for i, count in enumerate(counts):
        prompt = f"Count to {i + 1}."
        if kind == "texts":  # no two alike, so that each sequence has a name of its own
            lines.append({"text": f"{i} times {count}: {counts[-1 - i]}"})
        elif kind == "prompts":
            lines.append({"prompt": prompt})
        elif kind == "pairs":
            lines.append({"prompt": prompt, "chosen": count, "rejected": f"{counts[-1 - i]} and on"})
        else:
            lines.append({"prompt": prompt, "completion": count})
    file.write_text("".join(json.dumps({"id": f"row-{i}", **row}) + "\n" for i, row in enumerate(lines)))


def command(folder: Path, data: Path, args: argparse.Namespace, processes: int) -> list[str]:
    """Return the one command that starts a run and goes on with it."""
    same_layout = args.resumed_processes == args.processes
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    return [
        *([sys.executable] if processes == 1 else torchrun),
        f"posttrain/{args.job}.py",
        "--name=run",
        f"--output_dir={folder}",
        f"--data={data}",
        "--model=embedded:smollm2-135m",
        "--lora.r=4",
        *(["--lora.dropout=0.1"] if same_layout else ["--dtype=float32", "--bf16=false"]),
        "--learning_rate=1e-3",
        f"--num_train_epochs={EPOCHS}",
        f"--per_device_train_batch_size={rows_per_step(args) // processes}",
        "--gradient_checkpointing=false",
        f"--batching.name={args.batching}",
        *curriculum_flags(args),
        *(GRPO_FLAGS if args.job == "grpo" else []),
        *(
            [f"--train_sampling_strategy={args.sampling}"]
            if args.batching == "padded" and args.job != "grpo"
            else []
        ),
        *([f"--max_length={PACK_TOKENS}"] if args.batching == "packed" else []),
        "--logging_steps=1",
        "--save_steps=2",
        "--save_total_limit=1",
        "--log_step_rows",
    ]


def curriculum_flags(args: argparse.Namespace) -> list[str]:
    """Return the flags of a length curriculum."""
    if args.curriculum is None:
        return []
    flags = [f"--curriculum.name={args.curriculum}"]
    flags += [f"--curriculum.{option}" for option in CURRICULA[args.curriculum]]
    return [*flags, *(["--batching.max_tokens=64"] if args.curriculum == "dataset_decomposition" else [])]


def answers(folder: Path, num_steps: int) -> list[Any]:
    """Return what was written for each step: prompts, budgets, answers, rewards and advantages."""
    return [read_rollouts(folder, step) for step in range(1, num_steps + 1)]


def start(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a run, its output on stderr."""
    return subprocess.Popen(words, cwd=REPO, stdout=sys.stderr, env={**os.environ, "PYTHONPATH": str(REPO)})


def finish(words: Sequence[str]) -> None:
    """Run to the end."""
    code = start(words).wait()
    if code != 0:
        raise SystemExit(f"the run ended with exit code {code}")


def kill_at(words: Sequence[str], folder: Path, step: int, *, delay: float) -> int:
    """Kill the run up to a second after `step` is done; return the last step that it finished."""
    process = start(words)
    while last_step(folder) < step:
        if process.poll() is not None:
            raise SystemExit(f"the run ended before step {step} (exit code {process.returncode})")
        time.sleep(0.01)
    time.sleep(delay)
    # torchrun puts each process into a session of its own: a dead launcher would leave them training.
    root = psutil.Process(process.pid)
    for victim in [root, *root.children(recursive=True)]:
        victim.kill()
    process.wait()
    return last_step(folder)


def last_step(folder: Path) -> int:
    """Return the last step whose rows are logged."""
    file = folder / "step_rows.jsonl"
    return max(per_step(file, "rows"), default=0) if file.is_file() else 0


def per_step(file: Path, key: str) -> dict[int, Any]:
    """Return the values of `key` by step; a line that the kill tore is left out."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if key in row:
            found[row["step"]] = row[key]
    return found


def weights(folder: Path) -> str:
    """Return the digest of the trained adapter."""
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    raise SystemExit(main())
