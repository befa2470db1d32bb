"""How a sample ends: kept, rejected or failed, and how many ended how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from lengthwise.engines.base import ContextOverflow, EngineDead, EngineError

End = Literal["kept", "rejected", "failed"]


@dataclass(frozen=True, slots=True)
class Kept:
    """The sample became a row."""

    end: ClassVar[End] = "kept"
    reason: ClassVar[None] = None
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rejected:
    """The method refused the sample: the model's fault or the input's."""

    end: ClassVar[End] = "rejected"
    reason: str
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """The harness could not finish the sample: the engine's or a server's fault."""

    end: ClassVar[End] = "failed"
    reason: str
    record: Mapping[str, Any] = field(default_factory=dict)


Outcome = Kept | Rejected | Failed


def of_engine_error(error: EngineError, record: Mapping[str, Any]) -> Outcome:
    """Return how a sample ends whose call an engine did not answer.

    A prompt that leaves no room in the context is the input's fault, all else the engine's.

    Raises:
        EngineDead: the error says that the engine is gone, and with it the run.
    """
    if isinstance(error, EngineDead):
        raise error
    record = {**record, "detail": str(error)}
    if isinstance(error, ContextOverflow):
        return Rejected("context: refused by the engine", record)
    return Failed(f"engine: {type(error).__name__}", record)


@dataclass(kw_only=True)
class Counts:
    """How the inputs ended; `kept + rejected + failed` is their number."""

    kept: int = 0
    rejected: int = 0
    failed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Rejected and failed inputs by reason."""

    @property
    def total(self) -> int:
        """All inputs that ended."""
        return self.kept + self.rejected + self.failed

    def add(self, end: End, reason: str | None) -> None:
        """Count one input by its end; `reason` is None for a kept one."""
        setattr(self, end, getattr(self, end) + 1)
        if reason is not None:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def how_far(self, num_inputs: int) -> str:
        """Return a sentence on an unfinished run.

        Example:
            >>> Counts(kept=3, rejected=2).how_far(9)
            '5 of 9 inputs have ended (3 kept, 2 rejected, 0 failed), 4 have not.'
        """
        return f"{self.total} of {num_inputs} inputs have ended ({self}), {num_inputs - self.total} have not."

    def refuse_total_failure(self) -> None:
        """Stop a run all of whose inputs failed: begun again it tries them again, finished it never would.

        Raises:
            EngineError: with the most frequent reason.
        """
        if self.failed and not self.kept and not self.rejected:
            reason = max(self.reasons, key=lambda name: self.reasons[name])
            raise EngineError(
                f"all {self.failed} inputs failed, {self.reasons[reason]} of them with {reason!r}; dropped.jsonl has "
                "the details. Mend the cause, then"
            )

    def __str__(self) -> str:
        """Return "3 kept, 2 rejected, 1 failed"."""
        return f"{self.kept} kept, {self.rejected} rejected, {self.failed} failed"
