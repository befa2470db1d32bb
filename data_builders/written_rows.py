"""data.jsonl and dropped.jsonl of a build while it runs: what has ended is not made again.

Beside the two files, `.ended.jsonl` notes each row: which input it is of, how that ended, how long the row is
and its checksum. A resumed run takes over the rows that are whole, so that its first new work starts after
seconds, not after all earlier rows were derived from the journal again. Without the notes, or if code, weights
or the row itself differ, the journal decides: that is slower, and no call is repeated either way.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NamedTuple

from data_builders.rows import bare_record, to_line
from lengthwise.outcomes import Counts, End, Kept, Outcome
from lengthwise.records import Sample, digest
from lengthwise.run_dir import RunDir


class _Row(NamedTuple):
    """Where a row stands."""

    end: End
    reason: str | None
    offset: int
    size: int

    @property
    def file(self) -> str:
        return "data.jsonl" if self.end == "kept" else "dropped.jsonl"


class WrittenRows:
    """Appends rows, and says what an earlier start has ended. One per build, whose folder is locked."""

    def __init__(self, run: RunDir, origin: str):
        """Take over the whole rows of an earlier start with the same origin; cut off what comes after them.

        Args:
            run: the run folder.
            origin: digest of all that decides a row and is no part of the config: code and weights.
        """
        self._rows: dict[bytes, _Row] = {}
        self._paths = {name: run.file(name) for name in ("data.jsonl", "dropped.jsonl", ".ended.jsonl")}
        self._sizes = dict.fromkeys(self._paths, 0)
        head = _line({"origin": origin})
        if run.resumed:
            self._take_over(head)
        self._files = {name: _open_at(path, self._sizes[name]) for name, path in self._paths.items()}
        if not self._sizes[".ended.jsonl"]:
            self._append(".ended.jsonl", head)

    def has_ended(self, key: str) -> bool:
        """Return whether an input is kept or rejected for good; one that failed is tried again."""
        row = self._rows.get(bytes.fromhex(key))
        return row is not None and row.end != "failed"

    def write(self, key: str, sample: Sample, outcome: Outcome) -> None:
        """Append the row of an input that has ended."""
        record = outcome.record
        if not isinstance(outcome, Kept):
            head = {"id": sample.id, "outcome": outcome.end, "reason": outcome.reason}
            record = {**bare_record(sample), **record, **head}
        self.add(key, outcome.end, outcome.reason, record)

    def add(self, key: str, end: End, reason: str | None, record: Mapping[str, Any]) -> None:
        """Append a row as it is, also of an input that never became a sample."""
        line = _line(record)
        row = _Row(end, reason, 0, len(line))
        row = row._replace(offset=self._sizes[row.file])
        # The note comes last: a row without one is cut off at the next start and derived again.
        self._append(row.file, line)
        note = {"key": key, "end": end, "reason": reason, "size": row.size, "crc": zlib.crc32(line)}
        self._append(".ended.jsonl", _line(note))
        self._rows[bytes.fromhex(key)] = row

    def counts(self, keys: Sequence[str]) -> Counts:
        """Return how those of the inputs have ended that have."""
        counts = Counts()
        for key in keys:
            row = self._rows.get(bytes.fromhex(key))
            if row is not None:
                counts.add(row.end, row.reason)
        return counts

    def close(self) -> None:
        """Close the files; the next start goes on with them."""
        for file in self._files.values():
            file.close()

    def finish(self, keys: Sequence[str]) -> None:
        """Bring the rows into the order of `keys`, which is all inputs, and delete the notes.

        They are out of order if an input was tried again, or if a larger limit added some in between.
        """
        self.close()
        rows = [self._rows[bytes.fromhex(key)] for key in keys]
        for name in ("data.jsonl", "dropped.jsonl"):
            _put_in_order(self._paths[name], [row for row in rows if row.file == name])
        self._paths[".ended.jsonl"].unlink()

    def _append(self, name: str, line: bytes) -> None:
        file = self._files[name]
        file.write(line)
        file.flush()
        self._sizes[name] += len(line)

    def _take_over(self, head: bytes) -> None:
        if not all(path.exists() for path in self._paths.values()):
            return
        with (
            self._paths[".ended.jsonl"].open("rb") as notes,
            self._paths["data.jsonl"].open("rb") as kept,
            self._paths["dropped.jsonl"].open("rb") as dropped,
        ):
            if notes.readline() != head:
                return
            self._sizes[".ended.jsonl"] = len(head)
            for line in notes:
                row = self._checked(line, {"data.jsonl": kept, "dropped.jsonl": dropped})
                if row is None:
                    return
                self._sizes[".ended.jsonl"] += len(line)
                self._sizes[row.file] += row.size

    def _checked(self, line: bytes, files: dict[str, IO[bytes]]) -> _Row | None:
        """Take in one note if its row is whole."""
        try:
            note = json.loads(line)
        except ValueError:  # torn by a crash
            return None
        row = _Row(note["end"], note["reason"], 0, note["size"])
        content = files[row.file].read(row.size)
        if not line.endswith(b"\n") or len(content) < row.size or zlib.crc32(content) != note["crc"]:
            return None
        row = row._replace(offset=self._sizes[row.file])
        self._rows[bytes.fromhex(note["key"])] = row
        return row


def row_key(sample: Sample, refusal: Sequence[str] | None) -> str:
    """Return the digest of what decides a sample's row besides config, code and weights.

    Args:
        sample: the input.
        refusal: why it is refused before anything is made of it, or None.
    """
    return digest(
        [
            sample.id,
            [m.to_dict() for m in sample.messages],
            sample.length and sample.length.to_dict(),
            dict(sample.metadata),
            list(sample.lineage),
            sample.completion,
            refusal and list(refusal),
        ]
    )


def code_digest(builder: ModuleType) -> str:
    """Return the digest of what makes rows: `lengthwise`, `data_builders` with its prompts, and the builder's file.

    Modules of a user's own that the builder imports are not in it.
    """
    root = Path(__file__).resolve().parents[1]
    files = sorted(
        file
        for package in ("lengthwise", "data_builders")
        for pattern in ("*.py", "*.md")
        for file in (root / package).rglob(pattern)
    )
    if builder.__file__ is not None:
        files.append(Path(builder.__file__))
    return digest([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])


def _line(record: Mapping[str, Any]) -> bytes:
    # A half of a surrogate pair, which some models emit, has no UTF-8 form.
    return to_line(record).encode("utf-8", "replace")


def _open_at(path: Path, size: int) -> IO[bytes]:
    """Open a file to append after its first `size` bytes."""
    file = path.open("ab")
    file.truncate(size)
    return file


def _put_in_order(path: Path, rows: Sequence[_Row]) -> None:
    """Make a file hold exactly `rows`, in their order."""
    position = 0
    for row in rows:
        if row.offset != position:
            break
        position += row.size
    else:
        if position == path.stat().st_size:
            return
    draft = path.with_name(f".{path.name}.tmp")
    with path.open("rb") as source, draft.open("wb") as target:
        for row in rows:
            source.seek(row.offset)
            target.write(source.read(row.size))
        target.flush()
        os.fsync(target.fileno())
    os.replace(draft, path)
