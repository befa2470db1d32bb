"""Useful tokens a second of SFT with a token budget and with stock TRL, which takes 8 rows in random order.

    python benchmarks/sft_throughput.py --data_dir DIR --rounds 3

DIR holds alpaca_en_demo.json, dpo_en_demo.json (its chosen answers are taken) and gsm8k_train.jsonl (300 rows). Both
sides train LoRA on the embedded model in one process, in turn, on the same token ids with the same settings and the
same head: what differs is which rows make up a batch. The padded tokens of a whole epoch are exact: counted off
the very batches that the trainers would draw.

The last line is one JSON object; the exit code is 1 where the median ratio is below --least_ratio.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from step_windows import OURS, STOCK, Clock, add_arguments, epoch_counts, run_rounds, set_head, speeds

NUM_GSM8K = 300


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--steps", type=int, default=6, help="counted steps of a window")
    parser.add_argument("--rows", type=int, default=8, help="rows of a stock batch")
    parser.add_argument("--least_ratio", type=float, default=2.0)
    args = parser.parse_args()
    if args.data_dir is None:
        parser.error("no data: give --data_dir, or set LENGTHWISE_DATA")
    return args


def conversations(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the three files in formats that `lengthwise sft` reads."""
    alpaca = json.loads((folder / "alpaca_en_demo.json").read_text(encoding="utf-8"))
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    pairs = [
        {
            "messages": [
                {"role": roles[turn["from"]], "content": turn["value"]}
                for turn in [*row["conversations"], row["chosen"]]
            ]
        }
        for row in json.loads((folder / "dpo_en_demo.json").read_text(encoding="utf-8"))
    ]
    with (folder / "gsm8k_train.jsonl").open(encoding="utf-8") as lines:
        sums = [json.loads(next(lines)) for _ in range(NUM_GSM8K)]
    return [*alpaca, *pairs, *({"prompt": row["question"], "completion": row["answer"]} for row in sums)]


def token_rows(args: argparse.Namespace, scratch: Path) -> tuple[Any, Any]:
    """Return the rows as token ids and labels, and the tokenizer."""
    from posttrain.base_model import find_base, load_tokenizer
    from posttrain.row_sources import data_sources
    from posttrain.train_data import prepare

    file = scratch / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in conversations(Path(args.data_dir))))
    tokenizer = load_tokenizer(find_base(args.model))
    data = prepare(
        data_sources(str(file)),
        tokenizer,
        max_length=args.max_length,
        over_length="truncate",
        on_bad_row="raise",
        train_on="all",
        mixture_rows=None,
        seed=0,
    )
    return data, tokenizer


def make_trainer(
    side: str, args: argparse.Namespace, data: Any, tokenizer: Any, clock: Clock, seed: int, scratch: Path
) -> Any:
    """Return the trainer of one side: random, group_by_length or token_budget."""
    from peft import LoraConfig
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from lengthwise.models import resolve_model
    from posttrain.batching import Batching, token_budget
    from posttrain.precision import prepare_cpu, weights_dtype
    from posttrain.trainers.sft_trainer import LengthSFTTrainer

    keys: dict[str, Any] = {}
    prepare_cpu(keys)
    config = SFTConfig(
        output_dir=str(scratch / side),
        seed=seed,
        per_device_train_batch_size=args.rows,
        max_steps=args.steps + 1,
        learning_rate=1e-4,
        max_length=None,  # the rows are cut already
        gradient_checkpointing=args.gradient_checkpointing,
        train_sampling_strategy="group_by_length" if side == "group_by_length" else "random",
        model_init_kwargs={"dtype": weights_dtype(args.dtype, is_lora=True)},
        logging_steps=1000,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **keys,
    )
    budget = token_budget(
        Batching(name="token_budget", max_tokens=args.max_tokens),
        data.lengths,
        rows=args.rows,
        num_processes=1,
        accumulation=1,
    )
    own = {"token_budget": budget} if side == OURS else {}
    trainer = clock.watch(LengthSFTTrainer if own else SFTTrainer)(
        model=str(resolve_model(args.model).path),
        args=config,
        train_dataset=data.to_dataset(),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[clock.callback()],
        **own,
    )
    set_head(args.head)
    return trainer


def main() -> int:
    """Run both sides in turn and print what they gave."""
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="sft_throughput_") as folder:
        scratch = Path(folder)
        data, tokenizer = token_rows(args, scratch)

        def trainer(side: str, clock: Clock, seed: int) -> Any:
            return make_trainer(side, args, data, tokenizer, clock, seed, scratch)

        counts = {
            side: epoch_counts(trainer(side, Clock(), 0), data.lengths, data.real_lengths)
            for side in (STOCK, OURS, "group_by_length")
        }
        print(json.dumps({"rows": len(data.rows), "tokens": data.num_tokens, "epoch": counts}), flush=True)
        if args.counts_only:
            return 0
        found = speeds(run_rounds(args.rounds, trainer))
    result = {
        "benchmark": "sft_throughput",
        "rows": len(data.rows),
        "tokens": data.num_tokens,
        "cut_rows": data.over_length[0],
        "epoch": counts,
        **found,
        "settings": {key: value for key, value in vars(args).items() if key != "data_dir"},
    }
    print(json.dumps(result))
    return 0 if found["ratio"] >= args.least_ratio else 1


if __name__ == "__main__":
    raise SystemExit(main())
