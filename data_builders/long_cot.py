"""Long chains of thought: a teacher thinks, its answers are checked, and what is right becomes a row.

The steps of Sky-T1's data (arXiv 2502.07374, section 3, and its released code):

- the difficulty of a problem, labelled by a model, if the config asks for it;
- `num_answers` samples of the teacher, each parted into thought and solution: by the teacher's own marks where it has
  some, else by a rewriting model, whose text must hold nearly all words of the original and the same final answer;
- rejection: an answer that was cut, or cannot be parted, or is wrong by the comparison that evaluations use, is no row.

A problem becomes one row, with its shortest (or first) right answer; `attempts` keeps all of them with their verdicts,
so that `shorter_pairs` can make preference pairs, and every number can be counted again. Duplicates and prompts of
evaluation sets are the gate's business (`gate.py`).
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from data_builders.long_cot_config import Config as Config
from data_builders.rows import length_entry
from data_builders.thoughts import NoThought, Thought, read_thought
from lengthwise.answer_process import ComparisonFailed, compare_answers
from lengthwise.answers import final_answer, gsm8k_answer, last_box
from lengthwise.caller import Caller
from lengthwise.contamination import words_of
from lengthwise.degeneration import language, repeated_ngram_frac
from lengthwise.engines.base import EngineError, Sampling
from lengthwise.outcomes import Failed, Kept, Outcome, Rejected, of_engine_error
from lengthwise.records import Completion, Message, Prompt, Sample, user
from lengthwise.sandbox.code_tests import Test, last_code_block
from lengthwise.sandbox.row_tests import read_tests
from lengthwise.templates import load_prompt

ROLES = ("teacher", "rewriter", "labeler")
REQUIRES: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One answer of the teacher, and what became of it."""

    reply: Completion
    text: str
    """As a row would have it."""
    answer: str | None = None
    """The final answer that it states."""
    correct: bool | None = None
    """None where it was not compared."""
    fault: str | None = None
    """Why it is no row; None for a right one."""
    rewritten: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of a row's `attempts`."""
        return {
            "text": self.text,
            "answer": self.answer,
            "correct": self.correct,
            "fault": self.fault,
            "tokens": self.reply.num_tokens,
            "finish_reason": self.reply.finish_reason,
            "rewritten": self.rewritten,
        }


@dataclass
class Problem:
    """A problem on its way to a row."""

    sample: Sample
    callers: Mapping[str, Caller]
    config: Config
    level: float | None = None
    """Its difficulty, where it was labelled."""
    attempts: list[Attempt] = field(default_factory=list)

    def record(self, chosen: Attempt | None = None, *, detail: str | None = None) -> dict[str, Any]:
        """Return the row, or what is known of a problem that did not become one."""
        sample, tries, text = self.sample, self.attempts, "" if chosen is None else chosen.text
        asked = [message.to_dict() for message in question(sample, self.config)]
        record: dict[str, Any] = {
            "id": sample.id,
            "builder": "long_cot",
            "messages": [*asked, *([{"role": "assistant", "content": text}] if chosen else [])],
            "answer": right_answer(sample, self.config),
            "language": language(text or sample.instruction),
            "length": length_entry(text, requested=None, tokens=chosen.reply.num_tokens if chosen else 0),
            "finish_reason": chosen.reply.finish_reason if chosen else None,
            "scores": {
                "solve_rate": sum(t.correct is True for t in tries) / len(tries) if tries else None,
                "difficulty": self.level,
            },
            "attempts": [attempt.to_dict() for attempt in tries],
            "calls": [call for caller in self.callers.values() for call in caller.calls],
            "source": dict(sample.metadata),
            "lineage": [*sample.lineage, "long_cot"],
        }
        return record if detail is None else {**record, "detail": detail}


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Sample, part, check; return the row of a right answer.

    Raises:
        EngineDead: the engine is gone; the run stops and can be resumed.
    """
    problem = Problem(sample, callers, config)
    try:
        return await solve(problem)
    except EngineError as error:
        return of_engine_error(error, problem.record())


async def solve(problem: Problem) -> Outcome:
    """Return what becomes of a problem whose calls all succeed."""
    sample, config, teacher = problem.sample, problem.config, problem.callers["teacher"]
    gold = right_answer(sample, config)
    if not sample.instruction.strip():
        return Rejected("input: no question", {"source": dict(sample.metadata)})
    if gold is None and config.tests_column is None:
        return Rejected(
            "input: no answer", problem.record(detail=f"column {config.answer_column!r} is empty")
        )
    try:
        tests = [] if config.tests_column is None else read_tests(sample.metadata.get(config.tests_column))
    except ValueError as error:
        return Rejected("input: no tests", problem.record(detail=str(error)))
    if config.difficulty is not None:
        problem.level = await difficulty(sample, problem.callers["labeler"])
        if problem.level is None:
            return Rejected("difficulty: not labelled", problem.record())
        if not config.difficulty[0] <= problem.level <= config.difficulty[1]:
            return Rejected("difficulty: out of range", problem.record())
    sampling = Sampling(
        n=config.num_answers,
        temperature=config.temperature,
        top_p=config.top_p,
        max_tokens=config.max_tokens,
    )
    for number, reply in enumerate(await teacher(question(sample, config), sampling, step="answer")):
        problem.attempts.append(await judged(await parted(reply, number, problem), gold, tests, config))
    right = [attempt for attempt in problem.attempts if attempt.fault is None]
    if right:
        shortest = min(right, key=lambda attempt: attempt.reply.num_tokens)
        return Kept(problem.record(shortest if config.keep == "shortest" else right[0]))
    faults = Counter(attempt.fault or "" for attempt in problem.attempts)
    if UNJUDGED in faults:
        return Failed(UNJUDGED, problem.record())
    return Rejected(faults.most_common(1)[0][0], problem.record())


UNJUDGED = "verifier: no verdict"


def right_answer(sample: Sample, config: Config) -> str | None:
    """Return the reference answer of a problem: behind GSM8K's ####, else in the last box, else the whole text.

    None where its row has none.
    """
    value = sample.metadata.get(config.answer_column)
    if value is None or not str(value).strip():
        return None
    text = str(value)
    if "####" in text:
        try:
            return gsm8k_answer(text)
        except ValueError:  # nothing behind it
            return None
    return last_box(text) or text


def question(sample: Sample, config: Config) -> Prompt:
    """Return what the teacher is asked, which is also what the row will ask."""
    turns = list(sample.messages)
    if config.ask != "plain":
        code = "zh" if language(sample.instruction) == "zh" and config.ask == "boxed" else "en"
        name = f"long_cot_ask{'' if config.ask == 'boxed' else '_code'}.{code}"
        asked = load_prompt("data_builders", name).render(question=sample.instruction)
        turns[-1] = replace(turns[-1], content=asked.strip())
    system = config.system
    if system is None and config.marks == "sky_t1":
        system = load_prompt("data_builders", "long_cot_system.en").render().strip()
    if system is not None and turns[0].role != "system":
        turns.insert(0, Message(role="system", content=system))
    return tuple(turns)


async def difficulty(sample: Sample, labeler: Caller) -> float | None:
    """Return a problem's difficulty from 1 to 10; None where none of three replies names one."""
    prompt = user(load_prompt("data_builders", "long_cot_difficulty.en").render(question=sample.instruction))
    for attempt in range(3):
        (reply,) = await labeler(
            prompt, Sampling(temperature=0.7, max_tokens=2048), step="difficulty", attempt=attempt
        )
        found = read_level(reply.text)
        if found is not None:
            return found
    return None


def read_level(text: str) -> float | None:
    """Return the last number in brackets, double ones first, if it lies within 1 and 10.

    Example:
        >>> read_level("Routine. [[3.5]]"), read_level("[4]"), read_level("It is [[11]]"), read_level("easy")
        (3.5, 4.0, None, None)
    """
    for pattern in (r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]", r"\[\s*(\d+(?:\.\d+)?)\s*\]"):
        found = re.findall(pattern, text)
        if found:
            return float(found[-1]) if 1 <= float(found[-1]) <= 10 else None
    return None


async def parted(reply: Completion, number: int, problem: Problem) -> Attempt:
    """Return an answer with its thought and solution marked as rows mark them, or with the fault that forbids it."""
    config = problem.config
    raw = reply.text if reply.reasoning is None else f"<think>{reply.reasoning}</think>{reply.text}"
    if reply.finish_reason != "stop":
        return Attempt(reply=reply, text=raw, fault="cut")
    if config.thinking == "none":
        return Attempt(reply=reply, text=reply.text.strip(), fault=None if reply.text.strip() else "empty")
    try:
        thought = read_thought(reply.text, reply.reasoning)
    except NoThought as error:
        if config.thinking == "marked":
            return Attempt(reply=reply, text=raw, fault=f"thought: {error}")
        return await rewritten(reply, number, problem)
    return Attempt(reply=reply, text=thought.marked(config.marks))


async def rewritten(reply: Completion, number: int, problem: Problem) -> Attempt:
    """Return an answer whose parts a model marked, or with the fault of its rewriting."""
    config = problem.config
    prompt = load_prompt("data_builders", "long_cot_rewrite.en").render(
        question=problem.sample.instruction, answer=reply.text
    )
    (written,) = await problem.callers["rewriter"](
        user(prompt), Sampling(temperature=0.7, max_tokens=config.max_tokens), step="rewrite", attempt=number
    )
    if written.finish_reason != "stop":
        return Attempt(reply=reply, text=written.text, fault="rewriting: cut", rewritten=True)
    try:
        thought = read_thought(written.text, written.reasoning)
    except NoThought as error:
        return Attempt(reply=reply, text=written.text, fault=f"rewriting: {error}", rewritten=True)
    fault = rewriting_fault(reply.text, thought, config)
    return Attempt(reply=reply, text=thought.marked(config.marks), fault=fault, rewritten=True)


def rewriting_fault(original: str, thought: Thought, config: Config) -> str | None:
    """Return what a rewriting changed that it must not; None where it kept the words and the final answer."""
    before, after = words_of(original), words_of(f"{thought.thinking}\n{thought.solution}")
    kept = sum((Counter(before) & Counter(after)).values())
    if not before or kept < config.min_overlap * max(len(before), len(after)):
        return "rewriting: other words"
    stated = [final_answer(text, last_number=config.last_number) for text in (original, thought.solution)]
    return None if stated[0] == stated[1] else "rewriting: another answer"


async def judged(attempt: Attempt, gold: str | None, tests: Sequence[Test], config: Config) -> Attempt:
    """Return an attempt with its verdict; comparing may take seconds, and is done beside the event loop."""
    if attempt.fault is not None:
        return attempt
    if repeated_ngram_frac(attempt.text) > config.max_repetition:
        return replace(attempt, fault="repetition")
    solution = attempt.text
    if config.thinking != "none":
        solution = read_thought(attempt.text).solution
    if tests:
        return await _tested(attempt, last_code_block(solution), tests, config)
    given = final_answer(solution, last_number=config.last_number)
    if given is None:
        return replace(attempt, correct=False, fault="no answer")
    assert gold is not None
    try:
        found = await asyncio.to_thread(compare_answers, given, gold)
    except ComparisonFailed:
        return replace(attempt, answer=given, fault=UNJUDGED)
    if found.note is not None and "timed out" in found.note:
        return replace(attempt, answer=given, fault=UNJUDGED)
    return replace(attempt, answer=given, correct=found.same, fault=None if found.same else "wrong answer")


async def _tested(attempt: Attempt, program: str | None, tests: Sequence[Test], config: Config) -> Attempt:
    """Return an attempt with the verdict of its tests."""
    if program is None:
        return replace(attempt, correct=False, fault="no code")
    results = await asyncio.wrap_future(config.sandbox().submit(program, tests, stop_at_failure=True))
    last = results[-1]
    if any(result.passed is False for result in results):
        said = f"{last.outcome}: {last.detail}" if last.detail else last.outcome
        return replace(attempt, answer=said[:300], correct=False, fault="wrong answer")
    if any(result.passed is None for result in results):
        return replace(attempt, answer=last.detail, fault=UNJUDGED)
    return replace(attempt, answer=f"{len(results)} tests passed, {last.isolation}", correct=True)
