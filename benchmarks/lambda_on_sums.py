"""GRPO-lambda beside the plain length penalty and none, on sums of two numbers: accuracy and length, step by step.

    python benchmarks/lambda_on_sums.py [--seeds 0] [--tops 0 0.25 1]

1. A warm start: the embedded model is fine-tuned on sums that are worked out in one of three ways, at length, briefly,
   or not at all. So it is sometimes right, and its answers have lengths to choose among.
2. `lengthwise grpo --config configs/grpo/sums.yaml` from there, for each value of lambda (`shaping.top`) and each seed:
   0 is GRPO, 1 penalises the length of all right answers.
3. All of them answer held-out sums greedily.

What it prints: for each run, means over windows of steps of accuracy, tokens, tokens of right answers, and the share of
prompts whose length was penalised; the first step of a collapse alarm; and the held-out numbers with their intervals.
All is kept in --output_dir, and used again. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from lengthwise.job import job
from lengthwise.statistics import mean_interval, share_interval

FORMS = (
    "Let us add {a} and {b}. The ones are {ao} + {bo} = {o}. We write {w} and carry {c}. The tens are "
    "{at} + {bt} + {c} = {t}. Together this gives {s}.\n#### {s}",
    "{ao}+{bo}={o}, {at}+{bt}+{c}={t}.\n#### {s}",
    "#### {s}",
)
"""Ways to work out a sum: of ones (o, of which w is written and c carried) and tens (t)."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--config", type=Path, default=Path("configs/grpo/sums.yaml"))
    parser.add_argument("--warm_steps", type=int, default=90)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tops", type=float, nargs="+", default=[0, 0.25, 1])
    parser.add_argument("--held_out", type=int, default=100)
    parser.add_argument("--window", type=int, default=5, help="steps of a line of the table")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/lambda_on_sums"))
    return parser.parse_args()


def worked(a: int, b: int, form: str) -> str:
    r"""Return a sum worked out.

    Example:
        >>> worked(47, 38, FORMS[1])
        '7+8=15, 4+3+1=8.\n#### 85'
    """
    ones = a % 10 + b % 10
    carry = ones // 10
    return form.format(
        a=a, b=b, ao=a % 10, bo=b % 10, o=ones, w=ones % 10, c=carry, at=a // 10, bt=b // 10,
        t=a // 10 + b // 10 + carry, s=a + b,
    )  # fmt: skip


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_data(args: argparse.Namespace) -> list[dict[str, str]]:
    """Write the rows of the warm start and the prompts; return the held-out sums, which are in neither."""
    pairs = [(a, b) for a in range(1, 100) for b in range(1, 100)]
    random.Random(0).shuffle(pairs)
    rows = [{"prompt": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in pairs]
    held_out, prompts, warm = rows[: args.held_out], rows[args.held_out : 1000], pairs[1000:]
    write_rows(args.output_dir / "prompts.jsonl", prompts)
    write_rows(
        args.output_dir / "warm.jsonl",
        [
            {"prompt": f"What is {a} + {b}?", "completion": worked(a, b, FORMS[i % len(FORMS)])}
            for i, (a, b) in enumerate(warm)
        ],
    )
    return held_out


def warm_start(args: argparse.Namespace) -> str:
    """Return the model that the runs begin from."""
    run = job(
        "sft",
        reuse=True,
        name="warm",
        model=args.model,
        data=str(args.output_dir / "warm.jsonl"),
        output_dir=str(args.output_dir / "warm"),
        max_steps=args.warm_steps,
        per_device_train_batch_size=8,
        learning_rate=5e-4,
        gradient_checkpointing=False,
        save_strategy="no",
        logging_steps=10,
        seed=0,
    )
    return str(run.path)


def greedy(model: str, rows: Sequence[dict[str, str]], limit: int) -> dict[str, Any]:
    """Return accuracy and tokens of a model's greedy answers."""
    import torch
    from transformers import AutoModelForCausalLM

    from posttrain.base_model import find_base, load_tokenizer
    from posttrain.end_of_turn import stop_token_ids
    from posttrain.rewarded import Rewarded
    from posttrain.rewards import answer_correct

    found = find_base(model)
    tokenizer: Any = load_tokenizer(found)
    tokenizer.padding_side = "left"
    network: Any = AutoModelForCausalLM.from_pretrained(found.path, dtype=torch.float32).eval()
    stops = sorted(stop_token_ids(found.path, tokenizer))
    right, tokens = [], []
    for start in range(0, len(rows), 25):
        part = rows[start : start + 25]
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": row["prompt"]}], tokenize=False, add_generation_prompt=True
            )
            for row in part
        ]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            written = network.generate(
                **batch, do_sample=False, max_new_tokens=limit, eos_token_id=stops, pad_token_id=stops[0]
            )[:, batch["input_ids"].shape[1] :]
        for row, ids in zip(part, written.tolist(), strict=True):
            ends = [i for i, token in enumerate(ids) if token in stops]
            ids = ids[: ends[0]] if ends else ids
            text = tokenizer.decode(ids, skip_special_tokens=True)
            given = Rewarded(text=text, num_tokens=len(ids), is_cut=not ends, row=row)
            right.append(answer_correct.score(given, answer_correct.Config(last_number=False)) == 1)
            tokens.append(float(len(ids) + 1))
    share, length = share_interval(right), mean_interval(tokens)
    return {
        "accuracy": [share.estimate, share.low, share.high],
        "tokens": [length.estimate, length.low, length.high],
    }


COLUMNS = {
    "right": "rewards/answer_correct/mean",
    "tokens": "completions/mean_length",
    "right tokens": "shaping/right_tokens",
    "penalised": "shaping/selected_frac",
    "cut": "completions/clipped_ratio",
}


def curve(run: Path, window: int) -> dict[str, Any]:
    """Return a run's columns, each as means over windows of steps, and the first step of a collapse alarm."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "loss" in row]
    parts = [rows[start : start + window] for start in range(0, len(rows), window)]
    found: dict[str, Any] = {
        name: [fmean([row[key] for row in part if key in row] or [float("nan")]) for part in parts]
        for name, key in COLUMNS.items()
    }
    alarms = [row["step"] for row in rows if row.get("alarm/collapse") == 1]
    return {"steps": [part[-1]["step"] for part in parts], **found, "collapse": alarms[0] if alarms else None}


def main() -> None:
    """Make the data, train, and print."""
    args = arguments()
    held_out = make_data(args)
    warm = warm_start(args)
    found: dict[str, Any] = {"warm": greedy(warm, held_out, 96)}
    print(f"warm start: {found['warm']}", flush=True)
    for seed in args.seeds:
        for top in args.tops:
            name = f"top_{top:g}_seed_{seed}"
            run = job(
                "grpo",
                args.config,
                reuse=True,
                model=warm,
                data=str(args.output_dir / "prompts.jsonl"),
                seed=seed,
                output_dir=str(args.output_dir / name),
                shaping={"name": "grpo_lambda", "top": top, "alpha": 0.2},
            )
            found[name] = {**curve(run.path, args.window), "held_out": greedy(str(run.path), held_out, 96)}
            print(name)
            for column in COLUMNS:
                print(f"  {column:<13}" + "".join(f"{value:8.2f}" for value in found[name][column]))
            print(
                f"  collapse alarm: {found[name]['collapse']}; held out: {greedy_line(found[name]['held_out'])}",
                flush=True,
            )
    print(json.dumps(found))


def greedy_line(row: dict[str, Any]) -> str:
    """Return the held-out numbers in words."""
    share, tokens = row["accuracy"], row["tokens"]
    return (
        f"{share[0]:.0%} right ({share[1]:.0%} to {share[2]:.0%}), {tokens[0]:.1f} tokens "
        f"({tokens[1]:.1f} to {tokens[2]:.1f})"
    )


if __name__ == "__main__":
    main()
