"""What can become of a program under test. A fault of the sandbox is none of the program's, and never scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal[
    "passed",
    "failed",  # it ran, and gave something else
    "syntax",  # it is no Python
    "runtime",  # it raised, or exited with an error
    "timeout",
    "memory",
    "output_limit",
    "killed",  # a signal ended it: a crash of the interpreter, or a call that is not allowed
    "no_code",
    "sandbox_error",
]

Isolation = Literal["process", "landlock", "userns", "bwrap"]
"""What stands between a program and the machine, from weak to strong."""
RUNGS: tuple[Isolation, ...] = ("process", "landlock", "userns", "bwrap")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a program may use."""

    seconds: float = 10.0
    """Of the wall clock, start included; CPU time is held to the next whole second above."""
    memory_mb: int = 2048
    """Of address space."""
    output_kb: int = 256
    """Of stdout; it is killed when it writes more."""
    file_mb: int = 16
    """Of one file in its folder."""
    site_packages: bool = False
    """Whether it may import what is installed beside Python."""

    def __post_init__(self) -> None:
        """Refuse limits under which nothing starts.

        Raises:
            ValueError: naming the field.
        """
        for name, least in (("seconds", 0.1), ("memory_mb", 64), ("output_kb", 1), ("file_mb", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least {least}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What became of one test."""

    outcome: Outcome
    isolation: Isolation
    """What the program ran in."""
    detail: str = ""
    """The exception with its line, or what was expected and what came."""
    expected: Any = None
    actual: Any = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool | None:
        """Whether the program passed; None where the sandbox failed, which says nothing of the program."""
        return None if self.outcome == "sandbox_error" else self.outcome == "passed"
