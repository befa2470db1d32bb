"""A token budget, stated in the prompt it is rewarded by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from posttrain.rewarded import BUDGET
from posttrain.token_budgets import BudgetSchedule

PLACE = "{token_budget}"
SENTENCE = "Think and answer in exactly {token_budget} tokens."


def check_sentence(sentence: str) -> None:
    """Refuse a sentence that does not state the budget.

    Raises:
        ValueError: with the sentence and the remedy.
    """
    if PLACE not in sentence:
        raise ValueError(
            f"budget.sentence is {sentence!r}, which lacks {PLACE}: the model could not know the budget"
        )


def with_budget(
    prompt: str | Sequence[Mapping[str, Any]],
    budget: int,
    *,
    sentence: str = SENTENCE,
    role: Literal["user", "system"] = "user",
) -> str | list[dict[str, Any]]:
    r"""Return a prompt that states the budget; what is given stays as it is.

    Args:
        prompt: text, or messages.
        budget: tokens.
        sentence: what states it.
        role: whether it ends the last user message, or is (or ends) the system message.

    Raises:
        ValueError: a list of messages has no user message.

    Example:
        >>> with_budget([{"role": "user", "content": "2+2?"}], 64)[0]["content"]
        '2+2?\n\nThink and answer in exactly 64 tokens.'
    """
    words = sentence.replace(PLACE, str(budget))
    if isinstance(prompt, str):
        return f"{prompt}\n\n{words}"
    messages = [dict(message) for message in prompt]
    if role == "system":
        if messages and messages[0]["role"] == "system":
            messages[0]["content"] = f"{messages[0]['content']}\n\n{words}"
            return messages
        return [{"role": "system", "content": words}, *messages]
    asked = [message for message in messages if message["role"] == "user"]
    if not asked:
        raise ValueError(
            "the prompt has no user message, so there is no place for its budget: set budget.role: system"
        )
    asked[-1]["content"] = f"{asked[-1]['content']}\n\n{words}"
    return messages


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptBudget:
    """A budget of tokens that every prompt states."""

    schedule: BudgetSchedule
    at_evaluation: int | None = None
    """Tokens; None: as at step 0."""
    sentence: str = SENTENCE
    role: Literal["user", "system"] = "user"
    seed: int = 0

    def tokens(self, row: Mapping[str, Any], step: int | None) -> int:
        """Return the budget of a row's prompt at a step; None is an evaluation."""
        name = str(row.get("row_id") or row["prompt"])
        if step is not None:
            return self.schedule.for_prompt(step, name, seed=self.seed)
        if self.at_evaluation is not None:
            return self.at_evaluation
        return self.schedule.for_prompt(0, name, seed=self.seed)

    def stated(self, row: Mapping[str, Any], step: int | None) -> dict[str, Any]:
        """Return the row with the budget in its prompt and in a column of its own."""
        tokens = self.tokens(row, step)
        prompt = with_budget(row["prompt"], tokens, sentence=self.sentence, role=self.role)
        return {**row, "prompt": prompt, BUDGET: tokens}
