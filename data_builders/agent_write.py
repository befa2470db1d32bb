"""AgentWrite: plan a long text, then write it section by section (LongWriter, arXiv 2408.07055, section 3).

The paper's two steps are kept: one plan of sections of 200 to 1,000 words, then one call per section, in
order, which sees the instruction, the whole plan and all text so far. Added, since the released code accepts
whatever comes back:

- the plan is checked, rescaled to the stated length and repaired (`plans.py`);
- every section is checked and, if unfit, written once more with its fault named; of all tries the fittest stands,
  and if its fault is not tolerated, which a cut's never is, the text is refused (`sections.py`);
- the finished text passes a gate: S_l >= 80 against the stated length (the filter that made 666 rows of
  LongWriter-6k train better than all 6,000, arXiv 2410.10210), and little repetition.

Lengths are words as LongBench-Write counts them (`cjk_alpha`: one hanzi or one Latin word is one).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

from data_builders import agent_write_prompts as prompts
from data_builders.agent_write_config import Config
from data_builders.agent_write_draft import Draft, Unfit
from data_builders.gates import length_score
from data_builders.plan_parsing import given_plan, parse_plan
from data_builders.plans import (
    Plan,
    PlanBounds,
    PlanFault,
    PlannedSection,
    aim,
    fit_plan,
    plan_bounds,
    plan_schema,
)
from data_builders.sections import SectionLimits, SectionTry, section_faults, strip_labels, unfitness
from lengthwise.caller import Caller
from lengthwise.degeneration import ends_cleanly, language, repeated_ngram_frac
from lengthwise.engines.base import ContextOverflow, EngineDead, EngineError, Sampling
from lengthwise.length_wishes import parse_length_wish
from lengthwise.lengths import longbench_length_score
from lengthwise.outcomes import Failed, Kept, Outcome, Rejected
from lengthwise.records import Completion, LengthTarget, Prompt, Sample

ROLES = ("planner", "writer")
REQUIRES: frozenset[str] = frozenset()
"""A JSON schema is used where the engine has it; nothing is needed."""

TOKENS_PER_WORD = {"en": 2.5, "zh": 3.0}
"""Cap of a section call, per planned word. English takes about 1.33 tokens a word, so 2.5 leaves room up to
`max_section_ratio` 1.6; a vocabulary made for English takes 1 to 3 tokens a hanzi. Runaway output ends there,
with finish_reason "length"."""

PLAN_TOKENS_PER_SECTION = 120
"""A main point of one or two sentences takes 40 to 80 tokens; a plan that needs more is running away."""

MAX_PLAN_TOKENS = 4096


async def build(sample: Sample, callers: Mapping[str, Caller], config: Config) -> Outcome:
    """Write the text that `sample` asks for.

    Returns:
        `Kept` with the finished row; `Rejected` with what was written so far if the model or the input was at
        fault; `Failed` with the same if the engine was.

    Raises:
        EngineDead: the engine is gone; the run stops and can be resumed.
    """
    draft = Draft(sample, callers)
    try:
        settle(draft, config)
        draft.plan = await make_plan(draft, config)
        for section in draft.plan:
            await write_section(draft, section, config)
        gate(draft, config)
    except Unfit as unfit:
        return Rejected(unfit.reason, draft.record(unfit.detail))
    except ContextOverflow as error:
        return Rejected("context: refused by the engine", draft.record(str(error)))
    except EngineDead:
        raise
    except EngineError as error:
        return Failed(f"engine: {type(error).__name__}", draft.record(str(error)))
    return Kept(draft.record())


# --- before the first call ------------------------------------------------------------------------


def settle(draft: Draft, config: Config) -> None:
    """Fix what the text must be: its language, its length, the material it uses."""
    sample = draft.sample
    if not sample.instruction.strip():
        raise Unfit("input: empty prompt", "")
    if sum(m.role == "user" for m in sample.messages) != 1 or sample.messages[-1].role != "user":
        raise Unfit("input: not a single user turn", f"{len(sample.messages)} turns")
    draft.language = config.language
    if config.language == "auto":
        stated = sample.metadata.get("language")
        draft.language = stated if stated in ("en", "zh") else language(sample.instruction)
    draft.target, draft.target_source = length_target(sample, config)
    if draft.target is not None and not _in_words(draft.target, draft.language):
        raise Unfit("target: unit", f"{draft.target.unit}; AgentWrite plans words")
    if config.context_column is not None:
        material = sample.metadata.get(config.context_column)
        if not isinstance(material, str) or not material.strip():
            raise Unfit("input: no context", f"column {config.context_column!r} is empty")
        draft.material = material.strip()


def length_target(sample: Sample, config: Config) -> tuple[LengthTarget | None, str | None]:
    """Return the wanted length and where it was found: config, row, prompt, or nowhere (None, None)."""
    if config.target_words is not None:
        return LengthTarget.about(config.target_words), "config"
    if sample.length is not None:
        return sample.length, "row"
    wish = parse_length_wish(sample.instruction)
    return wish, None if wish is None else "prompt"


def _in_words(target: LengthTarget, code: str) -> bool:
    # 字符 and 字 differ by the punctuation only, which is inside the tolerance of every later check.
    return target.unit == "words" or (target.unit == "characters" and code == "zh")


# --- step I: the plan -----------------------------------------------------------------------------


async def make_plan(draft: Draft, config: Config) -> Plan:
    """Return a valid plan: the row's own, else the planner's, repaired up to `max_plan_repairs` times."""
    bounds = _bounds(draft.target, config)
    if not bounds.feasible:
        most = config.max_sections * config.max_section_words
        detail = f"{bounds.total_words} words; max_sections and max_section_words allow {most}"
        raise Unfit("plan: length out of reach", detail)
    given = draft.sample.metadata.get(config.plan_column) if config.plan_column else None
    if given is not None:
        return _take_given(draft, given, bounds)
    planner = draft.callers["planner"]
    as_json = planner.capabilities.json_schema
    code = prompts.prompt_language(draft.language)
    sampling = Sampling(
        n=config.plan_candidates,
        temperature=config.planner_temperature,
        top_p=config.top_p,
        max_tokens=min(MAX_PLAN_TOKENS, PLAN_TOKENS_PER_SECTION * (bounds.max_sections + 2))
        + config.reasoning_tokens,
        json_schema=plan_schema(bounds) if as_json else None,
    )
    asked = prompt = prompts.plan_prompt(
        draft.system,
        instruction=draft.sample.instruction,
        material=draft.material,
        bounds=bounds,
        as_json=as_json,
        language=code,
    )
    faults: list[PlanFault] = []
    for attempt in range(1 + config.max_plan_repairs):
        _check_context(planner, prompt, sampling, "plan")
        replies = await planner(prompt, sampling, step="plan", attempt=attempt)
        plan, factor, faults, reply = _best_plan(replies, bounds)
        draft.plan_attempts.append([str(fault) for fault in faults])
        if not faults:
            draft.plan_source, draft.plan_scaled_by = "planner", factor
            return plan
        prompt = prompts.repair_prompt(asked, reply, faults, bounds=bounds, as_json=as_json, language=code)
    raise Unfit(f"plan: {faults[0].name}", "; ".join(str(fault) for fault in faults))


def _take_given(draft: Draft, value: object, bounds: PlanBounds) -> Plan:
    """Check the plan that the row brought along; it is rescaled like any other, never sent for repair."""
    try:
        plan, factor, faults = fit_plan(given_plan(value), bounds)
    except ValueError as error:
        raise Unfit("plan: given plan unreadable", str(error)) from None
    draft.plan_attempts.append([str(fault) for fault in faults])
    if faults:
        raise Unfit(f"plan: given plan {faults[0].name}", "; ".join(str(fault) for fault in faults))
    draft.plan_source, draft.plan_scaled_by = "row", factor
    return plan


def _best_plan(
    replies: list[Completion], bounds: PlanBounds
) -> tuple[Plan, float | None, list[PlanFault], str]:
    """Return the first valid plan of the replies, else the one with the fewest faults, and its text."""
    read = []
    for reply in replies:
        plan, factor, faults = fit_plan(parse_plan(reply.text), bounds)
        if reply.finish_reason != "stop":  # the last sections are missing, even if the rest parses
            faults.insert(0, PlanFault("cut_off", {"tokens": reply.num_tokens}))
        read.append((plan, factor, faults, reply.text))
    return min(read, key=lambda candidate: len(candidate[2]))


def _bounds(target: LengthTarget | None, config: Config) -> PlanBounds:
    return plan_bounds(
        None if target is None else max(config.min_sections, round(aim(target))),
        min_sections=config.min_sections,
        max_sections=config.max_sections,
        min_words=config.min_section_words,
        max_words=config.max_section_words,
        tolerance=config.plan_tolerance,
    )


# --- step II: the sections ------------------------------------------------------------------------


async def write_section(draft: Draft, section: PlannedSection, config: Config) -> None:
    """Write one section, once more if none of its tries is fit, and add the fittest to the draft."""
    writer = draft.callers["writer"]
    code = prompts.prompt_language(draft.language)
    per_word = config.tokens_per_word or TOKENS_PER_WORD[code]
    sampling = Sampling(
        n=config.section_candidates,
        temperature=config.writer_temperature,
        top_p=config.top_p,
        repetition_penalty=config.repetition_penalty,
        max_tokens=math.ceil(per_word * (section.num_words or 0)) + config.reasoning_tokens,
    )
    unfit = partial(unfitness, tolerate=config.tolerate)
    tries: list[SectionTry] = []
    for attempt in range(2):
        prompt = prompts.section_prompt(
            draft.system,
            section,
            instruction=draft.sample.instruction,
            material=draft.material,
            plan=draft.plan,
            written=draft.text,
            fault=min(tries, key=unfit).faults[0] if tries else None,
            language=code,
        )
        _check_context(writer, prompt, sampling, "section")
        replies = await writer(prompt, sampling, step=f"section_{section.index}", attempt=attempt)
        tries += [_read_section(reply, attempt, section, draft, config) for reply in replies]
        if any(not one.faults for one in tries):
            break
    best = min(tries, key=unfit)
    draft.add_section(section, tries, best)
    refused = [fault for fault in best.faults if fault.check not in config.tolerate]
    if refused:
        raise Unfit(
            f"section: {refused[0].check}", f"section {section.index}: {'; '.join(map(str, refused))}"
        )
    draft.texts.append(best.text)


def _read_section(
    reply: Completion, attempt: int, section: PlannedSection, draft: Draft, config: Config
) -> SectionTry:
    """Return a reply as a section, with what is wrong with it."""
    text = strip_labels(reply.text, section.main_point)
    faults = section_faults(
        text,
        finish_reason=reply.finish_reason,
        planned=section.num_words or 0,
        is_last=section.index == len(draft.plan),
        earlier=draft.text,
        wanted_language=draft.language,
        limits=SectionLimits(
            min_ratio=config.min_section_ratio,
            max_ratio=config.max_section_ratio,
            max_overlap=config.max_overlap,
        ),
    )
    return SectionTry(
        attempt=attempt, reply=reply, text=text, faults=tuple(faults), planned=section.num_words or 0
    )


def _check_context(caller: Caller, prompt: Prompt, sampling: Sampling, what: str) -> None:
    """Refuse a call that could be cut by the context rather than by its own cap."""
    asked, allowed = caller.count_tokens(prompt), sampling.max_tokens or 0
    if asked + allowed > caller.context_length:
        exact = caller.capabilities.exact_token_counts
        counted = (
            f"{asked} prompt tokens"
            if exact
            else f"about {asked} prompt tokens (engine.tokenizer counts exactly)"
        )
        detail = f"{counted} + {allowed} for the reply > {caller.context_length}"
        raise Unfit(f"context: {what} call does not fit", f"{detail}: serve a longer context or ask for less")


# --- the final gate -------------------------------------------------------------------------------


def gate(draft: Draft, config: Config) -> None:
    """Score the finished text and refuse one that misses its length or repeats itself.

    It cannot be cut: every section ended by itself. `ends_cleanly` is noted only: a letter ends in a name.
    """
    words = draft.num_words
    planned = sum(s.num_words or 0 for s in draft.plan)
    draft.scores = {
        "s_l": None if draft.target is None else round(length_score(draft.target, words), 3),
        "s_l_plan": round(longbench_length_score(planned, words), 3),
        "repetition": round(repeated_ngram_frac(draft.text), 4),
        "ends_cleanly": ends_cleanly(draft.text),
    }
    score = draft.scores["s_l"]
    draft.judge("length_score", score, score is None or score >= config.min_length_score)
    draft.judge("repetition", draft.scores["repetition"], draft.scores["repetition"] <= config.max_repetition)
    failed = [f for f in draft.filters if f["verdict"] == "rejected"]
    if failed:
        raise Unfit(f"final: {failed[0]['name']}", "; ".join(f"{f['name']} {f['value']}" for f in failed))
