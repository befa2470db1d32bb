"""One answer to each prompt, tried again until it passes the check: Self-Lengthen's initial responses (2410.23933).

Rows that ask the same are two samples of one prompt, and both are answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_builders.response_check import response_fault
from data_builders.rows import length_entry
from data_builders.self_lengthen_sampling import SamplingOptions
from data_builders.sources import Refusal
from lengthwise.caller import Caller
from lengthwise.degeneration import language
from lengthwise.engines.base import EngineError
from lengthwise.outcomes import Kept, Outcome, Rejected, of_engine_error
from lengthwise.records import Completion, Sample

ROLES = ("generator",)


@dataclass(kw_only=True)
class Config(SamplingOptions):
    """Options of the answers."""


def refused(samples: Sequence[Sample], config: Config) -> dict[str, Refusal]:
    """Return nothing: a prompt may be answered several times."""
    return {}


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Answer a prompt."""
    generator, code = callers["generator"], language(sample.instruction)
    faults: list[str] = []
    try:
        for attempt in range(config.tries):
            (reply,) = await generator(sample.messages, config.sampling(), step="response", attempt=attempt)
            fault = response_fault(reply.text, code, reply.finish_reason)
            if fault is None:
                return Kept(_record(sample, generator, reply, faults))
            faults.append(fault)
    except EngineError as error:
        return of_engine_error(error, {"calls": generator.calls})
    return Rejected(f"response: {faults[-1]}", {"faults": faults, "calls": generator.calls})


def _record(sample: Sample, generator: Caller, reply: Completion, faults: list[str]) -> dict[str, Any]:
    text = reply.text.strip()
    return {
        "id": sample.id,
        "builder": "respond",
        "messages": [*(m.to_dict() for m in sample.messages), {"role": "assistant", "content": text}],
        "language": language(text),
        "length": length_entry(text, requested=sample.length, tokens=reply.num_answer_tokens),
        "finish_reason": reply.finish_reason,
        "scores": {},
        "faults": faults,
        "calls": generator.calls,
        "source": dict(sample.metadata),
        "lineage": [*sample.lineage, "respond"],
    }
