"""Answers made longer by the model that wrote them: the extension of Self-Lengthen (arXiv 2410.23933, section 3.2).

One micro-iteration, with x the text so far:

1. the extender rewrites the first half of x, and of what it wrote the first two thirds of the paragraphs stay (F): the
   rest leads to an end that the text does not have yet;
2. it rewrites all of x with F as its own beginning, and so goes on from F to the end (L);
3. F and L together are the new x, if they pass the check and are longer.

Three micro-iterations make a try; a text that grew less than 1.2 times is tried again. Where an engine cannot go on
with a beginning, it is asked to ("continued by: request"). Where F has under three paragraphs nothing of it is left
over, and the second call begins the text anew, which the record says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_builders.response_check import response_fault
from data_builders.rows import length_entry
from data_builders.self_lengthen_sampling import SamplingOptions
from data_builders.sources import Refusal
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, option
from lengthwise.degeneration import Language, language
from lengthwise.engines.base import EngineError
from lengthwise.lengths import count_cjk_ws
from lengthwise.outcomes import Kept, Outcome, Rejected, of_engine_error
from lengthwise.records import Message, Prompt, Sample, user
from lengthwise.templates import load_prompt

ROLES = ("extender",)
WITH_ANSWERS = True


@dataclass(kw_only=True)
class Config(SamplingOptions):
    """Options of the extension."""

    micro_iterations: int = option(3, help="extensions of a try, each of the longest text so far")
    min_growth: float = option(1.2, help="words of the extended text over those of the answer, at least")

    def __post_init__(self) -> None:
        """Refuse what extends nothing."""
        super().__post_init__()
        if self.micro_iterations < 1:
            raise ConfigError(f"micro_iterations is {self.micro_iterations}: it must be at least 1")
        if self.min_growth < 1:
            raise ConfigError(f"min_growth is {self.min_growth}: it must be at least 1")


@dataclass
class Extension:
    """A text in the making."""

    sample: Sample
    extender: Caller
    config: Config
    code: Language = "en"
    tries: list[dict[str, Any]] = field(default_factory=list)
    """Of each micro-iteration its words, or its fault."""

    @property
    def initial(self) -> str:
        """The answer that it begins with."""
        return self.sample.completion or ""

    def request(self, draft: str) -> Prompt:
        """Return the request to write a draft again, fuller."""
        code = "zh" if self.code == "zh" else "en"
        text = load_prompt("data_builders", f"self_lengthen_extend.{code}").render(
            instruction=self.sample.instruction, draft=draft
        )
        return user(text.strip())


def refused(samples: Sequence[Sample], config: Config) -> dict[str, Refusal]:
    """Return nothing: a text may be extended several times."""
    return {}


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Extend an answer."""
    extension = Extension(sample, callers["extender"], config, code=language(sample.completion or ""))
    try:
        for attempt in range(config.tries):
            text = await longest_of(extension, attempt)
            if count_cjk_ws(text) > config.min_growth * count_cjk_ws(extension.initial):
                return Kept(_record(extension, text))
    except EngineError as error:
        return of_engine_error(error, _remains(extension))
    faults = [entry["fault"] for entry in extension.tries if entry["fault"]]
    reason = max(sorted(set(faults)), key=faults.count) if faults else "no longer"
    return Rejected(f"extension: {reason}", _remains(extension))


async def longest_of(extension: Extension, attempt: int) -> str:
    """Return the longest text of the micro-iterations of a try; the answer itself where none is longer."""
    best = extension.initial
    for number in range(extension.config.micro_iterations):
        step = attempt * extension.config.micro_iterations + number
        text, fault = await once_more(extension, best, step)
        words = count_cjk_ws(text)
        if fault is None and words <= count_cjk_ws(best):
            fault = "no longer"
        extension.tries.append({"attempt": attempt, "words": words, "fault": fault})
        if fault is None:
            best = text
    return best


async def once_more(extension: Extension, text: str, step: int) -> tuple[str, str | None]:
    """Return a text written again, fuller, and what is wrong with it."""
    extender, sampling = extension.extender, extension.config.sampling()
    half = extension.request(first_half(text))
    (former,) = await extender(half, sampling, step="first_half", attempt=step)
    begun = two_thirds(former.text)
    prompt = extension.request(text)
    if begun and extender.capabilities.prefill:
        prompt = (*prompt, Message(role="assistant", content=begun + "\n\n"))
    elif begun:
        code = "zh" if extension.code == "zh" else "en"
        asked = load_prompt("data_builders", f"self_lengthen_continue.{code}")
        prompt = user(asked.render(request=prompt[0].content, begun=begun).strip())
    (latter,) = await extender(prompt, sampling, step="whole", attempt=step)
    whole = f"{begun}\n\n{latter.text.strip()}" if begun else latter.text.strip()
    return whole, response_fault(whole, extension.code, latter.finish_reason)


def first_half(text: str) -> str:
    r"""Return the first half of a text's paragraphs; of one with two or fewer, of its lines.

    Example:
        >>> first_half("a\n\nb\n\nc"), first_half("a\nb\nc\nd"), first_half("a")
        ('a', 'a\n\nb', 'a')
    """
    units = [unit for unit in re.split(r"\n\s*\n", text) if unit.strip()]
    if len(units) <= 2:
        units = [line for line in text.split("\n") if line.strip()]
    return "\n\n".join(units[: max(1, len(units) // 2)])


def two_thirds(text: str) -> str:
    r"""Return the first two thirds of a text's paragraphs, rounded down; nothing of fewer than three.

    Example:
        >>> two_thirds("a\n\nb\n\nc\n\nd"), two_thirds("a\n\nb")
        ('a\n\nb', '')
    """
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    return "\n\n".join(paragraphs[: 2 * len(paragraphs) // 3]) if len(paragraphs) >= 3 else ""


def _remains(extension: Extension) -> dict[str, Any]:
    return {"tries": extension.tries, "calls": extension.extender.calls}


def _record(extension: Extension, text: str) -> dict[str, Any]:
    sample = extension.sample
    return {
        "id": sample.id,
        "builder": "extend",
        "messages": [*(m.to_dict() for m in sample.messages), {"role": "assistant", "content": text}],
        "initial": extension.initial,
        "language": language(text),
        "length": length_entry(text, requested=sample.length, tokens=None),
        "finish_reason": "stop",
        "scores": {"growth": round(count_cjk_ws(text) / max(1, count_cjk_ws(extension.initial)), 4)},
        "continued_by": "prefill" if extension.extender.capabilities.prefill else "request",
        "tries": extension.tries,
        "calls": extension.extender.calls,
        "lineage": [*sample.lineage, "extend"],
    }
