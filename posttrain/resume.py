"""Stopping a training run well, and going on with it."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from lengthwise.config import ConfigError

if TYPE_CHECKING:
    from transformers import TrainerCallback

_KEPT_CONFIG = "config_run.json"


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete `checkpoint-N` of a run folder.

    The trainer writes trainer_state.json last, so a checkpoint without it was cut short and does not count.
    """
    numbered = [
        (int(number), path)
        for path in folder.glob("checkpoint-*")
        if (number := path.name.removeprefix("checkpoint-")).isdecimal()
        and (path / "trainer_state.json").is_file()
    ]
    return max(numbered)[1] if numbered else None


def find_checkpoint(folder: Path, choice: bool | str) -> Path | None:
    """Return the checkpoint to go on from, or None to start.

    Args:
        folder: the run folder.
        choice: `auto` (the last checkpoint if there is one), true (there must be one), false (start), or a
            path.

    Raises:
        ConfigError: true without a checkpoint, false with one, or a path that is none.
    """
    last = last_checkpoint(folder)
    if choice == "auto":
        return last
    if choice is True:
        if last is None:
            raise ConfigError(
                f"resume_from_checkpoint: {folder} holds no complete checkpoint: leave the key out to "
                "start the run"
            )
        return last
    if choice is False:
        if last is not None:
            raise ConfigError(
                f"resume_from_checkpoint is false, but {folder} holds {last.name} of an unfinished run: "
                "leave the key out to go on with it, choose another --name, or delete the folder"
            )
        return None
    path = Path(str(choice))
    if not (path / "trainer_state.json").is_file():
        raise ConfigError(
            f"resume_from_checkpoint: {path} is no checkpoint (it has no trainer_state.json): give auto, "
            "true, false, or the path of a checkpoint-N folder"
        )
    return path


def keep_run_config(folder: Path) -> None:
    """Rename the run's config.json: loaders of models and tokenizers read a file of that name as the model's."""
    config = folder / "config.json"
    if config.is_file():
        config.replace(folder / _KEPT_CONFIG)


def restore_run_config(folder: Path) -> None:
    """Undo `keep_run_config` in a run that was killed between the saving of its model and its manifest."""
    kept, current = folder / _KEPT_CONFIG, folder / "config.json"
    if not kept.is_file() or (folder / "manifest.json").exists():
        return
    try:
        is_model_config = "model_type" in json.loads(current.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        is_model_config = True
    if is_model_config:
        kept.replace(current)


def clear_unstarted(folder: Path) -> None:
    """Remove what a run left that ended before its first checkpoint.

    There is nothing to go on from, so it must not hold a new run to its settings: the usual next step after running
    out of memory is a changed config. A folder in use by another process is left alone.
    """
    lock = folder / ".lock"
    if (folder / "manifest.json").exists() or not lock.is_file() or last_checkpoint(folder) is not None:
        return
    with lock.open("a", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        if not _is_ours(lock):
            return
        for name in ("config.json", "data_digest.txt", "dropped.jsonl", "metrics.jsonl", ".lock"):
            (folder / name).unlink(missing_ok=True)
        for cut_short in folder.glob("checkpoint-*"):
            shutil.rmtree(cut_short)


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a checkpoint and a clean stop; the second one ends the process.

    All ranks stop at the same step: saving is a joint act, and the signal reaches them at different times.
    """

    def __init__(self) -> None:
        """Start without a request."""
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def callback(self) -> TrainerCallback:
        """Return the trainer callback that asks at each step whether to stop."""
        from transformers import TrainerCallback

        request = self

        class StopOnSignal(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                request.listen()

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
                if request.is_set_anywhere():
                    control.should_save = True
                    control.should_training_stop = True
                return control

            def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                request.restore()

        return StopOnSignal()

    def listen(self) -> None:
        """Take over SIGINT and SIGTERM until a first one came or training ended."""
        for number in (signal.SIGINT, signal.SIGTERM):
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
        self.signal = number
        self.restore()
        print("stopping after this step, with a checkpoint; a second signal stops at once", flush=True)


def _is_ours(lock: Path) -> bool:
    """Return whether the lock file notes a training run; one torn by a crash notes nothing and is left alone."""
    try:
        return json.loads(lock.read_text(encoding="utf-8")).get("job") == "sft"
    except ValueError:
        return False
