"""Draws axes and marks as SVG text: charts that print, need no script and take a few kilobytes.

Colours come from the page's style sheet: an element with the class `c0` .. `c5` has its run's colour as
`currentColor`, so one drawing serves the light and the dark scheme.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 360
"""Units of a drawing: about the pixels it gets on a phone and as one of three on a desktop page."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One direction of a chart: from `low` to `high` over `length` units."""

    low: float
    high: float
    length: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the place of a value, in units from the lower end; values outside lie on the ends.

        Example:
            >>> Axis(low=10, high=1000, length=100, log=True).at(100)
            50.0
        """
        low, high, here = (
            math.log(v) if self.log else v for v in (self.low, self.high, max(value, self.low))
        )
        return self.length * min((here - low) / (high - low), 1.0)

    def ticks(self) -> list[float]:
        """Return round values inside the axis: 1, 3, 10, 30 ... on a log axis, else about five equal steps.

        Example:
            >>> Axis(low=50, high=2000, length=1, log=True).ticks()
            [100.0, 300.0, 1000.0]
        """
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 3) if self.high / self.low > 12 else (1, 2, 5)
            found = [float(m * 10**k) for k in decades for m in steps]
        else:
            rough = (self.high - self.low) / 5
            power = 10 ** math.floor(math.log10(rough))
            step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
            found = [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [v for v in found if self.low <= v <= self.high * (1 + 1e-9)]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A plot's rectangle inside a drawing, with its two axes."""

    x: Axis
    y: Axis
    left: float = 48
    top: float = 10

    def px(self, value: float) -> float:
        """Return the horizontal place of a value."""
        return self.left + self.x.at(value)

    def py(self, value: float) -> float:
        """Return the vertical place of a value; larger is higher."""
        return self.top + self.y.length - self.y.at(value)

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.top + self.y.length

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.x.length

    def grid(self, x_title: str, y_title: str, *, vertical: bool = True) -> str:
        """Return grid lines, numbers and titles."""
        parts = []
        for value in self.y.ticks():
            parts.append(line(self.left, self.py(value), self.right, self.py(value), "grid"))
            parts.append(text(self.left - 6, self.py(value) + 4, tick(value), "end"))
        for value in self.x.ticks():
            if vertical:
                parts.append(line(self.px(value), self.top, self.px(value), self.bottom, "grid"))
            parts.append(text(self.px(value), self.bottom + 16, tick(value), "middle"))
        parts.append(text(self.right, self.bottom + 34, x_title, "end", "title"))
        parts.append(text(self.left, self.top - 8, y_title, "start", "title"))
        return "".join(parts)


def drawing(content: str, height: float, label: str, *, width: float = WIDTH) -> str:
    """Return the SVG element; `label` says in a sentence what it shows, for those who cannot see it."""
    return (
        f'<svg class="chart" viewBox="0 0 {n(width)} {n(height)}" role="img" aria-label="{html.escape(label)}">'
        f"{content}</svg>"
    )


def n(value: float) -> str:
    """Return a coordinate with one decimal, written as briefly as may be."""
    return f"{value:.1f}".removesuffix(".0")


def tick(value: float) -> str:
    """Return a number beside an axis.

    Example:
        >>> tick(3000), tick(0.25), tick(0)
        ('3,000', '0.25', '0')
    """
    return f"{value:,.0f}" if value == 0 or abs(value) >= 10 else f"{value:.3g}"


def line(x0: float, y0: float, x1: float, y1: float, kind: str = "stroke") -> str:
    """Return a straight line."""
    return f'<path class="{kind}" d="M{n(x0)},{n(y0)}L{n(x1)},{n(y1)}"/>'


def path(points: Sequence[tuple[float, float]], kind: str = "stroke") -> str:
    """Return a line through all points."""
    return f'<path class="{kind}" d="M{"L".join(f"{n(x)},{n(y)}" for x, y in points)}"/>'


def rect(x: float, y: float, width: float, height: float, kind: str = "fill", hint: str = "") -> str:
    """Return a filled rectangle, with a text that shows when it is pointed at."""
    title = f"<title>{html.escape(hint)}</title>" if hint else ""
    box = f'x="{n(x)}" y="{n(y)}" width="{n(max(width, 0))}" height="{n(max(height, 0))}"'
    return f'<rect class="{kind}" {box}>{title}</rect>' if title else f'<rect class="{kind}" {box}/>'


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    """Return a piece of text."""
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{n(x)}" y="{n(y)}" text-anchor="{anchor}">{html.escape(words)}</text>'


def mark(x: float, y: float, kind: str) -> str:
    """Return a point: `cut` is a cross, `empty` a ring, anything else a dot."""
    if kind == "cut":
        arms = f"M{n(x - 4)},{n(y - 4)}l8,8M{n(x - 4)},{n(y + 4)}l8,-8"
        return f'<path class="cross" d="{arms}"/>'
    shape = "ring" if kind == "empty" else "dot"
    return f'<circle class="{shape}" cx="{n(x)}" cy="{n(y)}" r="4"/>'


def group(content: str, kind: str) -> str:
    """Return elements that share a class, such as a run's colour."""
    return f'<g class="{kind}">{content}</g>'
