"""Preference pairs for writing at a stated length: LongWriter's DPO data (arXiv 2408.07055, section 4.3).

For each instruction several texts are sampled; each is worth `length_weight` S_l + (1 - length_weight) quality, both on
0..100, where a judge gives the quality. The best is chosen, and rejected is another at random, as in the paper, or the
worst. A text that was cut is never chosen. A pair whose two are too close is refused, and a text without a verdict is
left out. All texts and their scores stay in the row.

The paper's judge is a reward model that was not released, and the weight is not stated: here both count half.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data_builders.gates import GatedText, stated_length_score
from data_builders.rows import length_entry
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, option
from lengthwise.degeneration import language
from lengthwise.engines.base import EngineError, Sampling
from lengthwise.judge import Judge, JudgeSettings, Unscored, judge_id
from lengthwise.length_wishes import parse_length_wish
from lengthwise.outcomes import Kept, Outcome, Rejected, of_engine_error
from lengthwise.records import Completion, LengthTarget, Sample, digest, user
from lengthwise.templates import load_prompt
from lengthwise.verdicts import Form

FORM: Form = {"Reason": None, "Quality": range(1, 11)}


@dataclass(kw_only=True)
class Config:
    """Options of the pairs."""

    num_samples: int = option(4, help="texts of an instruction; the paper: 4")
    temperature: float = option(1.0, help="of the writer")
    top_p: float = option(1.0, help="nucleus of the writer")
    max_tokens: int | None = option(None, help="most tokens of a text; default: what the context leaves")
    length_weight: float = option(0.5, help="weight of S_l against quality; 1: no judge is asked")
    rejected: Literal["random", "worst"] = option(
        "random", help="which other text is rejected; the paper: random"
    )
    min_margin: float = option(5.0, help="least difference of the two scores, of 100")
    judge_attempts: int = option(3, help="calls for one verdict")
    judge_max_tokens: int = option(512, help="most tokens of a verdict")
    draw_seed: int = option(0, help="of the random other")

    def __post_init__(self) -> None:
        """Refuse what makes no pair."""
        if self.num_samples < 2:
            raise ConfigError(f"num_samples is {self.num_samples}: a pair takes at least 2")
        if not 0 <= self.length_weight <= 1:
            raise ConfigError(f"length_weight is {self.length_weight}: it must lie between 0 and 1")
        if self.min_margin < 0:
            raise ConfigError(f"min_margin is {self.min_margin}: it must be at least 0")
        if self.temperature == 0:
            raise ConfigError("temperature is 0, at which all texts are one: raise it")


def roles(config: Config) -> tuple[str, ...]:
    """Return the models that are asked."""
    return ("writer",) if config.length_weight == 1 else ("writer", "judge")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A text with what it is worth."""

    reply: Completion
    s_l: float
    quality: float | None
    """None where no judge was asked, or none gave a verdict."""
    score: float | None
    """None without a verdict."""

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of a row's `samples`."""
        return {
            "text": self.reply.text,
            "finish_reason": self.reply.finish_reason,
            "tokens": self.reply.num_answer_tokens,
            "s_l": round(self.s_l, 3),
            "quality": self.quality,
            "score": None if self.score is None else round(self.score, 3),
        }


class NoPair(ValueError):
    """The texts of an instruction make no pair; the text says why, in a few words."""


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Sample, score, pair."""
    target = sample.length or parse_length_wish(sample.instruction)
    if target is None or target.unit == "tokens":
        return Rejected("input: no length in words")
    scored: list[Scored] = []
    try:
        sampling = Sampling(
            n=config.num_samples,
            temperature=config.temperature,
            top_p=config.top_p,
            max_tokens=config.max_tokens,
        )
        replies = await callers["writer"](sample.messages, sampling, step="text")
        for number, reply in enumerate(replies):
            scored.append(await scored_text(sample, reply, number, target, callers, config))
        chosen, rejected = pick(scored, config, random.Random(digest([config.draw_seed, sample.id])))
    except NoPair as error:
        return Rejected(str(error), _account(scored, callers))
    except EngineError as error:
        return of_engine_error(error, _account(scored, callers))
    return Kept(_record(sample, target, chosen, rejected, _account(scored, callers)))


async def scored_text(
    sample: Sample,
    reply: Completion,
    number: int,
    target: LengthTarget,
    callers: Mapping[str, Caller],
    config: Config,
) -> Scored:
    """Return a text with its scores; an empty one has none: no training takes an empty answer."""
    text = reply.text.strip()
    s_l = stated_length_score(GatedText(prompt=sample.instruction, answer=text, target=target)) or 0.0
    if config.length_weight == 1 or not text:
        return Scored(reply=reply, s_l=s_l, quality=None, score=s_l if text else None)
    template = load_prompt("data_builders", "writing_pairs_judge")
    settings = JudgeSettings(
        model=callers["judge"].model,
        name="judge",
        max_attempts=config.judge_attempts,
        max_tokens=config.judge_max_tokens,
    )
    judge = Judge(id=judge_id("judge", [template]), settings=settings, caller=callers["judge"])
    asked = template.render(
        request=sample.instruction, text=text, mark=digest([sample.instruction, text])[:8]
    )
    verdict = await judge.ask(user(asked), FORM, step=f"quality_{number}")
    if isinstance(verdict, Unscored):
        return Scored(reply=reply, s_l=s_l, quality=None, score=None)
    quality = 100 * (verdict.values["Quality"] - 1) / 9
    weight = config.length_weight
    return Scored(reply=reply, s_l=s_l, quality=quality, score=weight * s_l + (1 - weight) * quality)


def pick(scored: Sequence[Scored], config: Config, stream: random.Random) -> tuple[Scored, Scored]:
    """Return the chosen and the rejected text.

    Raises:
        NoPair: too few texts have a score, none may be chosen, or the two are too close.
    """
    known = [one for one in scored if one.score is not None]
    if len(known) < 2:
        raise NoPair("fewer than two texts have a score")
    whole = [one for one in known if one.reply.finish_reason == "stop"]
    if not whole:
        raise NoPair("every text was cut")
    chosen = max(whole, key=lambda one: one.score or 0.0)
    others = [one for one in known if one is not chosen]
    rejected = (
        stream.choice(others)
        if config.rejected == "random"
        else min(others, key=lambda one: one.score or 0.0)
    )
    if (chosen.score or 0.0) - (rejected.score or 0.0) < max(config.min_margin, 1e-9):
        raise NoPair("too close")
    return chosen, rejected


def _account(scored: Sequence[Scored], callers: Mapping[str, Caller]) -> dict[str, Any]:
    return {
        "samples": [one.to_dict() for one in scored],
        "calls": [call for caller in callers.values() for call in caller.calls],
    }


def _record(
    sample: Sample, target: LengthTarget, chosen: Scored, rejected: Scored, account: Mapping[str, Any]
) -> dict[str, Any]:
    text = chosen.reply.text.strip()
    return {
        "id": sample.id,
        "builder": "writing_pairs",
        "prompt": [message.to_dict() for message in sample.messages],
        "chosen": [{"role": "assistant", "content": text}],
        "rejected": [{"role": "assistant", "content": rejected.reply.text.strip()}],
        "chosen_score": round(chosen.score or 0.0, 3),
        "rejected_score": round(rejected.score or 0.0, 3),
        "margin": round((chosen.score or 0.0) - (rejected.score or 0.0), 3),
        "language": language(text),
        "length": length_entry(text, requested=target, tokens=chosen.reply.num_answer_tokens),
        "scores": {"s_l": round(chosen.s_l, 3), "quality": chosen.quality},
        **account,
        "source": dict(sample.metadata),
        "lineage": [*sample.lineage, "writing_pairs"],
    }
