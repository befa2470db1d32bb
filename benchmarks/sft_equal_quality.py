"""Does a model learn as well from batches of near-equal length as from random ones? Held-out loss by length.

    python benchmarks/sft_equal_quality.py --data_dir DIR --seeds 3

DIR holds alpaca_en_demo.json, dpo_en_demo.json and gsm8k_train.jsonl, of which `sft_throughput.py` makes its rows. For
each seed both sides train LoRA on the embedded model for one epoch over the same rows, hence on the same tokens: stock
TRL on rows in random order, ours on the smallest token budget that needs no more steps an epoch. Ours cuts a step into
`--accumulation` forward passes: each has rows of near-equal length, all of them together the data's mixture. The
held-out rows, the same for all, are cut at the quartiles of their lengths; the loss of a bin is the mean over its
supervised tokens. Seeds decide the order of the rows and the adapter's start, and are shared by both sides.

A bin differs only by noise where the interval of the mean difference (t, over seeds) holds 0; the table says so. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sft_throughput import token_rows
from step_windows import OURS, STOCK

from lengthwise.statistics import mean_interval

NUM_BINS = 4


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_dir", default=os.environ.get("LENGTHWISE_DATA"))
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train_rows", type=int, default=240)
    parser.add_argument("--held_out_rows", type=int, default=120)
    parser.add_argument("--rows", type=int, default=8, help="rows of a stock batch")
    parser.add_argument("--accumulation", type=int, default=4, help="forward passes of one of our steps")
    parser.add_argument("--max_length", type=int, default=512, help="longer rows are left out, on both sides")
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    args = parser.parse_args()
    if args.data_dir is None:
        parser.error("no data: give --data_dir, or set LENGTHWISE_DATA")
    return args


def make_trainer(
    side: str, args: argparse.Namespace, rows: Sequence[Any], tokenizer: Any, seed: int, folder: Path
) -> Any:
    """Return a trainer of one side for `rows`."""
    from peft import LoraConfig
    from trl.trainer.sft_config import SFTConfig

    from lengthwise.models import resolve_model
    from posttrain.precision import prepare_cpu, weights_dtype
    from posttrain.train_data import TrainingData
    from posttrain.trainers.sft_trainer import LengthSFTTrainer

    keys: dict[str, Any] = {}
    prepare_cpu(keys)
    data = TrainingData(list(rows), [], [])
    config = SFTConfig(
        output_dir=str(folder),
        seed=seed,
        per_device_train_batch_size=args.rows,
        gradient_accumulation_steps=args.accumulation if side == OURS else 1,
        num_train_epochs=1,
        learning_rate=args.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        max_length=None,
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": weights_dtype("auto", is_lora=True)},
        logging_steps=1000,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **keys,
    )
    return LengthSFTTrainer(
        model=str(resolve_model(args.model).path),
        args=config,
        train_dataset=data.to_dataset(),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        token_budget=budget_of(data.lengths, args.rows, args.accumulation) if side == OURS else None,
    )


def budget_of(lengths: Sequence[int], rows: int, accumulation: int) -> Any:
    """Return the smallest budget, in steps of 1 %, that needs no more optimizer steps than `rows` at a time do."""
    from posttrain.token_budget import TokenBudget

    max_tokens = rows * sum(lengths) // len(lengths) // accumulation
    while True:
        found = TokenBudget(lengths=lengths, max_tokens=max_tokens, accumulation=accumulation)
        if found.steps_per_epoch <= -(-len(lengths) // rows):
            return found
        max_tokens += max(1, max_tokens // 100)


def bin_losses(trainer: Any, bins: Sequence[Sequence[Any]]) -> list[float]:
    """Return the mean loss over the supervised tokens of each bin."""
    import torch

    from posttrain.train_data import NOT_SUPERVISED

    trainer.model.eval()
    found = []
    for rows in bins:
        total, number = 0.0, 0
        for row in rows:
            ids = torch.tensor(row.input_ids[None].astype("int64"))
            labels = torch.tensor(row.labels[None].astype("int64"))
            count = int((labels[:, 1:] != NOT_SUPERVISED).sum())
            inputs = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}
            with torch.no_grad(), trainer.compute_loss_context_manager():
                total += float(trainer.compute_loss(trainer.model, inputs)) * count
            number += count
        found.append(total / number)
    return found


def split(rows: Sequence[Any], args: argparse.Namespace) -> tuple[list[Any], list[list[Any]]]:
    """Return rows to train on, and held-out rows in bins of equal number by length."""
    picked = random.Random(0).sample(list(rows), args.train_rows + args.held_out_rows)
    held_out = sorted(picked[: args.held_out_rows], key=lambda row: row.length)
    size = len(held_out) // NUM_BINS
    bins = [held_out[i * size : (i + 1) * size if i < NUM_BINS - 1 else None] for i in range(NUM_BINS)]
    return picked[args.held_out_rows :], bins


def main() -> int:
    """Train both sides on each seed and print the table."""
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="sft_equal_quality_") as folder:
        scratch = Path(folder)
        whole = argparse.Namespace(**{**vars(args), "max_length": 8192})
        data, tokenizer = token_rows(whole, scratch)
        rows, bins = split([row for row in data.rows if row.length <= args.max_length], args)
        losses: dict[str, list[list[float]]] = {STOCK: [], OURS: []}
        steps: dict[str, int] = {}
        for seed in range(args.seeds):
            for side in (STOCK, OURS) if seed % 2 else (OURS, STOCK):
                trainer = make_trainer(side, args, rows, tokenizer, seed, scratch / side)
                if not seed:
                    losses.setdefault("untrained", [bin_losses(trainer, bins)])
                trainer.train()
                steps[side] = trainer.state.global_step
                losses[side].append(bin_losses(trainer, bins))
                print(f"seed {seed} {side}: {[round(x, 4) for x in losses[side][-1]]}", flush=True)
    table = []
    print(
        "| tokens | rows | untrained | random | token budget | difference, 95 % | noise |\n"
        + "| --- " * 7
        + "|"
    )
    for number, rows_of_bin in enumerate(bins):
        stock, ours = ([run[number] for run in losses[side]] for side in (STOCK, OURS))
        difference = mean_interval([o - s for o, s in zip(ours, stock, strict=True)])
        low, high = difference.low, difference.high
        is_noise = low is not None and high is not None and low <= 0 <= high
        entry = {
            "tokens": [rows_of_bin[0].length, rows_of_bin[-1].length],
            "rows": len(rows_of_bin),
            "untrained": losses["untrained"][0][number],
            STOCK: stock,
            OURS: ours,
            "difference": difference.to_dict(),
            "is_noise": is_noise,
        }
        table.append(entry)
        spread = "" if low is None else f" ({low:+.4f} to {high:+.4f})"
        print(
            f"| {entry['tokens'][0]}-{entry['tokens'][1]} | {entry['rows']} | {entry['untrained']:.4f} "
            f"| {sum(stock) / len(stock):.4f} | {sum(ours) / len(ours):.4f} | {difference.estimate:+.4f}{spread} "
            f"| {'yes' if is_noise else 'NO'} |"
        )
    result = {
        "benchmark": "sft_equal_quality",
        "tokens": sum(row.length for row in rows),
        "steps": steps,
        "bins": table,
        "settings": {key: value for key, value in vars(args).items() if key != "data_dir"},
    }
    print(json.dumps(result))
    return 0 if all(entry["is_noise"] for entry in table) else 1


if __name__ == "__main__":
    raise SystemExit(main())
