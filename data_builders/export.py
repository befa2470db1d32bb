"""Passes a build's rows on: `lengthwise export RUN --rows messages|prompt_completion|sharegpt|alpaca|pairs`.

The folder gets the rows in files that training tools and `datasets.load_dataset` read, split by prompt (rows of one
prompt are never on both sides), and the data card with the lineage of the rows. Nothing is uploaded unless `--push_to`
says where.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from lengthwise.config import ConfigError
from lengthwise.contamination import words_of
from lengthwise.files import atomic_write
from lengthwise.job import run_main
from lengthwise.records import digest
from lengthwise.run_dir import RunDir

FORMS = ("messages", "prompt_completion", "sharegpt", "alpaca", "pairs")
FILES = ("jsonl", "parquet", "datasets")
_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="lengthwise export",
        description="Pass the rows of a finished build on to other tools.",
        epilog="example: lengthwise export outputs/build/long --rows messages --output_dir long_data --eval_frac 0.05",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder of a finished build")
    parser.add_argument(
        "--rows", choices=FORMS, required=True, help="the shape of a row; pairs: prompt, chosen, rejected"
    )
    parser.add_argument(
        "--files", choices=FILES, default="parquet", help="datasets: a folder for load_from_disk"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder")
    parser.add_argument(
        "--eval_frac", type=float, default=0.0, help="share of the prompts that go to the split eval"
    )
    parser.add_argument(
        "--columns", nargs="+", default=[], help="columns of the build to keep beside the conversation"
    )
    parser.add_argument("--license", default="other", help="licence of the rows, as the hub names it")
    parser.add_argument("--terms", help="the terms of the models that wrote the rows, for the card")
    parser.add_argument(
        "--push_to", help="dataset on the hub, owner/name, to upload the folder to; it is made private"
    )
    return run_main(_run, parser.parse_args(argv))


def _run(arguments: argparse.Namespace) -> int:
    if not 0 <= arguments.eval_frac < 1:
        raise ConfigError(f"--eval_frac is {arguments.eval_frac}: it must be at least 0 and below 1")
    if arguments.output_dir.exists():
        raise ConfigError(f"--output_dir {arguments.output_dir} is there already: name a new folder")
    if arguments.push_to is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", arguments.push_to):
        raise ConfigError(f"--push_to is {arguments.push_to!r}: write owner/name")
    run = RunDir.load(arguments.run)
    if run.job != "build":
        raise ConfigError(f"RUN: {arguments.run} is the run folder of {run.job!r}: name that of a build")
    if not run.is_finished:
        raise ConfigError(
            f"RUN: {arguments.run} is not finished: give its command again, it goes on where it stopped"
        )
    rows = run.rows()
    if not rows:
        raise ConfigError(f"RUN: {arguments.run} kept no row: there is nothing to export")
    splits = split_by_prompt(
        [shaped(row, arguments.rows, arguments.columns) for row in rows], rows, arguments.eval_frac
    )
    _write(splits, arguments.files, arguments.output_dir)
    atomic_write(arguments.output_dir / "README.md", card(run, splits, arguments))
    said = ", ".join(f"{len(part):,} in {name}" for name, part in splits.items())
    print(f"{arguments.output_dir}: {said}, as {arguments.rows} in {arguments.files}")
    if arguments.push_to is not None:
        _push(arguments.output_dir, arguments.push_to)
    return 0


def shaped(row: Mapping[str, Any], form: str, columns: Sequence[str] = ()) -> dict[str, Any]:
    """Return a row of a build in the shape of another tool.

    Raises:
        ConfigError: it has no such shape, or no such column.

    Example:
        >>> row = {"id": "a", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}
        >>> shaped(row, "alpaca")
        {'id': 'a', 'system': '', 'instruction': 'Hi', 'input': '', 'output': 'Yo'}
    """
    missing = [name for name in columns if name not in row]
    if missing:
        raise ConfigError(f"--columns: row {row['id']} has no {', '.join(missing)}")
    kept = {"id": row["id"], **{name: row[name] for name in columns}}
    if form == "pairs":
        if "chosen" not in row:
            raise ConfigError(
                "--rows pairs: the rows are no pairs: take messages, prompt_completion, sharegpt or alpaca"
            )
        return {**kept, **{key: row[key] for key in ("prompt", "chosen", "rejected")}}
    if "messages" not in row:
        raise ConfigError(f"--rows {form}: the rows are pairs: take pairs")
    turns = row["messages"]
    if form == "messages":
        return {**kept, "messages": turns}
    if turns[-1]["role"] != "assistant":
        raise ConfigError(f"--rows {form}: row {row['id']} has no answer: take messages")
    if form == "prompt_completion":
        return {**kept, "prompt": turns[:-1], "completion": turns[-1:]}
    if form == "sharegpt":
        return {
            **kept,
            "conversations": [{"from": _SHAREGPT[t["role"]], "value": t["content"]} for t in turns],
        }
    has_system = turns[0]["role"] == "system"
    system = {"system": turns[0]["content"] if has_system else ""}
    asked = turns[has_system:-1]
    if [turn["role"] for turn in asked] != ["user"]:
        raise ConfigError(f"--rows alpaca: row {row['id']} has several turns: take messages or sharegpt")
    return {**kept, **system, "instruction": asked[0]["content"], "input": "", "output": turns[-1]["content"]}


def split_by_prompt(
    shaped_rows: Sequence[dict[str, Any]], rows: Sequence[Mapping[str, Any]], eval_frac: float
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows by split; which one a prompt is in is decided by its words alone, so that it stays the same.

    Args:
        shaped_rows: what is dealt out.
        rows: the build's rows, in the same order.
        eval_frac: share of the prompts in the split eval; 0 makes none.
    """
    parts: dict[str, list[dict[str, Any]]] = {"train": [], **({"eval": []} if eval_frac else {})}
    for one, row in zip(shaped_rows, rows, strict=True):
        turns = row["messages"] if "messages" in row else row["prompt"]
        last = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=-1)
        prompt = [words_of(turn["content"]) for turn in turns[: last + 1] if turn["role"] != "system"]
        draw = int(digest(prompt)[:8], 16) / 2**32
        parts["eval" if draw < eval_frac else "train"].append(one)
    return parts


def card(run: RunDir, splits: Mapping[str, Sequence[Any]], arguments: argparse.Namespace) -> str:
    """Return the build's card with the splits, the licence, the terms and the lineage."""
    text = run.file("README.md").read_text(encoding="utf-8")
    suffix = {"jsonl": "jsonl", "parquet": "parquet", "datasets": "arrow"}[arguments.files]
    files = "".join(
        f"\n  - split: {name}\n    path: {name}{'/*' if suffix == 'arrow' else ''}.{suffix}"
        for name in splits
    )
    text = re.sub(r"(?m)^  data_files: .*$", f"  data_files:{files}", text, count=1)
    text = re.sub(r"(?m)^license: .*$", f"license: {arguments.license}", text, count=1)
    manifest = run.manifest
    origins = [
        f"- {item['path']} ({(item.get('sha256') or 'no digest')[:12]})" for item in manifest["inputs"]
    ]
    origins += [f"- {parent['job']} {parent['path']}" for parent in manifest["parents"]]
    parts = [
        text.rstrip(),
        "\n## Splits\n",
        *(f"- {name}: {len(part):,} rows" for name, part in splits.items()),
        "\nRows of one prompt are in one split.\n" if len(splits) > 1 else "",
        "## Lineage\n",
        f"Built by the run `{run.name}` (config {manifest['config_digest'][:12]}) from:\n",
        *origins,
        *(["\n## Terms of the models\n", arguments.terms] if arguments.terms else []),
    ]
    return "\n".join(parts) + "\n"


def _write(splits: Mapping[str, Sequence[dict[str, Any]]], files: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    if files == "jsonl":
        for name, part in splits.items():
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in part]
            atomic_write(folder / f"{name}.jsonl", "".join(lines))
        return
    from datasets import Dataset, DatasetDict

    whole = Dataset.from_list(
        [row for part in splits.values() for row in part]
    )  # one schema, also of an empty split
    ends = list(accumulate(map(len, splits.values()), initial=0))
    sets: Any = {
        name: whole.select(range(start, end))
        for name, (start, end) in zip(splits, pairwise(ends), strict=True)
    }
    if files == "datasets":
        DatasetDict(sets).save_to_disk(str(folder))
        return
    for name, part in sets.items():
        part.to_parquet(str(folder / f"{name}.parquet"))


def _push(folder: Path, name: str) -> None:
    """Upload the folder to a private data set on the hub."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(name, repo_type="dataset", private=True, exist_ok=True)
    api.upload_folder(folder_path=str(folder), repo_id=name, repo_type="dataset")
    print(f"uploaded to the data set {name}, which is private")
