"""The prompts of AgentWrite, filled in (wording in `prompts/agent_write_*.md`).

What repeats between the calls of one sample stands first and what changes last, so that a prefix cache serves
the rules, the instruction, the plan and the text so far, and only "now write section i" is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_builders.plans import Plan, PlanBounds, PlanFault, PlannedSection, plan_lines
from data_builders.sections import SectionFault
from lengthwise.records import Message, Prompt
from lengthwise.templates import PromptTemplate, load_phrases, load_prompt

PACKAGE = "data_builders"
MAX_QUOTED_REPLY = 6000
"""Characters of a faulty plan that the repair prompt shows the planner again."""


def prompt_language(language: str | None) -> str:
    """Return the language of the prompts for a text: Chinese for Chinese, else English."""
    return "zh" if language == "zh" else "en"


def versions(language: str) -> dict[str, str]:
    """Return the digest of every prompt file used, for a row's provenance."""
    names = [
        f"agent_write_{part}.{language}" for part in ("plan", "plan_repair", "section", "context", "phrases")
    ]
    return {name: load_prompt(PACKAGE, name).version for name in names}


def plan_prompt(
    system: Sequence[Message],
    *,
    instruction: str,
    material: str | None,
    bounds: PlanBounds,
    as_json: bool,
    language: str,
) -> Prompt:
    """Return the request for a plan, in the form the engine can be held to (JSON) or in plain lines."""
    phrases = load_phrases(PACKAGE, f"agent_write_phrases.{language}")
    count = "count_fixed" if bounds.min_sections == bounds.max_sections else "count_range"
    values = {"low": bounds.min_sections, "high": bounds.max_sections}
    text = _load("plan", language).render(
        instruction=instruction,
        context=_context(material, language),
        count=phrases[count].render(**{k: values[k] for k in phrases[count].fields}),
        min_words=bounds.min_words,
        max_words=bounds.max_words,
        total=(
            phrases["total_known"].render(total=bounds.total_words)
            if bounds.total_words
            else phrases["total_open"].render()
        ),
        format=_plan_format(bounds, as_json, language),
    )
    return (*system, Message(role="user", content=text))


def repair_prompt(
    asked: Prompt,
    reply: str,
    faults: Iterable[PlanFault],
    *,
    bounds: PlanBounds,
    as_json: bool,
    language: str,
) -> Prompt:
    """Return the conversation that shows the planner its plan and what is wrong with it."""
    phrases = load_phrases(PACKAGE, f"agent_write_phrases.{language}")
    quoted = reply.strip() if len(reply) <= MAX_QUOTED_REPLY else reply[:MAX_QUOTED_REPLY].rstrip() + " ..."
    text = _load("plan_repair", language).render(
        faults="\n".join(f"- {describe(fault.values, phrases[fault.name])}" for fault in faults),
        format=_plan_format(bounds, as_json, language),
    )
    # Some chat templates refuse an empty turn.
    return (
        *asked,
        Message(role="assistant", content=quoted or "..."),
        Message(role="user", content=text),
    )


def section_prompt(
    system: Sequence[Message],
    section: PlannedSection,
    *,
    instruction: str,
    material: str | None,
    plan: Plan,
    written: str,
    fault: SectionFault | None,
    language: str,
) -> Prompt:
    """Return the request for one section; with `fault` it asks to write the section again and says why."""
    phrases = load_phrases(PACKAGE, f"agent_write_phrases.{language}")
    task = [
        phrases["task"].render(
            index=section.index, total=len(plan), words=section.num_words, main_point=section.main_point
        ),
        phrases["task_last" if section.index == len(plan) else "task_more"].render(),
    ]
    if fault is not None:
        task.append(phrases["rewrite"].render(fault=describe(fault.values, phrases[fault.check])))
    text = _load("section", language).render(
        instruction=instruction,
        context=_context(material, language),
        plan=plan_lines(plan, phrases["unit"].render()),
        written=written or phrases["nothing_written"].render(),
        task="\n".join(task),
    )
    return (*system, Message(role="user", content=text))


def describe(values: Mapping[str, Any], phrase: PromptTemplate) -> str:
    """Say a fault in words; of its values a phrase may use only some."""
    return phrase.render(**{name: values[name] for name in phrase.fields})


def _load(part: str, language: str) -> PromptTemplate:
    return load_prompt(PACKAGE, f"agent_write_{part}.{language}")


def _context(material: str | None, language: str) -> str:
    return _load("context", language).render(material=material) if material else ""


def _plan_format(bounds: PlanBounds, as_json: bool, language: str) -> str:
    phrases = load_phrases(PACKAGE, f"agent_write_phrases.{language}")
    example = min(bounds.max_words, max(bounds.min_words, 400))
    return phrases["format_json" if as_json else "format_lines"].render(example=example)
