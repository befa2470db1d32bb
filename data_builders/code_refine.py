"""Rows that teach a model to mend programs: what it wrote, how that failed, and a right program near it (CYCLE).

The data of CYCLE (arXiv 2403.18746, section 3). `phase: refine`, the second of two, asks the model under training for a
program and runs its tests:

- one that passes becomes an answer to the problem as it is;
- one that fails becomes part of the question, as comments, with what the tests said; the answer is the right
  program that is nearest to it by BM25, so that what is learnt is a repair and not another program.

`phase: solve`, the first, asks no model: the rows are the problems with one of their known solutions each. The paper
mixes some of them into the second, which a training does here: `data: [{path: refine}, {path: solve, weight: 0.3}]`.
`rows_per_prompt` makes several rows of a problem.

Tests are run in the sandbox, which has to be allowed. A problem without a known solution can give rows only of programs
that pass. BM25 is Lucene's form of it: in the Okapi form words that most of a few candidates share, as those of
solutions to one problem do, count against a candidate.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data_builders.rows import length_entry
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, option
from lengthwise.degeneration import language
from lengthwise.engines.base import EngineError, Sampling
from lengthwise.outcomes import Failed, Kept, Outcome, Rejected, of_engine_error
from lengthwise.records import Completion, Message, Sample, digest
from lengthwise.refinement.code_problems import CodeProblem, read_problem
from lengthwise.refinement.code_repair import OPENING, feedback_of, program_of, request
from lengthwise.sandbox.code_tests import Sandbox, shared_sandbox
from lengthwise.sandbox.outcomes import Isolation, Limits, Result

UNJUDGED = "sandbox: no verdict"


@dataclass(kw_only=True)
class Config:
    """Options of CYCLE's data."""

    phase: Literal["refine", "solve"] = option(
        "refine",
        help="refine: the model's programs, failed ones with the way to a right one; solve: known solutions",
    )
    tests: Literal["public", "all"] = option(
        "public", help="which tests a program must pass; the paper: public, which the problem shows"
    )
    nearest: Literal["bm25", "random"] = option(
        "bm25", help="which known solution answers a failed program: the nearest, or any"
    )
    temperature: float = option(0.8, help="of the model's programs")
    top_p: float = option(0.95, help="nucleus of the model")
    max_tokens: int = option(512, help="most tokens of a program; the paper: 256")
    max_words: int | None = option(512, help="problems with more words are left out; the paper: 512")
    max_solutions: int = option(100, help="known solutions of a problem that are looked at; the paper: 100")
    allow_code_execution: bool = option(False, help="whether programs that the model wrote may be run")
    require_isolation: Isolation | None = option(
        None, help="the weakest isolation that will do: process, landlock, userns or bwrap"
    )
    test_seconds: float = option(3.0, help="time of each test")

    def __post_init__(self) -> None:
        """Refuse what makes no row."""
        for name in ("max_tokens", "max_solutions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.phase == "refine":
            self.sandbox()

    def sandbox(self) -> Sandbox:
        """Return what runs the tests.

        Raises:
            ConfigError: it is not allowed, or too weak here.
        """
        limits = Limits(seconds=self.test_seconds)
        return shared_sandbox(self.allow_code_execution, self.require_isolation, limits)


def roles(config: Config) -> tuple[str, ...]:
    """Return who is asked: in the first phase nobody."""
    return ("solver",) if config.phase == "refine" else ()


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Return a problem's row.

    Raises:
        EngineDead: the engine is gone; the run stops and can be resumed.
    """
    try:
        problem = problem_of(sample)
    except ValueError as error:
        return Rejected("input: no problem", {"detail": str(error), "source": dict(sample.metadata)})
    if config.max_words is not None and len(problem.text.split()) > config.max_words:
        return Rejected("input: too many words", {"detail": f"{len(problem.text.split())} words"})
    if config.phase == "solve":
        return _solved(sample, problem, config)
    try:
        return await _refined(sample, problem, callers["solver"], config)
    except EngineError as error:
        return of_engine_error(error, {"calls": callers["solver"].calls})


def problem_of(sample: Sample) -> CodeProblem:
    """Return the problem of a sample, whose prompt is the problem's text under any benchmark's name.

    Raises:
        ValueError: the row has not what a problem needs.
    """
    names = ("prompt", "question", "description", "text")
    return read_problem({**dict.fromkeys(names, sample.instruction), **sample.metadata})


def nearest_solution(program: str, solutions: Sequence[str]) -> int:
    r"""Return the place of the solution with the highest BM25 score for a program, the first of equals.

    Example:
        >>> nearest_solution("for n in xs: total += n", ["return sum(xs)", "total = 0\nfor n in xs:\n    total += n"])
        1
    """
    if len(solutions) == 1:
        return 0
    import bm25s

    index = bm25s.BM25(method="lucene")
    index.index([tokens_of(solution) for solution in solutions], show_progress=False)
    known = {token for solution in solutions for token in tokens_of(solution)}
    asked = [token for token in tokens_of(program) if token in known]
    return int(index.get_scores(asked).argmax()) if asked else 0


def tokens_of(program: str) -> list[str]:
    """Return the words, numbers and signs of a program.

    Example:
        >>> tokens_of("total += n_1")
        ['total', '+', '=', 'n_1']
    """
    return re.findall(r"\w+|[^\w\s]", program)


def _solved(sample: Sample, problem: CodeProblem, config: Config) -> Outcome:
    known = problem.solutions[: config.max_solutions]
    if not known:
        return Rejected("input: no solution", {"source": dict(sample.metadata)})
    answer = random.Random(digest(["solution", sample.id])).choice(known)
    return Kept(_record(sample, problem, answer, kind="solution"))


async def _refined(sample: Sample, problem: CodeProblem, solver: Caller, config: Config) -> Outcome:
    tests = problem.public if config.tests == "public" else problem.hidden
    if not tests:
        return Rejected("input: no visible test", {"source": dict(sample.metadata)})
    opened = solver.capabilities.prefill
    prompt = request(problem)
    if opened:
        prompt = (*prompt, Message(role="assistant", content=OPENING))
    sampling = Sampling(temperature=config.temperature, top_p=config.top_p, max_tokens=config.max_tokens)
    (reply,) = await solver(prompt, sampling, step="program")
    program = program_of(reply.text, opened=opened, names=problem.names)
    whole = None if program is None else problem.whole(program)
    results = await asyncio.wrap_future(config.sandbox().submit(whole, tests, stop_at_failure=True))
    feedback = feedback_of(tests, results)
    facts = {"reply": reply, "results": results, "calls": solver.calls}
    if feedback is None and any(result.passed is None for result in results):
        return Failed(UNJUDGED, {"reply": reply.text, "calls": solver.calls})
    if feedback is None and program is not None:
        return Kept(_record(sample, problem, program, kind="passed", **facts))
    known = problem.solutions[: config.max_solutions]
    if not known:
        return Rejected("failed, and no solution is known", {"reply": reply.text, "calls": solver.calls})
    place = nearest_solution(program or "", known)
    if config.nearest == "random":
        place = random.Random(digest(["solution", sample.id])).randrange(len(known))
    faulty = (program or "", feedback or "")
    return Kept(_record(sample, problem, known[place], kind="repaired", faulty=faulty, **facts))


def _record(
    sample: Sample,
    problem: CodeProblem,
    program: str,
    *,
    kind: str,
    faulty: tuple[str, str] | None = None,
    reply: Completion | None = None,
    results: Sequence[Result] = (),
    calls: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return a row: the answer is a fenced block, as replies are made to begin."""
    asked = request(problem) if faulty is None else request(problem, *faulty)
    answer = f"{OPENING}{program.strip(chr(10))}\n```"
    return {
        "id": sample.id,
        "builder": "code_refine",
        "messages": [*(m.to_dict() for m in asked), {"role": "assistant", "content": answer}],
        "kind": kind,
        "faulty": None if faulty is None else {"program": faulty[0], "feedback": faulty[1]},
        "tests": [{"outcome": r.outcome, "isolation": r.isolation} for r in results],
        "language": language(sample.instruction),
        "length": length_entry(answer, requested=None, tokens=None),
        "finish_reason": None if reply is None else reply.finish_reason,
        "scores": {"passed": float(kind == "passed")} if reply is not None else {},
        "calls": list(calls),
        "source": dict(sample.metadata),
        "lineage": [*sample.lineage, "code_refine"],
    }
