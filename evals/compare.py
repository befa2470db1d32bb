"""Says whether a model got better, and where it got worse: `lengthwise compare A B [C ...]`.

Finished evaluations are aligned item by item (same task, id and prompt), and each is held against the first:
paired differences with their intervals, items won and lost, and the largest changes with both texts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.compare_text import show
from lengthwise.config import ConfigError
from lengthwise.job import run_main
from lengthwise.report import write_report
from lengthwise.report.collect import Run, collect
from lengthwise.report.comparison import (
    THRESHOLDS,
    Comparison,
    Flips,
    Pair,
    by_slice,
    compare_all,
    flips,
)
from lengthwise.report.settings import setting_differences


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskContrast:
    """What changed on one task."""

    name: str
    comparisons: list[Comparison]
    flips: list[Flips]
    notes: list[str]
    """What keeps items out of the pairing."""
    counts: tuple[Mapping[str, int | None], Mapping[str, int | None]]
    """Scored, empty, truncated, ... of the two runs."""
    lead: Comparison
    """The comparison whose largest changes are shown."""

    def changes(self, num: int) -> tuple[list[Pair], list[Pair]]:
        """Return the largest losses and the largest wins; without a better direction, changes and nothing."""
        ordered = self.lead.by_change()
        if self.lead.higher_is_better is None:
            return [p for p in ordered if p.after != p.before][:num], []
        sign = 1 if self.lead.higher_is_better else -1
        lost = [p for p in ordered if sign * (p.after - p.before) < 0]
        won = [p for p in reversed(ordered) if sign * (p.after - p.before) > 0]
        return lost[:num], won[:num]


@dataclass(frozen=True, kw_only=True, eq=False)
class Contrast:
    """One run against the base."""

    base: Run
    other: Run
    warnings: list[str]
    """Settings in which the two were not measured alike."""
    problems: list[str]
    """What could not be read, such as a torn line: its item is missing from the figures."""
    tasks: list[TaskContrast]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (2 for what cannot be compared)."""
    parser = argparse.ArgumentParser(
        prog="lengthwise compare",
        description="Compare finished evaluations item by item; the first is the base of the others.",
        epilog="example: lengthwise compare outputs/eval/base outputs/eval/tuned",
        allow_abbrev=False,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="run folder of an evaluation")
    parser.add_argument("--show", type=int, default=3, help="largest wins and losses to show (default: 3)")
    parser.add_argument(
        "--threshold",
        metavar="METRIC=VALUE",
        action="append",
        default=[],
        help="from which score on an item counts as right (default: s_l=80; metrics of 0 and 1 need none)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    parser.add_argument("--output", type=Path, help="also write the HTML report of these runs")
    return run_main(_run, parser.parse_args(argv))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.show < 0:
        raise ConfigError(f"--show is {arguments.show}: give how many wins and losses to show, 0 for none")
    thresholds = {**THRESHOLDS, **dict(_threshold(text) for text in arguments.threshold)}
    runs = open_evaluations(arguments.runs)
    if len(runs) < 2:
        raise ConfigError("RUN: one run cannot be compared: name two, such as lengthwise compare BASE TUNED")
    contrasts = contrast_all(runs, thresholds)
    if arguments.json:
        print(json.dumps(document(contrasts, arguments.show), indent=2, ensure_ascii=False))
    else:
        width = shutil.get_terminal_size((120, 24)).columns
        for contrast in contrasts:
            print(show(contrast, num_shown=arguments.show, width=width))
    if arguments.output is not None:
        with contextlib.redirect_stdout(sys.stderr):
            write_report(arguments.runs, arguments.output)
    return 0


def _threshold(text: str) -> tuple[str, float]:
    metric, equals, value = text.partition("=")
    with contextlib.suppress(ValueError):
        if metric and equals:
            return metric, float(value)
    raise ConfigError(f"--threshold {text!r} is not METRIC=VALUE: write --threshold s_l=80")


def open_evaluations(paths: Sequence[Path]) -> list[Run]:
    """Return the named runs, all of them finished evaluations.

    Raises:
        ConfigError: naming the folder that is none.
    """
    runs = [run for run in collect(paths) if run.given]
    for run in runs:
        if run.evaluation is None:
            raise ConfigError(
                f"RUN: {run.path} holds a {run.job} run: name evaluations, such as outputs/eval/NAME"
            )
        if not run.finished:
            raise ConfigError(
                f"RUN: {run.path} is not finished (it has no manifest.json): start its evaluation again to resume it"
            )
    return runs


def contrast_all(runs: Sequence[Run], thresholds: Mapping[str, float] = THRESHOLDS) -> list[Contrast]:
    """Hold every later run against the first; p-values are corrected over all of it.

    Raises:
        ConfigError: if a run shares no scored item with the first.
    """
    base, *others = runs
    comparisons = compare_all(base, others)
    return [
        _contrast(base, other, [c for c in comparisons if c.other is other], thresholds) for other in others
    ]


def _contrast(
    base: Run, other: Run, comparisons: Sequence[Comparison], thresholds: Mapping[str, float]
) -> Contrast:
    if not comparisons:
        raise ConfigError(_nothing_shared(base, other))
    assert base.evaluation is not None and other.evaluation is not None
    tasks = []
    for name in dict.fromkeys(c.task for c in comparisons):
        found = [c for c in comparisons if c.task == name]
        mine, theirs = base.evaluation.tasks[name], other.evaluation.tasks[name]
        tasks.append(
            TaskContrast(
                name=name,
                comparisons=found,
                flips=[flipped for c in found if (flipped := flips(c, thresholds)) is not None],
                notes=list(dict.fromkeys(note for c in found for note in c.notes)),
                counts=(mine.accounts, theirs.accounts),
                lead=next((c for c in found if c.metric == mine.primary), found[0]),
            )
        )
    unshared = base.evaluation.tasks.keys() ^ other.evaluation.tasks.keys()
    warnings = setting_differences(base, other)
    warnings += [f"task {name}: only one of the two has it" for name in sorted(unshared)]
    problems = [f"{run.label}: {problem}" for run in (base, other) for problem in run.problems]
    return Contrast(base=base, other=other, warnings=warnings, problems=problems, tasks=tasks)


def _nothing_shared(base: Run, other: Run) -> str:
    assert base.evaluation is not None and other.evaluation is not None
    mine, theirs = base.evaluation.tasks, other.evaluation.tasks
    shared = mine.keys() & theirs.keys()
    head = f"{base.label} and {other.label} share no scored item, so there is nothing to compare: "
    if not shared:
        return f"{head}tasks {', '.join(mine)} against {', '.join(theirs)}. Evaluate both on one task"
    ids = {o.id for name in shared for o in mine[name].outputs}
    if ids & {o.id for name in shared for o in theirs[name].outputs}:
        return f"{head}their prompts differ under the same ids. Evaluate both with the same data and task version"
    return f"{head}no item id of {', '.join(sorted(shared))} is in both. Evaluate both with the same data and limit"


def document(contrasts: Sequence[Contrast], num_shown: int) -> dict[str, Any]:
    """Return the whole comparison as JSON-ready data."""
    return {
        "schema_version": 1,
        "base": _run_of(contrasts[0].base),
        "comparisons": [
            {
                "other": _run_of(contrast.other),
                "warnings": contrast.warnings,
                "problems": contrast.problems,
                "tasks": {task.name: _task_of(task, num_shown) for task in contrast.tasks},
            }
            for contrast in contrasts
        ],
    }


def _run_of(run: Run) -> dict[str, str]:
    return {"name": run.label, "path": str(run.path)}


def _task_of(task: TaskContrast, num_shown: int) -> dict[str, Any]:
    lost, won = task.changes(num_shown)
    slices: dict[str, dict[str, Any]] = {}
    for kind, value, found in by_slice(task.lead):
        slices.setdefault(kind, {})[value] = found.to_dict()
    return {
        "notes": task.notes,
        "metrics": {c.metric: _metric_of(c) for c in task.comparisons},
        "flips": [
            {
                "rule": f.rule,
                "won": [p.id for p in f.won],
                "lost": [p.id for p in f.lost],
                "both_right": len(f.both_right),
                "both_wrong": len(f.both_wrong),
                "p_value": f.p_value,
            }
            for f in task.flips
        ],
        "counts": {"base": dict(task.counts[0]), "other": dict(task.counts[1])},
        "slices": {task.lead.metric: slices},
        "largest_losses": [_pair_of(p) for p in lost],
        "largest_wins": [_pair_of(p) for p in won],
    }


def _metric_of(c: Comparison) -> dict[str, Any]:
    return {
        "base": c.before,
        "other": c.after,
        "difference": c.difference,
        "stderr": c.stderr,
        "ci": [c.low, c.high],
        "mdd": c.detectable,
        "n": c.n,
        "method": c.method,
        "p_value": c.p_value,
        "p_holm": c.p_holm,
        "verdict": c.verdict,
        "summary": c.summary,
        "higher_is_better": c.higher_is_better,
    }


def _pair_of(p: Pair) -> dict[str, Any]:
    texts = {"base": p.base.texts[0], "other": p.other.texts[0]}
    return {"id": p.id, "prompt": p.base.prompt, "base": p.before, "other": p.after, "texts": texts}


if __name__ == "__main__":
    raise SystemExit(main())
