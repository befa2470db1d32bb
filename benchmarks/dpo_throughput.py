"""Useful tokens a second of DPO with a token budget and with stock TRL, which takes 4 pairs in random order.

    python benchmarks/dpo_throughput.py --data_dir DIR --rounds 3

DIR holds dpo_en_demo.json. Both sides train LoRA on the embedded model in one process, in turn, on the same token ids
with the same settings and the same head, the adapter being its own reference: what differs is which pairs make up a
batch. The padded tokens of a whole epoch are exact: they are counted off the very batches that the trainers would draw.

The last line is one JSON object; the exit code is 1 where the median ratio is below --least_ratio.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from step_windows import OURS, STOCK, Clock, add_arguments, epoch_counts, run_rounds, set_head, speeds


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--steps", type=int, default=4, help="counted steps of a window")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of a stock batch")
    parser.add_argument("--least_ratio", type=float, default=1.6)
    args = parser.parse_args()
    if args.data_dir is None:
        parser.error("no data: give --data_dir, or set LENGTHWISE_DATA")
    return args


def token_pairs(args: argparse.Namespace) -> tuple[Any, Any]:
    """Return the pairs as tokens, and the tokenizer."""
    from posttrain.base_model import find_base, load_tokenizer
    from posttrain.pair_data import prepare_pairs
    from posttrain.row_sources import data_sources

    tokenizer = load_tokenizer(find_base(args.model))
    data = prepare_pairs(
        data_sources(str(Path(args.data_dir) / "dpo_en_demo.json")),
        tokenizer,
        max_length=args.max_length,
        over_length="truncate",
        on_bad_row="drop",
        mixture_rows=None,
        seed=0,
    )
    return data, tokenizer


def make_trainer(
    side: str, args: argparse.Namespace, data: Any, tokenizer: Any, clock: Clock, seed: int, scratch: Path
) -> Any:
    """Return the trainer of one side: random, group_by_length or token_budget."""
    from peft import LoraConfig
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from lengthwise.models import resolve_model
    from posttrain.batching import Batching, token_budget
    from posttrain.precision import prepare_cpu, weights_dtype
    from posttrain.trainers.dpo_trainer import LengthDPOTrainer

    class Stock(DPOTrainer):
        """TRL's trainer, but for the data, which come as tokens."""

        _prepare_dataset = LengthDPOTrainer._prepare_dataset

    keys: dict[str, Any] = {}
    prepare_cpu(keys)
    config = DPOConfig(
        output_dir=str(scratch / side),
        seed=seed,
        per_device_train_batch_size=args.pairs,
        max_steps=args.steps + 1,
        learning_rate=1e-5,
        max_length=None,  # the pairs are cut already
        gradient_checkpointing=args.gradient_checkpointing,
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
        rows=args.pairs,
        num_processes=1,
        accumulation=1,
    )
    own = {"token_budget": budget} if side == OURS else {}
    trainer = clock.watch(LengthDPOTrainer if own else Stock)(
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
    with tempfile.TemporaryDirectory(prefix="dpo_throughput_") as folder:
        scratch = Path(folder)
        data, tokenizer = token_pairs(args)

        def trainer(side: str, clock: Clock, seed: int) -> Any:
            return make_trainer(side, args, data, tokenizer, clock, seed, scratch)

        counts = {
            side: epoch_counts(trainer(side, Clock(), 0), data.lengths, data.real_lengths)
            for side in (STOCK, OURS)
        }
        print(json.dumps({"pairs": len(data.rows), "tokens": data.num_tokens, "epoch": counts}), flush=True)
        if args.counts_only:
            return 0
        found = speeds(run_rounds(args.rounds, trainer))
    result = {
        "benchmark": "dpo_throughput",
        "pairs": len(data.rows),
        "tokens": data.num_tokens,
        "cut_pairs": data.over_length[0],
        "epoch": counts,
        **found,
        "settings": {key: value for key, value in vars(args).items() if key != "data_dir"},
    }
    print(json.dumps(result))
    return 0 if found["ratio"] >= args.least_ratio else 1


if __name__ == "__main__":
    raise SystemExit(main())
