"""Checks of one written section (pure).

LongWriter names two artefacts of AgentWrite (arXiv 2408.07055): sections that restate earlier ones, and a
summary at the end of every section. Its released code accepts any reply that is not empty, even one that was
cut off. These checks find both, and what else makes a section unfit, before it is built upon.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lengthwise.degeneration import early_conclusion, is_refusal, language, overlap_frac, strip_section_label
from lengthwise.lengths import count_cjk_alpha
from lengthwise.records import Completion, FinishReason

CHECKS = (
    "truncated",
    "empty",
    "refusal",
    "language",
    "too_short",
    "too_long",
    "overlap",
    "early_conclusion",
)
"""Every check that can refuse a section, gravest first."""

OVERLAP_N = 10


@dataclass(frozen=True, slots=True)
class SectionFault:
    """What is wrong with a section: the check's name (also a key of the phrase files) and its values."""

    check: str
    values: Mapping[str, Any]

    def __str__(self) -> str:
        """Return the fault for a record."""
        return self.check + "".join(f" {key}={value}" for key, value in self.values.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class SectionTry:
    """One reply to the request for a section."""

    attempt: int
    """0 for the first request, 1 for the second, which names a fault."""
    reply: Completion
    text: str
    """The reply without labels."""
    faults: tuple[SectionFault, ...]
    """What is wrong with it, gravest first; empty: fit."""
    planned: int
    """Words the plan gives to the section."""

    @property
    def num_words(self) -> int:
        """Words of the text (`cjk_alpha`)."""
        return count_cjk_alpha(self.text)


def unfitness(one: SectionTry, tolerate: Collection[str] = ()) -> tuple[int, int, int]:
    """Return a key that is least for the try to take.

    That is the try with the lightest fault among those that refuse it, then among the tolerated ones, then the
    nearest in length.

    Args:
        one: the try.
        tolerate: checks that only get recorded.

    Example:
        A fit try of 240 words for 300 planned gives (0, 0, 60), a cut one (8, 8, ...).
    """

    def gravest(faults: Sequence[SectionFault]) -> int:
        return max((len(CHECKS) - CHECKS.index(fault.check) for fault in faults), default=0)

    refusing = [fault for fault in one.faults if fault.check not in tolerate]
    return gravest(refusing), gravest(one.faults), abs(one.num_words - one.planned)


@dataclass(frozen=True, kw_only=True, slots=True)
class SectionLimits:
    """When a section is refused."""

    min_ratio: float = 0.5
    """Least written / planned words."""
    max_ratio: float = 1.6
    max_overlap: float = 0.1
    """Largest share of a section's 10-grams that earlier text holds already."""


def section_faults(
    text: str,
    *,
    finish_reason: FinishReason,
    planned: int,
    is_last: bool,
    earlier: str,
    wanted_language: str,
    limits: SectionLimits,
) -> list[SectionFault]:
    """Return what is wrong with a section, gravest first; lengths are `cjk_alpha` words.

    Args:
        text: the section, labels already stripped.
        finish_reason: why the model stopped.
        planned: words the plan gives to the section.
        is_last: the last section may conclude.
        earlier: all earlier sections.
        wanted_language: "en", "zh" or "other", as `degeneration.language` says it.
        limits: the bounds.
    """
    if finish_reason == "content_filter":
        return [SectionFault("refusal", {})]
    if finish_reason != "stop":
        return [SectionFault("truncated", {"planned": planned, "finish_reason": finish_reason})]
    if not re.search(r"\w", text):
        return [SectionFault("empty", {})]
    faults: list[SectionFault] = []
    if is_refusal(text):
        faults.append(SectionFault("refusal", {}))
    if (found := language(text)) != wanted_language:
        faults.append(SectionFault("language", {"found": found, "wanted": wanted_language}))
    words = count_cjk_alpha(text)
    if words < limits.min_ratio * planned:
        faults.append(SectionFault("too_short", {"words": words, "planned": planned}))
    if words > limits.max_ratio * planned:
        faults.append(SectionFault("too_long", {"words": words, "planned": planned}))
    share = overlap_frac(text, earlier, OVERLAP_N)
    if share > limits.max_overlap:
        faults.append(SectionFault("overlap", {"share": round(share, 3)}))
    if not is_last and early_conclusion(text):
        faults.append(SectionFault("early_conclusion", {}))
    return faults


# --- labels ---------------------------------------------------------------------------------------


_NOTE = re.compile(
    r"^[\s#*_(（\[]*(?:word\s*count|字数|main\s*point|要点)\s*[:：].*$"
    r"|^[\s*_]*[(（\[]\s*(?:about|approximately|约|共|全文约)?\s*\d[\d,]*\s*(?:words|字)\s*[)）\]][\s*_]*$"
    r"|^[\s*_]*[(（\[]?\s*(?:end of (?:section|paragraph)|本节完|本段完)\s*\d*\s*[.。]?\s*[)）\]]?[\s*_]*$",
    re.IGNORECASE,
)


def strip_labels(text: str, main_point: str) -> str:
    r"""Return a section without the plan's echo: "Section 3:", "Word count: 400", the main point.

    A subtitle behind a label stays. `degeneration.strip_section_label` knows the labels; here go the lines
    that say nothing but a number of words or the main point, at both ends.

    Example:
        >>> strip_labels("**Section 2: Storm**\n\nIt came at night.\n(320 words)", "A storm comes")
        '**Storm**\n\nIt came at night.'
    """
    lines = strip_section_label(text.strip()).splitlines()
    while lines and (not lines[0].strip() or _NOTE.match(lines[0]) or _same(lines[0], main_point)):
        lines.pop(0)
    while lines and (not lines[-1].strip() or _NOTE.match(lines[-1])):
        lines.pop()
    return "\n".join(lines).strip()


def _same(line: str, main_point: str) -> bool:
    def plain(text: str) -> str:
        return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())

    return bool(plain(line)) and plain(line) == plain(main_point)
