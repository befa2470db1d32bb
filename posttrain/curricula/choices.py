"""The words by which a config chooses the ways of a length curriculum. Nothing heavy is imported."""

from __future__ import annotations

from typing import Literal

Odds = Literal[
    "natural",
    "uniform",
    "grow_linear",
    "grow_p2",
    "grow_p100",
    "shrink_linear",
    "shrink_p2",
    "shrink_p100",
]
Weighting = Literal["paper", "released"]
OverLong = Literal["randomized", "longest"]
Preference = Literal["easy", "hard", "random"]
Shape = Literal["linear", "log", "sqrt"]
