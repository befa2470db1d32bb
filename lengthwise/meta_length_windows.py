"""Which answers teach which meta length token: the training windows of Ruler (arXiv 2409.18943, section 3).

A window is (lo, hi] in `regex_w` words, and an answer outside every window teaches none. Ruler's windows are narrow, so
that a token means its number; most rows of any data fall between them. Paper and released code differ at 150: the paper
prints 145 to 155, the code has 135 to 155. `fm` are the windows that the flexible match is scored by (Algorithm 1):
without gaps up to 800 words, they keep nearly every row of a small set, and a token then means about its number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lengthwise.lengths import TLG_WINDOWS

Windows = Literal["code", "paper", "fm"]

_INF = float("inf")

RULER_WINDOWS: Mapping[str, tuple[float, float]] = {
    "10": (5, 15),
    "30": (25, 35),
    "50": (45, 55),
    "80": (75, 85),
    "150": (135, 155),
    "300": (295, 305),
    "500": (495, 505),
    "700": (695, 705),
    ">800": (800, _INF),
}
"""Of the released code, open below and closed above."""

TRAINING_WINDOWS: Mapping[Windows, Mapping[str, tuple[float, float]]] = {
    "code": RULER_WINDOWS,
    "paper": {**RULER_WINDOWS, "150": (145, 155)},
    "fm": {label: flexible for label, (_, flexible) in TLG_WINDOWS.items()},
}
"""For each choice the window of each target; no two of a choice overlap."""


def mlt_of(words: int, windows: Windows = "code") -> str | None:
    """Return the target whose token an answer teaches, None where it teaches none.

    Args:
        words: of the answer, by `count_regex_w`.
        windows: the released code's, the paper's, or those of the flexible match.

    Example:
        >>> mlt_of(150), mlt_of(140), mlt_of(140, "paper"), mlt_of(100), mlt_of(100, "fm"), mlt_of(801)
        ('150', '150', None, None, '80', '>800')
    """
    found = (label for label, (low, high) in TRAINING_WINDOWS[windows].items() if low < words <= high)
    return next(found, None)
