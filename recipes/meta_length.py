"""Does a meta length token hold a length better than words do? One training with tokens, one with words, one without.

    python recipes/meta_length.py --data alpaca.json --seeds 0

Ruler (arXiv 2409.18943) on any instruction data: the rows that `data_builders/mlt.py` lets pass are made twice, with
the token of their length in the answer, and with the same length as a sentence in the prompt. Each is trained on,
adapters are merged, and held-out instructions are asked for each target: by the token, by the sentence, and of the
untuned model by the sentence. The first model is also asked for no length: it then opens with a token of its own
choice, and keeps to it or not. Every step is an ordinary job under --output_dir; give the command again to go on.

--max_tokens has to hold the upper edge of the window of the largest target (150: 200 words); a reply cut there is long.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from lengthwise.alpaca import asked, read_alpaca
from lengthwise.config import ConfigError
from lengthwise.files import atomic_write, write_rows
from lengthwise.job import job, merged, run_main
from lengthwise.length_wishes import parse_length_wish
from lengthwise.lengths import TLG_TARGETS
from lengthwise.meta_length import MLT_FORMAT
from lengthwise.paired import paired_difference
from lengthwise.report import main as report
from lengthwise.run_dir import RunDir
from lengthwise.statistics import Interval, share_interval

ALL = "all"
"""The row of a table that holds every target."""
METRICS = ("fm", "pm")
COUNTER = "regex_w"
"""What `tlg` counts words by."""
EVAL = {"name": "vllm", "max_model_len": 1024, "cpu_kv_cache_gib": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What one prompt scored, 0..1, and how many words were written, over the seeds of a training."""

    id: str
    target: str
    question: str
    scores: Mapping[str, float]
    words: float


def split(
    rows: Iterable[Mapping[str, Any]], num_held_out: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows to ask with and those to train on; no instruction is in both.

    Held out are instructions that state no length, each once, in an order that is drawn once for all runs.

    Args:
        rows: Alpaca form: `instruction`, `input`, `output`.
        num_held_out: how many to ask with; fewer come out where there are not as many.
    """
    shuffled = [dict(row) for row in rows]
    random.Random(0).shuffle(shuffled)
    held_out: dict[str, dict[str, Any]] = {}
    for row in shuffled:
        question = _question(row)
        if len(held_out) < num_held_out and parse_length_wish(question) is None:
            held_out.setdefault(
                question,
                {"id": str(len(held_out)), "instruction": row["instruction"], "input": row.get("input", "")},
            )
    return list(held_out.values()), [row for row in shuffled if _question(row) not in held_out]


def _question(row: Mapping[str, Any]) -> str:
    return asked(row, "\n")


def over_seeds(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[Reply]:
    """Return the scores of each prompt, the mean over the runs of a model with other seeds.

    Args:
        runs: rows of the samples files of `tlg`, the same prompts in each.

    Example:
        >>> row = {"id": "0/30", "cluster": "0", "slices": {"target": "30"}, "counts": {"regex_w": 31}}
        >>> (found,) = over_seeds([[row | {"metrics": {"fm": 1, "pm": 0}}], [row | {"metrics": {"fm": 0, "pm": 0}}]])
        >>> found.target, found.scores, found.words
        ('30', {'fm': 0.5, 'pm': 0.0}, 31.0)
    """
    rows_of: dict[str, list[Mapping[str, Any]]] = {}
    for row in (row for run in runs for row in run):
        rows_of.setdefault(row["id"], []).append(row)
    return [
        Reply(
            id=row["id"],
            target=row["slices"]["target"],
            question=row["cluster"],
            scores={name: fmean(found["metrics"][name] for found in rows_of[row["id"]]) for name in METRICS},
            words=fmean(found["counts"][COUNTER] for found in rows_of[row["id"]]),
        )
        for row in runs[0]
    ]


def of_target(replies: Sequence[Reply], target: str) -> list[Reply]:
    """Return the replies to a target, or all of them."""
    return [reply for reply in replies if target in (ALL, reply.target)]


def shares(replies: Sequence[Reply], metric: str, target: str) -> Interval:
    """Return the share of replies that match, with its interval; prompts of one question are no independent ones."""
    chosen = of_target(replies, target)
    return share_interval([r.scores[metric] for r in chosen], clusters=[r.question for r in chosen])


def table(measured: Mapping[str, Sequence[Reply]], targets: Sequence[str]) -> list[str]:
    """Return the models' matches by target, and the first one's difference from each other, as Markdown lines.

    Differences are paired, prompt by prompt, with the interval for one comparison: there are several, by target.
    """
    first, *others = measured
    lines = [
        f"| metric | target | n | {' | '.join(measured)} | {' | '.join(f'{first} - {other}' for other in others)} |",
        "| --- " * (3 + len(measured) + len(others)) + "|",
    ]
    for metric in METRICS:
        for target in (*targets, ALL):
            cells = [_interval(shares(replies, metric, target)) for replies in measured.values()]
            for other in others:
                a, b = of_target(measured[first], target), of_target(measured[other], target)
                found = paired_difference(
                    [r.scores[metric] for r in a],
                    [r.scores[metric] for r in b],
                    clusters=[r.question for r in a],
                )
                chance = "" if found.p_value is None else f", p {found.p_value:.2g}"
                cells.append(f"{_interval(found, signed=True)}{chance}")
            number = len(of_target(measured[first], target))
            lines.append(f"| {metric} | {target} | {number} | {' | '.join(cells)} |")
    for target in targets:  # a model that does not heed the length writes as much whatever is asked
        chosen = [of_target(replies, target) for replies in measured.values()]
        cells = [f"{median(reply.words for reply in found):g}" for found in chosen] + [""] * len(others)
        lines.append(f"| median words | {target} | {len(chosen[0])} | {' | '.join(cells)} |")
    return lines


def _interval(found: Interval, *, signed: bool = False) -> str:
    shown = "+.2f" if signed else ".2f"
    if found.low is None or found.high is None:
        return f"{found.estimate:{shown}}"
    return f"{found.estimate:{shown}} [{found.low:{shown}}, {found.high:{shown}}]"


def own_choice(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how a model kept to the tokens that it chose itself, as lines; a reply without one is a miss."""
    chosen: dict[str, list[float]] = {}
    for row in rows:
        chosen.setdefault(row["slices"]["mlt"], []).append(row["metrics"]["fm"])
    known = [label for label in (*TLG_TARGETS, "none") if label in chosen]
    matches = [score for scores in chosen.values() for score in scores]
    found = share_interval(matches)
    counted = ", ".join(f"{label}: {sum(chosen[label]):.0f} of {len(chosen[label])}" for label in known)
    return [f"own choice: fm {_interval(found)} of {found.n} replies; matched by token: {counted}"]


def build_rows(args: argparse.Namespace, form: str, data: Path) -> RunDir:
    """Make the training rows of a form."""
    return job(
        "build",
        builder={
            "name": "mlt",
            "form": form,
            "windows": args.windows,
            "targets": args.targets,
            "max_per_mlt": args.max_per_mlt,
        },
        data=data,
        min_kept_frac=0.0,
        output_dir=args.output_dir / f"rows_{form}",
        reuse=True,
    )


def trained(args: argparse.Namespace, form: str, data: RunDir, seed: int) -> Path:
    """Train on a form's rows; return the folder of the whole model."""
    name = f"{form}_{seed}"
    options: dict[str, Any] = {}
    if not args.full:
        options["lora"] = {"r": args.lora_r, "alpha": 2 * args.lora_r}
    if form == "mlt":
        options["added_tokens"] = {"mlt_format": MLT_FORMAT, "start": args.start}
    run = job(
        "sft",
        name=name,
        model=args.model,
        data=data.path,
        seed=seed,
        **options,
        learning_rate=args.learning_rate or (5e-5 if args.full else 5e-4),
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        num_train_epochs=args.num_train_epochs,
        per_device_train_batch_size=8,
        train_sampling_strategy="group_by_length",  # a batch of like lengths is hardly padded
        gradient_checkpointing=False,
        logging_steps=10,
        save_steps=args.save_steps,
        save_total_limit=1,
        output_dir=args.output_dir / f"model_{name}",
        reuse=True,
    )
    return merged(run.path)


def evaluated(
    args: argparse.Namespace, model: str | Path, name: str, held_out: Path, *, by_token: bool
) -> RunDir:
    """Ask a model for each target, by the token or by the sentence; one with tokens also for a length of its own."""
    shared = {"name": "tlg", "data": str(held_out)}
    tasks: list[dict[str, Any]] = [{**shared, "label": "told", "targets": args.targets}]
    if by_token:
        tasks[0]["mlt"] = "given"
        tasks.append({**shared, "label": "own", "mlt": "self"})
    return job(
        "eval",
        name=name,
        model=model,
        engine=args.engine,
        tasks=tasks,
        sampling={"max_tokens": args.max_tokens},
        max_concurrent_samples=args.max_concurrent_samples,
        output_dir=args.output_dir / f"eval_{name}",
        reuse=True,
    )


def samples(run: RunDir, label: str) -> list[dict[str, Any]]:
    """Return the scored replies of a task of an evaluation."""
    (file,) = run.path.glob(f"samples_{label}_*.jsonl")
    return run.rows(file.name)


def json_map(text: str) -> dict[str, Any]:
    """Read a flag's map."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON map")
    return found


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON or JSON lines in Alpaca form")
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--num_held_out", type=int, default=40, help="instructions to ask with")
    parser.add_argument("--targets", nargs="+", default=["10", "30", "50", "80", "150"], choices=TLG_TARGETS)
    parser.add_argument(
        "--windows", choices=("code", "paper", "fm"), default="fm", help="of the training rows"
    )
    parser.add_argument("--max_per_mlt", type=int, default=120, help="training rows of one token")
    parser.add_argument("--full", action="store_true", help="full fine-tuning instead of LoRA")
    parser.add_argument("--lora_r", type=int, default=16)
    parser.add_argument("--start", choices=("pieces", "mean"), default="pieces", help="of the new rows")
    parser.add_argument("--learning_rate", type=float, help="default: 5e-4, with --full 5e-5")
    parser.add_argument("--num_train_epochs", type=int, default=2)
    parser.add_argument("--save_steps", type=int, default=50)
    parser.add_argument("--max_tokens", type=int, default=384, help="cap of a reply")
    parser.add_argument("--max_concurrent_samples", type=int, default=64)
    parser.add_argument("--engine", type=json_map, default=EVAL, help="of the evaluations, as JSON")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/meta_length"))
    return parser.parse_args()


def main() -> int:
    """Build, train, merge, evaluate, and print what holds a length best."""
    args = arguments()
    given = read_alpaca(args.data)
    held_out, train = split(given, args.num_held_out)
    if not held_out or not train:
        raise ConfigError(
            f"--data has {len(given)} rows; --num_held_out {args.num_held_out} leaves {len(train)} to train on and "
            f"{len(held_out)} that state no length to ask with: give more rows, or lower it"
        )
    questions = write_rows(args.output_dir / "held_out.jsonl", held_out)
    data = write_rows(args.output_dir / "train.jsonl", train)
    base = evaluated(args, args.model, "untuned", questions, by_token=False)
    runs: dict[str, list[RunDir]] = {"mlt": [], "words": []}
    for form, found in runs.items():
        rows = build_rows(args, form, data)
        for seed in args.seeds:
            model = trained(args, form, rows, seed)
            found.append(evaluated(args, model, f"{form}_{seed}", questions, by_token=form == "mlt"))
    measured = {form: over_seeds([samples(run, "told") for run in found]) for form, found in runs.items()}
    measured["untuned"] = over_seeds([samples(base, "told")])
    lines = table(measured, args.targets)
    for run in runs["mlt"]:
        lines += ["", f"{run.name}, {own_choice(samples(run, 'own'))[0]}"]
    atomic_write(args.output_dir / "table.md", "\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)
    paths = [str(run.path) for run in (base, *runs["words"], *runs["mlt"])]
    return report([*paths, "--output", str(args.output_dir / "report.html")])


if __name__ == "__main__":
    raise SystemExit(run_main(main))
