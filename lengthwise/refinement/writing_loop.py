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
from lengthwise.engines.base import ContextOverflow, Sampling
from lengthwise.lengths import count_cjk_alpha
from lengthwise.records import Completion, LengthTarget, Prompt, user
from lengthwise.templates import load_prompt

PACKAGE = "lengthwise.refinement"
CRITIQUE_TOKENS = 256
"""Tokens of a critique, if nobody says otherwise; a model that thinks first needs more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """What one round gave."""

    text: Completion | None
    """None where the context had no room for a text as long as the last one, or the critique was empty."""
    critique: Completion | None = None
    """What was said of the text before; None of the first draft."""


async def revisions(
    prompt: Prompt,
    caller: Caller,
    sampling: Sampling,
    *,
    rounds: int,
    target: LengthTarget | None = None,
    counted: bool = False,
    critique_tokens: int = CRITIQUE_TOKENS,
    attempt: int = 0,
) -> AsyncIterator[Revision]:
    """Yield the first draft, and then a revision a round; the rounds end early where one gave no text.

    Args:
        prompt: what is asked, its last turn the user's.
        caller: the model.
        sampling: of drafts and revisions; critiques are of at most `critique_tokens`.
        rounds: revisions after the draft.
        target: the length that was asked, where one was.
        counted: whether the requests state how long the text is.
        critique_tokens: most tokens of a critique, a thinking part included.
        attempt: tells chains of one prompt apart.

    Raises:
        EngineError: the engine has no answer.
    """
    text = await _written(prompt, caller, sampling, "draft_0", attempt)
    yield Revision(text=text)
    request = prompt[-1].content
    for number in range(1, rounds + 1):
        if not text.text.strip():
            return
        facts = length_facts(text.text, target) if counted else ""
        shown = text.text.strip()
        asked = load_prompt(PACKAGE, "writing_critique").render(request=request, text=shown, facts=facts)
        limited = replace(sampling, max_tokens=critique_tokens)
        try:
            critique = await _written(user(asked), caller, limited, f"critique_{number}", attempt)
        except ContextOverflow:
            yield Revision(text=None)
            return
        said = critique.text.strip()
        again = load_prompt(PACKAGE, "writing_revise").render(
            request=request, text=shown, critique=said, facts=facts
        )
        turns = (*prompt[:-1], *user(again))
        try:
            new = await _written(turns, caller, sampling, f"draft_{number}", attempt, text) if said else None
        except ContextOverflow:
            new = None
        yield Revision(text=new, critique=critique)
        if new is None:
            return
        text = new


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
    prompt: Prompt,
    caller: Caller,
    sampling: Sampling,
    step: str,
    attempt: int,
    before: Completion | None = None,
) -> Completion:
    """Return a reply.

    Raises:
        ContextOverflow: there is less room than the text before has tokens: the context would cut the new one.
    """
    least = 1 if before is None else before.num_answer_tokens
    if sampling.max_tokens is not None:
        least = min(least, sampling.max_tokens)
    limited = caller.with_room(prompt, replace(sampling, n=1), least=max(1, least))
    (reply,) = await caller(prompt, limited, step=step, attempt=attempt)
    return reply
