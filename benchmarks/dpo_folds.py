"""Does DPO learn more from preference pairs than that the longer answer wins? Cross-validated held-out accuracy.

    python benchmarks/dpo_folds.py --data_dir DIR

DIR holds dpo_en_demo.json. The prompts are dealt to folds; for each fold an adapter is trained on the other folds'
pairs, by `lengthwise dpo`'s own trainer with a token budget, and says of the fold's pairs which answer it prefers: a
margin above 0 is the chosen one. So each pair is judged once, by a model that never saw its prompt. Beside it stands
the rule "the longer answer is better" on the same pairs, and the difference of the two with its interval, paired and
clustered by prompt. The margins of the base model are 0: the adapter is its own reference.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lengthwise.statistics import mean_interval

ROWS_OF_A_STEP = 8


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_dir", default=os.environ.get("LENGTHWISE_DATA"))
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--max_length", type=int, default=512, help="longer pairs are left out, and counted")
    parser.add_argument("--loss_type", default="sigmoid", help="sigmoid (DPO) or sigmoid_norm (LN-DPO)")
    parser.add_argument("--beta", type=float, default=0.1, help="LN-DPO wants more: 5 to 10")
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--epochs", type=float, default=1)
    args = parser.parse_args()
    if args.data_dir is None:
        parser.error("no data: give --data_dir, or set LENGTHWISE_DATA")
    return args


def read_pairs(args: argparse.Namespace) -> tuple[Any, Any]:
    """Return the pairs that fit as tokens, and the tokenizer."""
    from posttrain.base_model import find_base, load_tokenizer
    from posttrain.pair_data import prepare_pairs
    from posttrain.row_sources import data_sources

    tokenizer = load_tokenizer(find_base(args.model))
    data = prepare_pairs(
        data_sources(str(Path(args.data_dir) / "dpo_en_demo.json")),
        tokenizer,
        max_length=args.max_length,
        over_length="drop",
        on_bad_row="drop",
        mixture_rows=None,
        seed=0,
    )
    return data, tokenizer


def folds_of(prompts: Sequence[bytes], folds: int) -> list[list[int]]:
    """Return the indices of each fold's pairs; pairs of one prompt are in one fold."""
    order = sorted(set(prompts))
    random.Random(0).shuffle(order)
    fold_of = {prompt: place % folds for place, prompt in enumerate(order)}
    return [[i for i, prompt in enumerate(prompts) if fold_of[prompt] == fold] for fold in range(folds)]


def held_out_margins(
    args: argparse.Namespace, train: Any, held_out: Any, tokenizer: Any, folder: Path
) -> tuple[list[float], int]:
    """Train on some pairs; return the margins of others, and the optimizer steps."""
    from peft import LoraConfig
    from trl.trainer.dpo_config import DPOConfig

    from lengthwise.models import resolve_model
    from posttrain.batching import Batching, token_budget
    from posttrain.precision import prepare_cpu, weights_dtype
    from posttrain.trainers.dpo_trainer import LengthDPOTrainer

    keys: dict[str, Any] = {}
    prepare_cpu(keys)
    trainer = LengthDPOTrainer(
        model=str(resolve_model(args.model).path),
        args=DPOConfig(
            output_dir=str(folder),
            seed=0,
            per_device_train_batch_size=ROWS_OF_A_STEP,
            num_train_epochs=args.epochs,
            learning_rate=args.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            beta=args.beta,
            loss_type=[args.loss_type],
            max_length=None,
            gradient_checkpointing=False,
            model_init_kwargs={"dtype": weights_dtype("auto", is_lora=True)},
            logging_steps=1000,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **keys,
        ),
        train_dataset=train.to_dataset(),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        token_budget=token_budget(
            Batching(name="token_budget", max_tokens=None),
            train.lengths,
            rows=ROWS_OF_A_STEP,
            num_processes=1,
            accumulation=1,
        ),
    )
    trainer.train()
    margins = trainer.margins(held_out.to_dataset(), max_tokens=4 * args.max_length)
    return margins, trainer.state.global_step


def main() -> int:
    """Train a fold at a time and print what the folds say together."""
    from posttrain.margin_report import margin_report
    from posttrain.pair_bias import length_bias
    from posttrain.pair_data import PairData

    args = arguments()
    began = time.monotonic()
    data, tokenizer = read_pairs(args)
    print("\n".join(data.header_lines(max_length=args.max_length, limit_from="--max_length", policy="drop")))
    prompts = [pair.prompt_ids.tobytes() for pair in data.rows]
    margins: dict[int, float] = {}
    steps = []
    with tempfile.TemporaryDirectory(prefix="dpo_folds_") as folder:
        for number, fold in enumerate(folds_of(prompts, args.folds)):
            held = set(fold)
            train = PairData([pair for i, pair in enumerate(data.rows) if i not in held], [], [])
            held_out = PairData([data.rows[i] for i in fold], [], [])
            found, num_steps = held_out_margins(args, train, held_out, tokenizer, Path(folder))
            margins |= zip(fold, found, strict=True)
            steps.append(num_steps)
            right = sum(margin > 0 for margin in found)
            print(f"fold {number}: {num_steps} steps, {right} of {len(fold)} held-out pairs", flush=True)
    in_order = [margins[i] for i in range(len(data.rows))]
    report = margin_report(data.rows, in_order, is_held_out=True)
    print("\n".join(report.lines()))
    gaps = [len(pair.chosen_ids) - len(pair.rejected_ids) for pair in data.rows]
    rule = [0.5 + 0.5 * ((gap > 0) - (gap < 0)) for gap in gaps]
    ahead = mean_interval(
        [(margin > 0) - right for margin, right in zip(in_order, rule, strict=True)], clusters=prompts
    )
    print(f"accuracy less that of the rule: {ahead.estimate:+.3f} ({ahead.low:+.3f} to {ahead.high:+.3f})")
    result = {
        "benchmark": "dpo_folds",
        "pairs": len(data.rows),
        "left_out": len(data.refused),
        "tokens": data.num_tokens,
        "steps": steps,
        "minutes": round((time.monotonic() - began) / 60, 1),
        **report.to_dict(),
        "less_rule": ahead.to_dict(),
        "length_bias": length_bias(data.rows).overall.to_dict(),
        "settings": {key: value for key, value in vars(args).items() if key != "data_dir"},
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
