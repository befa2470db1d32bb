"""Texts that got better when their model revised them, as rows to train on or as preference pairs (`writing_loop`).

For each instruction the model writes a draft and revises it `rounds` times. Every text is worth `length_weight` S_l +
(1 - length_weight) quality, both on 0..100, where a judge gives the quality, as in `writing_pairs`. The row's answer is
the best text that was not cut; it must be worth `min_gain` more than the first draft, so that a row shows what revising
gained. With `form: pairs` the first draft is the rejected one. All texts, critiques and scores stay in the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data_builders.rows import length_entry
from data_builders.writing_pairs import Config as PairConfig
from data_builders.writing_pairs import Scored, scored_text
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, option
from lengthwise.degeneration import is_refusal, language
from lengthwise.engines.base import EngineError, Sampling
from lengthwise.length_wishes import parse_length_wish
from lengthwise.outcomes import Kept, Outcome, Rejected, of_engine_error
from lengthwise.records import LengthTarget, Sample
from lengthwise.refinement.writing_loop import Revision, revisions


@dataclass(kw_only=True)
class Config:
    """Options of the revisions."""

    rounds: int = option(2, help="revisions of each draft")
    counted: bool = option(True, help="whether critique and revision are told how many words the text has")
    form: Literal["messages", "pairs"] = option(
        "messages", help="messages: the best text answers the instruction; pairs: it is chosen over the draft"
    )
    min_gain: float = option(5.0, help="least gain of the best text over the first draft, of 100")
    critique_tokens: int = option(256, help="most tokens of a critique, a thinking part included")
    temperature: float = option(0.7, help="of the writer")
    top_p: float = option(0.95, help="nucleus of the writer")
    max_tokens: int | None = option(None, help="most tokens of a text; default: what the context leaves")
    length_weight: float = option(0.5, help="weight of S_l against quality; 1: no judge is asked")
    judge_attempts: int = option(3, help="calls for one verdict")
    judge_max_tokens: int = option(512, help="most tokens of a verdict")

    def __post_init__(self) -> None:
        """Refuse what makes no row."""
        if self.rounds < 1:
            raise ConfigError(f"rounds is {self.rounds}: it must be at least 1")
        if not 0 <= self.length_weight <= 1:
            raise ConfigError(f"length_weight is {self.length_weight}: it must lie between 0 and 1")
        if self.min_gain <= 0:
            raise ConfigError(f"min_gain is {self.min_gain}: it must be above 0")


def roles(config: Config) -> tuple[str, ...]:
    """Return the models that are asked."""
    return ("writer",) if config.length_weight == 1 else ("writer", "judge")


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Write, revise, score; return the row of a text that got better.

    Raises:
        EngineDead: the engine is gone; the run stops and can be resumed.
    """
    target = sample.length or parse_length_wish(sample.instruction)
    if target is None or target.unit == "tokens":
        return Rejected("input: no length in words")
    found: list[tuple[Revision, Scored]] = []
    sampling = Sampling(temperature=config.temperature, top_p=config.top_p, max_tokens=config.max_tokens)
    try:
        async for revision in revisions(
            sample.messages,
            callers["writer"],
            sampling,
            rounds=config.rounds,
            target=target,
            counted=config.counted,
            critique_tokens=config.critique_tokens,
        ):
            if revision.text is None:
                break
            scored = await scored_text(sample, revision.text, len(found), target, callers, _as_pairs(config))
            found.append((revision, scored))
    except EngineError as error:
        return of_engine_error(error, _account(found, callers))
    account, first = _account(found, callers), found[0][1]
    if first.score is None:
        return Rejected("the draft has no score", account)
    whole = [
        one
        for _, one in found[1:]
        if one.score is not None and one.reply.finish_reason == "stop" and not is_refusal(one.reply.text)
    ]
    best = max(whole, key=lambda one: one.score or 0.0, default=None)
    if best is None:
        return Rejected("no revision is whole", account)
    gain = (best.score or 0.0) - first.score
    if gain < config.min_gain:
        return Rejected("no gain" if gain <= 0 else "too small a gain", account)
    return Kept(_record(sample, target, first, best, gain, account, config))


def _as_pairs(config: Config) -> PairConfig:
    """Return the options by which `writing_pairs` scores a text."""
    return PairConfig(
        length_weight=config.length_weight,
        judge_attempts=config.judge_attempts,
        judge_max_tokens=config.judge_max_tokens,
    )


def _account(found: Sequence[tuple[Revision, Scored]], callers: Mapping[str, Caller]) -> dict[str, Any]:
    return {
        "drafts": [
            {**scored.to_dict(), "critique": None if revision.critique is None else revision.critique.text}
            for revision, scored in found
        ],
        "calls": [call for caller in callers.values() for call in caller.calls],
    }


def _record(
    sample: Sample,
    target: LengthTarget,
    first: Scored,
    best: Scored,
    gain: float,
    account: Mapping[str, Any],
    config: Config,
) -> dict[str, Any]:
    text = best.reply.text.strip()
    asked = [message.to_dict() for message in sample.messages]
    answer = [{"role": "assistant", "content": text}]
    before = [{"role": "assistant", "content": first.reply.text.strip()}]
    return {
        "id": sample.id,
        "builder": "writing_refine",
        **(
            {"messages": [*asked, *answer]}
            if config.form == "messages"
            else {"prompt": asked, "chosen": answer, "rejected": before, "margin": round(gain, 3)}
        ),
        "gain": round(gain, 3),
        "language": language(text),
        "length": length_entry(text, requested=target, tokens=best.reply.num_answer_tokens),
        "scores": {"s_l": round(best.s_l, 3), "quality": best.quality},
        **account,
        "source": dict(sample.metadata),
        "lineage": [*sample.lineage, "writing_refine"],
    }
