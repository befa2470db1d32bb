"""Tokenised rows in a file of the run folder: one process makes them, the others and later starts read them.

Reading and tokenising a large data set takes minutes, and every process of a run needs the whole of it. The file's
name is a digest of all that decides the rows: data files, tokenizer, chat template, the job's settings and this
package's code. Data sets of the hub are not kept here: `datasets` keeps them.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lengthwise.records import digest
from lengthwise.row_sources import find_rows
from posttrain.row_sources import DataSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

D = TypeVar("D")

PATTERN = ".rows-*.pickle"


def rows_key(
    sources: Sequence[DataSource], tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]
) -> str | None:
    """Return the digest of all that decides the rows; None for a source of the hub, or a tokenizer written in Python.

    Args:
        sources: where the rows are. A file counts as the same while its path, size and time of change are.
        tokenizer: with its chat template.
        settings: what else decides, ready for JSON.
    """
    if not tokenizer.is_fast:
        return None  # it has no description of itself to tell it by
    files = []
    for source in sources:
        found = find_rows(source.path, split=source.split, subset=source.subset, revision=source.revision)
        if not found.files:
            return None
        for path in found.files:
            about = path.stat()
            files.append([str(path.resolve()), about.st_size, about.st_mtime_ns, source.weight])
    fast: Any = tokenizer
    return digest(
        {
            "files": files,
            "tokenizer": hashlib.sha256(fast.backend_tokenizer.to_str().encode()).hexdigest(),
            "special_tokens": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
            "chat_template": tokenizer.chat_template,
            "settings": dict(settings),
            "code": _code(),
        }
    )


@cache
def _code() -> str:
    """Return a digest of what makes rows: this package and the one that reads files."""
    sha = hashlib.sha256()
    here = Path(__file__).resolve().parent
    for file in sorted([*here.rglob("*.py"), *(here.parent / "lengthwise").glob("*.py")]):
        sha.update(file.read_bytes())
    return sha.hexdigest()


def kept_rows(folder: Path, key: str | None, make: Callable[[], D]) -> tuple[D, Path | None]:
    """Return the rows of this key from their file, or make them and write it; and the file, if they are from there.

    A file that cannot be read, or belongs to somebody else, is made anew: it is a pickle, which can hold code. Where it
    cannot be written, on a full disk, the run goes on without it.
    """
    if key is None:
        return make(), None
    file = folder / PATTERN.replace("*", key[:16])
    try:
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_uid == os.geteuid():
                return pickle.load(stream), file
    except FileNotFoundError:
        pass
    except (OSError, EOFError, pickle.UnpicklingError, AttributeError, ImportError) as error:
        print(
            f"data        {file} cannot be read ({error}): its rows are made anew",
            file=sys.stderr,
            flush=True,
        )
    rows = make()
    draft = file.with_name(f"{file.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            pickle.dump(rows, stream, protocol=pickle.HIGHEST_PROTOCOL)
        os.replace(draft, file)
    except OSError as error:
        print(f"data        the rows are not kept: {error}", file=sys.stderr, flush=True)
    finally:
        draft.unlink(missing_ok=True)
    return rows, None


def forget_rows(folder: Path) -> None:
    """Remove the files of rows, once a run is finished."""
    for file in folder.glob(PATTERN + "*"):
        file.unlink(missing_ok=True)
