"""Passes a finished evaluation on: `lengthwise export RUN --format inspect|csv|markdown|latex|parquet`.

`inspect` writes a log for each task. The others give the table of results, with `--samples` the scored replies.
Text goes to the terminal without `--output`; no file is ever overwritten.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.inspect_log import inspect_logs
from evals.run_results import RunResults, open_results
from lengthwise.config import ConfigError
from lengthwise.files import atomic_write
from lengthwise.job import run_main

FORMATS = ("inspect", "csv", "markdown", "latex", "parquet")
COLUMNS = ("task", "slice", "metric", "value", "stderr", "low", "high", "n")
"""Of the table of results; `low` and `high` are the ends of the 95 % interval."""
_LOG_SUFFIXES = (".eval", ".json")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="lengthwise export",
        description="Pass a finished evaluation on to other tools.",
        epilog="example: lengthwise export outputs/eval/base --format inspect --output logs/ "
        "(for the model of a training run: lengthwise export --merge --help; for the rows of a build: "
        "lengthwise export --rows FORM --help)",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder of a finished evaluation")
    parser.add_argument("--format", choices=FORMATS, required=True, help="what to write")
    parser.add_argument("--output", type=Path, help="a new file; for inspect also a folder, .eval or .json")
    parser.add_argument("--task", help="this task only")
    parser.add_argument(
        "--samples", action="store_true", help="the scored replies instead of the table (csv, parquet)"
    )
    return run_main(_run, parser.parse_args(argv))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.samples and arguments.format not in ("csv", "parquet"):
        raise ConfigError(
            f"--samples goes with csv or parquet, not {arguments.format} (an inspect log has them)"
        )
    if arguments.format == "inspect":
        write_logs(arguments.run, arguments.output, arguments.task)
        return 0
    _refuse_existing(arguments.output)
    run = open_results(arguments.run)
    tasks = run.named(arguments.task)
    if arguments.samples:
        rows, columns = list(sample_rows(run, tasks)), None
    else:
        rows, columns = [row for task in tasks for row in run.table(task)], COLUMNS
    write_table(rows, arguments.format, arguments.output, columns)
    return 0


def write_logs(folder: Path, output: Path | None, task: str | None) -> list[Path]:
    """Write the inspect log of each task, or of one, and return their paths.

    Args:
        folder: a finished evaluation.
        output: a file named .eval or .json, for one task; or a folder; None is the current one.
        task: this task only.

    Raises:
        ConfigError: it cannot be exported, or a file is there already.
    """
    names = open_results(folder).named(task)
    is_file = output is not None and output.suffix in _LOG_SUFFIXES and not output.is_dir()
    if is_file and len(names) > 1:
        raise ConfigError(
            f"--output {output} is one file, and a log holds one task of {', '.join(names)}: name one with --task, "
            "or give a folder"
        )
    if output is not None and not is_file and output.suffix:
        raise ConfigError(f"--output {output}: inspect's logs are named .eval or .json; or give a folder")
    where = output or Path()
    files = {name: where if is_file else where / f"{folder.resolve().name}_{name}.eval" for name in names}
    for file in files.values():
        _refuse_existing(file)
    for name, log in inspect_logs(folder, task):
        from inspect_ai.log import write_eval_log

        files[name].parent.mkdir(parents=True, exist_ok=True)
        write_eval_log(log, str(files[name]))
        print(f"{files[name]}: {name}, {len(log.samples or ())} samples")
    return list(files.values())


def sample_rows(run: RunResults, tasks: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the scored replies as flat rows: `metric:s_l`, `flag:empty`, `slice:length_bin` and so on."""
    for task in tasks:
        for row in run.rows(task):
            yield {
                "task": task,
                "id": row["id"],
                "completion_index": row["completion_index"],
                "prompt": row["arguments"][-1]["content"],
                "target": row["target"],
                "reply": row["resps"][0],
                "answer": row.get("filtered_resps", [None])[0],
                "finish_reason": row["finish_reason"],
                "num_tokens": row["num_tokens"],
                "num_reasoning_tokens": row["num_reasoning_tokens"],
                **{f"metric:{name}": value for name, value in row["metrics"].items()},
                **{f"unscored:{name}": reason for name, reason in (row.get("unscored") or {}).items()},
                **{f"count:{name}": number for name, number in row["counts"].items()},
                **{f"flag:{name}": flag for name, flag in row["flags"].items()},
                **{f"slice:{kind}": value for kind, value in row["slices"].items()},
            }


def write_table(
    rows: Sequence[Mapping[str, Any]], form: str, output: Path | None, columns: Sequence[str] | None = None
) -> None:
    """Write rows as a table, to the terminal without `output`.

    Args:
        rows: maps from column to value; absent is empty.
        form: csv, markdown, latex or parquet.
        output: a new file.
        columns: their order; None: as they first occur.

    Raises:
        ConfigError: the file exists, or a Parquet table has no file to go to.
    """
    _refuse_existing(output)
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    if form == "parquet":
        if output is None:
            raise ConfigError("--format parquet is no text: name a file with --output")
        import pandas

        output.parent.mkdir(parents=True, exist_ok=True)
        pandas.DataFrame(list(rows), columns=list(columns)).to_parquet(output, index=False)
        return
    text = {"csv": _csv, "markdown": _markdown, "latex": _latex}[form](rows, columns)
    if output is None:
        print(text, end="")
    else:
        atomic_write(output, text)


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Numbers in full, as a program wants them."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _markdown(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    cells = [[_cell(row.get(column)).replace("|", "\\|") for column in columns] for row in rows]
    lines = [list(columns), ["---"] * len(columns), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _latex(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A tabular in booktabs' lines, special characters escaped."""
    lines = [
        " & ".join(map(_escaped, columns)),
        *(" & ".join(_escaped(_cell(row.get(column))) for column in columns) for row in rows),
    ]
    layout = "".join("l" if column in COLUMNS[:3] else "r" for column in columns)
    head, *body = [f"{line} \\\\" for line in lines]
    return "\n".join(
        [
            f"\\begin{{tabular}}{{{layout}}}",
            "\\toprule",
            head,
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    special = {character: f"\\{character}" for character in "&%$#_{}"}
    special |= {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    return "".join(special.get(character, character) for character in text)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}" if isinstance(value, float) else str(value)


def _refuse_existing(output: Path | None) -> None:
    if output is not None and output.exists():
        raise ConfigError(f"--output: {output} exists and is not overwritten: give another name")
