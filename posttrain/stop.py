"""Stopping a training run well: a signal becomes a checkpoint and a clean end."""

from __future__ import annotations

import signal
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerCallback

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C, a scheduler's or container's end, and the warning that Slurm sends with `--signal=USR1@90`."""


class StopRequest:
    """Turns the first signal into a checkpoint and a stop after the step under way.

    A second Ctrl-C ends the process at once. Other signals may come twice without harm: a scheduler sends them to
    every process, and launchers hand them on besides.

    All ranks stop at the same step: saving is a joint act, and the signal reaches them at different times.
    """

    def __init__(self) -> None:
        """Start without a request."""
        self.signal: int | None = None
        self.reason: str | None = None
        """Why the training asked for its own end."""
        self.code = 1
        """Exit code of an end that the training asked for."""
        self.saved_at_step: int | None = None
        """The step whose checkpoint the request brought about."""
        self._before: dict[int, Any] = {}

    def ask(self, reason: str, *, code: int = 1) -> None:
        """Ask for the end of the training after the step under way; the first reason stands.

        Args:
            reason: what is said at the end.
            code: the exit code.
        """
        if self.reason is None:
            self.reason, self.code = reason, code

    def is_early(self, state: Any) -> bool:
        """Return whether a stop left steps undone."""
        return (self.signal is not None or self.reason is not None) and state.global_step < state.max_steps

    @property
    def exit_code(self) -> int:
        """128 + n after signal n, else what the training asked for."""
        return self.code if self.signal is None else 128 + self.signal

    @property
    def how_to_go_on(self) -> str:
        """What to do next, in words."""
        return self.reason or "start the same command again to go on"

    def callback(self) -> TrainerCallback:
        """Return the trainer callback that asks at each step whether to stop."""
        from transformers import TrainerCallback

        request = self

        class StopOnSignal(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                request.listen()

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
                # A reason comes from what was logged, which is the same on all ranks.
                if not request.is_set_anywhere() and request.reason is None:
                    return control
                control.should_training_stop = True
                if args.save_strategy == "epoch" and _ends_epoch(state):
                    return control  # the epoch's own evaluation and checkpoint come at once
                if args.save_strategy == "best":
                    control.should_evaluate = False  # its outcome would decide whether to save at all
                control.should_save = True
                request.saved_at_step = state.global_step
                return control

            def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
                # The trainer ends a broken-off epoch like a whole one: it would evaluate within it, and write the
                # checkpoint again in place, where a kill leaves torn weights beside a whole trainer_state.json.
                if request.saved_at_step == state.global_step:
                    control.should_save = False
                    if args.save_strategy == "best" or not _ends_epoch(state):
                        control.should_evaluate = False
                return control

            def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                request.restore()

        return StopOnSignal()

    def listen(self) -> None:
        """Take over the signals until training ends."""
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._receive)

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def is_set_anywhere(self) -> bool:
        """Return whether any rank was asked to stop."""
        import torch
        import torch.distributed as dist

        asked = self.signal or 0
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            device = "cuda" if "nccl" in dist.get_backend() else "cpu"
            flag = torch.tensor([asked], device=device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            asked = int(flag.item())
            self.signal = asked or None
        return bool(asked)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
            print("stopping after this step, with a checkpoint; a second Ctrl-C stops at once", flush=True)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._before.pop(signal.SIGINT, signal.default_int_handler))


def _ends_epoch(state: Any) -> bool:
    """Return whether no step of this epoch is left, also because it was the training's last one."""
    return state.epoch == int(state.epoch) or state.global_step >= state.max_steps
