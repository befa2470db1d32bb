"""Preference pairs for shorter reasoning, from the attempts of a `long_cot` build (Sky-T1-Flash).

- `long_short`: of a problem with two right answers or more, the shortest over the longest.
- `silc`: the shortest right answer that is longer than the shortest wrong one, over that wrong one, so that a model
  does not learn that short is always better (short incorrect, long correct).
- `first_correct`, `first_correct_plus_1`: of the shortest right answer, the thought cut after the first step that
  states the right answer, or one step later, over the whole of the longest right answer. A step states an answer by a
  box, a bold line, or "the answer is"; in the original a language model finds these places.

One run makes one kind of pair; train on several with `data: [{path: ...}, {path: ...}]`. Lengths are tokens of the
teacher's replies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data_builders.rows import length_entry
from data_builders.sources import Refusal
from data_builders.thoughts import Marks, NoThought, Thought, marks_of, read_thought, steps
from lengthwise.answer_equality import same_answer
from lengthwise.answers import final_answer
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, option
from lengthwise.degeneration import language
from lengthwise.outcomes import Kept, Outcome, Rejected
from lengthwise.records import Sample

ROLES: tuple[str, ...] = ()
WITH_ANSWERS = True

Kind = Literal["long_short", "silc", "first_correct", "first_correct_plus_1"]


@dataclass(kw_only=True)
class Config:
    """Options of the pairs."""

    kind: Kind = option("long_short", help="which two answers of a problem make a pair")
    min_gap: float = option(
        0.0,
        help="least share of the longer answer's tokens by which the other must be shorter; ties never pair",
    )
    marks: Marks | None = option(
        None, help="how thought and solution are marked in what is cut; default: as they were"
    )

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if not 0 <= self.min_gap < 1:
            raise ConfigError(f"min_gap is {self.min_gap}: it must be at least 0 and below 1")


@dataclass(frozen=True, slots=True)
class Answer:
    """One attempt at a problem."""

    text: str
    tokens: int
    correct: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one problem."""

    chosen: Answer
    rejected: Answer


class NoPair(ValueError):
    """The answers of a problem make no pair; the text says why, in a few words."""


def refused(samples: Sequence[Sample], config: Config) -> dict[str, Refusal]:
    """Return the rows that no `long_cot` build made."""
    return {
        sample.id: Refusal("no attempts", "the row is not one of a long_cot build")
        for sample in samples
        if not isinstance(sample.metadata.get("attempts"), list)
    }


def long_short(answers: Sequence[Answer]) -> Pair:
    """Return the shortest right answer over the longest.

    Example:
        >>> pair = long_short([Answer("a", 9, True), Answer("b", 5, True), Answer("c", 2, False)])
        >>> pair.chosen.text, pair.rejected.text
        ('b', 'a')
    """
    right = sorted((answer for answer in answers if answer.correct), key=lambda answer: answer.tokens)
    if len(right) < 2:
        raise NoPair("fewer than two right answers")
    return _unequal(Pair(right[0], right[-1]))


def silc(answers: Sequence[Answer]) -> Pair:
    """Return the shortest right answer that is longer than the shortest wrong one, over that one.

    Example:
        >>> pair = silc([Answer("a", 9, True), Answer("b", 1, True), Answer("c", 2, False)])
        >>> pair.chosen.text, pair.rejected.text
        ('a', 'c')
    """
    wrong = [answer for answer in answers if not answer.correct]
    if not wrong:
        raise NoPair("no wrong answer")
    rejected = min(wrong, key=lambda answer: answer.tokens)
    longer = [answer for answer in answers if answer.correct and answer.tokens > rejected.tokens]
    if not longer:
        raise NoPair("no right answer is longer than the shortest wrong one")
    return Pair(min(longer, key=lambda answer: answer.tokens), rejected)


def first_correct(answers: Sequence[Answer], gold: str, *, more_steps: int, marks: Marks | None) -> Pair:
    """Return the shortest right answer, its thought cut behind the first step that states it, over the longest one.

    Raises:
        NoPair: no step states the answer, or nothing is left to cut.
    """
    right = sorted((answer for answer in answers if answer.correct), key=lambda answer: answer.tokens)
    if not right:
        raise NoPair("no right answer")
    try:
        thought = read_thought(right[0].text)
    except NoThought as error:
        raise NoPair(f"no thought: {error}") from None
    found = steps(thought.thinking)
    states = [
        i
        for i, step in enumerate(found)
        if (given := final_answer(step)) is not None and same_answer(given, gold)
    ]
    if not states:
        raise NoPair("no step states the right answer")
    kept = found[: states[0] + 1 + more_steps]
    if kept == found and right[0] is right[-1]:
        raise NoPair("nothing to cut")
    text = Thought("\n\n".join(kept), thought.solution).marked(marks or marks_of(right[0].text))
    tokens = round(right[0].tokens * len(text) / max(1, len(right[0].text)))
    return _unequal(Pair(Answer(text, tokens, True), right[-1]))


def _unequal(pair: Pair) -> Pair:
    if pair.chosen.tokens >= pair.rejected.tokens:
        raise NoPair("equally long")
    return pair


def make_pair(answers: Sequence[Answer], gold: str, config: Config) -> Pair:
    """Return the pair of a kind.

    Raises:
        NoPair: there is none, or the two are too close in length.
    """
    if config.kind == "long_short":
        pair = long_short(answers)
    elif config.kind == "silc":
        pair = silc(answers)
    else:
        more = int(config.kind == "first_correct_plus_1")
        pair = first_correct(answers, gold, more_steps=more, marks=config.marks)
    tokens = pair.chosen.tokens, pair.rejected.tokens
    if max(tokens) - min(tokens) < config.min_gap * max(tokens):
        raise NoPair("too close in length")
    return pair


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Return the pair of a problem."""
    answers = [
        Answer(attempt["text"], attempt["tokens"], attempt["correct"])
        for attempt in sample.metadata["attempts"]
        if attempt.get("correct") is not None and attempt.get("fault") in (None, "wrong answer")
    ]
    prompt = [message.to_dict() for message in sample.messages]
    try:
        pair = make_pair(answers, str(sample.metadata.get("answer", "")), config)
    except NoPair as error:
        return Rejected(str(error), {"messages": prompt})
    return Kept(_row(sample, prompt, pair, config))


def _row(sample: Sample, prompt: list[dict[str, str]], pair: Pair, config: Config) -> dict[str, Any]:
    text = pair.chosen.text
    return {
        "id": sample.id,
        "builder": "shorter_pairs",
        "kind": config.kind,
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": text}],
        "rejected": [{"role": "assistant", "content": pair.rejected.text}],
        "language": language(text),
        "length": length_entry(text, requested=None, tokens=pair.chosen.tokens),
        "rejected_tokens": pair.rejected.tokens,
        "scores": {},
        "lineage": [*sample.lineage, f"shorter_pairs:{config.kind}"],
    }
