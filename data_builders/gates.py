"""What a finished text has to pass, whoever wrote it: its length, its own words, its end, its language.

Pure functions of one text; `gate.py` compares the texts of a data set with each other. Each gate leaves its value with
its verdict, so that a limit can be judged after the fact, and the first gate that fails names the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lengthwise.config import ConfigError, option
from lengthwise.degeneration import (
    ends_cleanly,
    has_repeated_ngram,
    is_refusal,
    language,
    repeated_ngram_frac,
)
from lengthwise.lengths import count_cjk_alpha, longbench_length_score
from lengthwise.records import LengthTarget

VERSION = 1
"""Goes up when a gate's verdict on the same text may change."""


@dataclass(kw_only=True)
class TextGates:
    """Which gates a text passes through, and their limits; null or "off" leaves one out."""

    min_length_score: float | None = option(
        80.0, help="least S_l (0..100) of a text whose length is stated, in its row or its prompt"
    )
    min_words: int | None = option(None, help="fewest words, as LongBench-Write counts them")
    max_words: int | None = option(None, help="most words")
    repetition: Literal["ratio", "strict", "off"] = option(
        "ratio",
        help="ratio: at most max_repetition of the n-grams may have occurred before; strict: none may (Self-Lengthen)",
    )
    max_repetition: float = option(0.1, help="with ratio: the share; n is 10 words, or 13 units of Chinese")
    truncation: Literal["finish_reason", "ending", "off"] = option(
        "finish_reason",
        help="finish_reason: refuse what the engine says was cut; ending: also what ends in no mark of an end",
    )
    refusals: Literal["reject", "off"] = option("reject", help="texts that open by declining the task")
    language: Literal["same", "en", "zh", "off"] = option(
        "same", help="same: that of the prompt, where both are known; or the one that every text must have"
    )

    def __post_init__(self) -> None:
        """Refuse limits that nothing, or everything, passes."""
        if self.min_length_score is not None and not 0 <= self.min_length_score <= 100:
            raise ConfigError(
                f"min_length_score is {self.min_length_score}: it must lie between 0 and 100, or be null"
            )
        if not 0 <= self.max_repetition <= 1:
            raise ConfigError(f"max_repetition is {self.max_repetition}: it must lie between 0 and 1")
        for name in ("min_words", "max_words"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: it must be at least 1, or null")
        if None not in (self.min_words, self.max_words) and (self.min_words or 0) > (self.max_words or 0):
            raise ConfigError(f"min_words is {self.min_words}, above max_words {self.max_words}")


@dataclass(frozen=True, kw_only=True, slots=True)
class GatedText:
    """A text with what is known of how it came about."""

    prompt: str
    answer: str
    target: LengthTarget | None = None
    finish_reason: str | None = None
    """What the engine said; None where nobody noted it."""
    num_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one gate says of a text."""

    name: str
    value: Any
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of a row's `filters`."""
        verdict = "kept" if self.passed else "rejected"
        return {"name": self.name, "version": VERSION, "value": self.value, "verdict": verdict}


def length_score(target: LengthTarget, length: int) -> float:
    """Return S_l against the nearest length that fulfils `target`.

    Example:
        >>> length_score(LengthTarget(min=1000, relation="at_least"), 1600)
        100.0
        >>> round(length_score(LengthTarget.about(1000), 1600), 3)
        80.0
    """
    nearest = max(length, target.min or length)
    nearest = min(nearest, target.max or nearest)
    return longbench_length_score(max(1, nearest), length)


def stated_length_score(text: GatedText) -> float | None:
    """Return S_l of a text in the unit of its target; None without one, or where its tokens are not known.

    Example:
        >>> stated_length_score(GatedText(prompt="", answer="one two", target=LengthTarget.about(2)))
        100.0
    """
    target = text.target
    if target is None:
        return None
    if target.unit == "tokens":
        return None if text.num_tokens is None else length_score(target, text.num_tokens)
    if target.unit == "characters" and language(text.answer) != "zh":
        return length_score(target, len("".join(text.answer.split())))
    return length_score(target, count_cjk_alpha(text.answer))


def verdicts(text: GatedText, gates: TextGates) -> list[Verdict]:
    """Return what each gate says of a text, in the order in which they are named as reasons.

    Example:
        >>> said = verdicts(GatedText(prompt="Go on", answer="I'm sorry, but I can't help with that."), TextGates())
        >>> [verdict.name for verdict in said if not verdict.passed]
        ['refusal']
    """
    if not text.answer.strip():
        return [Verdict("empty", True, False)]
    return [verdict for gate in _GATES if (verdict := gate(text, gates)) is not None]


def _truncation(text: GatedText, gates: TextGates) -> Verdict | None:
    if gates.truncation == "off":
        return None
    if text.finish_reason not in (None, "stop"):
        return Verdict("truncation", text.finish_reason, False)
    ends = ends_cleanly(text.answer)
    return Verdict("truncation", text.finish_reason or "unknown", ends or gates.truncation != "ending")


def _refusal(text: GatedText, gates: TextGates) -> Verdict | None:
    if gates.refusals == "off":
        return None
    refuses = is_refusal(text.answer)
    return Verdict("refusal", refuses, not refuses)


def _language(text: GatedText, gates: TextGates) -> Verdict | None:
    if gates.language == "off":
        return None
    found = language(text.answer)
    if gates.language != "same":
        return Verdict("language", found, found == gates.language)
    asked = language(text.prompt)
    return Verdict("language", found, "other" in (asked, found) or asked == found)


def _repetition(text: GatedText, gates: TextGates) -> Verdict | None:
    if gates.repetition == "off":
        return None
    share = round(repeated_ngram_frac(text.answer), 4)
    repeats = (
        has_repeated_ngram(text.answer) if gates.repetition == "strict" else share > gates.max_repetition
    )
    return Verdict("repetition", share, not repeats)


def _words(text: GatedText, gates: TextGates) -> Verdict | None:
    if gates.min_words is None and gates.max_words is None:
        return None
    words = count_cjk_alpha(text.answer)
    fits = words >= (gates.min_words or 0) and (gates.max_words is None or words <= gates.max_words)
    return Verdict("words", words, fits)


def _length_score(text: GatedText, gates: TextGates) -> Verdict | None:
    if gates.min_length_score is None:
        return None
    score = stated_length_score(text)
    if score is None:
        return Verdict("length_score", None, True)
    return Verdict("length_score", round(score, 3), score >= gates.min_length_score)


_GATES: tuple[Callable[[GatedText, TextGates], Verdict | None], ...] = (
    _truncation, _refusal, _language, _repetition, _words, _length_score,
)  # fmt: skip
