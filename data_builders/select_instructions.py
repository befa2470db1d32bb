"""Prompts that call for a long text, chosen from any set: LongWriter's selection (arXiv 2408.07055, section 3.3).

A model is asked whether a prompt wants more than 2,000 words and is complete enough to begin with; anything but a plain
yes is a no. Rules come first, and cost no call: the length of a prompt, and requests to fetch or list what is on the
web, which the paper drops too. Its rules against toxic prompts were not released, and none are here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_builders.rows import length_entry
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, option
from lengthwise.degeneration import language
from lengthwise.engines.base import EngineError, Sampling
from lengthwise.lengths import count_cjk_ws
from lengthwise.outcomes import Kept, Outcome, Rejected, of_engine_error
from lengthwise.records import Sample, user
from lengthwise.templates import load_prompt

ROLES = ("judge",)

_FETCHES = re.compile(
    r"\b(?:scrape|crawl|web ?scraping|download (?:all|every)|list (?:all|every) (?:urls?|links?|websites?))\b"
    r"|爬取|抓取网",
    re.IGNORECASE,
)
_YES = {"en": "yes", "zh": "是"}


@dataclass(kw_only=True)
class Config:
    """Options of the selection."""

    min_words: int = option(4, help="prompts with fewer words are too short to be complete")
    max_words: int = option(1000, help="longer prompts mostly bring a text along")
    reasoning_tokens: int = option(0, help="tokens for a judge that thinks before it answers")

    def __post_init__(self) -> None:
        """Refuse bounds that nothing lies between."""
        if not 1 <= self.min_words <= self.max_words:
            raise ConfigError(f"min_words is {self.min_words}: it must be at least 1, and at most max_words")


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Return a prompt that calls for a long text."""
    judge, text = callers["judge"], sample.instruction
    if not config.min_words <= count_cjk_ws(text) <= config.max_words:
        return Rejected("too short or too long")
    if _FETCHES.search(text):
        return Rejected("fetches data")
    code = "zh" if language(text) == "zh" else "en"
    prompt = load_prompt("data_builders", f"self_instruct_judge.{code}").render(instruction=text)
    sampling = Sampling(temperature=0.0, max_tokens=8 + config.reasoning_tokens)
    try:
        (reply,) = await judge(user(prompt), sampling, step="judge")
    except EngineError as error:
        return of_engine_error(error, {"calls": judge.calls})
    if reply.text.strip().strip(".。!！").lower() != _YES[code]:
        return Rejected("not for a long text", {"verdict": reply.text, "calls": judge.calls})
    return Kept(_record(sample, judge))


def _record(sample: Sample, judge: Caller) -> dict[str, Any]:
    text = sample.instruction
    return {
        **sample.metadata,
        "id": sample.id,
        "builder": "select_instructions",
        "messages": [message.to_dict() for message in sample.messages],
        "language": language(text),
        "length": length_entry(text, requested=sample.length, tokens=None),
        "scores": {},
        "calls": judge.calls,
        "lineage": [*sample.lineage, "select_instructions"],
    }
