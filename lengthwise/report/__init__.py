"""`lengthwise report RUN...`: results as one HTML page, from data to model to scores."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lengthwise.config import ConfigError
from lengthwise.files import atomic_write
from lengthwise.job import run_main
from lengthwise.report.collect import collect
from lengthwise.report.page import render

DEFAULT_OUTPUT = "report.html"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report of some run folders; return the exit code (2 where a path is no run folder)."""
    parser = argparse.ArgumentParser(
        prog="lengthwise report",
        description="Write one HTML page, readable offline, about runs and what they were made from. "
        "The first evaluation named is the base that later ones are compared with.",
        epilog="example: lengthwise report outputs/eval/base outputs/eval/tuned --output report.html",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="run folder; the runs it was made from are found"
    )
    parser.add_argument("--output", default=DEFAULT_OUTPUT, help="the page to write (default: %(default)s)")
    arguments = parser.parse_args(argv)
    return run_main(write_report, [Path(run) for run in arguments.runs], Path(arguments.output))


def write_report(paths: Sequence[Path], output: Path) -> int:
    """Collect the runs and write the page.

    Raises:
        ConfigError: if a path is no run folder, or the page would be written over a folder.
    """
    if output.is_dir():
        raise ConfigError(
            f"--output: {str(output)!r} is a folder: name a file in it, such as {output / DEFAULT_OUTPUT}"
        )
    runs = collect(paths)
    # A lone surrogate, which JSON can carry, has no place in UTF-8.
    page = render(runs).encode("utf-8", "replace").decode("utf-8")
    atomic_write(output, page)
    for run in runs:
        for problem in run.problems:
            print(f"warning: {run.label}: {problem}")
    print(f"{output}: {len(runs)} run(s), {len(page.encode()) / 1e6:.1f} MB")
    return 0
