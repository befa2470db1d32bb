"""What long_cot and shorter_pairs make of problems: verified share, rows, pairs; each kept answer checked once more.

    python benchmarks/long_cot_yield.py --data gsm8k_train.jsonl
    python benchmarks/long_cot_yield.py --model MODEL --data sums.jsonl --prompt_column prompt --ask plain

Eight answers of each problem on vLLM. The check knows nothing of the project: the last number of the text, as a
fraction, against the last number of the reference. The last line is one JSON object; the exit code is 1 where a kept
answer does not pass it.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from fractions import Fraction
from pathlib import Path

from lengthwise.job import job


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="problems with their answers, JSON lines")
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--prompt_column", default="question")
    parser.add_argument("--ask", choices=("boxed", "plain"), default="boxed")
    parser.add_argument("--num_problems", type=int, default=60)
    parser.add_argument("--num_answers", type=int, default=8)
    parser.add_argument("--max_tokens", type=int, default=200)
    return parser.parse_args()


def last_number(text: str) -> Fraction | None:
    """Return the last number of a text."""
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return Fraction(found[-1].replace(",", "")) if found else None


def main() -> int:
    """Build, pair, check, print."""
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="long_cot_") as scratch:
        folder = Path(scratch)
        built = job(
            "build",
            name="long_cot",
            builder={
                "name": "long_cot", "num_answers": args.num_answers, "temperature": 0.7, "max_tokens": args.max_tokens,
                "ask": args.ask, "thinking": "none", "last_number": True,
            },
            model=args.model,
            engine={"name": "vllm", "max_model_len": 1024, "cpu_kv_cache_gib": 1},
            data=str(args.data),
            prompt_column=args.prompt_column,
            length_column=None,
            limit=args.num_problems,
            min_kept_frac=0.0,
            output_dir=str(folder / "long_cot"),
        )  # fmt: skip
        pairs = {}
        for kind in ("long_short", "silc"):
            run = job(
                "build",
                name=kind,
                builder={"name": "shorter_pairs", "kind": kind},
                data=str(built.path),
                min_kept_frac=0.0,
                output_dir=str(folder / kind),
            )
            pairs[kind] = {
                "pairs": run.manifest["counts"]["kept"],
                "reasons": run.manifest["counts"]["reasons"],
            }
        kept, dropped = built.rows(), built.rows("dropped.jsonl")
    attempts = [attempt for row in [*kept, *dropped] for attempt in row["attempts"]]
    right = [attempt["correct"] is True for attempt in attempts]
    disagree = [
        row["id"]
        for row in kept
        if last_number(row["messages"][-1]["content"]) != last_number(str(row["answer"]))
    ]
    found = {
        "problems": len(kept) + len(dropped),
        "rows": len(kept),
        "attempts": len(attempts),
        "verified_share": round(sum(right) / len(attempts), 4),
        "faults": {
            fault: sum(a["fault"] == fault for a in attempts)
            for fault in {a["fault"] for a in attempts}
            if fault
        },
        **pairs,
        "kept_answers_that_the_check_refuses": disagree,
    }
    for name, value in found.items():
        print(f"{name:<38}{value}")
    print(json.dumps(found))
    return 1 if disagree else 0


if __name__ == "__main__":
    raise SystemExit(main())
