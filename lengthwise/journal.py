"""Every model call of a run, append-only: what makes a killed run resume without repeating a call.

One file of JSON lines with one writer, since SQLite's write-ahead log does not work on network mounts. A
line is written as soon as its call returns, so a killed process loses nothing, and is on the disk (fsync,
one for all calls that wait) before the caller goes on, so a power cut does not either. A line that a crash
tore is set aside in `journal.torn`, never parsed as an answer.

A line is `{"key", "usage", "salt", "completions"}`. Opening reads only key and usage: texts and token ids of a
hundred thousand calls would take minutes to parse. Lines without `usage`, as written before, are read whole.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lengthwise.records import Completion, Usage, digest

_log = logging.getLogger(__name__)


_HEAD = re.compile(rb'\{"key":"([0-9a-f]{64})","usage":\[(\d+),(\d+),(\d+)\],"salt":\[')


class JournalError(RuntimeError):
    """The journal cannot be written (disk full, folder read-only): the run stops and can be resumed."""


def call_key(
    *, weights: str, prompt: Sequence[dict[str, str]], sampling: dict[str, Any], salt: Sequence[Any]
) -> str:
    """Return the key of one call.

    The chat template is a part of `weights` (the digest covers the tokenizer's files), so the turns stand
    for the rendered prompt. `salt` (sample id, role, step, attempt) keeps equal prompts of different samples
    apart: independent samples stay independent.
    """
    return digest([weights, list(prompt), sampling, list(salt)])


class Journal:
    """Calls by key. Memory holds one offset per call; texts stay on disk until asked for."""

    def __init__(self, path: Path, earlier: SavedCalls | None = None):
        """Open or create the journal at `path` and index what it holds; `earlier` calls are replayed, too.

        Raises:
            JournalError: if it can be neither opened nor created.
        """
        self.path = path
        self._earlier = earlier
        self.usage = Usage()
        """Tokens of all calls held: what the run has paid for so far, its earlier starts included."""
        self.num_calls = 0
        """Calls paid for; a call that had to be made again counts each time."""
        self.num_cached_calls = 0
        """Calls that cost not a token: another run's answer stood in a response cache."""
        self.num_damaged = 0
        """Lines that could not be read and were set aside; their calls are made again."""
        self._offsets: dict[bytes, int] = {}
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._reader = path.open("rb")
            self._size = self._index()
        except OSError as error:
            raise JournalError(
                f"cannot open {path}: {error.strerror}. Give an output_dir that can be written"
            ) from error
        self._waiting: list[asyncio.Future[None]] = []
        self._syncing: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Return the number of calls held."""
        return len(self._offsets)

    def holds(self, key: str) -> bool:
        """Tell whether the call is in this journal itself, not only among the earlier ones."""
        return bytes.fromhex(key) in self._offsets

    def get(self, key: str) -> list[Completion] | None:
        """Return the completions of a finished call, or None; a damaged line is set aside and is none."""
        offset = self._offsets.get(bytes.fromhex(key))
        if offset is None:
            return None if self._earlier is None else self._earlier.get(key)
        self._reader.seek(offset)
        line = self._reader.readline()
        try:
            return [Completion.from_dict(value) for value in json.loads(line)["completions"]]
        except (ValueError, KeyError, TypeError):
            del self._offsets[bytes.fromhex(key)]
            self._set_aside([line])
            return None

    async def put(self, key: str, salt: Sequence[Any], completions: Sequence[Completion]) -> None:
        """Keep a finished call; return once it is on the disk.

        Raises:
            JournalError: if the disk takes no more. What was written before stays readable.
        """
        usage = sum((c.usage for c in completions), Usage())
        entry = {
            "key": key,
            "usage": usage.to_list(),
            "salt": list(salt),
            "completions": [c.to_dict() for c in completions],
        }
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        offset = self._size
        self._append(line + b"\n")
        self._take(bytes.fromhex(key), usage, offset)
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.create_task(self._sync())
        await done

    def close(self) -> None:
        """Bring everything to the disk and close the file.

        Raises:
            JournalError: if the disk does not take it; the file is closed all the same.
        """
        if self._fd < 0:
            return
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._refusal(error) from error
        finally:
            os.close(self._fd)
            self._reader.close()
            self._fd = -1

    def _append(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            os.ftruncate(self._fd, self._size)  # half a line would be read as a torn one
            raise self._refusal(error) from error
        self._size += len(data)

    def _take(self, key: bytes, usage: Usage, offset: int) -> None:
        self._offsets[key] = offset
        self.usage += usage
        if usage == Usage():
            self.num_cached_calls += 1
        else:
            self.num_calls += 1

    def _refusal(self, error: OSError) -> JournalError:
        return JournalError(
            f"cannot write {self.path}: {error.strerror}. Free some space and start the same command again: "
            "finished calls are not repeated"
        )

    async def _sync(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(os.fsync, self._fd)
            except OSError as error:
                for future in group:
                    if not future.done():
                        future.set_exception(self._refusal(error))
                continue
            for future in group:
                if not future.done():
                    future.set_result(None)

    def _index(self) -> int:
        """Take in what the file holds and return its size, a torn tail cut off."""
        damaged: list[bytes] = []
        offset = 0
        for line in self._reader:
            head = _head_of(line)
            if head is None:
                damaged.append(line)
            else:
                self._take(*head, offset)
            offset += len(line)
        if damaged:
            self._set_aside(damaged)
            if not damaged[-1].endswith(b"\n"):
                offset -= len(damaged[-1])
                os.truncate(self.path, offset)
        return offset

    def _set_aside(self, damaged: Sequence[bytes]) -> None:
        """Copy lines to `journal.torn`; one damaged in the middle stays and is met at each start."""
        self.num_damaged += len(damaged)
        torn_path = self.path.with_suffix(".torn")
        with open(torn_path, "a+b") as torn:
            torn.seek(0)
            known = set(torn)
            lines = [line if line.endswith(b"\n") else line + b"\n" for line in damaged]
            torn.writelines(line for line in lines if line not in known)
        _log.warning(
            "%s: %d damaged lines were set aside in %s; their calls are made again",
            self.path,
            len(damaged),
            torn_path.name,
        )


class SavedCalls:
    """The calls of a finished run's journal, to be replayed in another run; nothing is written to it."""

    def __init__(self, path: Path):
        """Index the journal; one that is not there holds no call, and damaged lines are passed over."""
        self._path = path
        self._offsets: dict[bytes, int] = {}
        if not path.is_file():
            return
        with path.open("rb") as lines:
            offset = 0
            for line in lines:
                head = _head_of(line)
                if head is not None:
                    self._offsets[head[0]] = offset
                offset += len(line)

    def get(self, key: str) -> list[Completion] | None:
        """Return the completions of a call, or None."""
        offset = self._offsets.get(bytes.fromhex(key))
        if offset is None:
            return None
        with self._path.open("rb") as lines:
            lines.seek(offset)
            try:
                return [Completion.from_dict(value) for value in json.loads(lines.readline())["completions"]]
            except (ValueError, KeyError, TypeError):
                return None


def _head_of(line: bytes) -> tuple[bytes, Usage] | None:
    """Return key and usage of a whole line, None of a damaged one."""
    if not line.endswith(b"}\n"):
        return None
    head = _HEAD.match(line)
    if head is not None:
        return bytes.fromhex(head[1].decode()), Usage.from_list([int(head[i]) for i in (2, 3, 4)])
    try:
        entry = json.loads(line)
        usages = [Usage.from_list(completion["usage"]) for completion in entry["completions"]]
        return bytes.fromhex(entry["key"]), sum(usages, Usage())
    except (ValueError, KeyError, TypeError):
        return None
