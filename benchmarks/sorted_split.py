"""Completions dealt to forward passes by length, against TRL's own split: seconds of a step, and its gradient.

    python benchmarks/sorted_split.py [--rounds 3]

Both sides train the embedded model in full, in one process and in turn, on the same given completions, whose lengths
have a long tail: most are near the median, a few near the limit. TRL pads every forward pass of a generation to the
longest of all; ours each to its own. Seconds are those of TRL's own `step_time`: loss and gradients, since nothing is
generated. The gradients of the first step are compared entry by entry.

The last line is one JSON object; the exit code is 1 where gradients differ or the median ratio is below --least_ratio.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

GROUP = 8
LARGEST_DIFFERENCE = 1e-4
"""Of the gradients, as a share of their norm: in float32 the sums have other orders."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="steps of a round; the first one is not counted")
    parser.add_argument("--rows", type=int, default=4, help="completions of a forward pass")
    parser.add_argument("--passes", type=int, default=8, help="forward passes of a step")
    parser.add_argument("--median", type=float, default=40, help="tokens")
    parser.add_argument(
        "--spread", type=float, default=0.9, help="standard deviation of the log of the length"
    )
    parser.add_argument("--limit", type=int, default=256, help="most tokens of a completion")
    parser.add_argument("--loss_type", default="dapo")
    parser.add_argument("--least_ratio", type=float, default=1.2)
    return parser.parse_args()


def draw_lengths(args: argparse.Namespace, step: int) -> list[int]:
    """Return the lengths of a step's completions, log-normal and cut at the limit."""
    stream = random.Random(step)
    number = args.rows * args.passes
    return [
        max(2, min(args.limit, round(stream.lognormvariate(math.log(args.median), args.spread))))
        for _ in range(number)
    ]


def gradients_and_seconds(side: str, args: argparse.Namespace, folder: Path) -> tuple[Any, list[float]]:
    """Train a few steps on one side; return the first gradient, flat, and the counted seconds of each step."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from posttrain.base_model import find_base, load_tokenizer
    from posttrain.trainers.grpo_trainer import LengthGRPOTrainer

    model = find_base(args.model)
    tokenizer: Any = load_tokenizer(model)
    first: list[Any] = []

    class KeepGradient(TrainerCallback):
        def on_pre_optimizer_step(self, a: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if not first:
                parts = [p.grad.flatten() for p in kwargs["model"].parameters() if p.grad is not None]
                first.append(torch.cat(parts).clone())

    def given(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        lengths = draw_lengths(args, trainer.state.global_step)
        stream = random.Random(trainer.state.global_step)
        ids = [
            [stream.randrange(1000, 20000) for _ in range(n - 1)] + [tokenizer.eos_token_id] for n in lengths
        ]
        asked = [
            tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=True, return_dict=False)
            for p in prompts
        ]
        return {"prompt_ids": asked, "completion_ids": ids, "logprobs": None}

    def shortest_first(*, completion_ids: list[list[int]], **columns: Any) -> list[float]:
        return [-float(len(ids)) for ids in completion_ids]

    trainer = (LengthGRPOTrainer if side == "sorted" else GRPOTrainer)(
        model=str(model.path),
        reward_funcs=[shortest_first],
        args=GRPOConfig(
            output_dir=str(folder / side),
            max_steps=args.steps,
            per_device_train_batch_size=args.rows,
            gradient_accumulation_steps=args.passes,
            num_generations=GROUP,
            max_completion_length=args.limit,
            loss_type=args.loss_type,
            learning_rate=1e-6,
            gradient_checkpointing=False,
            use_cpu=not torch.cuda.is_available(),
            bf16=False,
            report_to="none",
            logging_steps=1,
            save_strategy="no",
            disable_tqdm=True,
            model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": "Go on."}]} for _ in range(64)]
        ),
        processing_class=tokenizer,
        rollout_func=given,
        callbacks=[KeepGradient()],
    )
    trainer.train()
    seconds = [line["step_time"] for line in trainer.state.log_history if "step_time" in line]
    return first[0], seconds[1:]


def padded_tokens(args: argparse.Namespace, *, is_sorted: bool) -> int:
    """Return the completion tokens of the first step, with padding."""
    lengths = draw_lengths(args, 0)
    if not is_sorted:
        return len(lengths) * max(lengths)
    ordered = sorted(lengths)
    return sum(args.rows * ordered[i + args.rows - 1] for i in range(0, len(ordered), args.rows))


def main() -> int:
    """Run both sides in turn and print what they gave."""
    args = arguments()
    seconds: dict[str, list[float]] = {"trl": [], "sorted": []}
    difference = 0.0
    with tempfile.TemporaryDirectory(prefix="sorted_split_") as scratch:
        for number in range(args.rounds):
            gradients = {}
            for side in seconds if number % 2 == 0 else reversed(seconds):
                gradients[side], taken = gradients_and_seconds(side, args, Path(scratch))
                seconds[side] += taken
            norm = float(gradients["trl"].norm())
            difference = max(difference, float((gradients["trl"] - gradients["sorted"]).norm()) / norm)
    ratios = [a / b for a, b in zip(seconds["trl"], seconds["sorted"], strict=True)]
    found = {
        "seconds_trl": seconds["trl"],
        "seconds_sorted": seconds["sorted"],
        "median_ratio": statistics.median(ratios),
        "gradient_difference": difference,
        "real_tokens": sum(draw_lengths(args, 0)),
        "padded_tokens_trl": padded_tokens(args, is_sorted=False),
        "padded_tokens_sorted": padded_tokens(args, is_sorted=True),
    }
    for name, value in found.items():
        print(f"{name:<22}{value}")
    print(json.dumps(found))
    is_good = difference < LARGEST_DIFFERENCE and found["median_ratio"] >= args.least_ratio
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
