"""One problem's programs, each mended by what the visible tests said of the last, and new tries beside them (CYCLE)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from evals.programs import CONTEXT_FULL, write_program
from lengthwise.caller import Caller
from lengthwise.engines.base import ContextOverflow, Sampling
from lengthwise.records import Attempt, Completion, Prompt
from lengthwise.refinement.code_problems import CodeProblem
from lengthwise.refinement.code_repair import feedback_of, program_of, request
from lengthwise.sandbox.code_tests import Sandbox, Test
from lengthwise.sandbox.outcomes import Result

SANDBOX_FAILED = "the sandbox failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairOptions:
    """What decides how a chain goes; kept with it, so that it is not scored as another."""

    max_rounds: int
    feedback: Literal["public", "hidden"]
    refine_temperature: float
    equal_budget: bool

    def seen(self, problem: CodeProblem) -> tuple[Test, ...]:
        """Return the tests that the solver is told of."""
        return problem.public if self.feedback == "public" else problem.hidden


@dataclass(kw_only=True)
class Chain:
    """One problem's programs, one after another."""

    options: RepairOptions
    sandbox: Sandbox
    problem: CodeProblem
    caller: Caller
    sampling: Sampling
    number: int
    """Tells chains of one problem apart."""

    async def completion(self) -> Completion:
        """Write, test, write again; then as many tries that know nothing of each other."""
        reply = first = await self._write(request(self.problem), self.sampling, "round_0")
        drafts: list[Attempt] = []
        feedback, ended = await self._told(reply)
        fails = feedback is not None
        while feedback is not None and len(drafts) < self.options.max_rounds:
            prompt = request(self.problem, self._program(reply) or "", feedback)
            try:
                better = await self._write(prompt, self._warmer, f"round_{len(drafts) + 1}", before=reply)
            except ContextOverflow:
                ended = CONTEXT_FULL
                break
            drafts.append(Attempt.of("draft", reply, {"feedback": feedback}))
            reply = better
            feedback, ended = await self._told(reply)
        alone = await self._independent(first) if fails and self.options.equal_budget else []
        note = {"opened": self._opened, "ended": ended, "options": asdict(self.options)}
        end = replace(Attempt.of("final", reply, note), text="", reasoning=None)
        tokens = sum(draft.num_tokens for draft in drafts) + reply.num_tokens
        return replace(reply, attempts=(*drafts, end, *alone), total_tokens=tokens)

    @property
    def _opened(self) -> bool:
        return self.caller.capabilities.prefill

    @property
    def _warmer(self) -> Sampling:
        return replace(self.sampling, temperature=self.options.refine_temperature)

    async def _write(
        self, prompt: Prompt, sampling: Sampling, step: str, before: Completion | None = None
    ) -> Completion:
        return await write_program(
            self.caller, prompt, sampling, step=step, attempt=self.number, before=before
        )

    def _program(self, reply: Completion) -> str | None:
        return program_of(reply.text, opened=self._opened, names=self.problem.names)

    async def _told(self, reply: Completion) -> tuple[str | None, str | None]:
        """Return what the visible tests say of a reply, None where they pass; and whether the sandbox failed."""
        tests = self.options.seen(self.problem)
        program = self._program(reply)
        whole = None if program is None else self.problem.whole(program)
        running = self.sandbox.submit(whole, tests, stop_at_failure=True)
        results: Sequence[Result] = await asyncio.wrap_future(running)
        feedback = feedback_of(tests, results)
        failed = feedback is None and any(result.passed is None for result in results)
        return feedback, SANDBOX_FAILED if failed else None

    async def _independent(self, first: Completion) -> list[Attempt]:
        """Return new tries until one passes the visible tests, as many at most as there may be refinements."""
        found: list[Attempt] = []
        for k in range(1, self.options.max_rounds + 1):
            reply = await self._write(request(self.problem), self._warmer, f"independent_{k}")
            feedback, ended = await self._told(reply)
            passed = feedback is None and ended is None
            found.append(Attempt.of("independent", reply, {"passed_visible_tests": passed, "ended": ended}))
            if feedback is None:
                break
        return found


def chosen_of(alone: Sequence[Attempt], verdicts: Sequence[bool | None], number: int) -> bool | None:
    """Return the verdict on what one would take of `number` tries: the one that passes what one sees, else the last."""
    for attempt, verdict in zip(alone[:number], verdicts, strict=False):
        if attempt.note["passed_visible_tests"]:
            return verdict
    return verdicts[number - 1]
