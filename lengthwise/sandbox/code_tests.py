"""Tests of a program that a model wrote: by input and output, by calls, or by code with assertions.

What decides stands outside of the program's process: outputs are compared here, and code with assertions runs in a
process of its own, which the program's functions are called from. The sandbox is off until somebody allows it.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lengthwise.sandbox.execute import Ran, run_script, run_test
from lengthwise.sandbox.isolation import available, works
from lengthwise.sandbox.outcomes import RUNGS, Isolation, Limits, Result
from lengthwise.scratch import remove_abandoned
from lengthwise.value_types import ConfigError

ATTEMPTS = 3
"""Times a test is tried whose sandbox fails."""
_FENCE = re.compile(r"```[ \t]*([A-Za-z0-9_+-]*)[^\n]*\n(.*?)(?:\n)?```", re.DOTALL)
_CLOSE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class StdioTest:
    """What a program writes for an input."""

    stdin: str
    expected: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CallTest:
    """What a function returns for arguments, as JSON has them; a tuple equals a list."""

    name: str
    args: Sequence[Any]
    expected: Any
    may_be_wrapped: bool = False
    """Whether `expected` may be the result as the only item of a list, as APPS has most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AssertTest:
    """Code that raises unless the program is right, such as `assert add(2, 2) == 4`.

    The program's functions take and return copies of plain values: what a function does to an argument in place is not
    seen, and objects of its classes, for which no test value has a literal, equal nothing. A function named like a
    builtin is not called by its name.
    """

    code: str


Test = StdioTest | CallTest | AssertTest


def last_code_block(text: str) -> str | None:
    r"""Return the last fenced block of a text, None without one; one that never closes is none.

    Example:
        >>> last_code_block("First:\n```python\nx = 1\n```\nthen\n```\nx = 2\n```")
        'x = 2'
    """
    blocks = _FENCE.findall(text)
    return blocks[-1][1] if blocks else None


def same_output(given: str, expected: str) -> bool:
    r"""Return whether two outputs are the same: their words, and of numbers with a point about six digits.

    Example:
        >>> same_output("1 2\n", "1  2"), same_output("0.3333333", "0.33333334"), same_output("1", "2")
        (True, True, False)
    """
    mine, theirs = given.split(), expected.split()
    return len(mine) == len(theirs) and all(map(_same_word, mine, theirs))


def _same_word(given: str, expected: str) -> bool:
    if given == expected:
        return True
    if "." not in expected and "." not in given:
        return False
    try:
        return math.isclose(float(given), float(expected), rel_tol=_CLOSE, abs_tol=_CLOSE)
    except ValueError:
        return False


_CALL_TEST = """
import json as _json
def _same(a, b):
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b))
    if isinstance(a, float) or isinstance(b, float):
        numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
        return numbers and (a == b or abs(a - b) <= {close} * max(1, abs(a), abs(b)))
    return type(a) is type(b) and a == b or (isinstance(a, (int, bool)) and isinstance(b, (int, bool)) and a == b)
_args, _expected = _json.loads({args!r}), _json.loads({expected!r})
_found = {name}(*_args)
_unwrapped = _expected[0] if {wrapped} and isinstance(_expected, list) and len(_expected) == 1 else _expected
assert _same(_found, _expected) or _same(_found, _unwrapped), f"expected {{_expected!r}}, found {{_found!r}}"
"""


@dataclass
class Sandbox:
    """Runs programs against their tests.

    Raises:
        ConfigError: it is not allowed, or this machine lacks the isolation that is required.
    """

    allow_code_execution: bool = False
    """Programs that a model wrote are run only if this is True."""
    require_isolation: Isolation | None = None
    """The weakest rung that will do; None takes the strongest there is, whatever it is."""
    limits: Limits = field(default_factory=Limits)
    workers: int | None = None
    """Programs at once; None: all cores but one."""
    isolation: Isolation = field(init=False)

    def __post_init__(self) -> None:
        """Choose the isolation."""
        if not self.allow_code_execution:
            raise ConfigError(
                "code that a model wrote would be run, which is off: set allow_code_execution: true in the entry of "
                "the builder, task or reward that runs it, once you know that this machine may"
            )
        found = available()
        if not found:
            raise ConfigError(f"no program can be run on this machine: {works('process')}")
        wanted = self.require_isolation
        if wanted is not None and RUNGS.index(found[-1]) < RUNGS.index(wanted):
            raise ConfigError(
                f"require_isolation is {wanted}, and this machine has {found[-1]} at most: {works(wanted)}"
            )
        self.isolation = found[-1]
        remove_abandoned()  # folders of programs whose job was killed
        self._pool = ThreadPoolExecutor(self.workers or max(1, (os.cpu_count() or 2) - 1))

    def run(
        self, program: str | None, tests: Sequence[Test], *, stop_at_failure: bool = False
    ) -> list[Result]:
        """Return the result of each test in order; with `stop_at_failure` of those up to the first that fails.

        Args:
            program: Python source; None, where a model gave none, fails every test as "no_code".
            tests: what to run.
            stop_at_failure: for rewards, where one failure decides.
        """
        results = []
        for test in tests:
            results.append(self._one(program, test))
            if stop_at_failure and results[-1].passed is False:
                break
        return results

    def run_many(
        self, jobs: Sequence[tuple[str | None, Sequence[Test]]], *, stop_at_failure: bool = False
    ) -> list[list[Result]]:
        """Return the results of several programs, which run beside each other."""
        futures = [self.submit(program, tests, stop_at_failure=stop_at_failure) for program, tests in jobs]
        return [future.result() for future in futures]

    def submit(
        self, program: str | None, tests: Sequence[Test], *, stop_at_failure: bool = False
    ) -> Future[list[Result]]:
        """Return what `run` will return; no more programs run at once than there are workers."""
        return self._pool.submit(self.run, program, tests, stop_at_failure=stop_at_failure)

    def close(self) -> None:
        """Wait for what runs, and end the threads."""
        self._pool.shutdown()

    def _one(self, program: str | None, test: Test) -> Result:
        if program is None or not program.strip():
            return Result(outcome="no_code", isolation=self.isolation)
        result = self._try(program, test)
        for _ in range(ATTEMPTS - 1):
            if result.outcome != "sandbox_error":
                break
            result = self._try(program, test)
        return result

    def _try(self, program: str, test: Test) -> Result:
        if isinstance(test, StdioTest):
            ran = run_script(program, limits=self.limits, isolation=self.isolation, stdin=test.stdin)
            return self._compared(ran, test)
        code = test.code if isinstance(test, AssertTest) else _call_code(test)
        names = [test.name] if isinstance(test, CallTest) else []
        ran = run_test(program, code, limits=self.limits, isolation=self.isolation, names=names)
        return Result(
            outcome=ran.outcome,  # type: ignore[arg-type]
            isolation=self.isolation,
            detail=ran.detail,
            expected=test.expected if isinstance(test, CallTest) else None,
            seconds=ran.seconds,
        )

    def _compared(self, ran: Ran, test: StdioTest) -> Result:
        outcome, detail = ran.outcome, ran.detail
        if outcome == "ended":
            is_same = same_output(ran.output, test.expected)
            outcome, detail = ("passed", "") if is_same else ("failed", "another output")
        return Result(
            outcome=outcome,  # type: ignore[arg-type]
            isolation=self.isolation,
            detail=detail,
            expected=test.expected,
            actual=ran.output,
            seconds=ran.seconds,
        )


@cache
def shared_sandbox(
    allow_code_execution: bool, require_isolation: Isolation | None, limits: Limits
) -> Sandbox:
    """Return the sandbox of these settings, the same one each time.

    Raises:
        ConfigError: it is not allowed, or too weak here.
    """
    return Sandbox(
        allow_code_execution=allow_code_execution, require_isolation=require_isolation, limits=limits
    )


def _call_code(test: CallTest) -> str:
    if not test.name.isidentifier():
        raise ValueError(f"{test.name!r} is no name of a function")
    return _CALL_TEST.format(
        name=test.name,
        args=json.dumps(list(test.args)),
        expected=json.dumps(test.expected),
        close=_CLOSE,
        wrapped=test.may_be_wrapped,
    )
