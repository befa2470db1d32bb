"""How numbers are written on the page."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Sequence

from lengthwise.records import LengthTarget

_NAMES = {
    "s_l": "S_l",
    "s_q": "S_q",
    "pm": "PM",
    "fm": "FM",
    "elm": "ELM",
    "rmse": "RMSE",
    "cr": "CR",
    "longen": "LonGen",
}
_RELATIONS = {"about": "", "at_least": "at least ", "at_most": "at most "}


def judge_of(metric: str) -> str:
    """Return the judge in a judged metric's name, which is `metric@judge`; empty if none gave it.

    Example:
        >>> judge_of("s_q@qwen3-8b.1f2e"), judge_of("pass@4"), judge_of("s_l")
        ('qwen3-8b.1f2e', '', '')
    """
    judge = metric.partition("@")[2]
    return "" if judge.isdecimal() else judge


def is_pass_at_k(metric: str) -> bool:
    """Return whether a metric is pass@k: of k replies to a prompt, whether any is right.

    Example:
        >>> is_pass_at_k("pass@4"), is_pass_at_k("s_q@4b.1f2e")
        (True, False)
    """
    return metric.startswith("pass@") and metric.removeprefix("pass@").isdecimal()


def plain_metric_name(metric: str) -> str:
    """Return a metric's name without its judge, as its paper prints it where that differs from its key."""
    judge = judge_of(metric)
    name = metric.removesuffix(f"@{judge}") if judge else metric
    return _NAMES.get(name, name)


def metric_name(metric: str) -> str:
    """Return a metric's name as its paper prints it, with the judge that gave it.

    Example:
        >>> metric_name("s_l"), metric_name("s_q@qwen3-8b.1f2e"), metric_name("pass@4")
        ('S_l', 'S_q by qwen3-8b.1f2e', 'pass@4')
    """
    judge = judge_of(metric)
    return f"{plain_metric_name(metric)} by {judge}" if judge else plain_metric_name(metric)


def digits_for(values: Iterable[float | None]) -> int:
    """Return the decimals that a group of numbers shares: 3 for shares, 1 for scores, 0 for large counts."""
    largest = max((abs(v) for v in values if v is not None), default=0.0)
    return 3 if largest <= 1.5 else 1 if largest < 1000 else 0


def decimal(value: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """Return `value` with a fixed number of decimals and a true minus sign; None is "unknown".

    Example:
        >>> decimal(1234.56), decimal(-0.5, 1, signed=True), decimal(None)
        ('1,234.6', '−0.5', 'unknown')
    """
    if value is None:
        return "unknown"
    text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def whole(value: object) -> str:
    """Return a count with thousands separators; None is "unknown", what is no number is shown as it is.

    Example:
        >>> whole(1234), whole(0), whole(None)
        ('1,234', '0', 'unknown')
    """
    if isinstance(value, (int, float)):
        return f"{value:,.0f}"
    return "unknown" if value is None else str(value)


def plural(value: int | None, noun: str, several: str | None = None) -> str:
    """Return a count with its noun.

    Example:
        >>> plural(1, "row"), plural(0, "row"), plural(2, "reply", "replies")
        ('1 row', '0 rows', '2 replies')
    """
    return f"{whole(value)} {noun if value == 1 else several or noun + 's'}"


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them.

    Example:
        >>> listed(["a"]), listed(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def p_value(value: float | None) -> str:
    """Return a p-value with what digits it deserves.

    Example:
        >>> p_value(0.0312), p_value(0.00001), p_value(None)
        ('0.031', '< 0.001', 'no test')
    """
    if value is None:
        return "no test"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def interval(low: float | None, high: float | None, digits: int) -> str:
    """Return "[low, high]", or that there is none."""
    if low is None or high is None:
        return "no interval"
    return f"[{decimal(low, digits)}, {decimal(high, digits)}]"


def quoted_interval(low: float | None, high: float | None, digits: int) -> str:
    """Return an interval as a sentence quotes it.

    Example:
        >>> quoted_interval(0.5, 1.5, 1), quoted_interval(None, None, 1)
        ('95 % interval [0.5, 1.5]', 'no interval')
    """
    found = interval(low, high, digits)
    return found if low is None or high is None else f"95 % interval {found}"


def target(length: LengthTarget | None) -> str:
    """Return a requested length in words a person would use.

    Example:
        >>> target(LengthTarget.about(1500)), target(None)
        ('1,500 words', 'no length asked')
    """
    if length is None:
        return "no length asked"
    if length.relation == "range":
        return f"{whole(length.min)} to {whole(length.max)} {length.unit}"
    return f"{_RELATIONS[length.relation]}{whole(length.nominal)} {length.unit}"


def ratio(actual: int | None, requested: LengthTarget | None) -> str:
    """Return actual / requested, such as "0.82×"; empty where either is unknown."""
    if actual is None or requested is None:
        return ""
    return f"{actual / requested.nominal:.2f}×"


def duration(seconds: object) -> str:
    """Return a time span in its two leading units.

    Example:
        >>> duration(5.2), duration(754), duration(7500)
        ('5 s', '12 min 34 s', '2 h 5 min')
    """
    if not isinstance(seconds, (int, float)):
        return "unknown"
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


def dollars(value: object) -> str:
    """Return an amount of US dollars, a small one with two leading digits.

    Example:
        >>> dollars(12.5), dollars(0.00123), dollars(0), dollars(None)
        ('$12.50', '$0.0012', '$0.00', 'unknown')
    """
    if not isinstance(value, (int, float)):
        return "unknown"
    decimals = 2 if value >= 0.1 or value <= 0 else 1 - math.floor(math.log10(value))
    return f"${value:,.{decimals}f}"


def day(value: object) -> str:
    """Return the date of an ISO time.

    Example:
        >>> day("2026-01-31T14:05:00+00:00"), day(None)
        ('2026-01-31', 'unknown')
    """
    return when(value).partition(" ")[0]


def when(value: object) -> str:
    """Return an ISO time as "2026-01-31 14:05 UTC"; what is no time is shown as it is."""
    if not isinstance(value, str) or not value:
        return "unknown"
    try:
        moment = datetime.datetime.fromisoformat(value)
    except ValueError:
        return value
    zone = f" {moment.tzname()}" if moment.tzinfo else ""
    return f"{moment:%Y-%m-%d %H:%M}{zone}"
