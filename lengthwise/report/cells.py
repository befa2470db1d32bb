"""Cells of the page's tables: an estimate, a paired difference, and the address of the samples behind them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from lengthwise.report.collect import Run
from lengthwise.report.comparison import Comparison
from lengthwise.report.wording import decimal, interval, p_value


def link(**wanted: str | None) -> str:
    """Return the address of the samples that fit; the page's script reads it, so it can be shared.

    Example:
        >>> link(task="tlg", run="run-2", flag=None)
        '#samples?task=tlg&run=run-2'
    """
    return "#samples?" + "&".join(f"{key}={quote(value, safe='')}" for key, value in wanted.items() if value)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """An interval on a line, in percent of the line."""

    low: float | None
    high: float | None
    dot: float
    zero: float | None = None
    """Where "no difference" lies."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its interval."""

    value: str
    bounds: str
    n: str
    bar: Bar | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """A paired difference to the base."""

    run: Run
    text: str
    bounds: str
    n: int
    p: str
    verdict: str
    """A word for the style: better, worse, changed, unclear, too few."""
    words: str
    tally: str
    method: str
    bar: Bar


def change_of(c: Comparison, reach: float) -> Change:
    """Return a comparison as a table cell; `reach` is the difference at the end of its line."""
    words = {
        "better": "better", "worse": "worse", "changed": "different", "unclear": "no clear difference",
        "too few": "too few items",
    }[c.verdict]  # fmt: skip
    if c.verdict in ("better", "worse", "changed") and not c.survives:
        words += ", not after Holm"
    return Change(
        run=c.other,
        text=decimal(c.difference, c.digits, signed=True),
        bounds=interval(c.low, c.high, c.digits),
        n=c.n,
        p=p_value(c.p_holm if c.p_holm is not None else c.p_value),
        verdict=c.verdict,
        words=words,
        tally=c.tally,
        method=c.method,
        bar=difference_bar(c.difference, c.low, c.high, reach),
    )


def reach_of(comparisons: Iterable[Comparison]) -> float:
    """Return the largest difference that a line has to hold, so that several lines share a scale."""
    ends = [abs(v) for c in comparisons for v in (c.low or 0.0, c.high or 0.0, c.difference)]
    return 1.1 * max(ends, default=0.0) or 1.0


def difference_bar(value: float, low: float | None, high: float | None, reach: float) -> Bar:
    """Return a difference as a place on a line whose middle is "no difference"."""
    places = [None if v is None else min(max(50 + 50 * v / reach, 0.0), 100.0) for v in (low, high)]
    return Bar(low=places[0], high=places[1], dot=min(max(50 + 50 * value / reach, 0.0), 100.0), zero=50.0)
