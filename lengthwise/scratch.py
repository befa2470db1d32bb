"""A folder of its own for each engine and each sandboxed program, gone with its owner: at the latest at the next start.

A process that is killed cannot clean up. Each folder holds a file that its owner keeps locked; the kernel frees the
lock with the process, however it ends. A folder whose lock can be had belongs to nobody: unlike a process id in its
name, that holds when the id is used again, and for folders of other containers on the same disk.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "lengthwise-"
_LOCK = "owner.lock"


class Scratch:
    """A folder in the temporary folder that this process owns until `remove`."""

    def __init__(self, kind: str) -> None:
        """Make the folder, `lengthwise-<kind>-` and a random end."""
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{kind}-"))
        # Locked before it has its name: no other process ever sees a lock file that is free.
        unnamed = self.path / f"{_LOCK}.new"
        self._fd = os.open(unnamed, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        unnamed.rename(self.path / _LOCK)

    def remove(self) -> None:
        """Remove the folder; a second call does nothing."""
        if self._fd >= 0:
            _remove_tree(self.path)
            os.close(self._fd)
            self._fd = -1


def remove_abandoned(folder: Path | None = None) -> list[Path]:
    """Remove the scratch folders whose owners are dead, by default from the temporary folder; return them."""
    removed = []
    for path in (folder or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*"):
        try:
            fd = os.open(path / _LOCK, os.O_RDWR)
        except OSError:  # being made at this moment, or somebody else's
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its owner lives
            continue
        else:
            _remove_tree(path)
            removed += [] if path.exists() else [path]
        finally:
            os.close(fd)
    return removed


def _remove_tree(folder: Path) -> None:
    """Remove a folder, its lock last: where we are killed on the way, it still belongs to nobody."""
    try:
        inside = list(folder.iterdir())
    except OSError:  # it is gone, or a program has shut it
        inside = []
    for path in inside:
        if path.is_dir() and not path.is_symlink():
            try:
                shutil.rmtree(path, ignore_errors=True)
            except RecursionError:  # a program that nested folders without end
                subprocess.run(["rm", "-rf", "--", str(path)], check=False)
        elif path.name != _LOCK:
            with suppress(OSError):
                path.unlink()
    shutil.rmtree(folder, ignore_errors=True)
