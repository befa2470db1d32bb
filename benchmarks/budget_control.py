"""Does a model heed a budget of tokens in its prompt after reinforcement learning? The base beside the trained ones.

    python benchmarks/budget_control.py [--config configs/grpo/length_control.yaml] [--seeds 0 1]

Held-out prompts state each of several budgets, and are answered greedily. For each model:

- slope: of length on budget over the answers to one prompt, its mean over the prompts with its interval (95 %, t).
  1 is control, 0 is none: a model that is short everywhere has 0 as one that is long everywhere.
- error: |length - budget| / budget, mean over all answers, prompts clustered; an answer that was cut is as long as the
  cap, which is less than it wanted.
- hits: answers within 20 % of the budget; one that was cut is a miss.
- the best constant: the error of the one length that is best for these budgets, which needs no control at all.

Trained models are kept in --output_dir, and used again. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import linear_regression
from typing import Any

import yaml

from lengthwise.job import job
from lengthwise.statistics import Interval, mean_interval

HIT = 0.2
"""Share of the budget that an answer may be off."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/grpo/length_control.yaml"))
    parser.add_argument("--held_out", type=Path, default=Path("configs/grpo/topics_held_out.jsonl"))
    parser.add_argument("--budgets", type=int, nargs="+", default=[8, 16, 24, 32])
    parser.add_argument("--cap", type=int, default=64, help="tokens at which an answer is cut")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/budget_control"))
    return parser.parse_args()


def best_constant(budgets: Sequence[int], cap: int) -> tuple[int, float]:
    """Return the one length with the least mean error over the budgets, and that error.

    Example:
        >>> best_constant([8, 16, 24, 32], 64)
        (16, 0.4583333333333333)
    """
    errors = {c: sum(abs(c - b) / b for b in budgets) / len(budgets) for c in range(1, cap + 1)}
    best = min(errors, key=lambda c: errors[c])
    return best, errors[best]


Answers = list[list[tuple[int, bool]]]
"""For each prompt and budget the length of the answer, and whether it was cut."""


def answers(
    model: str, prompts: Sequence[str], args: argparse.Namespace, sentence: str
) -> list[list[tuple[int, bool]]]:
    """Return what a model answers greedily."""
    import torch
    from transformers import AutoModelForCausalLM

    from posttrain.base_model import find_base, load_tokenizer
    from posttrain.budget_prompts import with_budget
    from posttrain.end_of_turn import stop_token_ids

    found = find_base(model)
    tokenizer: Any = load_tokenizer(found)
    tokenizer.padding_side = "left"
    network: Any = AutoModelForCausalLM.from_pretrained(found.path, dtype=torch.float32).eval()
    stops = sorted(stop_token_ids(found.path, tokenizer))
    rows = []
    for prompt in prompts:
        texts = [
            tokenizer.apply_chat_template(
                with_budget([{"role": "user", "content": prompt}], budget, sentence=sentence),
                tokenize=False,
                add_generation_prompt=True,
            )
            for budget in args.budgets
        ]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            written = network.generate(
                **batch, do_sample=False, max_new_tokens=args.cap, eos_token_id=stops, pad_token_id=stops[0]
            )[:, batch["input_ids"].shape[1] :]
        ends = [[i for i, token in enumerate(row) if token in stops] for row in written.tolist()]
        rows.append([(end[0] + 1, False) if end else (args.cap, True) for end in ends])
    return rows


def measured(name: str, rows: Answers, budgets: Sequence[int]) -> dict[str, Any]:
    """Return the numbers of one model."""
    slopes = [linear_regression(budgets, [length for length, _ in row]).slope for row in rows]
    errors = [
        sum(abs(n - b) / b for b, (n, _) in zip(budgets, row, strict=True)) / len(budgets) for row in rows
    ]
    hits = [
        sum(abs(n - b) <= HIT * b and not cut for b, (n, cut) in zip(budgets, row, strict=True))
        / len(budgets)
        for row in rows
    ]
    by_budget = {b: sum(row[i][0] for row in rows) / len(rows) for i, b in enumerate(budgets)}
    cut = sum(is_cut for row in rows for _, is_cut in row) / (len(rows) * len(budgets))
    return {
        "model": name,
        "slope": numbers(mean_interval(slopes)),
        "error": numbers(mean_interval(errors)),
        "hits": numbers(mean_interval(hits)),
        "cut": cut,
        "mean_length": by_budget,
    }


def numbers(interval: Interval) -> list[float | None]:
    """Return estimate, lower and upper end."""
    return [interval.estimate, interval.low, interval.high]


def line(row: dict[str, Any]) -> str:
    """Return a model's numbers as a line of the table."""

    def shown(key: str) -> str:
        estimate, low, high = row[key]
        return f"{estimate:6.3f}" + ("" if low is None else f" ({low:.3f} to {high:.3f})")

    lengths = ", ".join(f"{b}: {n:.1f}" for b, n in row["mean_length"].items())
    return (
        f"{row['model']:<8} slope {shown('slope')}  error {shown('error')}  hits {shown('hits')}  "
        f"cut {row['cut']:.0%}  mean tokens {lengths}"
    )


def main() -> None:
    """Train what is not there yet, then measure all models on the same prompts."""
    args = arguments()
    config = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    sentence = config["budget"]["sentence"]
    prompts = [json.loads(row)["prompt"] for row in args.held_out.read_text(encoding="utf-8").splitlines()]
    models = {"base": config["model"]}
    for seed in args.seeds:
        run = job(
            "grpo", args.config, reuse=True, seed=seed, output_dir=str(args.output_dir / f"seed_{seed}")
        )
        models[f"seed {seed}"] = str(run.path)
    constant, least = best_constant(args.budgets, args.cap)
    found = []
    for name, model in models.items():
        found.append(measured(name, answers(model, prompts, args, sentence), args.budgets))
        print(line(found[-1]), flush=True)
    print(f"best constant length: {constant} tokens, error {least:.3f}")
    print(
        json.dumps(
            {"budgets": args.budgets, "prompts": len(prompts), "constant": [constant, least], "models": found}
        )
    )


if __name__ == "__main__":
    main()
