"""What a regression gate asks of an evaluation: each rule as a pure function of what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lengthwise.config import ConfigError, build_component, option
from lengthwise.report.comparison import Comparison
from lengthwise.report.evaluations import Score

Outcome = Literal["pass", "fail", "skipped"]


@dataclass(kw_only=True)
class MetricRules:
    """What one metric must keep to."""

    max_drop: float | None = option(
        None,
        help="largest loss against --base, in the metric's unit, at least 0; a larger one fails if its interval "
        "leaves out no change",
    )
    min: float | None = option(None, help="least estimate")
    max: float | None = option(None, help="largest estimate")
    confident: bool = option(
        False, help="hold the 95 % interval's bound, not the estimate, against min and max: stricter"
    )

    def __post_init__(self) -> None:
        """Refuse values that no estimate can meet."""
        for name in ("max_drop", "min", "max"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ConfigError(f"{name} is {value}: give a finite number, or leave it out")
        if self.max_drop is not None and self.max_drop < 0:
            raise ConfigError(f"max_drop is {self.max_drop}: it is a size, such as 2.0")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ConfigError(f"min is {self.min} and max {self.max}: no estimate lies between them")
        if self.confident and self.min is None and self.max is None:
            raise ConfigError(
                "confident is true, but there is no min or max: max_drop always uses the interval"
            )


@dataclass(kw_only=True)
class TaskRules:
    """What one task must keep to."""

    max_truncated_frac: float | None = option(
        None, help="largest share of replies cut at the token cap, 0..1; those of unknown end count as cut"
    )
    metrics: dict[str, Any] = option(default_factory=dict, help="by metric: {max_drop, min, max, confident}")

    def __post_init__(self) -> None:
        """Refuse a share outside 0..1."""
        if self.max_truncated_frac is not None and not 0 <= self.max_truncated_frac <= 1:
            raise ConfigError(f"max_truncated_frac is {self.max_truncated_frac}: it is a share, 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One rule, held against one run."""

    task: str
    subject: str
    """The metric, or `truncated`."""
    rule: str
    outcome: Outcome
    reason: str


def read_rules(
    thresholds: Mapping[str, Any], where: str
) -> dict[str, tuple[TaskRules, dict[str, MetricRules]]]:
    """Return a thresholds file's rules by task, each with those of its metrics.

    Raises:
        ConfigError: an unknown key, a wrong type or value, or no rule at all.
    """
    tasks = thresholds.get("tasks")
    if set(thresholds) != {"tasks"} or not isinstance(tasks, Mapping) or not tasks:
        raise ConfigError(
            f"{where}: a thresholds file is one map, tasks: {{TASK: {{metrics: {{METRIC: {{min: ...}}}}}}}}; "
            f"this one has {', '.join(map(str, thresholds)) or 'nothing'}"
        )
    found = {}
    for name, given in tasks.items():
        task = build_component(TaskRules, _map(given, f"{where}: tasks.{name}"), where=f"tasks.{name}")
        metrics = {}
        for metric, rules in task.metrics.items():
            place = f"tasks.{name}.metrics.{metric}"
            metrics[metric] = build_component(MetricRules, _map(rules, f"{where}: {place}"), where=place)
            if metrics[metric] == MetricRules():
                raise ConfigError(f"{where}: {place} has no rule: give it max_drop, min or max")
        if not metrics and task.max_truncated_frac is None:
            raise ConfigError(f"{where}: tasks.{name} has no rule: give it metrics or max_truncated_frac")
        found[name] = (task, metrics)
    return found


def check_bounds(task: str, name: str, score: Score, rules: MetricRules) -> list[Check]:
    """Hold an estimate, or the interval's bound nearest to failing, against `min` and `max`.

    A metric without an estimate fails: a gate must not pass on what was not measured. So does `confident` where
    there is no interval.
    """
    checks = []
    for kind, limit, bound in (("min", rules.min, score.low), ("max", rules.max, score.high)):
        if limit is None:
            continue
        rule = f"{kind} {limit:g}" + (", confident" if rules.confident else "")
        value = bound if rules.confident else score.estimate
        what = ("lower" if kind == "min" else "upper") + " bound" if rules.confident else "estimate"
        if value is None:
            remedy = ": leave out confident, or measure more items" if score.estimate is not None else ""
            reason, passes = f"there is no {what}{remedy}", False
        else:
            passes = value >= limit if kind == "min" else value <= limit
            reason = f"{what} {value:.4g}, n = {score.n}"
        checks.append(_check(task, name, rule, passes, reason))
    return checks


def check_drop(task: str, name: str, comparison: Comparison, max_drop: float) -> Check:
    """Hold a paired difference against the largest loss that is allowed.

    It fails if the metric got worse by more than `max_drop` and the verdict is "worse": its paired interval leaves
    out 0 and its p-value is below 0.05. Rules are tested one by one, without Holm's correction.

    Raises:
        ConfigError: if no direction of the metric is worse.
    """
    if comparison.higher_is_better is None:
        raise ConfigError(f"{task}.{name}: max_drop needs a metric with a better direction: use min and max")
    loss = -comparison.difference if comparison.higher_is_better else comparison.difference
    bounds = "no interval"
    if comparison.low is not None and comparison.high is not None:
        bounds = f"95 % interval [{comparison.low:.4g}, {comparison.high:.4g}]"
    reason = (
        f"{comparison.before:.4g} -> {comparison.after:.4g}, paired difference {comparison.difference:+.4g}, "
    )
    reason += f"{bounds}, n = {comparison.n}"
    is_worse = comparison.verdict == "worse"
    if loss > max_drop and not is_worse:
        told = "too few items to tell" if comparison.verdict == "too few" else "within noise"
        reason += f": a loss above {max_drop:g}, but {told}"
    return _check(task, name, f"max_drop {max_drop:g}", not (loss > max_drop and is_worse), reason)


def check_truncated(task: str, counts: Mapping[str, int | None], max_frac: float) -> Check:
    """Hold the share of cut replies against its largest; replies whose end nobody recorded count as cut."""
    rule = f"max_truncated_frac {max_frac:g}"
    scored, cut, unknown = counts.get("scored"), counts.get("truncated"), counts.get("end unknown") or 0
    if not scored or cut is None:
        return _check(task, "truncated", rule, False, "the run does not say how many replies were cut")
    reason = f"{cut} of {scored} cut" + (f", {unknown} of unknown end" if unknown else "")
    return _check(task, "truncated", rule, (cut + unknown) / scored <= max_frac, reason)


def _check(task: str, subject: str, rule: str, passes: bool, reason: str) -> Check:
    return Check(task=task, subject=subject, rule=rule, outcome="pass" if passes else "fail", reason=reason)


def _map(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {value!r}: it must be a map")
    return value
