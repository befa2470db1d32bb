"""Read a writing plan from a model's reply or from a row of data (pure).

Small models break every format, so JSON is looked for first, anywhere in the reply, and then lines such as
`1. The storm (300 words)` or `Paragraph 1 - Main Point: The storm - Word Count: 300 words`, in English and
Chinese. A preamble, a refusal and a total are left out; half a plan is for `plans.validate_plan` to judge.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data_builders.plans import Plan, PlannedSection


def parse_plan(text: str) -> Plan:
    r"""Read a plan from a reply: JSON (bare, fenced, wrapped in prose), else numbered lines in en or zh.

    Returns:
        The sections as they were numbered; empty if nothing reads as a plan.

    Example:
        >>> parse_plan("1. The storm (about 300 words)\n2. Rescue - Word Count: 1,000 words")[1].num_words
        1000
    """
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL)
    return _parse_json(text) or _parse_lines(text)


def given_plan(value: Any) -> Plan:
    """Read the plan that a row brings along: objects, lines of text, or one text of several lines.

    Raises:
        ValueError: for anything else, naming what was found.
    """
    if isinstance(value, str):
        value = parse_plan(value) or [line for line in value.splitlines() if line.strip()]
    if isinstance(value, tuple):
        return value
    if not isinstance(value, Sequence) or not value:
        raise ValueError(f"should be a list of sections (objects or texts), not {value!r}")
    return tuple(_given_section(index, item) for index, item in enumerate(value, start=1))


def _given_section(index: int, item: Any) -> PlannedSection:
    if isinstance(item, Mapping):
        section = _section_of(index, item)
        if section is not None:
            return section
    if isinstance(item, str) and item.strip():
        parsed = parse_plan(item)
        if len(parsed) == 1:
            return replace(parsed[0], index=index)
        return PlannedSection(index=index, main_point=item.strip())
    raise ValueError(f"section {index} should be a text or have main_point and num_words, not {item!r}")


_POINT_KEYS = (
    "main_point",
    "mainpoint",
    "point",
    "content",
    "title",
    "topic",
    "要点",
    "主要内容",
    "内容",
    "主题",
)
_MOST_WORDS = 10_000_000
_WORDS_KEYS = ("num_words", "numwords", "word_count", "wordcount", "words", "字数")


def _parse_json(text: str) -> Plan:
    decoder = json.JSONDecoder()
    for start in re.finditer(r"[\[{]", text):
        try:
            value, _ = decoder.raw_decode(text, start.start())
        except ValueError:
            continue
        except RecursionError:  # brackets without end: what follows them is no plan either
            return ()
        if isinstance(value, Mapping):
            value = next((v for v in value.values() if isinstance(v, list)), [value])
        if not isinstance(value, list) or not value or not all(isinstance(v, Mapping) for v in value):
            continue
        sections = [_section_of(i, item) for i, item in enumerate(value, start=1)]
        if all(s is not None for s in sections):
            return tuple(s for s in sections if s is not None)
    return ()


def _section_of(index: int, item: Mapping[Any, Any]) -> PlannedSection | None:
    keys = {re.sub(r"[\s-]+", "_", str(k).strip().lower()): v for k, v in item.items()}
    point = next((keys[k] for k in _POINT_KEYS if isinstance(keys.get(k), str)), None)
    if point is None:
        return None
    words = next((keys[k] for k in _WORDS_KEYS if keys.get(k) is not None), None)
    return PlannedSection(index=index, main_point=" ".join(point.split()), num_words=_number(words))


def _number(value: Any) -> int | None:
    """Return a stated number of words; None for none, and for what no plan can mean."""
    if isinstance(value, bool) or value is None:
        return None
    if not isinstance(value, int | float):
        digits = re.search(r"\d[\d,]*", str(value))
        value = float(digits[0].replace(",", "")) if digits else math.nan
    return round(value) if abs(value) <= _MOST_WORDS else None  # NaN compares false


_LABEL = re.compile(
    r"^[\s>*#_-]*(?:(?:paragraph|section|step|part|chapter|段落|章节|部分|步骤)\s*|第\s*)?"
    r"(?P<index>\d{1,3}|[一二三四五六七八九十]{1,3})\s*(?:段落|段|节|部分|章|步)?\s*(?:(?:of|/)\s*\d+)?\s*"
    r"(?P<mark>[.:：、，,)）\-–—]|\*\*|$)+\s*(?P<rest>.*)$",
    re.IGNORECASE,
)
_BULLET = re.compile(r"^\s*[-*•]\s+(?P<rest>.*)$")
_COUNT = re.compile(
    r"[\[(（【]?\s*(?:[-–—|;；,，]\s*)?(?:(?:word\s*count|length|words|字数|篇幅)\s*[:：]?\s*)?"
    r"(?:about|around|approximately|approx\.?|roughly|约|大约|~|≈)?\s*"
    r"(?P<low>\d[\d,]*)(?:\s*(?:-|–|—|~|至|到|to)\s*(?P<high>\d[\d,]*))?\s*(?:-?\s*words?\b|个?字(?!符))\s*(?:左右)?\s*[\])）】]?",
    re.IGNORECASE,
)
_BARE_COUNT = re.compile(
    r"[-–—|;；,，]?\s*(?:word\s*count|字数)\s*[:：]\s*(?P<low>\d[\d,]*)(?P<high>)", re.IGNORECASE
)
_POINT_LABEL = re.compile(
    r"^[\s*_-]*(?:main\s*points?|主要内容|主要观点|要点|内容|主旨)[\s*_]*[:：][\s*_]*", re.IGNORECASE
)
_TOTAL = re.compile(r"^[\s*_#-]*(?:total|overall|总计|合计|总字数|全文)", re.IGNORECASE)


@dataclass(slots=True)
class _Line:
    index: int | None
    point: str
    words: int | None


def _parse_lines(text: str) -> Plan:
    numbered: list[_Line] = []
    bullets: list[_Line] = []
    for raw in text.splitlines():
        line = raw.strip()
        if not line or _TOTAL.match(line):
            continue
        label, bullet = _LABEL.match(line), _BULLET.match(line)
        if label:
            rest, words = _take_count(label["rest"])
            numbered.append(_Line(ordinal(label["index"]), _tidy(rest), words))
        elif numbered:
            _continue_section(numbered[-1], line)
        elif bullet:
            rest, words = _take_count(bullet["rest"])
            if words is not None:
                bullets.append(_Line(None, _tidy(rest), words))
    # A bullet under a numbered section is a detail of it, not a section.
    lines = numbered or bullets
    return tuple(
        PlannedSection(index=line.index or i, main_point=line.point, num_words=line.words)
        for i, line in enumerate(lines, start=1)
    )


def _continue_section(section: _Line, line: str) -> None:
    """Take `Main Point:` and `Word Count:` lines that stand under a section's own line."""
    rest, words = _take_count(line)
    if _POINT_LABEL.match(rest) or (not section.point and words is None):
        section.point = _tidy(rest)
    if section.words is None and words is not None:
        section.words = words


def _take_count(text: str) -> tuple[str, int | None]:
    """Cut the last stated number of words out of a line."""
    text = re.sub(r"\s{2,}", " ", text)  # on long runs of spaces the pattern would take minutes
    found = list(_COUNT.finditer(text)) or list(_BARE_COUNT.finditer(text))
    if not found:
        return text, None
    match = found[-1]
    low = _number(match["low"])
    high = _number(match["high"] or None)
    words = low if high is None or low is None else (low + high) // 2
    return f"{text[: match.start()]} {text[match.end() :]}", words


def _tidy(text: str) -> str:
    text = _POINT_LABEL.sub("", text.replace("**", "").replace("__", ""))
    text = re.sub(r"\s*(?:-\s*)?(?:word\s*count|字数)\s*[:：]?\s*$", "", text, flags=re.IGNORECASE)
    text = re.sub(r"\(\s*\)|（\s*）|\[\s*\]", "", text)
    text = re.sub(r"\s+([:：,，;；])", r"\1", " ".join(text.split()))
    return text.strip(" -–—:：|,，;；*_#")


def ordinal(text: str) -> int:
    """Return a number below 100 written in digits or in hanzi; 0 if it is none.

    Example:
        >>> ordinal("12"), ordinal("十二"), ordinal("三")
        (12, 12, 3)
    """
    if text.isdigit():
        return int(text)
    digits = {c: i for i, c in enumerate("一二三四五六七八九", start=1)}
    tens, ten, ones = text.rpartition("十")
    if not ten:
        return digits.get(text, 0)
    return 10 * digits.get(tens, 1) + digits.get(ones, 0)
