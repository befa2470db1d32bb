"""The programs of a data set that a model reads back as what was asked: a filter that needs no tests (CyclePrompt).

Each row is a task with a program in a fenced block. A model that sees the program alone, without comments and
docstrings, says what it does; a second call compares that with the task. Rows where the two say the same are kept; the
others are refused, with what differs. The verdict is a model's: `passed_if_equivalent` of the task `cycle_prompt` says
how far that of the same model can be trusted, on problems that have tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_builders.rows import length_entry, scores_of, turns
from data_builders.sources import Refusal
from lengthwise.caller import Caller
from lengthwise.config import ConfigError, option
from lengthwise.degeneration import language
from lengthwise.engines.base import EngineError
from lengthwise.outcomes import Failed, Kept, Outcome, Rejected, of_engine_error
from lengthwise.records import Sample
from lengthwise.refinement.code_cycle import bare_program, compared, described
from lengthwise.refinement.code_repair import program_of

ROLES = ("reader", "judge")
WITH_ANSWERS = True


@dataclass(kw_only=True)
class Config:
    """Options of the filter."""

    max_tokens: int = option(512, help="most tokens of a description")
    judge_attempts: int = option(3, help="calls for one verdict")
    judge_max_tokens: int = option(512, help="most tokens of a verdict, a thinking part included")

    def __post_init__(self) -> None:
        """Refuse what gives no verdict."""
        for name in ("max_tokens", "judge_attempts", "judge_max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")


def refused(samples: Sequence[Sample], config: Config) -> dict[str, Refusal]:
    """Return the rows without a program; several programs of one task are rows of their own."""
    found = {}
    for sample in samples:
        program = program_of(sample.completion or "", opened=False)
        if program is None:
            found[sample.id] = Refusal("input: no program", "")
        elif bare_program(program) is None:
            found[sample.id] = Refusal("input: no Python", "")
    return found


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Describe, compare; return the row where both say the same.

    Raises:
        EngineDead: the engine is gone; the run stops and can be resumed.
    """
    program = program_of(sample.completion or "", opened=False)
    assert program is not None, "refused before"
    account: dict[str, Any] = {}
    try:
        description = await described(program, callers["reader"], number=0, max_tokens=config.max_tokens)
        account["description"] = description.text
        difference, note = await compared(
            sample.instruction,
            description,
            callers["judge"],
            number=0,
            attempts=config.judge_attempts,
            max_tokens=config.judge_max_tokens,
        )
        account |= note
    except EngineError as error:
        return of_engine_error(error, _record(sample, callers, account))
    record = _record(sample, callers, account)
    if difference is None:
        fault = str(account["fault"])
        cut = fault.startswith("description")
        return Rejected(fault, record) if cut else Failed("judge: no verdict", record)
    return Kept(record) if difference.equivalent else Rejected("reads otherwise", record)


def _record(sample: Sample, callers: Mapping[str, Caller], account: Mapping[str, Any]) -> dict[str, Any]:
    tokens = sample.metadata.get("num_tokens")
    answer = sample.completion or ""
    return {
        **sample.metadata,
        "id": sample.id,
        "builder": sample.metadata.get("builder") or "consistent_code",
        "messages": turns(sample),
        "language": language(sample.instruction),
        "length": length_entry(
            answer, requested=sample.length, tokens=tokens if isinstance(tokens, int) else None
        ),
        "scores": scores_of(sample),
        "read_back": dict(account),
        "read_back_calls": [call for caller in callers.values() for call in caller.calls],
        "lineage": [*sample.lineage, "consistent_code"],
    }
