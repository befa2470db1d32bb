"""Two trainers in turn, over windows of steps: useful tokens a second of each, and what their batches come to.

What `sft_throughput.py` and `dpo_throughput.py` have in common. A round's window is the first steps of an epoch whose
order the round's number decides; a step before it warms up and is not counted. Useful tokens are those that are no
padding; they are counted off the tensors that the model is given.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

STOCK, OURS = "random", "token_budget"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what both benchmarks take."""
    parser.add_argument(
        "--data_dir", default=os.environ.get("LENGTHWISE_DATA"), help="the folder of the data files"
    )
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max_tokens", type=int, help="the budget; default: as for batching.max_tokens")
    parser.add_argument("--max_length", type=int, default=2048, help="longer rows are cut, on both sides")
    parser.add_argument("--dtype", default="auto", help="type of the weights")
    parser.add_argument(
        "--head", choices=["supervised", "all"], default="supervised", help="positions projected"
    )
    parser.add_argument("--gradient_checkpointing", type=json.loads, default=True)
    parser.add_argument(
        "--counts_only", action="store_true", help="count an epoch's tokens, and train nothing"
    )


class Clock:
    """Seconds and tokens of each step."""

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


def set_head(positions: str) -> None:
    """Make the fused head of both sides project all positions, or the supervised ones."""
    from trl.trainer import utils as trl_utils

    from posttrain.trainers.length_trainer import project_supervised_only

    project_supervised_only()
    if positions == "all":
        hooks: Any = trl_utils
        hooks._use_triton = lambda device: False


def epoch_counts(trainer: Any, lengths: Sequence[int], real_lengths: Sequence[int]) -> dict[str, Any]:
    """Return the steps and padded tokens of an epoch, counted off the trainer's own batches.

    Args:
        trainer: whose batches are drawn.
        lengths: what each row adds to a batch whose longest row it is, in tokens.
        real_lengths: tokens of each row that are no padding in any batch.
    """
    batches = [list(batch) for batch in trainer.get_train_dataloader().batch_sampler]
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    padded = [len(batch) * max(lengths[row] for row in batch) for batch in batches]
    return {
        "steps": len(batches),
        "padded_tokens": sum(padded),
        "real_frac": round(sum(real_lengths) / sum(padded), 4),
        "largest_batch": max(padded),
    }


def run_rounds(
    rounds: int, make_trainer: Callable[[str, Clock, int], Any]
) -> dict[str, list[dict[str, Any]]]:
    """Train a window of each side a round, in turn, and return what the clocks say.

    Args:
        rounds: how many.
        make_trainer: returns the trainer of a side, which the clock watches, with the round's number as its seed.
    """
    found: dict[str, list[dict[str, Any]]] = {STOCK: [], OURS: []}
    for number in range(rounds):
        for side in (STOCK, OURS) if number % 2 else (OURS, STOCK):
            clock = Clock()
            make_trainer(side, clock, number).train()
            found[side].append(clock.window())
            print(f"round {number} {side}: {json.dumps(found[side][-1])}", flush=True)
    return found


def speeds(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the useful tokens a second of both sides, and how many times ours is the stock side's."""
    by_side = {side: [window["useful_per_second"] for window in windows] for side, windows in found.items()}
    totals = {
        side: sum(w["useful_tokens"] for w in windows) / sum(w["seconds"] for w in windows)
        for side, windows in found.items()
    }
    ratios = [ours / stock for ours, stock in zip(by_side[OURS], by_side[STOCK], strict=True)]
    return {
        "useful_per_second": {
            side: [round(value, 1) for value in values] for side, values in by_side.items()
        },
        "ratio": round(statistics.median(ratios), 3),
        "ratio_per_round": [round(value, 3) for value in ratios],
        "ratio_of_totals": round(totals[OURS] / totals[STOCK], 3),
        "cores": os.cpu_count(),
    }
