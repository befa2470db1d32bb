"""What a reward is told of a completion, and how a reward of ours becomes one of TRL's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

BUDGET = "token_budget"
"""The column that holds the budget that the prompt states."""
SHAPING = "length_shaping"
"""The reward function that scores nothing itself: its column takes what the group's lengths add."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewarded:
    """A completion with the row of data it answers."""

    text: str
    num_tokens: int
    """With its end-of-turn token."""
    is_cut: bool = False
    """Whether it ran into the token limit."""
    prompt_end: str = ""
    """The last characters of the rendered prompt: a template may have opened the thinking part there."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """The columns of its row, with `token_budget` where the prompt states one."""

    @property
    def budget(self) -> int | None:
        """The tokens that its prompt asks for."""
        return self.row.get(BUDGET)


class Reward(Protocol):
    """A module of `posttrain.rewards`, or one of a user's."""

    Config: type[Any]

    def score(self, completion: Rewarded, config: Any) -> float | None:
        """Return what the completion is worth; a module may also define `scores`, of several at once."""
        ...


def is_cut(ids: Sequence[int], stop_ids: Collection[int]) -> bool:
    """Return whether a completion ran into the token limit: it does not end with a token that ends it."""
    return not ids or ids[-1] not in stop_ids


def trl_reward(
    name: str, reward: Reward, config: Any, *, stop_ids: Collection[int], prompt_end: str = ""
) -> Callable[..., list[float | None]]:
    """Return a reward function as TRL calls it, once for the completions of a process.

    Args:
        name: what it is called in the logs.
        reward: the module.
        config: its options.
        stop_ids: tokens of which a completion that ended by itself has one at its end.
        prompt_end: what every rendered prompt ends with.
    """

    def scores(
        *,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        **columns: Any,
    ) -> list[float | None]:
        found = []
        for number, (completion, ids) in enumerate(zip(completions, completion_ids, strict=True)):
            text = completion if isinstance(completion, str) else completion[-1]["content"]
            row = {
                key: values[number]
                for key, values in columns.items()
                if isinstance(values, list) and len(values) == len(prompts)
            }
            rewarded = Rewarded(
                text=text, num_tokens=len(ids), is_cut=is_cut(ids, stop_ids), prompt_end=prompt_end, row=row
            )
            found.append(rewarded)
        at_once = getattr(reward, "scores", None)
        if at_once is not None:
            return at_once(found, config)
        return [reward.score(rewarded, config) for rewarded in found]

    scores.__name__ = name
    return scores
