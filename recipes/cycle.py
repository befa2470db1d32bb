"""Does a model learn to mend programs? CYCLE (arXiv 2403.18746): base, trained, trained with drafts hidden in part.

    python recipes/cycle.py --eval_data humaneval.jsonl

The model writes programs for problems with tests; those that fail become requests for a repair, answered by the nearest
known solution, and are mixed with plain solutions (`code_refine`, both phases). Two adapters are trained on the same
rows, one with past-generation masking. Then base and both are asked other problems, refined by what the visible tests
say, beside as many independent tries. Programs that models wrote are run: in the sandbox, and only with
--allow_code_execution. Every step is an ordinary job under --output_dir; give the command again to go on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lengthwise.job import job, run_main
from lengthwise.report import main as report


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
    parser.add_argument("--rows_per_prompt", type=int, default=8, help="programs written for each problem")
    parser.add_argument("--mask", type=float, default=0.1, help="probability of a draft's token to be hidden")
    parser.add_argument(
        "--solved_share", type=float, default=0.3, help="weight of plain solutions against the rest"
    )
    parser.add_argument("--limit", type=int, help="problems to evaluate on, drawn by the seed; default: all")
    parser.add_argument("--max_rounds", type=int, default=4)
    parser.add_argument("--max_tokens", type=int, default=256, help="of a program")
    parser.add_argument("--num_train_epochs", type=float, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--allow_code_execution", action="store_true")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/cycle"))
    args = parser.parse_args()
    if not args.allow_code_execution:
        parser.error("programs that models wrote would be run: say so with --allow_code_execution")
    return args


def main() -> int:
    """Build both phases, train twice, evaluate three models, report."""
    args = arguments()

    def build(phase: str) -> Any:
        method = {"name": "code_refine", "phase": phase, "max_tokens": args.max_tokens}
        return job(
            "build",
            "configs/data/code_refine.yaml",
            builder={**method, "allow_code_execution": True},
            data=args.problems,
            rows_per_prompt=args.rows_per_prompt,
            seed=args.seed,
            output_dir=args.output_dir / phase,
            reuse=True,
            **({"model": args.model} if phase == "refine" else {"model": None}),
        )

    def evaluate(model: str | Path, name: str) -> Any:
        task = {"name": "code_refine", "data": str(args.eval_data), "max_rounds": args.max_rounds}
        return job(
            "eval",
            "configs/evals/code_refine.yaml",
            model=model,
            tasks=[{**task, "allow_code_execution": True}],
            sampling={"max_tokens": args.max_tokens},
            limit=args.limit,
            output_dir=args.output_dir / f"eval_{name}",
            reuse=True,
        )

    refined, solved = build("refine"), build("solve")
    runs = [evaluate(args.model, "base")]
    for name, masking in (("trained", None), ("masked", {"frac": args.mask})):
        model = job(
            "sft",
            "configs/sft/demo.yaml",
            model=args.model,
            data=[
                {"path": str(refined.path), "weight": 1.0},
                {"path": str(solved.path), "weight": args.solved_share},
            ],
            past_generation_masking=masking,
            num_train_epochs=args.num_train_epochs,
            per_device_train_batch_size=8,
            train_sampling_strategy="group_by_length",
            seed=args.seed,
            output_dir=args.output_dir / f"model_{name}",
            reuse=True,
        )
        runs += [model, evaluate(model.path, name)]
    return report([*(str(run.path) for run in runs), "--output", str(args.output_dir / "report.html")])


if __name__ == "__main__":
    raise SystemExit(run_main(main))
