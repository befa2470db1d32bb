"""Does training on length-faithful rows teach a model to keep to a length? Base against LoRA, held-out prompts.

    python recipes/length_faithful.py --data alpaca.json --seeds 0 1

Every answer of an instruction set is labelled with its own length ("Write about N words."), so each training row
is true to the length it states; held-out instructions get the same label and both models are asked. This is the
hindsight labelling of Ruler's MLT data and Self-Lengthen's length conditioning (arXiv 2409.18943 section 3,
2410.23933), with a sentence in place of a special token.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lengthwise.alpaca import asked, read_alpaca
from lengthwise.config import ConfigError
from lengthwise.files import write_rows
from lengthwise.job import job, run_main
from lengthwise.lengths import count_cjk_alpha
from lengthwise.report import main as report

_MIN_WORDS, _MAX_WORDS = 15, 200
"""Answers outside are left out: too short to have a length, or too slow to learn from on a CPU."""


def labelled(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows whose answer has a usable length, each with that length in its prompt.

    Args:
        rows: Alpaca form: `instruction`, `input`, `output`.

    Returns:
        One row each: `prompt`, `completion`, and `type` and `length` as LongBench-Write has them.
    """
    found = []
    for row in rows:
        num_words = count_cjk_alpha(row["output"])
        if not _MIN_WORDS <= num_words <= _MAX_WORDS:
            continue
        found.append(
            {
                "prompt": f"{asked(row)}\n\nWrite about {num_words} words.",
                "completion": row["output"],
                "type": "instruction",
                "length": num_words,
            }
        )
    return found


def main() -> int:
    """Split, train one LoRA per seed, evaluate all on the same held-out prompts, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON or JSON lines in Alpaca form")
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--num_train", type=int, default=320)
    parser.add_argument("--num_held_out", type=int, default=96)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/length_faithful"))
    args = parser.parse_args()

    rows = labelled(read_alpaca(args.data))
    random.Random(0).shuffle(rows)
    if len(rows) < args.num_train + args.num_held_out:
        raise ConfigError(
            f"--data has {len(rows)} answers of {_MIN_WORDS} to {_MAX_WORDS} words, fewer than --num_train + "
            f"--num_held_out, {args.num_train + args.num_held_out}: lower these"
        )
    held_out = write_rows(args.output_dir / "held_out.jsonl", rows[: args.num_held_out])
    train = write_rows(args.output_dir / "train.jsonl", rows[args.num_held_out :][: args.num_train])

    def evaluate(model: str | Path, folder: str) -> Any:
        return job(
            "eval",
            "configs/evals/demo.yaml",
            model=model,
            tasks=[{"name": "longbench_write", "data": str(held_out)}],
            output_dir=args.output_dir / folder,
            reuse=True,
        )

    runs = [evaluate(args.model, "eval_base")]
    for seed in args.seeds:
        model = job(
            "sft",
            "configs/sft/demo.yaml",
            model=args.model,
            data=train,
            seed=seed,
            num_train_epochs=2,
            per_device_train_batch_size=8,
            train_sampling_strategy="group_by_length",  # a batch of like lengths is hardly padded
            output_dir=args.output_dir / f"model_{seed}",
            reuse=True,
        )
        runs += [model, evaluate(model.path, f"eval_tuned_{seed}")]
    return report([*(str(run.path) for run in runs), "--output", str(args.output_dir / "report.html")])


if __name__ == "__main__":
    raise SystemExit(run_main(main))
