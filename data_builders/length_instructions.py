"""A length written into each prompt, true of its answer: Self-Lengthen's length conditioning (arXiv 2410.23933).

The kind of limit is drawn (about 0.40, a range 0.25, at least 0.10, at most 0.25, as there), then a number on a grid
near the answer's length. Two faults of the released code are not here: its Chinese labels say "at most" with the lower
number and "at least" with the upper one, and with a coarse grid one in six "about" labels is false. Each label is
scored against the answer with LonGen's formula and drawn again until it is true; and the limit is read back from the
finished prompt by the parser that evaluations use, so that what is written is what was meant.

`sentence` adds a sentence, and needs no model; `rewrite` has a model write the limit into the prompt.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from data_builders.gates import length_score
from data_builders.rows import scores_of
from data_builders.sources import Refusal
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, option
from lengthwise.degeneration import language
from lengthwise.engines.base import EngineError, Sampling
from lengthwise.length_wishes import parse_length_wish
from lengthwise.lengths import count_cjk_alpha, count_cjk_ws, longen_interval, longen_score
from lengthwise.outcomes import Kept, Outcome, Rejected, of_engine_error
from lengthwise.records import LengthTarget, Prompt, Relation, Sample, digest, user
from lengthwise.templates import load_phrases, load_prompt

WITH_ANSWERS = True

WEIGHTS: dict[Relation, float] = {"about": 0.40, "range": 0.25, "at_least": 0.10, "at_most": 0.25}
DRAWS = 20
"""Labels drawn before a row is given up."""


@dataclass(kw_only=True)
class Config:
    """Options of length instructions."""

    form: Literal["sentence", "rewrite"] = option(
        "sentence", help="sentence: added behind the prompt; rewrite: a model writes the limit into it"
    )
    min_words: int = option(15, help="answers with fewer words have no length to speak of")
    max_words: int | None = option(None, help="answers with more words are left out")
    grid: int | None = option(
        None,
        help="numbers are multiples of it; default: the largest of 1, 2, 5, 10, ... below a fifth of the length",
    )
    tries: int = option(3, help="with rewrite: how often the model may try")
    draw_seed: int = option(0, help="of the labels")

    def __post_init__(self) -> None:
        """Refuse what labels nothing."""
        for name in ("min_words", "tries"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("max_words", "grid"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: it must be at least 1, or null")


def roles(config: Config) -> tuple[str, ...]:
    """Return the models that are asked: none for a sentence."""
    return ("rewriter",) if config.form == "rewrite" else ()


def refused(samples: Sequence[Sample], config: Config) -> dict[str, Refusal]:
    """Return the rows whose answers are too short or too long."""
    found = {}
    for sample in samples:
        words = count_cjk_ws(sample.completion or "")
        if not sample.instruction.strip():
            found[sample.id] = Refusal("input: no question", "")
        elif words < config.min_words or (config.max_words is not None and words > config.max_words):
            found[sample.id] = Refusal("length out of range", f"{words} words")
        elif config.form == "sentence" and parse_length_wish(sample.instruction) is not None:
            found[sample.id] = Refusal("states a length already", "")
    return found


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Return the row with its length in its prompt."""
    words = count_cjk_ws(sample.completion or "")  # as LonGen, whose formula decides what is true
    target = true_label(words, random.Random(digest([config.draw_seed, sample.id])), config.grid)
    if target is None:
        return Rejected("no true label", {"detail": f"{words} words on a grid of {config.grid}"})
    code = "zh" if language(sample.instruction) == "zh" else "en"
    if config.form == "sentence":
        prompt = with_sentence(
            sample.instruction, target, code, random.Random(digest([sample.id, "wording"]))
        )
        if not says(prompt, target):
            return Rejected("another length is read", {"detail": prompt})
        return Kept(_record(sample, target, prompt, words, []))
    try:
        prompt, calls = (
            await rewritten(sample, target, code, callers["rewriter"], config),
            callers["rewriter"].calls,
        )
    except EngineError as error:
        return of_engine_error(error, {"calls": callers["rewriter"].calls})
    if prompt is None:
        return Rejected("rewriting: another length is read", {"detail": limit(target, code), "calls": calls})
    return Kept(_record(sample, target, prompt, words, calls))


def true_label(words: int, stream: random.Random, grid: int | None = None) -> LengthTarget | None:
    """Return a target that a length fulfils by LonGen's formula; None where none was drawn.

    Example:
        >>> target = true_label(1234, random.Random(1))
        >>> target.relation, longen_interval(target)[0] <= 1234 <= longen_interval(target)[1]
        ('about', True)
    """
    step = grid or round_step(words / 5)
    low, high = words // step * step, -(-words // step) * step
    for _ in range(DRAWS):
        (relation,) = stream.choices(list(WEIGHTS), weights=list(WEIGHTS.values()))
        bounds = {
            "about": (round(words / step) * step,) * 2,
            "range": (low, high),
            "at_least": (low, None),
            "at_most": (None, high),
        }[relation]
        if 0 in bounds or (relation == "range" and low == high):
            continue
        target = LengthTarget(min=bounds[0], max=bounds[1], relation=relation)
        least, most = longen_interval(target)
        if least <= words <= most:
            return target
    return None


def round_step(value: float) -> int:
    """Return the largest of 1, 2, 5, 10, 20, 50, ... that is not above a number.

    Example:
        >>> [round_step(value) for value in (0.5, 7, 60, 499, 500)]
        [1, 5, 50, 200, 500]
    """
    power = 10 ** math.floor(math.log10(max(1, value)))
    return max(step * power for step in (1, 2, 5) if step * power <= max(1, value))


def limit(target: LengthTarget, code: str) -> str:
    """Return a target as a phrase.

    Example:
        >>> limit(LengthTarget.about(300), "en"), limit(LengthTarget(max=500, relation="at_most"), "zh")
        ('about 300 words', '不超过500字')
    """
    low, high = target.min, target.max
    if code == "zh":
        return {
            "about": f"大约{low}字", "range": f"{low}到{high}字", "at_least": f"至少{low}字",
            "at_most": f"不超过{high}字",
        }[target.relation]  # fmt: skip
    return {
        "about": f"about {low} words", "range": f"between {low} and {high} words", "at_least": f"at least {low} words",
        "at_most": f"at most {high} words",
    }[target.relation]  # fmt: skip


def with_sentence(instruction: str, target: LengthTarget, code: str, stream: random.Random) -> str:
    """Return a prompt with a sentence that states a target, in one of several wordings."""
    phrases = load_phrases("data_builders", f"length_instructions_phrases.{code}")
    wording = phrases[stream.choice(sorted(phrases))]
    return f"{instruction.rstrip()}\n\n{wording.render(limit=limit(target, code))}"


async def rewritten(
    sample: Sample, target: LengthTarget, code: str, rewriter: Caller, config: Config
) -> str | None:
    """Return the prompt with the target in it, as a model wrote it; None where it never says what was meant."""
    text = load_prompt("data_builders", f"length_instructions_rewrite.{code}").render(
        instruction=sample.instruction, limit=limit(target, code)
    )
    for attempt in range(config.tries):
        sampling = Sampling(temperature=0.7, max_tokens=2048)
        (reply,) = await rewriter(user(text.strip()), sampling, step="rewrite", attempt=attempt)
        written = reply.text.strip()
        if reply.finish_reason == "stop" and says(written, target):
            return written
    return None


def says(prompt: str, target: LengthTarget) -> bool:
    """Return whether a prompt states exactly a target, by the parser that evaluations use.

    Example:
        >>> says("Write at least 200 words.", LengthTarget(min=200, relation="at_least"))
        True
    """
    found = parse_length_wish(prompt)
    if found is None:
        return False
    bounds = (found.relation, found.min, found.max)
    return bounds == (target.relation, target.min, target.max) and found.unit in ("words", "characters")


def _with_prompt(messages: Prompt, prompt: str) -> list[dict[str, str]]:
    last = max(i for i, turn in enumerate(messages) if turn.role == "user")
    turns = [replace(turn, content=prompt) if i == last else turn for i, turn in enumerate(messages)]
    return [turn.to_dict() for turn in turns]


def _record(
    sample: Sample, target: LengthTarget, prompt: str, words: int, calls: Sequence[Any]
) -> dict[str, Any]:
    text = sample.completion or ""
    counted = count_cjk_alpha(text)
    return {
        **sample.metadata,
        "id": sample.id,
        "builder": sample.metadata.get("builder") or "length_instructions",
        "messages": [*_with_prompt(sample.messages, prompt), {"role": "assistant", "content": text}],
        "unlabelled_prompt": sample.instruction,
        "language": language(text),
        "length": {
            "requested": target.to_dict(),
            "words_longbench": counted,
            "words_longen": words,
            "tokens": sample.metadata.get("num_tokens"),
        },
        "scores": {
            **scores_of(sample),
            "s_l": round(length_score(target, counted), 3),
            "longen": longen_score(target, words),
        },
        "label_calls": list(calls),
        "lineage": [*sample.lineage, "length_instructions"],
    }
