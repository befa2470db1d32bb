"""The evaluation tasks of length and reasoning once, each in a run of its own, and one table of them all.

    python recipes/measure_all.py --data_dir DIR --limit 40        # DIR holds the benchmarks' own files

Without --data_dir the tasks take the prompts that are shipped, and those that have none are left out and named. A
judge is needed for S_q; by default the measured model judges itself, which shows that the path works and nothing else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lengthwise.files import atomic_write
from lengthwise.job import job, run_main
from lengthwise.run_dir import RunDir

TASKS: dict[str, dict[str, Any]] = {
    "tlg": {},
    "tlg_all_targets": {"name": "tlg", "targets": "all"},
    "longen": {},
    "longbench_write": {"scorers": ["writing_quality"]},
    "longwrite_ruler": {},
    "lifebench": {},
    "ifeval_length": {},
    "gsm8k": {},
    "gsm8k_budgets": {"name": "gsm8k", "budgets": [64, 128, 256]},
    "math500": {},
    "aime": {
        "data": "evals/prompts/competition.jsonl",
        "num_samples": 4,
        "sampling": {"temperature": 0.6, "top_p": 0.95},
    },
    "multiple_choice": {},
    "lm_eval": {"task": "lengthwise_choices", "include_path": "configs/evals/lm_eval"},
}
"""The entry of each run; `num_samples` is the run's."""

SHOWN = {
    "tlg": ("pm", "fm", "elm", "rmse"),
    "longen": ("length_score",),
    "gsm8k": ("accuracy", "answered", "budget_deviation", "budget_rmse"),
    "ifeval_length": ("prompt_strict", "prompt_loose"),
    "longbench_write": ("s_l",),
    "longwrite_ruler": ("s_l", "words"),
    "lifebench": ("ls", "ld"),
}
"""Metrics of the table, where they are not all of the task's."""


def main() -> int:
    """Run what is not there yet; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--judge", help="model of the judge (default: the measured one)")
    parser.add_argument("--data_dir", help="folder of the benchmarks' own files")
    parser.add_argument("--limit", type=int, default=40, help="prompts per task (default: %(default)s)")
    parser.add_argument("--whole", nargs="*", default=[], help="tasks that take all their prompts")
    parser.add_argument("--max_tokens", type=int, default=1024, help="cap of a reply (default: %(default)s)")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/measure_all"))
    arguments = parser.parse_args()
    lines = ["| task | metric | score | 95 % interval | n | cut | tokens | minutes |", "| --- " * 8 + "|"]
    for label in arguments.tasks:
        lines += table_lines(label, measure(label, arguments))
    table = "\n".join(lines) + "\n"
    atomic_write(arguments.output_dir / "table.md", table)
    print(table)
    return 0


def measure(label: str, arguments: argparse.Namespace) -> RunDir:
    """Run one task, or take its finished run."""
    entry = {"name": label, "label": label, **TASKS[label]}
    overrides: dict[str, Any] = {"num_samples": entry.pop("num_samples", 1)}
    if arguments.data_dir is not None:
        overrides["data_dir"] = arguments.data_dir
    if label not in arguments.whole:
        overrides["limit"] = arguments.limit
    if "scorers" in entry:
        overrides["judges"] = [{"model": arguments.judge or arguments.model, "engine": {"name": "vllm"}}]
    entry["sampling"] = {"max_tokens": arguments.max_tokens, **entry.get("sampling", {})}
    return job(
        "eval",
        model=arguments.model,
        tasks=[entry],
        output_dir=arguments.output_dir / label,
        max_concurrent_samples=64,
        reuse=True,
        **overrides,
    )


def table_lines(label: str, run: RunDir) -> list[str]:
    """Return a task's lines of the table."""
    (file,) = run.path.glob("results_*.json")
    document = json.loads(file.read_text(encoding="utf-8"))
    found, counts = document["results"][label], document["counts"][label]
    names = [key.removesuffix("_n,none") for key in found if key.endswith("_n,none")]
    shown = SHOWN.get(document["configs"][label]["task"], [name for name in names if name != "num_tokens"])
    minutes = document["total_evaluation_time_seconds"] / 60
    tail = f"{counts['truncated']} | {found['num_tokens,none']:.0f} | {minutes:.1f}"
    judged = [name for name in names if name.startswith(("s_q@", "s_bar@"))]
    return [_line(label, name, found, tail) for name in names if name in shown or name in judged]


def _line(label: str, name: str, found: Mapping[str, Any], tail: str) -> str:
    low, high = (bound if bound is None or abs(bound) > 1e-12 else 0.0 for bound in found[f"{name}_ci,none"])
    interval = "none" if low is None else f"[{low:.3g}, {high:.3g}]"
    return f"| {label} | {name} | {found[f'{name},none']:.3g} | {interval} | {found[f'{name}_n,none']} | {tail} |"


if __name__ == "__main__":
    raise SystemExit(run_main(main))
