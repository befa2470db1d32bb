"""Draft, critique, revision: one model works on its own text, in rounds (Self-Refine, arXiv 2303.17651, section 2).

In each round the model says what should be changed in the text that stands, and then writes the text anew. Only the
latest text and its critique are shown. With `counted` both requests also state how many words the text has and how many
were asked, which a model cannot count and anybody else can. The prompts are ours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from lengthwise.caller import Caller
from lengthwise.degeneration import language
from lengthwise.engines.base import Sampling
from lengthwise.lengths import count_cjk_alpha
from lengthwise.records import Completion, LengthTarget, Prompt, user
from lengthwise.templates import load_prompt

PACKAGE = "lengthwise.refinement"
LEAST_ROOM = 64
"""Tokens that the context must leave for a text; with less the rounds end."""
CRITIQUE_TOKENS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """A text, and what was said of the one before."""

    text: Completion
    critique: Completion | None = None
    """None of the first draft."""


async def revisions(
    prompt: Prompt,
    caller: Caller,
    sampling: Sampling,
    *,
    rounds: int,
    target: LengthTarget | None = None,
    counted: bool = False,
    attempt: int = 0,
) -> AsyncIterator[Revision]:
    """Yield the first draft, and then a revision a round; fewer where the context is full or a text is empty.

    Args:
        prompt: what is asked.
        caller: the model.
        sampling: of drafts and revisions; critiques are of at most `CRITIQUE_TOKENS`.
        rounds: revisions after the draft.
        target: the length that was asked, where one was.
        counted: whether the requests state how long the text is.
        attempt: tells chains of one prompt apart.

    Raises:
        EngineError: the engine has no answer.
    """
    text = await _written(prompt, caller, sampling, "draft_0", attempt)
    yield Revision(text=text)
    request = prompt[-1].content
    for number in range(1, rounds + 1):
        if text is None or not text.text.strip():
            return
        facts = length_facts(text.text, target) if counted else ""
        asked = load_prompt(PACKAGE, "writing_critique").render(
            request=request, text=text.text.strip(), facts=facts
        )
        limited = replace(sampling, max_tokens=CRITIQUE_TOKENS)
        critique = await _written(user(asked), caller, limited, f"critique_{number}", attempt)
        if critique is None:
            return
        again = load_prompt(PACKAGE, "writing_revise").render(
            request=request, text=text.text.strip(), critique=critique.text.strip(), facts=facts
        )
        text = await _written((*prompt[:-1], *user(again)), caller, sampling, f"draft_{number}", attempt)
        if text is None:
            return
        yield Revision(text=text, critique=critique)


def length_facts(text: str, target: LengthTarget | None) -> str:
    r"""Return the sentence that states how long a text is and how long it was to be; empty without a length asked.

    Example:
        >>> length_facts("Two words.", LengthTarget.about(50)).strip()
        'The text has 2 words; about 50 words were asked.'
    """
    if target is None or target.unit == "tokens":
        return ""
    unit = "characters" if language(text) == "zh" else "words"
    asked = {
        "about": f"about {target.min}", "range": f"{target.min} to {target.max}", "at_least": f"at least {target.min}",
        "at_most": f"at most {target.max}",
    }[target.relation]  # fmt: skip
    return f"\n\nThe text has {count_cjk_alpha(text)} {unit}; {asked} {unit} were asked."


async def _written(
    prompt: Prompt, caller: Caller, sampling: Sampling, step: str, attempt: int
) -> Completion | None:
    """Return a reply; None where the context leaves no room for one."""
    room = caller.context_length - caller.count_tokens(prompt)
    if room < LEAST_ROOM and step != "draft_0":
        return None
    limited = replace(sampling, n=1, max_tokens=min(sampling.max_tokens or room, max(1, room)))
    (reply,) = await caller(prompt, limited, step=step, attempt=attempt)
    return reply
