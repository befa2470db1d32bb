"""The `lengthwise` command: starts jobs in their own process, and the small tools in this one."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from lengthwise.config import is_dry_run
from lengthwise.job import (
    JOBS,
    check_job,
    job_command,
    job_file,
    launch,
    run_main,
)
from lengthwise.run_dir import TRAINING_JOBS
from lengthwise.value_types import ConfigError

VERBS = {
    "build": ("--config F", "make training data with a builder"),
    "sft": ("--config F [--accelerate_config NAME]", "fine-tune on it, through `accelerate launch`"),
    "dpo": ("--config F [--accelerate_config NAME]", "prefer the better of two answers, likewise"),
    "kto": ("--config F [--accelerate_config NAME]", "learn from answers marked good or bad, likewise"),
    "orpo": ("--config F [--accelerate_config NAME]", "fine-tune and prefer in one loss, likewise"),
    "grpo": ("--config F [--accelerate_config NAME]", "learn from rewards of one's own answers, likewise"),
    "eval": ("--config F", "measure length control and writing"),
    "report": ("RUN...", "show run folders as one HTML page"),
    "compare": ("A B [C...]", "hold evaluations against the first, item by item"),
    "gate": ("RUN --thresholds F [--base RUN]", "fail where an evaluation got worse, for CI"),
    "score": ("FILE --task T", "score texts that you already have"),
    "export": (
        "RUN --format F | --merge | --rows FORM",
        "pass on an evaluation's numbers, a model merged into one, a build's rows",
    ),
    "calibrate": ("FILE [--judge MODEL]", "hold a judge, or ratings that are there, against human labels"),
    "env": ("[--json]", "what this machine has, against the versions known to work"),
    "schema": ("JOB", "a JSON schema of a job's config, for editors"),
}

TOOLS = {
    "report": "lengthwise.report",
    "compare": "evals.compare",
    "gate": "evals.gate",
    "score": "evals.score",
    "export": "evals.export",
    "calibrate": "evals.calibrate",
    "env": "lengthwise.environment",
}
"""Verbs that run in this process: the module whose `main(argv)` does it, imported only then."""

EXPORTS = {"--merge": "posttrain.merge", "--rows": "data_builders.export"}
"""What `export` is with these flags: a model is passed on, or a build's rows, not an evaluation."""


def help_text() -> str:
    """Return the page that `lengthwise --help` prints."""
    rows = [f"  {verb + ' ' + arguments:<46}{text}" for verb, (arguments, text) in VERBS.items()]
    return "\n".join(
        [
            "usage: lengthwise VERB ...",
            "",
            "Post-training of language models on length: build data, train, evaluate, report.",
            "",
            *rows,
            "",
            "Fields of a job: lengthwise VERB --help. As --field value, a field wins over the file.",
            "Exit codes: 0 done, 1 the run failed, 2 wrong usage or config, 130 interrupted.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    try:
        code = _main(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `lengthwise --help | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(help_text(), file=sys.stderr)
        return 2
    verb, *rest = arguments
    if verb in {"-h", "--help", "help"}:
        print(help_text())
        return 0
    if verb == "--version":
        from importlib.metadata import version

        print(version("lengthwise"))
        return 0
    return run_main(_run_verb, verb, rest)


def _run_verb(verb: str, rest: list[str]) -> int:
    """Run a verb with its arguments."""
    if verb in TRAINING_JOBS:
        return _run_distributed(verb, rest)
    if verb in JOBS:
        return _become(job_command(verb, rest))
    if verb == "schema":
        return _schema(rest)
    if verb in TOOLS:
        return _run_tool(verb, rest)
    from lengthwise.config import did_you_mean

    nearest = did_you_mean(verb, list(VERBS)) or f"there are {', '.join(VERBS)}"
    raise ConfigError(f"unknown verb {verb!r}: {nearest} (lengthwise --help)")


def _become(command: Sequence[str]) -> int:
    """Turn this process into the job's: signals and exit code then need no relay."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], list(command))


def _run_distributed(verb: str, rest: list[str]) -> int:
    """Check in this process what can be checked at once, then start the job on all devices.

    A launcher takes seconds to start, and would show one config error per device.
    """
    accelerate_config, arguments = _take_option(rest, "accelerate_config")
    job_command(verb, arguments, accelerate_config)
    check_job(verb, arguments)
    if is_dry_run(arguments):
        return _become([sys.executable, str(job_file(verb)), *arguments])
    return launch(verb, arguments, accelerate_config)


def _take_option(arguments: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """Return the value of an option that is not the job's, and the arguments without it."""
    left, value = list(arguments), None
    for index, token in enumerate(arguments):
        if token == f"--{name}":
            if index + 1 == len(arguments):
                raise ConfigError(f"--{name} needs a value")
            value = arguments[index + 1]
            del left[index : index + 2]
        elif token.startswith(f"--{name}="):
            value = token.partition("=")[2]
            del left[index]
    return value, left


def _schema(rest: Sequence[str]) -> int:
    """Print the JSON schema of a job's config, which only the job itself knows."""
    if len(rest) != 1 or rest[0] in {"-h", "--help"}:
        print(f"usage: lengthwise schema JOB    with JOB one of {', '.join(JOBS)}", file=sys.stderr)
        return 0 if rest and rest[0] in {"-h", "--help"} else 2
    return _become([sys.executable, str(job_file(rest[0])), "--print_schema"])


def _run_tool(verb: str, rest: Sequence[str]) -> int:
    """Import the module of a small tool and call its main."""
    given = {word.partition("=")[0] for word in rest} if verb == "export" else set()
    name = next((module for flag, module in EXPORTS.items() if flag in given), TOOLS[verb])
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{verb} ({name}) is not installed: run `pip install -e .` in a clone"
            ) from None
        raise
    return module.main(rest)


if __name__ == "__main__":
    raise SystemExit(main())
