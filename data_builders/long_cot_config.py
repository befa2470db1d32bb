"""The options of long chains of thought, checked before anything is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data_builders.thoughts import Marks
from lengthwise.config import ConfigError, option
from lengthwise.sandbox.code_tests import Sandbox, shared_sandbox
from lengthwise.sandbox.outcomes import Isolation, Limits


@dataclass(kw_only=True)
class Config:
    """Options of long chains of thought."""

    answer_column: str = option("answer", help="the right answer; of a GSM8K solution what follows ####")
    num_answers: int = option(1, help="answers sampled for each problem; Sky-T1: 1, Sky-T1-Flash: 8")
    temperature: float = option(0.0, help="of the teacher; Sky-T1: 0, Sky-T1-Flash: 1.0")
    top_p: float = option(1.0, help="nucleus of the teacher")
    max_tokens: int | None = option(16384, help="most tokens of an answer; one that was cut is never a row")
    ask: Literal["boxed", "code", "plain"] = option(
        "boxed",
        help="boxed: the problem with a request for the answer in a box; code: for a program in a fenced block; plain: "
        "the problem alone",
    )
    tests_column: str | None = option(
        None, help="tests of a program, which decide in place of the answer; they are run in the sandbox"
    )
    allow_code_execution: bool = option(
        False, help="with tests_column: whether the teacher's programs may be run"
    )
    require_isolation: Isolation | None = option(
        None, help="with tests_column: the weakest isolation that will do: process, landlock, userns or bwrap"
    )
    test_seconds: float = option(10.0, help="with tests_column: time of each test")
    thinking: Literal["marked", "rewritten", "none"] = option(
        "marked",
        help="how thought and solution are told apart: marked by the teacher; rewritten where it did not; none: an "
        "answer is a solution without a thought",
    )
    marks: Marks = option("think", help="how rows mark the two: think, or sky_t1's plain words")
    system: str | None = option(
        None,
        help="system text of every question, kept in the rows; default: with sky_t1 the one that asks for marks",
    )
    min_overlap: float = option(0.9, help="least share of the teacher's words that a rewriting keeps")
    last_number: bool = option(
        False, help="take an answer's last number where it names no answer, as lenient harnesses do"
    )
    keep: Literal["shortest", "first"] = option("shortest", help="which right answer becomes the row")
    difficulty: list[float] | None = option(
        None,
        help="[lowest, highest] difficulty from 1 to 10 of the problems to keep, labelled by the labeler",
    )
    max_repetition: float = option(0.3, help="largest share of repeated n-grams in an answer")

    def __post_init__(self) -> None:
        """Refuse what cannot give a row."""
        if self.num_answers < 1:
            raise ConfigError(f"num_answers is {self.num_answers}: it must be at least 1")
        if self.num_answers > 1 and self.temperature == 0:
            raise ConfigError(
                "temperature is 0, at which all answers to a problem are one: raise it, or lower num_answers"
            )
        if self.tests_column is not None:
            self.sandbox()
        for name in ("min_overlap", "max_repetition"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must lie between 0 and 1")
        if self.difficulty is not None and (
            len(self.difficulty) != 2 or not 1 <= self.difficulty[0] <= self.difficulty[1] <= 10
        ):
            raise ConfigError(f"difficulty is {self.difficulty}: write [lowest, highest] within 1 and 10")

    def sandbox(self) -> Sandbox:
        """Return what runs the tests.

        Raises:
            ConfigError: it is not allowed, or too weak here.
        """
        return shared_sandbox(
            self.allow_code_execution, self.require_isolation, Limits(seconds=self.test_seconds)
        )
