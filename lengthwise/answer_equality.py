r"""Whether two answers of a maths problem are the same, as far as their writing tells. Pure functions.

`same_answer` decides what needs no algebra: equal texts, numbers, words, and tuples, intervals and lists of
them. What is left (None) is for `lengthwise.answer_process`, which asks the library math-verify.

The rules, each against a known fault of published graders (SkyThought's evaluation, arXiv 2502.07374):

- Numbers are compared exactly, as fractions: 10000 is not 10001. A decimal of at least six significant digits
  equals a fraction that it rounds: 0.333333 is 1/3, 0.33 is not.
- There is no rule of percent: 5 is not 500. Only where one of the two writes a percent sign, it may count or be
  left out: 50% is 0.5, and it is 50, as the answer to "what percent".
- Letters keep their meaning: j is not i, and "and" is not struck out but parts a list.
- 52 in base 8 is not 52 in base 9; a numeral without its base has the base of the question.
- Units, currency and degrees are left out: the question fixes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

MAX_ANSWER_LENGTH = 2000
"""Characters of a longer one are compared as they stand: it rambles in its box, and algebra would take hours."""

_MAX_DIGITS = 200
_LEAST_DIGITS = 6
"""Significant digits from which a decimal may stand for a fraction that it rounds."""
_TEXT = r"\\(?:text|mbox|mathrm|textbf|mathbf|textit|textrm|operatorname|hbox)\s*\{([^{}]*)\}"
_UNIT_WORD = (
    r"(?!percent)(?:[A-Za-z]{3,}|[ckm]?m|[km]g|m[lL]|ft|in|lbs?|oz|hrs?|mi|mph)(?![A-Za-z])[A-Za-z./ ]*"
)
_UNIT = re.compile(rf"(?<=[\d}})])(?:(?:\s|\\ )*{_TEXT}|\s+{_UNIT_WORD})\s*(?:\^\s*\{{?[23]\}}?)?$")
_DEGREES = re.compile(r"\s*(?:\^\s*\{?\s*(?:\\circ|∘)\s*\}?|\\degree\b|°)")
_GROUPED = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_SPACED = re.compile(r"[-+]?\d{1,3}(?:\s\d{3})+(?:\.\d+)?")
_DECIMAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")
_SCIENTIFIC = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))(?:[eE]|\\times10\^|\\cdot10\^)\{?([-+]?\d{1,3})\}?")
_FRACTION = re.compile(
    r"(?P<sign>[-+]?)(?:(?P<whole>\d*)\\frac(?:\{(?P<top>-?\d+)\}|(?P<top1>\d))(?:\{(?P<low>\d+)\}|(?P<low1>\d))"
    r"|(?:(?P<mixed>\d+)\s+)?(?P<top2>\d+)/(?P<low2>\d+))"
)
_BLANKS_ONLY = re.compile(r"[-+]?[\d.]+(?:\s+[-+]?[\d.]+)+")
_NUMERAL = re.compile(r"([0-9A-Z]+)(?:_\{?(\d{1,2})\}?)?")
_NAMED = re.compile(r"[A-Za-z]\s*(?:=|\\in\b)([^=]+)", re.DOTALL)
_SEPARATOR = re.compile(r",|;|\\text\s*\{\s*(?:and|or)\s*\}|\b(?:and|or)\b")

Algebra = Callable[[str, str], bool]
"""Tells whether an answer equals the reference answer; only asked of what the writing does not tell."""


class Number(NamedTuple):
    """A number as it was written."""

    value: Fraction
    is_percent: bool = False
    num_digits: int = 0
    """Significant digits of a number written with a point, 0 of any other."""
    num_places: int = 0
    """Digits after the point."""


def same_answer(given: str, gold: str, algebra: Algebra | None = None) -> bool | None:
    r"""Tell whether an answer is the reference answer.

    Args:
        given: the answer that was read from a reply.
        gold: the reference answer.
        algebra: asked about what the writing does not tell, element by element.

    Returns:
        Without `algebra`, None where only algebra can tell.

    Example:
        >>> same_answer(r"\dfrac{1}{2}", "0.5"), same_answer("5", "500"), same_answer("(3,4]", "(3,4)")
        (True, False, False)
        >>> same_answer("2x + 2", "2(x + 1)") is None
        True
    """
    given, gold = plain_maths(given), plain_maths(gold)
    if _squeezed(given) == _squeezed(gold):
        return bool(gold)
    if not given or len(given) > MAX_ANSWER_LENGTH:
        return False
    numbers = read_number(given), read_number(gold)
    if numbers[0] and numbers[1]:
        return _same_number(numbers[0], numbers[1])
    numerals = _NUMERAL.fullmatch(_squeezed(given)), _NUMERAL.fullmatch(_squeezed(gold))
    if numerals[0] and numerals[1] and (numerals[0][2] or numerals[1][2]):
        bases = {numerals[0][2], numerals[1][2]} - {None}
        return numerals[0][1] == numerals[1][1] and len(bases) == 1
    parts = answer_parts(given), answer_parts(gold)
    if parts[0] or parts[1]:
        verdict = _same_parts(
            parts[0] or Parts("", (given,), ""), parts[1] or Parts("", (gold,), ""), algebra
        )
    else:
        verdict = _same_words(given, gold)
    return algebra(given, gold) if verdict is None and algebra else verdict


def plain_maths(text: str) -> str:
    r"""Return an answer without what has no meaning: spacing commands, dollar signs, units, `\left`, `x =`.

    Example:
        >>> plain_maths(r"\$32,\!348"), plain_maths(r"864 \mbox{ inches}^2"), plain_maths(r"x \in [-2,7]")
        ('32,348', '864', '[-2,7]')
    """
    text = text.replace("−", "-").replace("\\$", "").replace("$", "")
    text = re.sub(r"(?<!\\)\\!\s*", "", text).replace("{,}", ",")
    text = re.sub(r"(?<=\d)(?:\\,|~)(?=\d{3}(?!\d))", ",", text)
    text = re.sub(r"(?<!\\)\\[,;: ]|~|\\q?quad\b", " ", text)  # \\ ends a row of a matrix
    text = re.sub(r"\\(?:left|right)\b\.?|\\(?:displaystyle|[Bb]igg?[lr]?)(?![A-Za-z])", "", text)
    text = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", text)
    text = _DEGREES.sub("", text).strip()
    text = _UNIT.sub("", text.removesuffix(".")).strip()
    named = _NAMED.fullmatch(text)
    return named[1].strip() if named else text


def read_number(text: str) -> Number | None:
    r"""Return the number that an answer is, None if it is not just a number.

    Example:
        >>> [str(read_number(t).value) for t in ("1,000.5", r"1\frac45", r"6.72 \times 10^{-5}", r"50\%")]
        ['2001/2', '9/5', '21/312500', '50']
    """
    bare = re.sub(r"\s*(?:\\?%|percent)$", "", text.strip())
    is_percent = bare != text.strip()
    if _GROUPED.fullmatch(bare) or _SPACED.fullmatch(bare):
        bare = re.sub(r"[,\s]", "", bare)
    fraction = _FRACTION.fullmatch(re.sub(r"\s*(\\frac)\s*|(?<=[-+}])\s+", r"\1", bare))
    if fraction:
        value = _fraction_value(
            {key: int(v) for key, v in fraction.groupdict().items() if v and key != "sign"}
        )
        if value is None:
            return None
        return Number(-value if fraction["sign"] == "-" else value, is_percent)
    if re.search(r"\d\s+\d", bare) or len(bare) > _MAX_DIGITS:
        return None
    bare = _squeezed(bare)
    if _DECIMAL.fullmatch(bare):
        _, point, places = bare.partition(".")
        digits = len(re.sub(r"\D", "", bare).lstrip("0")) if point else 0
        return Number(Fraction(bare), is_percent, digits, len(places))
    scientific = _SCIENTIFIC.fullmatch(bare)
    if scientific:
        return Number(Fraction(scientific[1]) * Fraction(10) ** int(scientific[2]), is_percent)
    return None


class Parts(NamedTuple):
    """A tuple, an interval, a set or a list without brackets."""

    opening: str
    elements: tuple[str, ...]
    closing: str


def answer_parts(text: str) -> Parts | None:
    r"""Return opening bracket, elements and closing bracket of a tuple, interval, set or list without brackets.

    None if the answer is a single thing. A `\pm` in a list or a set is two elements.

    Example:
        >>> tuple(answer_parts("(-\\infty, 0]")), tuple(answer_parts("1 \\pm x"))
        (('(', ('-\\infty', '0'), ']'), ('', ('1 + x', '1 - x'), ''))
    """
    text = text.strip().replace("\\{", "{").replace("\\}", "}")
    opening, inner, closing = "", text, ""
    if len(text) > 2 and _depths(text)[-1:] == [0] and 0 not in _depths(text)[:-1] and text[0] in "([{":
        opening, inner, closing = text[0], text[1:-1], text[-1]
    elements = _split(inner)
    if opening in ("", "{"):
        elements = tuple(sign for element in elements for sign in _both_signs(element))
    if (len(elements) < 2 and opening != "{") or not all(elements):
        return None
    return Parts(opening, elements, closing)


def _same_parts(given: Parts, gold: Parts, algebra: Algebra | None) -> bool | None:
    """Compare element by element: in order in a tuple or an interval, in any order in a set or a bare list."""
    is_ordered = given.opening in ("(", "[") or gold.opening in ("(", "[")
    if is_ordered and (given.opening, given.closing) != (gold.opening, gold.closing):
        return False if given.opening and gold.opening else None
    if len(given.elements) != len(gold.elements):
        return False
    if is_ordered:
        pairs = zip(given.elements, gold.elements, strict=True)
        verdicts = {same_answer(a, b, algebra) for a, b in pairs}
        return False if False in verdicts else None if None in verdicts else True
    left, is_sure = list(gold.elements), True
    for element in given.elements:
        verdicts = [same_answer(element, other, algebra) for other in left]
        best = True if True in verdicts else None
        if best not in verdicts:
            return False
        is_sure = is_sure and best is True
        left.pop(verdicts.index(best))
    return True if is_sure else None


def _same_number(given: Number, gold: Number) -> bool:
    if given.is_percent == gold.is_percent:
        return given.value == gold.value or _rounds(given, gold) or _rounds(gold, given)
    percent, other = (given, gold) if given.is_percent else (gold, given)
    return other.value in (percent.value, percent.value / 100)


def _rounds(decimal: Number, fraction: Number) -> bool:
    """Tell whether a decimal stands for a fraction: one unit of its last place covers rounding and cutting."""
    if decimal.num_digits < _LEAST_DIGITS or fraction.num_digits or fraction.value.denominator == 1:
        return False
    return abs(decimal.value - fraction.value) < Fraction(1, 10**decimal.num_places)


def _fraction_value(found: dict[str, int]) -> Fraction | None:
    top = next(found[key] for key in ("top", "top1", "top2") if key in found)
    low = next(found[key] for key in ("low", "low1", "low2") if key in found)
    return Fraction(top, low) + found.get("whole", 0) + found.get("mixed", 0) if low else None


def _depths(text: str) -> list[int]:
    """Return how many brackets are open after each character."""
    depth, found = 0, []
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        found.append(depth)
    return found


def _split(text: str) -> tuple[str, ...]:
    r"""Split at the commas, and the words "and" and "or", outside all brackets; a grouped number is one thing."""
    if _GROUPED.fullmatch(text.strip()) or "\\begin" in text:
        return (text.strip(),)
    if _BLANKS_ONLY.fullmatch(text.strip()):
        return tuple(text.split())
    depths, found, start = _depths(text), [], 0
    for match in _SEPARATOR.finditer(text):
        if match.start() == 0 or depths[match.start() - 1] == 0:
            found.append(text[start : match.start()].strip())
            start = match.end()
    return tuple(part for part in (*found, text[start:].strip()) if part)


def _both_signs(text: str) -> tuple[str, ...]:
    before, sign, after = text.partition("\\pm")
    return (f"{before}+{after}".strip(), f"{before}-{after}".strip()) if sign else (text,)


def _same_words(given: str, gold: str) -> bool | None:
    if (_is_word(given) or _is_word(gold)) and _as_words(given) == _as_words(gold):
        return True
    return False if _is_word(gold) else None


def _is_word(text: str) -> bool:
    return re.fullmatch(rf"{_TEXT}|[A-Za-z]{{4,}}(?:[' -][A-Za-z]+)*", text) is not None


def _as_words(text: str) -> str:
    return " ".join(re.sub(_TEXT, r"\1", text).casefold().split()).strip(" ().")


def _squeezed(text: str) -> str:
    """Return a text without its blanks, but for those between digits: "1 2" is not 12."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)
