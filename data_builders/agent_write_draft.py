"""What AgentWrite holds while it writes one text, and the row that this becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_builders import agent_write_prompts as prompts
from data_builders.plans import Plan, PlannedSection
from data_builders.sections import SectionTry
from lengthwise.caller import Caller
from lengthwise.lengths import count_cjk_alpha, count_cjk_ws
from lengthwise.records import LengthTarget, Message, Sample

FILTER_VERSION = 1
"""Goes up when a filter's verdict on the same text may change."""


class Unfit(Exception):
    """The sample is refused. `reason` is one of few (they are counted), `detail` says the rest."""

    def __init__(self, reason: str, detail: str):
        """Keep both parts."""
        super().__init__(f"{reason} ({detail})")
        self.reason = reason
        self.detail = detail


@dataclass
class Draft:
    """One text in the making."""

    sample: Sample
    callers: Mapping[str, Caller]
    language: str = "en"
    target: LengthTarget | None = None
    target_source: str | None = None
    """Where the length was found: config, row or prompt."""
    material: str | None = None
    plan: Plan = ()
    plan_source: str | None = None
    """Who made the plan: planner or row."""
    plan_scaled_by: float | None = None
    plan_attempts: list[list[str]] = field(default_factory=list)
    """The faults of each plan, in order; the last one is empty if a valid plan was found."""
    sections: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """The accepted sections."""
    scores: dict[str, Any] = field(default_factory=dict)
    filters: list[dict[str, Any]] = field(default_factory=list)

    @property
    def system(self) -> Sequence[Message]:
        """The system turns that came with the prompt; they go before every request."""
        return [m for m in self.sample.messages if m.role == "system"]

    @property
    def text(self) -> str:
        """The text so far."""
        return "\n\n".join(self.texts)

    @property
    def num_words(self) -> int:
        """Words of the text so far, as LongBench-Write counts them."""
        return count_cjk_alpha(self.text)

    def add_section(self, section: PlannedSection, tries: Sequence[SectionTry], best: SectionTry) -> None:
        """Note all tries at a section and the one to take."""
        self.sections.append(
            {
                "index": section.index,
                "planned_words": section.num_words,
                "words": best.num_words,
                "tokens": best.reply.num_answer_tokens,
                "text": best.text,
                "taken": tries.index(best),
                "tries": [
                    {
                        "attempt": one.attempt,
                        "finish_reason": one.reply.finish_reason,
                        "tokens": one.reply.num_answer_tokens,
                        "words": one.num_words,
                        "label_stripped": one.text != one.reply.text.strip(),
                        "faults": [str(fault) for fault in one.faults],
                    }
                    for one in tries
                ],
            }
        )

    def judge(self, name: str, value: float | None, passed: bool) -> None:
        """Note the verdict of one filter."""
        verdict = "kept" if passed else "rejected"
        self.filters.append({"name": name, "version": FILTER_VERSION, "value": value, "verdict": verdict})

    def record(self, detail: str | None = None) -> dict[str, Any]:
        """Return the row as far as it got: TRL's `messages` and where every part of it comes from."""
        text = self.text
        tokens = sum(s["tokens"] for s in self.sections[: len(self.texts)])
        row: dict[str, Any] = {
            "id": self.sample.id,
            "builder": "agent_write",
            "messages": self._messages(text),
            "language": self.language,
            "length": {
                "requested": None if self.target is None else self.target.to_dict(),
                "requested_source": self.target_source,
                "words_longbench": count_cjk_alpha(text),
                "words_longen": count_cjk_ws(text),
                "tokens": tokens,
            },
            "scores": self.scores,
            "plan": [s.to_dict() for s in self.plan],
            "plan_source": self.plan_source,
            "plan_scaled_by": self.plan_scaled_by,
            "plan_attempts": self.plan_attempts,
            "sections": self.sections,
            "filters": self.filters,
            "calls": self._calls(),
            "prompts": prompts.versions(prompts.prompt_language(self.language)),
            "source": dict(self.sample.metadata),
            "lineage": [*self.sample.lineage, "agent_write"],
        }
        if detail is not None:
            row["detail"] = detail
        return row

    def _messages(self, text: str) -> list[dict[str, str]]:
        """The training row: the prompt as it came, with the material behind it, and the text."""
        turns = [m.to_dict() for m in self.sample.messages]
        if self.material is not None and turns:
            turns[-1]["content"] += f"\n\n{self.material}"
        return [*turns, {"role": "assistant", "content": text}]

    def _calls(self) -> list[dict[str, Any]]:
        """All calls, each caller's once (planner and writer may share one)."""
        callers = {id(caller): caller for caller in self.callers.values()}
        return [call for caller in callers.values() for call in caller.calls]
