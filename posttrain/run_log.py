"""metrics.jsonl: one line for each time the trainer logs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.files import atomic_write

if TYPE_CHECKING:
    from transformers import TrainerCallback


def run_log(path: Path) -> TrainerCallback:
    """Return a callback that appends what the trainer logs to `path`, as `{"step", "epoch", "loss", ...}`.

    A resumed run first takes out the lines of steps that it will do again. Only the first rank writes.
    """
    from transformers import TrainerCallback

    class RunLog(TrainerCallback):
        def __init__(self) -> None:
            self.begun = time.monotonic()

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.begun = time.monotonic()
            if state.is_world_process_zero:
                keep_steps(path, state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            # The last losses of a training are else in no line, and so not in its mean either.
            control.should_log = control.should_log or control.should_training_stop or may_save(args, control)
            return control

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            # The trainer logs no step twice, so this adds nothing where the step's end has logged.
            control.should_log = control.should_log or may_save(args, control)
            return control

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if not state.is_world_process_zero or not logs:
                return
            line = {
                "step": state.global_step,
                "epoch": state.epoch,
                **{key: value for key, value in logs.items() if key != "epoch"},
                "elapsed_seconds": round(time.monotonic() - self.begun, 3),
            }
            if "train_loss" in line:
                line["train_loss"] = mean_loss(state.log_history)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, default=float) + "\n")

    return RunLog()


def may_save(args: Any, control: Any) -> bool:
    """Return whether a checkpoint may come: the losses since the last log are not in it, and would be lost."""
    if args.save_strategy == "best":  # decided after the log, by the evaluation
        return bool(control.should_save or control.should_evaluate)
    return bool(control.should_save)


def keep_steps(path: Path, last_step: int) -> None:
    """Remove the lines after `last_step`, the totals of an ended training, and a torn last line."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # a crash cut the line short; its step is done again
        if row["step"] <= last_step and "train_runtime" not in row:
            kept.append(line + "\n")
    atomic_write(path, "".join(kept))


def mean_loss(history: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean loss over all logged steps, or None if none was logged.

    The trainer's own `train_loss` divides the losses since the last start by the steps since the first.

    Args:
        history: what was logged, each entry standing for the steps since the one before.

    Example:
        >>> mean_loss([{"step": 1, "loss": 4.0}, {"step": 3, "loss": 1.0}])
        2.0
    """
    total, before = 0.0, 0
    for entry in history:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - before)
            before = entry["step"]
    return total / before if before else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
