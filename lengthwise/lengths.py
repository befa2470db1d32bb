"""How long a text is, and how well that fits what was asked.

Each benchmark counts words by its own rule, and the rules disagree by tens of percent, so every number
names the counter it used. The rules are kept exactly as published, traps included: Latin letters glued to
hanzi have no word boundary and count nothing under `cjk_alpha` and `cjk_alnum`, `cjk_alpha` sees no digits,
and `regex_w` and `whitespace` take a whole run of hanzi for one word.

Tokens are no text counter: their number comes from the `Completion`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Literal

from lengthwise.records import LengthTarget

_HANZI = re.compile(r"[\u4e00-\u9fff]")
_ALPHA_WORD = re.compile(r"\b[a-zA-Z]+\b")
_ALNUM_WORD = re.compile(r"\b[a-zA-Z0-9'-]+\b")
_CJK_CHARACTER = re.compile(r"[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]")
_WORD_RUN = re.compile(r"\w+")


def count_cjk_alpha(text: str) -> int:
    r"""Count hanzi (U+4E00-9FFF) and matches of ``\b[a-zA-Z]+\b``: the rule of LongBench-Write (2408.07055).

    Digits, punctuation, accented and alphanumeric words count nothing; "don't" counts two.

    Example:
        >>> count_cjk_alpha("Hello world 2024! 你好，世界。")
        6
    """
    return len(_HANZI.findall(text)) + len(_ALPHA_WORD.findall(text))


def count_cjk_ws(text: str) -> int:
    """Count CJK characters and punctuation, then whitespace words of the rest: LonGen (2410.23933).

    The CJK ranges are U+4E00-9FFF, U+3000-303F and U+FF00-FFEF, so a full-width comma counts one. Each of
    these characters separates the words around it.

    Example:
        >>> count_cjk_ws("Hello world 2024! 你好，世界。")
        9
    """
    rest, num_cjk = _CJK_CHARACTER.subn(" ", text)
    return num_cjk + len(rest.split())


def count_cjk_alnum(text: str) -> int:
    r"""Count hanzi (U+4E00-9FFF) and matches of ``\b[a-zA-Z0-9'-]+\b``: the rule of LIFEBench (2505.16234).

    Example:
        >>> count_cjk_alnum("a well-known 3.5 kg")
        5
    """
    return len(_HANZI.findall(text)) + len(_ALNUM_WORD.findall(text))


def count_regex_w(text: str) -> int:
    r"""Count matches of ``\w+``: the rule of TLG (2409.18943) and IFEval. A run of hanzi is one word.

    Example:
        >>> count_regex_w("Don't stop, 你好世界")
        4
    """
    return len(_WORD_RUN.findall(text))


def count_whitespace(text: str) -> int:
    """Count whitespace-separated words: the rule of LongGenBench (2409.02076).

    Example:
        >>> count_whitespace("Don't stop, 你好世界")
        3
    """
    return len(text.split())


COUNTERS: dict[str, Callable[[str], int]] = {
    "cjk_alpha": count_cjk_alpha,
    "cjk_ws": count_cjk_ws,
    "cjk_alnum": count_cjk_alnum,
    "regex_w": count_regex_w,
    "whitespace": count_whitespace,
}
"""Every text counter by the id that tables print."""


def check_counter(name: str) -> None:
    """Refuse a counter that there is not.

    Raises:
        ValueError: with those that there are.
    """
    if name not in COUNTERS:
        raise ValueError(f"counter is {name!r}: there are {', '.join(COUNTERS)}")


def count_all(text: str) -> dict[str, int]:
    """Return the length of `text` under every counter, so that no later question needs the text again."""
    return {name: counter(text) for name, counter in COUNTERS.items()}


def longbench_length_score(required: float, produced: float) -> float:
    """Return S_l of LongBench-Write, 0..100 (2408.07055; lengths in `cjk_alpha` words).

    With x required and y produced: 100 max(0, 1 - (y/x - 1)/3) for y > x, else 100 max(0, 1 - (x/y - 1)/2).
    It reaches 0 at y >= 4x and at y <= x/3. The released code divides by zero at y = 0; here that scores 0.

    Raises:
        ValueError: if `required` is not positive or `produced` is negative.

    Example:
        >>> longbench_length_score(1000, 800)
        87.5
    """
    _check_lengths(required, produced)
    if produced == 0:
        return 0.0
    if produced > required:
        return 100 * max(0.0, 1 - (produced / required - 1) / 3)
    return 100 * max(0.0, 1 - (required / produced - 1) / 2)


def log_length_ratio(actual: float, requested: float) -> float | None:
    """Return ln(actual / requested), symmetric in "twice" and "half"; None for an empty text.

    Raises:
        ValueError: if `requested` is not positive or `actual` is negative.

    Example:
        >>> round(log_length_ratio(2000, 1000), 3)
        0.693
    """
    _check_lengths(requested, actual)
    return math.log(actual / requested) if actual else None


def _check_lengths(required: float, produced: float) -> None:
    if not required > 0:
        raise ValueError(
            f"the required length must be positive, not {required}: give the length that was asked"
        )
    if not produced >= 0:
        raise ValueError(f"the produced length must not be negative, not {produced}: give a count")


_INF = math.inf

TLG_WINDOWS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "10": ((0, 20), (0, 20)),
    "30": ((20, 40), (20, 40)),
    "50": ((40, 60), (40, 60)),
    "80": ((70, 90), (60, 100)),
    "150": ((130, 170), (100, 200)),
    "300": ((280, 320), (200, 400)),
    "500": ((450, 550), (400, 600)),
    "700": ((630, 770), (600, 800)),
    ">800": ((800, _INF), (800, _INF)),
}
"""For each TLG target the precise (PM) and the flexible (FM) window, both open below and closed above."""

TLG_TARGETS: tuple[str, ...] = tuple(TLG_WINDOWS)

TLG_LEVELS: dict[int, tuple[str, ...]] = {
    0: ("10", "30", "50", "80"),
    1: ("150", "300", "500"),
    2: ("700", ">800"),
}
"""The targets of each level. A level's score is a micro-average over its items."""


def tlg_match(target: str, words: int, edges: Literal["code", "paper"] = "code") -> tuple[bool, bool]:
    """Return (precise match, flexible match) of Target Length Generation (2409.18943, Algorithm 1).

    A text of L words (`regex_w`) matches a window (lo, hi] if lo < L <= hi, as in the paper's algorithm and
    code. With `edges` "paper" the windows are [lo, hi), as the paper's table prints them. An empty text
    matches nothing under either, although that table's [0, 20) holds 0.

    Raises:
        ValueError: if `target` is none of the nine TLG targets.

    Example:
        >>> tlg_match("700", 800)
        (False, True)
    """
    if target not in TLG_WINDOWS:
        raise ValueError(f"{target!r} is not a TLG target: choose one of {', '.join(TLG_TARGETS)}")
    if words == 0:
        return False, False
    (pm_low, pm_high), (fm_low, fm_high) = TLG_WINDOWS[target]
    if edges == "paper":
        return pm_low <= words < pm_high, fm_low <= words < fm_high
    return pm_low < words <= pm_high, fm_low < words <= fm_high


def tlg_level(target: str) -> int:
    """Return the level 0, 1 or 2 of a TLG target.

    Raises:
        ValueError: if `target` is none of the nine TLG targets.
    """
    for level, targets in TLG_LEVELS.items():
        if target in targets:
            return level
    raise ValueError(f"{target!r} is not a TLG target: choose one of {', '.join(TLG_TARGETS)}")


def longen_interval(target: LengthTarget) -> tuple[float, float]:
    """Return the interval [a, b] that LonGen accepts (2410.23933; lengths in `cjk_ws` words).

    About T: [0.8T, 1.2T]; a range as given; at least T: [T, 1.5T]; at most T: [0.5T, T].
    """
    if target.relation == "about":
        return 0.8 * target.nominal, 1.2 * target.nominal
    if target.relation == "at_least":
        return target.nominal, 1.5 * target.nominal
    if target.relation == "at_most":
        return 0.5 * target.nominal, target.nominal
    assert target.min is not None and target.max is not None  # LengthTarget guarantees both for a range
    return float(target.min), float(target.max)


def longen_score(target: LengthTarget, words: int) -> float:
    """Return LonGen's length score, 0..1 (2410.23933; lengths in `cjk_ws` words).

    One inside [a, b] of `longen_interval`; max(0, 2n/a - 1) below; max(0, 3 - 2n/b) above.

    Example:
        >>> longen_score(LengthTarget.about(2000), 1200)
        0.5
    """
    low, high = longen_interval(target)
    if words < low:
        return max(0.0, 2 * words / low - 1)
    if words > high:
        return max(0.0, 3 - 2 * words / high)
    return 1.0


def lifebench_length_score(target: LengthTarget, words: int, *, in_percent: bool = False) -> float:
    """Return LIFEBench's length score LS, 0..100 (2505.16234; lengths in `cjk_alnum` words).

    With the deviation d = (L - T)/T: 100 e^(5d) for d < 0, else 100 e^(-2d). "At most" is full for d <= 0,
    "at least" for d >= 0. The released code puts d in percent into the exponent, which sends almost every
    inexact text to 0; here d is a fraction, which the paper's own values need, unless `in_percent` asks for the
    code's numbers.

    Raises:
        ValueError: for a range, which LIFEBench does not know.

    Example:
        >>> round(lifebench_length_score(LengthTarget.about(1000), 900), 1)
        60.7
    """
    if target.relation == "range":
        raise ValueError("LIFEBench scores no ranges: give a target with relation about, at_least or at_most")
    deviation = words / target.nominal - 1
    if target.relation == "at_most":
        deviation = max(0.0, deviation)
    elif target.relation == "at_least":
        deviation = min(0.0, deviation)
    if in_percent:
        deviation *= 100
    return 100 * math.exp(5 * deviation if deviation < 0 else -2 * deviation)


LENGTH_BINS: tuple[tuple[str, float, float], ...] = (
    ("[0,500)", 0, 500),
    ("[500,2k)", 500, 2000),
    ("[2k,4k)", 2000, 4000),
    ("[4k,inf)", 4000, _INF),
)
"""The bins of required length in LongBench-Write's tables: name, lower bound, upper bound."""


def length_bin(length: float) -> str:
    """Return the name of the LongBench-Write bin that holds a required length.

    The published last bin is [4k, 20k); one row asks for exactly 20,000, so here it is open above.

    Raises:
        ValueError: if `length` is negative.

    Example:
        >>> length_bin(2000)
        '[2k,4k)'
    """
    for name, low, high in LENGTH_BINS:
        if low <= length < high:
            return name
    raise ValueError(f"a length must be a finite number from 0, not {length}")


def slice_order(value: str) -> tuple[float, str]:
    """Return what slices are sorted by: bins by their first number, other names behind them by the alphabet.

    Example:
        >>> sorted(["zh", ">800", "[2k,4k)", "800", "[0,500)", "en"], key=slice_order)
        ['[0,500)', '800', '>800', '[2k,4k)', 'en', 'zh']
    """
    start = value.lstrip("[(>").partition(",")[0].strip(" )]")
    factor = 1000 if start.endswith("k") else 1
    try:
        return factor * float(start.removesuffix("k")) + value.startswith(">"), value
    except ValueError:
        return math.inf, value
