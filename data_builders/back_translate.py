"""Instructions for texts that are there: a model writes what the author of a long text may have been asked for.

Long texts by people are better than any that a model makes longer; what they lack is a prompt (Suri, arXiv 2406.19371;
Qwen2.5's report, 2412.15115, on back-translated queries). The column `prompt_column` holds the text. An instruction is
refused that is empty or long, declines, is in another language, or copies the text. State the length afterwards, with
`length_instructions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_builders.rows import length_entry
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, option
from lengthwise.degeneration import is_refusal, language, overlap_frac
from lengthwise.engines.base import EngineError, Sampling
from lengthwise.lengths import count_cjk_ws
from lengthwise.outcomes import Kept, Outcome, Rejected, of_engine_error
from lengthwise.records import Completion, Sample, user
from lengthwise.templates import load_prompt

ROLES = ("writer",)
MIN_WORDS, MAX_WORDS = 4, 300
COPIED = 0.3
"""Largest share of the instruction's runs of 5 words that stand in the text."""


@dataclass(kw_only=True)
class Config:
    """Options of back-translation."""

    shown_characters: int = option(12_000, help="characters of the text that the model reads: its beginning")
    temperature: float = option(0.7, help="sampling temperature")
    tries: int = option(3, help="how often an instruction is tried")

    def __post_init__(self) -> None:
        """Refuse what reads or asks nothing."""
        for name in ("shown_characters", "tries"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Write the instruction of a text."""
    writer, text = callers["writer"], sample.instruction.strip()
    if not text:
        return Rejected("input: empty text")
    code = "zh" if language(text) == "zh" else "en"
    prompt = load_prompt("data_builders", f"back_translate.{code}").render(
        text=text[: config.shown_characters]
    )
    faults: list[str] = []
    try:
        for attempt in range(config.tries):
            sampling = Sampling(temperature=config.temperature, max_tokens=1024)
            (reply,) = await writer(user(prompt.strip()), sampling, step="instruction", attempt=attempt)
            fault = instruction_fault(reply, text)
            if fault is None:
                return Kept(_record(sample, writer, reply.text.strip(), text))
            faults.append(fault)
    except EngineError as error:
        return of_engine_error(error, {"calls": writer.calls})
    return Rejected(f"instruction: {faults[-1]}", {"faults": faults, "calls": writer.calls})


def instruction_fault(reply: Completion, text: str) -> str | None:
    """Return why a reply is no instruction for a text; None where it is one."""
    written = reply.text.strip()
    if reply.finish_reason != "stop":
        return "cut"
    if not MIN_WORDS <= count_cjk_ws(written) <= MAX_WORDS:
        return "too short or too long"
    if is_refusal(written):
        return "refusal"
    if language(written) != language(text):
        return "language"
    return "copies the text" if overlap_frac(written, text, n=5) > COPIED else None


def _record(sample: Sample, writer: Caller, instruction: str, text: str) -> dict[str, Any]:
    return {
        "id": sample.id,
        "builder": "back_translate",
        "messages": [{"role": "user", "content": instruction}, {"role": "assistant", "content": text}],
        "language": language(text),
        "length": length_entry(text, requested=None, tokens=None),
        "scores": {},
        "calls": writer.calls,
        "source": dict(sample.metadata),
        "lineage": [*sample.lineage, "back_translate"],
    }
