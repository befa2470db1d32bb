"""Read numbers written in digits, English words or hanzi, and write them in hanzi."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

# fmt: off
_SPELLED = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}
# fmt: on
_ENGLISH = _SPELLED | {"a": 1, "an": 1}
_ENGLISH_SCALES = {"k": 1000, "hundred": 100, "thousand": 1000}
_HANZI_DIGITS = "零一二三四五六七八九"
_HANZI = {char: n for n, char in enumerate(_HANZI_DIGITS)} | {"两": 2}
_HANZI_SCALES = {"十": 10, "百": 100, "千": 1000, "万": 10_000, "w": 10_000}

_WORD = "|".join(sorted(_SPELLED, key=len, reverse=True))
_DIGITS = (
    r"(?<![A-Za-z_\d$€£¥#])(?<!\d[.,/])(?<![A-Za-z]{2}-)"
    r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+|[1-9]\d{0,2}(?:\.\d{3}){2,}|\d{1,9})"
    r"(?!\d)(?:\.\d{1,4})?"
    r"(?:\s?k(?![A-Za-z])|[\s-](?:hundred|thousand)\b|\s?(?:[百千万]|w(?![A-Za-z]))(?:\d[十百千]?){0,3})?"
)
_WORDS = (
    rf"(?<![A-Za-z-])(?:(?:{_WORD})\b|an?(?=[\s-](?:hundred|thousand)))"
    rf"(?:[\s-](?:and[\s-])?(?:(?:{_WORD}|hundred|thousand)\b))*"
)
_SIGNS = "零一二两三四五六七八九十百千万"
_HANZI_NUMBER = rf"(?<![第几数好多{_SIGNS}\d])[{_SIGNS}]{{1,12}}(?![{_SIGNS}])"

NUMBER_PATTERN = rf"(?:{_DIGITS}|{_WORDS}|{_HANZI_NUMBER})"
"""A number in running text, for `re.IGNORECASE`; what it matches, `read_number` reads."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written."""

    value: Fraction
    scale: int
    """The scale it ends on (1000 for "2k" and "两千"), 1 for none."""
    spelled: bool
    """Written in words or hanzi, not in digits."""
    high: Fraction | None = None
    """The upper end of a spoken range: 两三千 is 2000 to 3000."""


def read_number(text: str) -> Number:
    """Read a match of `NUMBER_PATTERN`.

    A point before three digits parts thousands, as much of Europe writes them ("20.000"), unless a scale follows
    ("1.250 thousand"): it is for numbers that count something whole.

    Example:
        >>> [int(read_number(n).value) for n in ("1,500", "1 500", "1.5k", "two thousand and five", "三千五百")]
        [1500, 1500, 1500, 2005, 3500]
    """
    text = text.lower().strip()
    if text[0].isdigit():
        plain = re.sub(r"(?<=\d)[,\s](?=\d)", "", text)
        if re.fullmatch(r"[1-9]\d{0,2}(?:\.\d{3})+", plain):
            plain = plain.replace(".", "")
        rest = plain.lstrip("0123456789.").strip(" -")
        if rest in _ENGLISH_SCALES or not rest:
            scale = _ENGLISH_SCALES.get(rest, 1)
            digits = plain[: len(plain) - len(plain.lstrip("0123456789."))]
            return Number(Fraction(digits) * scale, scale, spelled=False)
        return Number(_hanzi_value(plain), _HANZI_SCALES.get(rest[-1], 1), spelled=False)
    if text[0].isascii():
        return _english_number(text)
    spoken = re.fullmatch(r"([一二两三四五六七八])([二三四五六七八九])([百千万])", text)
    if spoken and _HANZI[spoken[1]] < _HANZI[spoken[2]]:
        scale = _HANZI_SCALES[spoken[3]]
        low, high = (Fraction(_HANZI[digit] * scale) for digit in spoken.group(1, 2))
        return Number(low, scale, spelled=True, high=high)
    return Number(_hanzi_value(text), _HANZI_SCALES.get(text[-1], 1), spelled=True)


def _english_number(text: str) -> Number:
    """Read "twenty-five hundred" or "one thousand two hundred and fifty"."""
    total = current = 0
    words = [word for word in re.split(r"[\s-]+", text) if word != "and"]
    for word in words:
        if word == "thousand":
            total, current = total + (current or 1) * 1000, 0
        elif word == "hundred":
            current = (current or 1) * 100
        else:
            current += _ENGLISH[word]
    return Number(Fraction(total + current), _ENGLISH_SCALES.get(words[-1], 1), spelled=True)


def _hanzi_value(text: str) -> Fraction:
    """Read 一万二千, 三千五 (3500), 一千零五, 二零零零, 1.5万 and 1万2千."""
    if not any(char in _HANZI_SCALES for char in text):
        return Fraction("".join(str(_HANZI[char]) for char in text))
    total, section, current, last = Fraction(0), Fraction(0), None, 0
    for token in re.findall(r"[\d.]+|\S", text):
        if token in _HANZI_SCALES:
            last = _HANZI_SCALES[token]
            if last == 10_000:
                total, section = (section + (current or 0) or 1) * last, Fraction(0)
            else:
                section += (1 if current is None else current) * last
            current = None
        elif token == "零":
            last = 0
        else:
            current = Fraction(token) if token[0].isdigit() else Fraction(_HANZI[token])
    if current is not None:
        # A lone digit after a scale names the next lower one: 三千五 is 3500, but 三千零五 is 3005.
        section += current * last / 10 if last >= 100 and current < 10 else current
    return total + section


def hanzi_numeral(number: int) -> str:
    """Write a whole number from 1 to 99,999,999 in hanzi, as prompts do.

    Raises:
        ValueError: if `number` is outside that range.

    Example:
        >>> hanzi_numeral(12_000), hanzi_numeral(3500), hanzi_numeral(1005)
        ('一万二千', '三千五百', '一千零五')
    """
    if not 1 <= number <= 99_999_999:
        raise ValueError(f"hanzi numerals are written for 1 to 99,999,999, not {number}")
    if number >= 10_000:
        head, rest = divmod(number, 10_000)
        return hanzi_numeral(head) + "万" + ("零" if 0 < rest < 1000 else "") + _below_10000(rest)
    return _below_10000(number).removeprefix("一") if 10 <= number < 20 else _below_10000(number)


def _below_10000(number: int) -> str:
    written = ""
    for scale, sign in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, number = divmod(number, scale)
        if digit:
            written += _HANZI_DIGITS[digit] + sign
        elif written and number and not written.endswith("零"):
            written += "零"
    return written
