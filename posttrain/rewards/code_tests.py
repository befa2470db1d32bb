"""What share of its tests a completion's program passes, or whether all; None where the sandbox failed.

The program is the last fenced block of the answer, behind any thinking. It runs in `lengthwise.sandbox`, which is off
until `allow_code_execution` is set: this is code that a model under training wrote.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lengthwise.sandbox.code_tests import Sandbox, Test, last_code_block, shared_sandbox
from lengthwise.sandbox.outcomes import Isolation, Limits, Result
from lengthwise.sandbox.row_tests import read_tests
from posttrain.rewarded import Rewarded


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where the tests are, and how they are run."""

    column: str = "tests"
    """The column with the tests, in any form of `lengthwise.sandbox.row_tests`."""
    allow_code_execution: bool = False
    """Whether programs that the model wrote may be run."""
    require_isolation: Isolation | None = None
    """The weakest isolation that will do: process, landlock, userns or bwrap; None: the strongest there is."""
    seconds: float = 5.0
    """Of each test."""
    memory_mb: int = 2048
    """Of each test."""
    max_tests: int = 20
    """Tests of a row that are run; of more, these many are drawn, always the same ones."""
    all_or_nothing: bool = True
    """Whether a program that fails one test is worth 0; else it is worth the share that it passes."""
    think_close: str = "</think>"
    """What ends the thinking: the program stands behind it."""

    def __post_init__(self) -> None:
        """Refuse what runs nothing, and a machine or a user that does not allow it."""
        if self.max_tests < 1:
            raise ValueError(f"max_tests is {self.max_tests}: it must be at least 1")
        self.sandbox()

    def sandbox(self) -> Sandbox:
        """Return what runs the tests.

        Raises:
            ConfigError: it is not allowed, or too weak here.
        """
        limits = Limits(seconds=self.seconds, memory_mb=self.memory_mb)
        return shared_sandbox(self.allow_code_execution, self.require_isolation, limits)


def score(completion: Rewarded, config: Config) -> float | None:
    """Return from 0.0 to 1.0, or None.

    Raises:
        ValueError: the row has no tests.
    """
    return scores([completion], config)[0]


def scores(completions: Sequence[Rewarded], config: Config) -> list[float | None]:
    """Return what each completion is worth; their programs run beside each other, on all cores but one.

    Raises:
        ValueError: a row has no tests.
    """
    jobs = [(_program(completion, config), _tests(completion, config)) for completion in completions]
    found = config.sandbox().run_many(jobs, stop_at_failure=config.all_or_nothing)
    return [_worth(results, len(tests), config) for results, (_, tests) in zip(found, jobs, strict=True)]


def _program(completion: Rewarded, config: Config) -> str | None:
    """Return the program of a completion; one that was cut has none."""
    return None if completion.is_cut else last_code_block(completion.text.rpartition(config.think_close)[2])


def _tests(completion: Rewarded, config: Config) -> list[Test]:
    if completion.row.get(config.column) is None:
        raise ValueError(f"code_tests: a row has no {config.column!r}: name its column with column")
    tests = read_tests(completion.row[config.column])
    return random.Random(0).sample(tests, config.max_tests) if len(tests) > config.max_tests else tests


def _worth(results: Sequence[Result], num_tests: int, config: Config) -> float | None:
    passed = [result.passed for result in results]
    if config.all_or_nothing and False in passed:
        return 0.0
    return None if None in passed else sum(map(bool, passed)) / num_tests
