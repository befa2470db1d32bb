"""Useful tokens a second of SFT with a token budget and with stock TRL, which takes 8 rows in random order.

    python benchmarks/sft_throughput.py --data_dir DIR --rounds 3

DIR holds alpaca_en_demo.json, dpo_en_demo.json (its chosen answers are taken) and gsm8k_train.jsonl (300 rows). Both
sides train LoRA on the embedded model in one process, in turn, on the same token ids with the same settings and the
same head: what differs is which rows make up a batch. A round's window is the first steps of an epoch whose order its
number decides; a step before it warms up. Useful tokens are those that are no padding. The padded tokens of a whole
epoch are exact: they are counted off the very batches that the trainers would draw.

The last line is one JSON object; the exit code is 1 where the median ratio is below --least_ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NUM_GSM8K = 300


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--data_dir", default=os.environ.get("LENGTHWISE_DATA"), help="the three files' folder"
    )
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="counted steps of a window")
    parser.add_argument("--rows", type=int, default=8, help="rows of a stock batch")
    parser.add_argument("--max_tokens", type=int, help="the budget; default: as for batching.max_tokens")
    parser.add_argument("--max_length", type=int, default=2048, help="longer rows are cut, on both sides")
    parser.add_argument("--dtype", default="auto", help="type of the weights")
    parser.add_argument(
        "--head", choices=["supervised", "all"], default="supervised", help="positions projected"
    )
    parser.add_argument("--gradient_checkpointing", type=json.loads, default=True)
    parser.add_argument("--least_ratio", type=float, default=2.0)
    parser.add_argument(
        "--counts_only", action="store_true", help="count an epoch's tokens, and train nothing"
    )
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


class Clock:
    """Seconds and tokens of each step, read off the tensors that the model was given."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.seconds: list[float] = []
        self.useful: list[int] = []
        self.padded: list[int] = []

    def watch(self, base: type[Any]) -> type[Any]:
        """Return the trainer class, with its batches counted."""
        clock = self

        class Watched(base):
            def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
                clock.useful[-1] += int(inputs["attention_mask"].sum())
                clock.padded[-1] += inputs["input_ids"].numel()
                return super().training_step(model, inputs, *args, **kwargs)

        return Watched

    def callback(self) -> Any:
        """Return what starts and stops the clock."""
        from transformers import TrainerCallback

        clock = self

        class Timed(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                clock.useful.append(0)
                clock.padded.append(0)
                self.began = time.perf_counter()

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                clock.seconds.append(time.perf_counter() - self.began)

        return Timed()

    def window(self) -> dict[str, Any]:
        """Return the figures of all steps but the first."""
        seconds, useful, padded = sum(self.seconds[1:]), sum(self.useful[1:]), sum(self.padded[1:])
        return {
            "seconds": round(seconds, 2),
            "useful_tokens": useful,
            "padded_tokens": padded,
            "useful_per_second": useful / seconds,
            "padded_per_second": padded / seconds,
        }


def make_trainer(
    side: str, args: argparse.Namespace, data: Any, tokenizer: Any, clock: Clock, seed: int, scratch: Path
) -> Any:
    """Return the trainer of one side: random, group_by_length or token_budget."""
    from peft import LoraConfig
    from trl.trainer import utils as trl_utils
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from lengthwise.models import resolve_model
    from posttrain.batching import Batching, token_budget
    from posttrain.precision import prepare_cpu, weights_dtype
    from posttrain.trainers.length_trainer import project_supervised_only
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
    lengths = [len(row.input_ids) for row in data.rows]
    budget = token_budget(
        Batching(name="token_budget", max_tokens=args.max_tokens),
        lengths,
        rows=args.rows,
        num_processes=1,
        accumulation=1,
    )
    own = {"token_budget": budget} if side == "token_budget" else {}
    trainer = clock.watch(LengthSFTTrainer if own else SFTTrainer)(
        model=str(resolve_model(args.model).path),
        args=config,
        train_dataset=data.to_dataset(),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[clock.callback()],
        **own,
    )
    project_supervised_only()
    if args.head == "all":
        trl_utils._use_triton = lambda device: False
    return trainer


def epoch_counts(trainer: Any, lengths: Sequence[int]) -> dict[str, Any]:
    """Return the steps and padded tokens of an epoch, counted off the trainer's own batches."""
    batches = [list(batch) for batch in trainer.get_train_dataloader().batch_sampler]
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    padded = [len(batch) * max(lengths[row] for row in batch) for batch in batches]
    return {
        "steps": len(batches),
        "padded_tokens": sum(padded),
        "real_frac": round(sum(lengths) / sum(padded), 4),
        "largest_batch": max(padded),
    }


def main() -> int:
    """Run both sides in turn and print what they gave."""
    args = arguments()
    sides = ("random", "token_budget")
    rounds: dict[str, list[Mapping[str, Any]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory(prefix="sft_throughput_") as folder:
        scratch = Path(folder)
        data, tokenizer = token_rows(args, scratch)
        lengths = [len(row.input_ids) for row in data.rows]
        counts = {
            side: epoch_counts(make_trainer(side, args, data, tokenizer, Clock(), 0, scratch), lengths)
            for side in (*sides, "group_by_length")
        }
        print(json.dumps({"rows": len(lengths), "tokens": sum(lengths), "epoch": counts}), flush=True)
        for number in range(0 if args.counts_only else args.rounds):
            for side in sides[:: 1 if number % 2 else -1]:
                clock = Clock()
                make_trainer(side, args, data, tokenizer, clock, number, scratch).train()
                rounds[side].append(clock.window())
                print(f"round {number} {side}: {json.dumps(rounds[side][-1])}", flush=True)
    if args.counts_only:
        return 0
    speeds = {side: [found["useful_per_second"] for found in rounds[side]] for side in sides}
    ratios = [ours / stock for ours, stock in zip(speeds["token_budget"], speeds["random"], strict=True)]
    totals = {
        side: sum(f["useful_tokens"] for f in rounds[side]) / sum(f["seconds"] for f in rounds[side])
        for side in sides
    }
    ratio = statistics.median(ratios)
    result = {
        "benchmark": "sft_throughput",
        "rows": len(lengths),
        "tokens": sum(lengths),
        "cut_rows": data.over_length[0],
        "epoch": counts,
        "useful_per_second": {side: [round(speed, 1) for speed in speeds[side]] for side in sides},
        "ratio": round(ratio, 3),
        "ratio_per_round": [round(value, 3) for value in ratios],
        "ratio_of_totals": round(totals["token_budget"] / totals["random"], 3),
        "settings": {key: value for key, value in vars(args).items() if key != "data_dir"},
        "cores": os.cpu_count(),
    }
    print(json.dumps(result))
    return 0 if ratio >= args.least_ratio else 1


if __name__ == "__main__":
    raise SystemExit(main())
