"""What a results file says beside its numbers: published ones, what is unscored, whether length explains a score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lengthwise.report.files import count, mapping, number
from lengthwise.report.wording import decimal, plural


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a paper or its repository states for a model on a task."""

    model: str
    metrics: dict[str, float]
    source: str
    differs: list[str]
    """Settings in which it was measured otherwise than the run."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What stands beside one metric's estimate."""

    mdd: float | None = None
    """The smallest true difference to another model that so many items would show in 4 of 5 evaluations."""
    num_unscored: int = 0
    """Replies that the harness could not score by this metric."""
    reasons: dict[str, int] = field(default_factory=dict)
    correlation: str = ""
    """How far the score goes with the reply's length, in words; empty where it was not asked."""

    @property
    def notes(self) -> list[str]:
        """What belongs beside a run's estimate, in words."""
        notes = []
        if self.num_unscored:
            why = ", ".join(f"{num} {reason}" for reason, num in self.reasons.items())
            notes.append(
                f"{plural(self.num_unscored, 'reply', 'replies')} unscored{': ' + why if why else ''}"
            )
        return notes + [self.correlation] * bool(self.correlation)


def read_beside(results: Mapping[str, Any], task: str, metric: str, mdd: Any) -> Beside:
    """Return what the results say beside a metric of a task."""
    unscored = mapping(mapping(mapping(results.get("unscored")).get(task)).get(metric))
    return Beside(
        mdd=number(mdd),
        num_unscored=count(unscored.get("num")) or 0,
        reasons={str(key): count(value) or 0 for key, value in mapping(unscored.get("reasons")).items()},
        correlation=_correlation(
            mapping(mapping(mapping(results.get("length_correlation")).get(task)).get(metric))
        ),
    )


def _correlation(stated: Mapping[str, Any]) -> str:
    rho = number(stated.get("rho", stated.get("spearman")))
    if rho is None:
        return ""
    low, high, n = number(stated.get("low")), number(stated.get("high")), count(stated.get("n"))
    bounds = "" if low is None or high is None else f" [{decimal(low, 2)}, {decimal(high, 2)}]"
    return f"rank correlation with length {decimal(rho, 2, signed=True)}{bounds}" + (
        f", n = {n}" if n else ""
    )


def read_published(results: Mapping[str, Any], task: str) -> list[Published]:
    """Return the published rows of a task; none where the results name none."""
    rows = mapping(results.get("published")).get(task)
    found = []
    for row in map(mapping, rows if isinstance(rows, list) else []):
        values = {str(key): number(value) for key, value in mapping(row.get("metrics")).items()}
        found.append(
            Published(
                model=str(row.get("model") or "unnamed"),
                metrics={key: value for key, value in values.items() if value is not None},
                source=str(row.get("source") or ""),
                differs=[str(one) for one in row.get("differs") or []],
            )
        )
    return found


def read_warnings(results: Mapping[str, Any]) -> list[str]:
    """Return the warnings of an evaluation, each once."""
    stated = results.get("warnings")
    return list(dict.fromkeys(str(one) for one in stated)) if isinstance(stated, list) else []
