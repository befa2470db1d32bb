"""What goes wrong with reinforcement learning on length, told from its own log while it happens.

Two failures show in the log before they show in an evaluation. Answers that run into the token limit are wrong by
accident, and what the model learns from them is the limit. And a length reward that is too strong makes answers
shorter at the cost of their truth: accuracy falls while length does (arXiv 2505.18086, figure 1, after about 40 steps).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lengthwise.config import option

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from posttrain.stop import StopRequest

CUT = "completions/clipped_ratio"
"""TRL's name for the share of answers that ran into max_completion_length."""
LENGTH = "completions/mean_length"
GAP = "sampling/sampling_logp_difference/mean"
"""TRL's name for the mean difference of log-probabilities, per token: about 0.04 in bfloat16, 1e-5 in float32."""


@dataclass(kw_only=True)
class Guards:
    """When a training is warned of, and when it ends itself; steps are logged ones."""

    cut_frac: float = option(
        0.5, help="share of a step's answers cut at max_completion_length that is too much"
    )
    cut_steps: int = option(
        20, help="steps in a row with too many cut answers that end the training; 0: none do"
    )
    collapse_drop: float = option(
        0.1, help="accuracy lost since its best, while answers got shorter, that is a collapse"
    )
    smoothing: float = option(
        0.9, help="weight of the past in the running means that the collapse is seen by"
    )
    logp_gap: float = option(
        0.3,
        help="mean difference of an answer's log-probabilities, vLLM's from the trainer's, that ends the training: "
        "its weights are not those that are trained",
    )
    on_collapse: Literal["warn", "stop"] = option("warn", help="what a collapse does")

    def __post_init__(self) -> None:
        """Refuse what is no share, and no number of steps."""
        for name in ("cut_frac", "collapse_drop", "smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"guards.{name} is {getattr(self, name)}: it must lie between 0 and 1")
        for name in ("cut_steps", "logp_gap"):
            if getattr(self, name) < 0:
                raise ValueError(f"guards.{name} is {getattr(self, name)}: it must be at least 0")


def steps_cut(cuts: Sequence[float], limit: float) -> int:
    """Return how many of the last steps in a row had a share of cut answers above the limit.

    Example:
        >>> steps_cut([0.9, 0.2, 0.8, 0.7], 0.5)
        2
    """
    number = 0
    for cut in reversed(cuts):
        if cut <= limit:
            break
        number += 1
    return number


def running_means(values: Sequence[float], smoothing: float) -> list[float]:
    """Return exponential means of all values so far, without a bias to the first.

    Example:
        >>> running_means([1.0, 0.0], 0.5)
        [1.0, 0.3333333333333333]
    """
    found, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = smoothing * total + value, smoothing * weight + 1
        found.append(total / weight)
    return found


FEWEST_STEPS = 5
"""Steps before the best accuracy is believed: a single batch may be lucky."""


def has_collapsed(
    accuracies: Sequence[float], lengths: Sequence[float], *, drop: float, smoothing: float = 0.9
) -> bool:
    """Return whether accuracy lies by `drop` below its best while answers are shorter than they were then.

    Args:
        accuracies: share of right answers of each step so far.
        lengths: mean tokens of an answer, of the same steps.
        drop: in shares.
        smoothing: of the running means that are compared.

    Example:
        >>> right, tokens = [0.8] * 10 + [0.3] * 10, [200.0] * 10 + [20.0] * 10
        >>> has_collapsed(right, tokens, drop=0.1), has_collapsed(right, tokens[::-1], drop=0.1)
        (True, False)
    """
    if len(accuracies) <= FEWEST_STEPS:
        return False
    right, tokens = running_means(accuracies, smoothing), running_means(lengths, smoothing)
    best = max(range(FEWEST_STEPS - 1, len(right)), key=lambda i: right[i])
    return right[best] - right[-1] > drop and tokens[-1] < tokens[best]


def guard_callback(
    guards: Guards,
    correctness: str | None,
    stop: StopRequest,
    *,
    from_step: int = 0,
    bears_cuts: bool = False,
) -> TrainerCallback:
    """Return a callback that judges each logged step by all before it, also those before a resume.

    It adds `alarm/cut` and `alarm/collapse` (0 or 1) to the line that is logged.

    Args:
        guards: the config's field.
        correctness: name of the reward of 0 or 1; None where there is none, and no collapse is seen.
        stop: asked for the end of the training.
        from_step: cut answers count from the steps after it on: those of a stage.
        bears_cuts: whether cut answers only warn, since a stage with more room will follow.
    """
    from transformers import TrainerCallback

    accuracy = f"rewards/{correctness}/mean"

    class Guard(TrainerCallback):
        def __init__(self) -> None:
            self.said: set[str] = set()

        def say(self, state: Any, alarm: str, text: str) -> None:
            if state.is_world_process_zero and alarm not in self.said:
                print(f"WARNING     step {state.global_step}: {text}", flush=True)
            self.said.add(alarm)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if not logs or CUT not in logs:
                return
            history = [line for line in state.log_history if line.get(CUT) is not None]
            self.judge_cuts(state, logs, history)
            self.judge_gap(logs)
            self.judge_accuracy(state, logs, history)

        def judge_cuts(self, state: Any, logs: dict[str, Any], history: Sequence[dict[str, Any]]) -> None:
            times = steps_cut([line[CUT] for line in history if line["step"] > from_step], guards.cut_frac)
            logs["alarm/cut"] = float(times > 0)
            if times:
                text = (
                    f"{history[-1][CUT]:.0%} of the answers ran into max_completion_length: they count as wrong, and "
                    "teach the model its limit; raise it, or lower what the prompts ask for"
                )
                self.say(state, "cut", text)
                if guards.cut_steps and times >= guards.cut_steps and not bears_cuts:
                    stop.ask(
                        f"{times} steps in a row had more than {guards.cut_frac:.0%} cut answers: {text}"
                    )

        def judge_gap(self, logs: dict[str, Any]) -> None:
            gap = logs.get(GAP)
            if gap is not None and gap > guards.logp_gap:
                stop.ask(
                    f"vLLM's log-probabilities are {gap:.2f} off the trainer's on average, more than guards.logp_gap, "
                    f"{guards.logp_gap}: its weights are not those that are trained, or it computes in another type; "
                    "see vllm_dtype"
                )

        def judge_accuracy(self, state: Any, logs: dict[str, Any], history: Sequence[dict[str, Any]]) -> None:
            judged = [
                line for line in history if line.get(accuracy) is not None and line.get(LENGTH) is not None
            ]
            fell = has_collapsed(
                [line[accuracy] for line in judged],
                [line[LENGTH] for line in judged],
                drop=guards.collapse_drop,
                smoothing=guards.smoothing,
            )
            logs["alarm/collapse"] = float(fell)
            if fell:
                text = (
                    f"accuracy fell by more than {guards.collapse_drop:.0%} since its best while answers got shorter: "
                    "go back to an earlier checkpoint, and lower shaping.alpha or shaping.top"
                )
                self.say(state, "collapse", text)
                if guards.on_collapse == "stop":
                    stop.ask(text)

    return Guard()
