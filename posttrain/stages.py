"""Reinforcement learning in stages of more and more room: first answers that are short, then longer ones.

DeepScaleR began with 8,000 tokens, where long answers are mostly wrong ones, and went on with 16,000 and 24,000 once
right answers ran into the limit. The rule here is ours: a stage is over when, over a window of steps, more than a
fifth of the answers are cut and ever more of them, while the reward stands still; or after so many steps.

vLLM's room is fixed when it starts, so a stage ends with a checkpoint and its process; the same command goes on with
the next one, optimizer and prompts included. `recipes/staged_grpo.py` gives it again and again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, linear_regression
from typing import TYPE_CHECKING, Any

from lengthwise.config import option
from posttrain.rl_guards import CUT

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from posttrain.stop import StopRequest

FILE = "stages.jsonl"
"""In the run folder: a line for each stage after the first, `{"from_step", "max_completion_length"}`."""
STAGE_OVER = 75
"""Exit code of a run whose stage is over: the same command goes on with the next one."""


@dataclass(kw_only=True)
class Stages:
    """How much room answers have, and when they get more."""

    lengths: list[int] = option(help="max_completion_length of each stage, in tokens, ascending")
    window: int = option(50, help="logged steps by which a stage is judged")
    cut_frac: float = option(0.2, help="share of cut answers above which a stage may end")
    most_steps: int | None = option(None, help="steps after which a stage ends in any case")

    def __post_init__(self) -> None:
        """Refuse lengths that do not rise, and windows that say nothing."""
        if len(self.lengths) < 2 or self.lengths != sorted(set(self.lengths)) or self.lengths[0] < 1:
            raise ValueError(f"stages.lengths is {self.lengths}: write at least two lengths, ascending")
        if self.window < 4:
            raise ValueError(f"stages.window is {self.window}: it must be at least 4 steps")
        if not 0 <= self.cut_frac <= 1:
            raise ValueError(f"stages.cut_frac is {self.cut_frac}: it must lie between 0 and 1")
        if self.most_steps is not None and self.most_steps < 1:
            raise ValueError(f"stages.most_steps is {self.most_steps}: it must be at least 1")


def slope(values: Sequence[float]) -> tuple[float, float]:
    """Return the slope of values by their place, and its standard error.

    Example:
        >>> slope([0.0, 1.0, 2.0, 3.0])
        (1.0, 0.0)
    """
    places = range(len(values))
    line = linear_regression(places, values)
    rest = sum((v - line.intercept - line.slope * x) ** 2 for x, v in zip(places, values, strict=True))
    spread = sum((x - fmean(places)) ** 2 for x in places)
    return line.slope, math.sqrt(max(0.0, rest) / (len(values) - 2) / spread)


def stage_is_over(cuts: Sequence[float], rewards: Sequence[float], *, window: int, cut_frac: float) -> bool:
    """Return whether answers need more room.

    Args:
        cuts: share of answers that ran into the limit, of each step of the stage.
        rewards: mean reward of the same steps.
        window: the last steps that count; with fewer, no stage is over.
        cut_frac: the share that is enough, if it rises too.

    Example:
        >>> rising = [0.2 + 0.01 * i for i in range(20)]
        >>> flat, growing = [0.5, 0.51] * 10, [0.05 * i for i in range(20)]
        >>> [stage_is_over(rising, rewards, window=20, cut_frac=0.2) for rewards in (flat, growing)]
        [True, False]
    """
    if len(cuts) < window:
        return False
    cuts, rewards = cuts[-window:], rewards[-window:]
    growth, error = slope(rewards)
    return fmean(cuts) > cut_frac and slope(cuts)[0] > 0 and growth < error


def ended_stages(folder: Path, step: int) -> list[dict[str, Any]]:
    """Return the stages after the first that a run had entered by a step; a resumed run does the others again."""
    file = folder / FILE
    if not file.is_file():
        return []
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return [row for row in rows if row["from_step"] <= step]


def first_step(begun: Sequence[Mapping[str, Any]]) -> int:
    """Return the step that the last of the begun stages began after."""
    return begun[-1]["from_step"] if begun else 0


def stage_callback(stages: Stages, folder: Path, stop: StopRequest) -> TrainerCallback:
    """Return a callback that ends a stage: it asks for a stop, and notes the next stage once that is saved."""
    from transformers import TrainerCallback

    class EndStage(TrainerCallback):
        def __init__(self) -> None:
            self.begun: list[dict[str, Any]] = []
            self.next: int | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.begun = ended_stages(folder, state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            place = len(self.begun) + 1
            is_last = place == len(stages.lengths) or state.global_step >= state.max_steps
            if self.next is not None or is_last or not logs or CUT not in logs:
                return
            first = first_step(self.begun)
            lines: list[Mapping[str, Any]] = [
                line for line in state.log_history if line.get(CUT) is not None and line["step"] > first
            ]
            over = stage_is_over(
                [line[CUT] for line in lines],
                [line["reward"] for line in lines],
                window=stages.window,
                cut_frac=stages.cut_frac,
            )
            late = stages.most_steps is not None and state.global_step - first >= stages.most_steps
            if not over and not late:
                return
            self.next = stages.lengths[place]
            why = "answers need more room" if over else f"it had {state.global_step - first} steps"
            stop.ask(
                f"stage {place} of {len(stages.lengths)} is over, {why}: start the same command again to go on with "
                f"{self.next:,} tokens",
                code=STAGE_OVER,
            )

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # Not at a checkpoint that comes between the end of a stage and its stop, a step later.
            if self.next is None or not control.should_training_stop or not state.is_world_process_zero:
                return
            entry = {"from_step": state.global_step, "max_completion_length": self.next}
            rows = [*self.begun, entry]
            (folder / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    return EndStage()
