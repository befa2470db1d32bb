"""The field `rewards` of a GRPO job: which rewards, with which options and weights, and what they need of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.config import ConfigError, build_component
from lengthwise.plugins import load_plugin, plugin_label
from posttrain.end_of_turn import stop_token_ids
from posttrain.rewarded import BUDGET, SHAPING, Rewarded, trl_reward

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from posttrain.prepared_rows import PreparedRows

_PROMPT_END = 64
"""Characters of a rendered prompt's end that rewards are told."""


@dataclass(frozen=True, slots=True)
class ChosenReward:
    """A reward of a config: its name in the logs, its module, its options and its weight."""

    name: str
    module: Any
    config: Any
    weight: float


def choose_rewards(given: Mapping[str, Mapping[str, Any] | None]) -> list[ChosenReward]:
    """Return the rewards that a config names.

    Raises:
        ConfigError: there are none, one is unknown, or an option is wrong.

    Example:
        >>> [(reward.name, reward.weight) for reward in choose_rewards({"repetition": {"n": 4, "weight": 0.2}})]
        [('repetition', 0.2)]
    """
    if not given:
        raise ConfigError("rewards is empty: name at least one, such as {answer_correct: {column: answer}}")
    found = []
    for name, entry in given.items():
        options = dict(entry or {})
        weight = options.pop("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ConfigError(f"rewards.{name}.weight is {weight!r}: it must be a number")
        module = load_plugin("posttrain.rewards", name)
        config = build_component(module.Config, options, where=f"rewards.{name}")
        found.append(ChosenReward(plugin_label(name), module, config, float(weight)))
    labels = [reward.name for reward in found]
    for label in labels:
        if labels.count(label) > 1 or label == SHAPING:
            raise ConfigError(
                f"rewards has {label!r} twice, or by a name of ours: give its file another name"
            )
    return found


def check_columns(rewards: Sequence[ChosenReward], data: PreparedRows[Any]) -> None:
    """Refuse rows that a reward could not score an answer to; it would say so once the model has answered.

    Raises:
        ConfigError: with the column and the first such row.
    """
    for reward in rewards:
        if reward.module.__name__.startswith("posttrain.rewards."):  # others may be dear, such as a judge
            _score_nothing(reward, data)
        column = getattr(reward.config, "column", None)
        if column is None:
            continue
        without = [prompt.row for prompt in data.rows if prompt.row.columns.get(column) is None]
        if without:
            raise ConfigError(
                f"rewards.{reward.name}.column is {column!r}, but {len(without):,} of {len(data.rows):,} rows have "
                f"none, the first one {without[0].source}, line {without[0].line}: name the column, or give each row "
                "one"
            )


def _score_nothing(reward: ChosenReward, data: PreparedRows[Any]) -> None:
    """Score an empty answer to each row."""
    for prompt in data.rows:
        row = prompt.row
        column = getattr(reward.config, "column", None)
        if column is not None and row.columns.get(column) is None:
            continue  # counted, and refused, at once
        try:
            reward.module.score(
                Rewarded(text="", num_tokens=1, row={**row.columns, BUDGET: 1}), reward.config
            )
        except ValueError as error:
            raise ConfigError(f"{row.source}, line {row.line}: {error}") from error


def reward_functions(
    rewards: Sequence[ChosenReward],
    model: Path,
    tokenizer: PreTrainedTokenizerBase,
    template_kwargs: Mapping[str, Any],
) -> list[Callable[..., Any]]:
    """Return the rewards as TRL calls them, told what ends an answer of the model and what stands before it."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True, **template_kwargs
    )
    stops, prompt_end = stop_token_ids(model, tokenizer), str(text)[-_PROMPT_END:]
    return [
        trl_reward(reward.name, reward.module, reward.config, stop_ids=stops, prompt_end=prompt_end)
        for reward in rewards
    ]
