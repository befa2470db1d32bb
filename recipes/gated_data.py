"""Is data that passed the gate better data? The same number of tokens with and without it, held-out prompts.

    python recipes/gated_data.py --data alpaca.json --seeds 0 1 2

A model answers instructions that state a length, several times each. Its answers are trained on twice: those that
the gate lets pass, and as many tokens of all of them, drawn by lot. So both sides learn from the model's own
texts, of the same prompts, for about as many steps; only the choice differs. This is rejection sampling, with the
gate as its judge.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.run_results import open_results
from lengthwise.alpaca import asked, read_alpaca
from lengthwise.config import ConfigError
from lengthwise.files import write_rows
from lengthwise.job import job, run_main
from lengthwise.run_dir import RunDir
from lengthwise.statistics import mean_interval

WORDS = (20, 30, 40, 50, 60, 80, 100, 120, 150, 200)
TASK = "longbench_write"


def prompts_of(rows: Iterable[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Return each instruction of Alpaca-form rows once, in an order of the seed, with a length drawn for it."""
    stream = random.Random(seed)
    texts = list(dict.fromkeys(map(asked, rows)))
    stream.shuffle(texts)
    found = []
    for text in texts:
        words = stream.choice(WORDS)
        found.append(
            {"prompt": f"{text}\n\nWrite about {words} words.", "type": "instruction", "length": words}
        )
    return found


def as_row(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scored reply of an evaluation as a row to train on, with what the gate reads."""
    answer = {"role": "assistant", "content": reply["resps"][0]}
    return {
        "id": f"{reply['id']}-{reply['completion_index']}",
        "messages": [*reply["arguments"], answer],
        "finish_reason": reply["finish_reason"],
        "num_tokens": reply["num_tokens"],
    }


def as_many_tokens(rows: Sequence[dict[str, Any]], num_tokens: int, seed: int) -> list[dict[str, Any]]:
    """Return rows drawn by lot until their answers hold `num_tokens` tokens, the one that reaches it with them.

    To go on behind one that is too long would favour short rows.

    Example:
        >>> len(as_many_tokens([{"num_tokens": 10}] * 5, 35, seed=0))
        4
    """
    found, total = [], 0
    for row in random.Random(seed).sample(list(rows), len(rows)):
        if total >= num_tokens:
            break
        found.append(row)
        total += row["num_tokens"]
    return found


def scores(run: RunDir) -> dict[str, float]:
    """Return S_l of each prompt."""
    return {row["id"]: row["metrics"]["s_l"] for row in open_results(run.path).rows(TASK)}


def difference(sides: Mapping[str, Sequence[RunDir]], one: str, other: str) -> dict[str, Any]:
    """Return the mean difference of S_l, twice: over prompts, each the mean of its seeds, and over seeds.

    The first says how far other prompts would change it, these trainings given; the second how far other trainings
    would, these prompts given. A difference that holds for other prompts and other trainings is clear in both.
    """
    of_prompt: dict[str, list[float]] = {}
    of_seed = []
    for first, second in zip(sides[one], sides[other], strict=True):
        before = scores(second)
        found = {prompt: value - before[prompt] for prompt, value in scores(first).items()}
        of_seed.append(sum(found.values()) / len(found))
        for prompt, value in found.items():
            of_prompt.setdefault(prompt, []).append(value)
    means = [sum(values) / len(values) for values in of_prompt.values()]
    return {
        "over_prompts": mean_interval(means).to_dict(),
        "over_seeds": mean_interval(of_seed).to_dict(),
        "of_each_seed": [round(value, 2) for value in of_seed],
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="JSON or JSON lines in Alpaca form; answers are not used"
    )
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--num_prompts", type=int, default=200)
    parser.add_argument("--num_samples", type=int, default=4, help="answers to each prompt")
    parser.add_argument("--num_held_out", type=int, default=96)
    parser.add_argument("--max_tokens", type=int, default=400, help="of an answer")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/gated_data"))
    return parser.parse_args()


def answers(args: argparse.Namespace, name: str, model: str | Path, data: Path, **options: Any) -> RunDir:
    """Ask a model the prompts of a file."""
    return job(
        "eval",
        "configs/evals/demo.yaml",
        model=model,
        tasks=[{"name": TASK, "data": str(data)}],
        sampling={"max_tokens": args.max_tokens},
        output_dir=args.output_dir / name,
        reuse=True,
        **options,
    )


def trained(args: argparse.Namespace, side: str, seed: int, rows: Sequence[dict[str, Any]]) -> Path:
    """Train an adapter on rows, and return its folder."""
    print(f"seed {seed} {side}: {len(rows)} rows, {sum(r['num_tokens'] for r in rows)} tokens", flush=True)
    return job(
        "sft",
        "configs/sft/demo.yaml",
        model=args.model,
        data=write_rows(args.output_dir / f"{side}_{seed}.jsonl", map(conversation, rows)),
        seed=seed,
        num_train_epochs=2,
        per_device_train_batch_size=8,
        train_sampling_strategy="group_by_length",
        output_dir=args.output_dir / f"model_{side}_{seed}",
        reuse=True,
    ).path


def main() -> int:
    """Sample, gate, train both sides on each seed, evaluate, compare."""
    args = arguments()
    folder = args.output_dir
    prompts = prompts_of(read_alpaca(args.data, with_answers=False), seed=0)
    if len(prompts) < args.num_prompts + args.num_held_out:
        raise ConfigError(
            f"--data has {len(prompts)} instructions, fewer than --num_prompts + --num_held_out: lower these"
        )
    held_out = write_rows(folder / "held_out.jsonl", prompts[: args.num_held_out])
    train = write_rows(folder / "prompts.jsonl", prompts[args.num_held_out :][: args.num_prompts])
    sampled = answers(args, "sampled", args.model, train, num_samples=args.num_samples)
    replies = list(open_results(sampled.path).rows(TASK))
    everything = [as_row(reply) for reply in replies if reply["resps"][0].strip()]
    num_empty = len(replies) - len(everything)
    print(f"{len(replies)} answers, {num_empty} of them empty, which no training takes", flush=True)
    gate = job(
        "build",
        "configs/data/gate.yaml",
        data=write_rows(folder / "all.jsonl", everything),
        builder={"name": "gate", "max_per_prompt": None},
        min_kept_frac=0.0,
        output_dir=folder / "gate",
        reuse=True,
    )
    gated = gate.rows()
    num_tokens = sum(row["num_tokens"] for row in gated)
    runs = {"base": [answers(args, "eval_base", args.model, held_out)] * len(args.seeds)}
    for seed in args.seeds:
        ungated = as_many_tokens(everything, num_tokens, seed)
        for side, rows in (("gated", gated), ("ungated", ungated)):
            model = trained(args, side, seed, rows)
            runs.setdefault(side, []).append(answers(args, f"eval_{side}_{seed}", model, held_out))
    means = {
        side: [round(mean_interval(list(scores(run).values())).estimate, 1) for run in found]
        for side, found in runs.items()
    }
    pairs = (("gated", "ungated"), ("gated", "base"), ("ungated", "base"))
    found = {
        "answers": len(everything),
        "gate": gate.manifest["counts"],
        "tokens": num_tokens,
        "s_l": means,
        "differences": {f"{one} - {other}": difference(runs, one, other) for one, other in pairs},
    }
    print(json.dumps(found, indent=1))
    return 0


def conversation(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a training reads of a row."""
    return {"id": row["id"], "messages": row["messages"]}


if __name__ == "__main__":
    raise SystemExit(run_main(main))
