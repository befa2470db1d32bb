"""Going on with a training run that was cut short: which checkpoint, and what is left of a run without one."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

from lengthwise.config import ConfigError
from lengthwise.run_dir import TRAINING_JOBS

BEGUN_WITH = "begun_with.json"
"""What a resumed run must share with its start and its config does not say: data, precision, batch layout."""

_OF_A_START = (BEGUN_WITH, "dropped.jsonl", "metrics.jsonl", "step_rows.jsonl", "stages.jsonl")
"""What a job writes before its first checkpoint, of no use to a run that starts anew."""


def checkpoints(folder: Path) -> dict[int, Path]:
    """Return the `checkpoint-N` folders of a run by N, whole or not."""
    return {
        int(number): path
        for path in folder.glob("checkpoint-*")
        if (number := path.name.removeprefix("checkpoint-")).isdecimal() and path.is_dir()
    }


def is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint was written to its end: the trainer writes trainer_state.json last."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(state, dict)


def steps_done(checkpoint: Path) -> int:
    """Return the optimizer steps that a complete checkpoint was written after."""
    return int(_state(checkpoint)["global_step"])


def is_at_end(checkpoint: Path) -> bool:
    """Return whether a complete checkpoint was written after the training's last step."""
    return steps_done(checkpoint) >= _state(checkpoint)["max_steps"]


def _state(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a run folder."""
    whole = {number: path for number, path in checkpoints(folder).items() if is_complete(path)}
    return whole[max(whole)] if whole else None


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
    if not is_complete(path):
        raise ConfigError(
            f"resume_from_checkpoint: {path} is no complete checkpoint (it has no whole trainer_state.json): "
            "give auto, true, false, or the path of a checkpoint-N folder"
        )
    return path


def binds(folder: Path) -> bool:
    """Return whether an unfinished run in the folder holds a new one to its settings.

    Before its first checkpoint there is nothing to go on from, and the usual next step after running out of
    memory is a changed config.
    """
    return not (folder / ".lock").is_file() or not _is_ours(folder) or last_checkpoint(folder) is not None


def clear_leftovers(folder: Path) -> None:
    """Remove what cannot be gone on from: torn checkpoints, and our own files of a run that has no other ones.

    What the trainer or a user put there stays, and so do the config and the lock, by which the folder is known
    to be a run's. A torn checkpoint that stays would count as one of `save_total_limit`, and push out a good
    one. A finished run, and one in use by another process, are left alone.
    """
    lock = folder / ".lock"
    if (folder / "manifest.json").exists() or not lock.is_file():
        return
    with lock.open("a", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        if not _is_ours(folder):
            return
        starts_anew = not binds(folder)
        for checkpoint in checkpoints(folder).values():
            if not is_complete(checkpoint):
                shutil.rmtree(checkpoint)
        if starts_anew:
            for name in _OF_A_START:
                (folder / name).unlink(missing_ok=True)


def _is_ours(folder: Path) -> bool:
    """Return whether the lock file notes a training run; one torn by a crash notes nothing and is left alone."""
    try:
        return json.loads((folder / ".lock").read_text(encoding="utf-8")).get("job") in TRAINING_JOBS
    except (OSError, ValueError):
        return False
