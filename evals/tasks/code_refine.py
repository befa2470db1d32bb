"""Does a model mend its programs when it is told how they failed? CYCLE's evaluation (arXiv 2403.18746, sections 3, 4).

The model writes a program (temperature 0.2); where it fails the tests that a solver may see, it is shown the program
with what the tests said, and writes a new one (temperature 0.6), up to `max_rounds` times. A program that passes these
tests stays as it is. The hidden tests, which no prompt holds, give the verdict on the program of each round:

- `one_time`: the share solved by the first program; `refined`: by the last; `regressed`: solved first and not last.
- `passed_round_K`: the share solved after round K; `tokens_round_K`: all tokens written until then. The results have
  the curve, each round's gain, and how many problems a round won and lost.
- `independent` and `independent_round_K`: what the same number of calls comes to when each is a new try that knows
  nothing of the others, the first that passes the visible tests taken, else the last. Refinement is worth its cost
  where it beats this.

Where we differ: with the paper the tests of the benchmark decide which programs are refined, and their results are
the feedback, so that a part of the answer is told. `feedback: hidden` does so; by default feedback comes from the
examples in the problem's text. The paper's loop stops for all problems at the first round that solves no more; here
every problem has all its rounds, and the results say where that loop would have stopped. A problem without visible
tests is not refined.

Sources have the fields of HumanEval, MBPP (also sanitized), APPS or CodeContests, or ours (`read_problem`). Programs
are run in `lengthwise.sandbox`, which has to be allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from evals.base import Metric, Score
from evals.programs import LEAST_ROOM, code_sample, hidden_verdict, problem_of, room_for, write_program
from evals.rounds import curve_metrics, running_sums, share, token_round
from evals.sources import Entry, read_samples
from lengthwise.caller import Caller
from lengthwise.config import ConfigError
from lengthwise.engines.base import Sampling
from lengthwise.records import Attempt, Completion, Prompt, Sample
from lengthwise.refinement.code_problems import CodeProblem
from lengthwise.refinement.code_repair import feedback_of, program_of, request
from lengthwise.sandbox.code_tests import Sandbox, Test, shared_sandbox
from lengthwise.sandbox.outcomes import Isolation, Limits, Result

METRICS: tuple[Metric, ...] = ()
"""They depend on the number of rounds: see `configured`."""

SAMPLING = Sampling(temperature=0.2, top_p=0.95, max_tokens=512)
"""Of first programs; the paper's, but for its 256 tokens, which many programs with their signature exceed."""


@dataclass(kw_only=True)
class CodeRefine:
    """The task with its options."""

    max_rounds: int
    feedback: Literal["public", "hidden"]
    refine_temperature: float
    equal_budget: bool
    sandbox: Sandbox
    METRICS: tuple[Metric, ...]
    LABEL: str = "code_refine"
    VERSION: int = 1
    TEMPERATURE: float = 0.2
    MAX_TOKENS: int | None = 512
    SAMPLING: Sampling = SAMPLING
    DATA_FILE: str = "humaneval.jsonl"
    HUB: str = "openai/openai_humaneval:test"

    def load(self, source: str | None, *, draw_seed: int = 0) -> list[Entry]:
        """Return the problem of each row; `draw_seed` is not used.

        Raises:
            ConfigError: the data is not there, or the whole of it is unreadable.
        """
        return read_samples(source, code_sample)

    def prompt(self, sample: Sample) -> Prompt:
        """Return the request for the first program."""
        return request(problem_of(sample)).prompt

    async def ask(self, sample: Sample, caller: Caller, sampling: Sampling) -> list[Completion]:
        """Return the last program of each of `sampling.n` chains, with what led to it and the independent tries.

        Raises:
            EngineError: the engine has no answer.
        """
        chains = [
            Chain(
                task=self,
                problem=problem_of(sample),
                caller=caller,
                sampling=replace(sampling, n=1),
                number=i,
            )
            for i in range(sampling.n)
        ]
        return [await chain.completion() for chain in chains]

    def score(self, sample: Sample, text: str, finish_reason: str | None) -> Score:
        """Return the verdict on one program that nothing led to."""
        return self.score_attempts(sample, text, finish_reason, ())

    def score_attempts(
        self, sample: Sample, text: str, finish_reason: str | None, attempts: Sequence[Attempt]
    ) -> Score:
        """Return the verdict on the program of each round, and on the independent tries."""
        problem = problem_of(sample)
        drafts = [a for a in attempts if a.kind == "draft"]
        alone = [a for a in attempts if a.kind == "independent"]
        spent = [a.num_tokens for a in attempts if a.kind in ("draft", "final")] or [0]
        opened = any(a.note.get("opened") for a in attempts)
        tested = [
            hidden_verdict(self.sandbox, problem, program_of(each, opened=opened))
            for each in (*(draft.text for draft in drafts), text)
        ]
        others = [hidden_verdict(self.sandbox, problem, program_of(a.text, opened=opened)) for a in alone]
        solved = [verdict for verdict, _ in tested]
        outcomes = [outcome for _, outcome in tested]
        slices = {"first_outcome": outcomes[0], "last_outcome": outcomes[-1]}
        notes = {"outcomes": outcomes, "isolation": self.sandbox.isolation}
        if None in solved or any(verdict is None for verdict, _ in others):
            reasons = {m.name: "the sandbox failed" for m in self.METRICS if "tokens" not in m.name}
            return Score(metrics={}, unscored=reasons, notes=notes, slices=slices)
        metrics = {
            "one_time": float(bool(solved[0])),
            "refined": float(bool(solved[-1])),
            "regressed": float(bool(solved[0] and not solved[-1])),
            "rounds_used": float(len(drafts)),
            **curve_metrics("passed", solved, self.max_rounds),
            **curve_metrics("tokens", running_sums(spent), self.max_rounds),
        }
        if self.equal_budget:
            chosen = [solved[0], *(_chosen(alone, others, k, solved[0]) for k in range(1, len(alone) + 1))]
            costs = running_sums([spent[0], *(a.num_tokens for a in alone)])
            metrics |= curve_metrics("independent", chosen, self.max_rounds)
            metrics |= curve_metrics("independent_tokens", costs, self.max_rounds)
            metrics["independent"] = float(bool(chosen[-1]))
        return Score(metrics=metrics, answer=program_of(text, opened=opened), notes=notes, slices=slices)

    def slices(self, sample: Sample) -> dict[str, str]:
        """Return whether there are visible tests."""
        return {"visible_tests": "yes" if problem_of(sample).public else "no"}

    def seen(self, problem: CodeProblem) -> tuple[Test, ...]:
        """Return the tests that the solver is told of."""
        return problem.public if self.feedback == "public" else problem.hidden


@dataclass(kw_only=True)
class Chain:
    """One problem's programs, one after another."""

    task: CodeRefine
    problem: CodeProblem
    caller: Caller
    sampling: Sampling
    number: int

    async def completion(self) -> Completion:
        """Write, test, write again; then as many independent tries."""
        first = await self._write(request(self.problem).prompt, self.sampling, "round_0")
        reply, drafts = first, []
        results = await self._results(reply)
        feedback = feedback_of(self.task.seen(self.problem), results)
        while feedback is not None and len(drafts) < self.task.max_rounds:
            drafts.append(Attempt.of("draft", reply, self._note(feedback, results)))
            program = program_of(reply.text, opened=self._opened) or ""
            prompt = request(self.problem, program, feedback).prompt
            if room_for(self.caller, prompt) < LEAST_ROOM:
                return self._whole(
                    reply, drafts[:-1], await self._independent(len(drafts) - 1), ended="context full"
                )
            reply = await self._write(prompt, self._warmer, f"round_{len(drafts)}")
            results = await self._results(reply)
            feedback = feedback_of(self.task.seen(self.problem), results)
        return self._whole(reply, drafts, await self._independent(len(drafts)))

    @property
    def _opened(self) -> bool:
        return self.caller.capabilities.prefill

    @property
    def _warmer(self) -> Sampling:
        return replace(self.sampling, temperature=self.task.refine_temperature)

    def _note(self, feedback: str, results: Sequence[Result]) -> dict[str, Any]:
        outcomes = [result.outcome for result in results]
        return {"opened": self._opened, "feedback": feedback, "visible_tests": outcomes}

    def _whole(
        self, reply: Completion, drafts: Sequence[Attempt], alone: Sequence[Attempt], ended: str | None = None
    ) -> Completion:
        """Return the last reply with what led to it; its tokens are those of the whole chain."""
        final = Attempt.of("final", replace(reply, text=""), {"opened": self._opened, "ended": ended})
        attempts = (*drafts, final, *alone)
        tokens = sum(draft.num_tokens for draft in drafts) + reply.num_tokens
        return replace(reply, num_tokens=tokens, attempts=attempts)

    async def _write(self, prompt: Prompt, sampling: Sampling, step: str) -> Completion:
        return await write_program(self.caller, prompt, sampling, step=step, attempt=self.number)

    async def _results(self, reply: Completion) -> list[Result]:
        tests = self.task.seen(self.problem)
        program = program_of(reply.text, opened=self._opened)
        whole = None if program is None else self.problem.whole(program)
        return await asyncio.wrap_future(self.task.sandbox.submit(whole, tests, stop_at_failure=True))

    async def _independent(self, number: int) -> list[Attempt]:
        """Return as many tries that know nothing of each other, each with whether the visible tests passed."""
        found = []
        for k in range(number if self.task.equal_budget else 0):
            reply = await self._write(request(self.problem).prompt, self._warmer, f"independent_{k + 1}")
            passed = feedback_of(self.task.seen(self.problem), await self._results(reply)) is None
            found.append(Attempt.of("independent", reply, {"passed_visible_tests": passed}))
        return found


def _chosen(
    alone: Sequence[Attempt], verdicts: Sequence[tuple[bool | None, str]], number: int, first: bool | None
) -> bool | None:
    """Return the verdict on what one would take of the first program and `number` tries: it failed what one sees."""
    for attempt, (verdict, _) in zip(alone[:number], verdicts, strict=False):
        if attempt.note["passed_visible_tests"]:
            return verdict
    return verdicts[number - 1][0] if number else first


def configured(
    *,
    max_rounds: int = 4,
    feedback: Literal["public", "hidden"] = "public",
    refine_temperature: float = 0.6,
    equal_budget: bool = True,
    allow_code_execution: bool = False,
    require_isolation: Isolation | None = None,
    test_seconds: float = 3.0,
) -> CodeRefine:
    """Return the task of an entry of `tasks`.

    Args:
        max_rounds: refinements after the first program; the paper: 4.
        feedback: which tests decide what is refined, and are told: public, those that the problem shows; hidden, as the
            paper does, those that also give the verdict.
        refine_temperature: of refinements and independent tries.
        equal_budget: whether to make as many independent tries beside each chain.
        allow_code_execution: whether programs that the model wrote may be run.
        require_isolation: the weakest isolation that will do; None: the strongest there is.
        test_seconds: time of each test.

    Raises:
        ConfigError: an option means nothing, or no program may be run.
    """
    if max_rounds < 0:
        raise ConfigError(f"tasks: code_refine.max_rounds is {max_rounds}: it must be at least 0")
    limits = Limits(seconds=test_seconds)
    return CodeRefine(
        max_rounds=max_rounds,
        feedback=feedback,
        refine_temperature=refine_temperature,
        equal_budget=equal_budget,
        sandbox=shared_sandbox(allow_code_execution, require_isolation, limits),
        METRICS=_metrics(max_rounds, equal_budget),
    )


def _metrics(max_rounds: int, equal_budget: bool) -> tuple[Metric, ...]:
    found = [share("refined"), share("one_time"), *([share("independent")] if equal_budget else [])]
    found += [
        share("regressed", higher_is_better=False),
        Metric(name="rounds_used", counter="-", higher_is_better=None),
    ]
    for name, cost in (("passed", "tokens"), ("independent", "independent_tokens"))[: 1 + equal_budget]:
        found += [share(f"{name}_round_{k}", detail=True, round_of=(name, k)) for k in range(max_rounds + 1)]
        found += [token_round(cost, k) for k in range(max_rounds + 1)]
    return tuple(found)
