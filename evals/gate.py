"""Fails where an evaluation got worse: `lengthwise gate RUN --base RUN --thresholds FILE.yaml`, for CI.

A metric fails `max_drop` only if it fell by more than that and by more than its noise, so that a rerun of the same
model seldom turns red; `min`, `max` and `max_truncated_frac` need no base. The exit code is 0 if every rule holds,
1 if one fails, 2 if the thresholds name what is not there.
"""

from __future__ import annotations

import argparse
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

from evals.compare import open_evaluations
from evals.compare_text import table
from evals.gate_rules import (
    Check,
    MetricRules,
    TaskRules,
    check_bounds,
    check_drop,
    check_truncated,
    read_rules,
)
from lengthwise.config import ConfigError, did_you_mean
from lengthwise.job import run_main
from lengthwise.report.collect import Run
from lengthwise.report.comparison import Comparison, compare_all
from lengthwise.report.evaluations import Task
from lengthwise.report.settings import setting_differences
from lengthwise.yaml_source import load_yaml


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (1 where a rule fails)."""
    parser = argparse.ArgumentParser(
        prog="lengthwise gate",
        description="Hold a finished evaluation against thresholds, and against a base item by item.",
        epilog="example: lengthwise gate outputs/eval/tuned --base outputs/eval/base "
        "--thresholds configs/gates/length_control.yaml",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder of an evaluation")
    parser.add_argument(
        "--base", metavar="RUN", type=Path, help="the evaluation that max_drop is held against"
    )
    parser.add_argument(
        "--thresholds",
        metavar="FILE",
        required=True,
        help="YAML: by task and metric max_drop, min, max, confident; by task max_truncated_frac",
    )
    parser.add_argument("--junit", metavar="FILE", type=Path, help="also write the outcome as JUnit XML")
    return run_main(_run, parser.parse_args(argv))


def _run(arguments: argparse.Namespace) -> int:
    rules = read_rules(load_yaml(arguments.thresholds), arguments.thresholds)
    paths = [arguments.run] if arguments.base is None else [arguments.run, arguments.base]
    run, *bases = open_evaluations(paths)
    base = bases[0] if bases else None
    if arguments.base is not None and base is None:
        raise ConfigError(
            f"--base {arguments.base} is the run itself: name the evaluation it is held against"
        )
    checks = check_run(run, base, rules)
    head = f"{run.label} against {base.label}" if base else f"{run.label}, without a base"
    print("\n".join([head, *_warnings(run, base), "", *show(checks)]))
    if arguments.junit is not None:
        arguments.junit.parent.mkdir(parents=True, exist_ok=True)
        arguments.junit.write_text(junit(checks, head), encoding="utf-8")
    return 1 if any(check.outcome == "fail" for check in checks) else 0


def _warnings(run: Run, base: Run | None) -> list[str]:
    found = [f"{r.label}: {problem}" for r in (run, base) if r is not None for problem in r.problems]
    if base is not None:
        found += [f"not measured alike: {difference}" for difference in setting_differences(base, run)]
    return [f"WARNING: {text}" for text in found]


def check_run(
    run: Run, base: Run | None, rules: Mapping[str, tuple[TaskRules, Mapping[str, MetricRules]]]
) -> list[Check]:
    """Return the outcome of every rule, in the file's order.

    Raises:
        ConfigError: the rules name a task or metric that is not there or not shared with the base, or none of
            them can be checked.
    """
    assert run.evaluation is not None
    found = compare_all(base, [run]) if base is not None else []
    compared = {(c.task, c.metric): c for c in found}
    checks = []
    for name, (task_rules, metrics) in rules.items():
        if name not in run.evaluation.tasks:
            raise ConfigError(
                _unknown("task", name, list(run.evaluation.tasks), f"thresholds of {run.label}")
            )
        task = run.evaluation.tasks[name]
        if task_rules.max_truncated_frac is not None:
            checks.append(check_truncated(name, task.accounts, task_rules.max_truncated_frac))
        for metric, metric_rules in metrics.items():
            checks += _check_metric(task, metric, metric_rules, base, compared)
    if all(check.outcome == "skipped" for check in checks):
        raise ConfigError("the thresholds are all max_drop, which needs a base: add --base RUN")
    return checks


def _check_metric(
    task: Task,
    metric: str,
    rules: MetricRules,
    base: Run | None,
    compared: Mapping[tuple[str, str], Comparison],
) -> list[Check]:
    if metric not in task.scores:
        raise ConfigError(_unknown("metric", metric, list(task.scores), f"tasks.{task.name}.metrics"))
    score = task.scores[metric]
    checks = check_bounds(task.name, metric, score, rules)
    if rules.max_drop is None:
        return checks
    if base is None:
        rule, reason = f"max_drop {rules.max_drop:g}", "no --base was given"
        skipped = Check(task=task.name, subject=metric, rule=rule, outcome="skipped", reason=reason)
        return [*checks, skipped]
    comparison = compared.get((task.name, score.metric))
    if comparison is None:
        raise ConfigError(
            f"tasks.{task.name}.metrics.{metric}: max_drop finds no item that both runs scored with the same id and "
            f"prompt. Evaluate {base.label} on the same data, or leave max_drop out"
        )
    return [*checks, check_drop(task.name, metric, comparison, rules.max_drop)]


def _unknown(kind: str, name: str, known: list[str], where: str) -> str:
    hint = did_you_mean(name, known) or f"there are {', '.join(known) or 'none'}"
    return f"{where}: the run has no {kind} {name!r}: {hint}"


def show(checks: Sequence[Check]) -> list[str]:
    """Return the outcomes as a table, and how many failed."""
    rows = [[c.task, c.subject, c.rule, c.outcome.upper(), c.reason] for c in checks]
    num = {kind: sum(c.outcome == kind for c in checks) for kind in ("pass", "fail", "skipped")}
    last = f"{num['pass']} passed, {num['fail']} failed, {num['skipped']} skipped"
    return [*table([["task", "metric", "rule", "", "reason"], *rows], "lllll"), "", last]


def junit(checks: Sequence[Check], name: str) -> str:
    """Return the outcomes as JUnit XML, which CI systems show: one test case a rule."""
    counts = {
        "tests": len(checks),
        "failures": sum(c.outcome == "fail" for c in checks),
        "errors": 0,
        "skipped": sum(c.outcome == "skipped" for c in checks),
    }
    told = {key: str(value) for key, value in counts.items()}
    suites = ElementTree.Element("testsuites", {"name": "lengthwise gate", **told})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": name, **told})
    for check in checks:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": check.task, "name": f"{check.subject} {check.rule}", "time": "0"}
        )
        if check.outcome == "pass":
            ElementTree.SubElement(case, "system-out").text = check.reason
        else:
            tag = "failure" if check.outcome == "fail" else "skipped"
            ElementTree.SubElement(case, tag, {"message": check.reason})
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
