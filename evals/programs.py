"""What tasks share whose replies are programs: the sample of a row, how a program is asked for, and its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from evals.sources import Entry, read_samples
from lengthwise.caller import Caller
from lengthwise.engines.base import Sampling
from lengthwise.records import Completion, Message, Prompt, Sample, sample_id
from lengthwise.refinement.code_problems import CodeProblem, read_problem
from lengthwise.refinement.code_repair import OPENING, request
from lengthwise.row_values import row_id, without_nan
from lengthwise.sandbox.code_tests import Sandbox

CONTEXT_FULL = "context full"
"""How a chain of requests ends that has no room for another."""
_OPENING_TOKENS = 8
"""More than `OPENING` has in any tokenizer."""
_LEAST_TOKENS = 64
"""Tokens of a short program: with less room none is asked for."""


@dataclass(kw_only=True)
class ProgramTask:
    """Where such a task has its problems from, and how it asks for the first program."""

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
        return request(problem_of(sample))


def code_sample(row: Mapping[str, Any]) -> Sample:
    """Return the sample of a row; the row itself is its metadata, so that a reader sees what was tested.

    Raises:
        ValueError: it is no programming problem.
    """
    prompt = request(read_problem(row))
    name = row_id(row.get("id")) or row_id(row.get("task_id")) or sample_id(prompt)
    return Sample(id=name, messages=prompt, metadata={"problem": without_nan(dict(row))})


def problem_of(sample: Sample) -> CodeProblem:
    """Return the problem of a sample."""
    return read_problem(sample.metadata["problem"])


async def write_program(
    caller: Caller,
    prompt: Prompt,
    sampling: Sampling,
    *,
    step: str,
    attempt: int = 0,
    before: Completion | None = None,
) -> Completion:
    """Return a reply to a request for a program, which goes on from `OPENING` where the engine can do that.

    Args:
        caller: the model.
        prompt: the request.
        sampling: of it.
        step: names the call.
        attempt: tells chains of one problem apart.
        before: the reply that this one is to mend, which needs as much room at least: a program that the context
            cuts would be called worse.

    Raises:
        ContextOverflow: the context has not room enough.
        EngineError: the engine has no answer.
    """
    cap = sampling.max_tokens
    least = 1 if before is None else max(_LEAST_TOKENS, before.num_answer_tokens)
    limited = caller.with_room(
        prompt,
        replace(sampling, n=1),
        least=least if cap is None else min(least, cap),
        reserve=_OPENING_TOKENS if caller.capabilities.prefill else 0,
    )
    if caller.capabilities.prefill:
        prompt = (*prompt, Message(role="assistant", content=OPENING))
    (reply,) = await caller(prompt, limited, step=step, attempt=attempt)
    return reply


def hidden_verdict(sandbox: Sandbox, problem: CodeProblem, program: str | None) -> tuple[bool | None, str]:
    """Return whether a program passes all tests that decide, None where the sandbox failed, and how it ended."""
    whole = None if program is None else problem.whole(program)
    results = sandbox.submit(whole, problem.hidden, stop_at_failure=True).result()
    if any(result.passed is False for result in results):
        return False, results[-1].outcome
    return (None, "sandbox_error") if any(r.passed is None for r in results) else (True, "passed")
