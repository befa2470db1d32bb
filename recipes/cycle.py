"""Does a model learn to mend programs? CYCLE (arXiv 2403.18746, section 3): both phases, with and without masking.

    python recipes/cycle.py --eval_data humaneval.jsonl --allow_code_execution

Phase one trains on known solutions. The trained model then writes programs for the same problems; those that fail
become requests for a repair, answered by the nearest known solution. Phase two goes on from phase one on these and a
share of the plain solutions, once as it is and once with past-generation masking. The base and all three are asked
other problems, refined by what the visible tests say, beside as many independent tries: what phase two teaches is its
gain over phase one. Programs that models wrote are run: in the sandbox, and only with --allow_code_execution. Every
step is an ordinary job under --output_dir; give the command again to go on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lengthwise.job import job, merged, run_main
from lengthwise.report import main as report
from lengthwise.run_dir import RunDir


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--eval_data", type=Path, required=True, help="problems to evaluate on, such as humaneval.jsonl"
    )
    parser.add_argument(
        "--problems", type=Path, default=Path("configs/data/code_tasks.jsonl"), help="to train on"
    )
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--rows_per_prompt", type=int, default=4, help="rows of each problem in either phase")
    parser.add_argument("--mask", type=float, default=0.1, help="probability of a draft's token to be hidden")
    parser.add_argument(
        "--solved_share", type=float, default=0.3, help="weight of plain solutions against the rest"
    )
    parser.add_argument(
        "--limit", type=int, help="problems to evaluate on, drawn by the seed; all if not given"
    )
    parser.add_argument("--max_rounds", type=int, default=4)
    parser.add_argument("--max_tokens", type=int, default=256, help="of a program")
    parser.add_argument("--num_train_epochs", type=float, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--allow_code_execution", action="store_true")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/cycle"))
    args = parser.parse_args()
    for name in ("eval_data", "problems"):
        if not getattr(args, name).is_file():
            parser.error(
                f"--{name} {getattr(args, name)} is no file: give rows of HumanEval, MBPP, APPS or our own form"
            )
    if not args.allow_code_execution:
        parser.error("programs that models wrote would be run: say so with --allow_code_execution")
    return args


def build(args: argparse.Namespace, phase: str, model: str | Path | None) -> RunDir:
    """Make the rows of a phase; the first asks no model."""
    method = {"name": "code_refine", "phase": phase, "max_tokens": args.max_tokens}
    return job(
        "build",
        "configs/data/code_refine.yaml",
        builder={**method, "allow_code_execution": True},
        model=model,
        data=args.problems,
        rows_per_prompt=args.rows_per_prompt,
        seed=args.seed,
        output_dir=args.output_dir / f"rows_{phase}",
        reuse=True,
    )


def train(
    args: argparse.Namespace, name: str, model: str | Path, data: Any, mask: float | None = None
) -> Path:
    """Train an adapter; return the folder of the whole model, which any engine serves at full speed."""
    run = job(
        "sft",
        "configs/sft/demo.yaml",
        model=model,
        data=data,
        past_generation_masking=None if mask is None else {"frac": mask},
        num_train_epochs=args.num_train_epochs,
        per_device_train_batch_size=8,
        train_sampling_strategy="group_by_length",
        save_strategy="steps",
        save_steps=50,
        save_total_limit=1,
        seed=args.seed,
        output_dir=args.output_dir / f"model_{name}",
        reuse=True,
    )
    return merged(run.path)


def evaluate(args: argparse.Namespace, name: str, model: str | Path) -> RunDir:
    """Ask a model the other problems, round by round."""
    task = {"name": "code_refine", "data": str(args.eval_data), "max_rounds": args.max_rounds}
    return job(
        "eval",
        "configs/evals/code_refine.yaml",
        name=name,
        model=model,
        tasks=[{**task, "allow_code_execution": True}],
        sampling={"max_tokens": args.max_tokens},
        limit=args.limit,
        output_dir=args.output_dir / f"eval_{name}",
        reuse=True,
    )


def main() -> int:
    """Run both phases, evaluate four models, report."""
    args = arguments()
    solved = build(args, "solve", None)
    first = train(args, "phase_1", args.model, solved.path)
    refined = build(args, "refine", first)
    mixed = [
        {"path": str(refined.path), "weight": 1.0},
        {"path": str(solved.path), "weight": args.solved_share},
    ]
    models = {
        "base": args.model,
        "phase_1": first,
        "phase_2": train(args, "phase_2", first, mixed),
        "phase_2_masked": train(args, "phase_2_masked", first, mixed, mask=args.mask),
    }
    runs = [evaluate(args, name, model) for name, model in models.items()]
    return report([*(str(run.path) for run in runs), "--output", str(args.output_dir / "report.html")])


if __name__ == "__main__":
    raise SystemExit(run_main(main))
