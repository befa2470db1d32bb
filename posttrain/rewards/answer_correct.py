"""1 for the right final answer, 0 for a wrong one or none, None where nobody could compare them.

The comparison is the evaluation's: by the writing, else by math-verify in a process of its own, which may hang or die.
"""

from __future__ import annotations

from dataclasses import dataclass

from lengthwise.answer_process import ComparisonFailed, compare_answers
from lengthwise.answers import final_answer, gsm8k_answer
from posttrain.rewarded import Rewarded


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where the answer is, and in which words the row has it."""

    column: str = "answer"
    """The column with the right answer; one of GSM8K's solutions is read up to its `####`."""
    last_number: bool = True
    """Take the last number where nothing names an answer; of a completion that was cut it is of the working, and not
    taken."""
    cut_is_wrong: bool = True
    """Whether a completion that ran into the token limit is wrong, whatever it says."""
    think: tuple[str, str] = ("<think>", "</think>")
    """What begins and ends the thinking: the answer stands behind it, and thinking that does not end has none."""
    tags: tuple[str, str] = ("<answer>", "</answer>")
    """Where the completion has such a pair, the answer is what stands in the last one."""


def score(completion: Rewarded, config: Config) -> float | None:
    """Return 1.0, 0.0 or None.

    Raises:
        ValueError: the row has no answer.
    """
    gold = completion.row.get(config.column)
    if gold is None:
        raise ValueError(f"answer_correct: a row has no {config.column!r}: name its column with column")
    gold = gsm8k_answer(str(gold)) if "####" in str(gold) else str(gold)
    given = _given(completion, config)
    if given is None or (completion.is_cut and config.cut_is_wrong):
        return 0.0
    try:
        found = compare_answers(given, gold)
    except ComparisonFailed:
        return None
    return None if found.note is not None and "timed out" in found.note else float(found.same)


def _given(completion: Rewarded, config: Config) -> str | None:
    """Return the answer that the completion states, None if it states none."""
    opening, closing = config.think
    text = completion.text.rpartition(closing)[2]
    is_open = completion.prompt_end.rstrip().endswith(opening) and closing not in completion.text
    if is_open or opening in text:
        return None
    last_number = config.last_number and not completion.is_cut
    opening, closing = config.tags
    before, closed, _ = text.rpartition(closing)
    if closed and opening in before:
        text = before.rpartition(opening)[2]
        return final_answer(text, last_number=last_number) or text.strip() or None
    return final_answer(text, last_number=last_number)
