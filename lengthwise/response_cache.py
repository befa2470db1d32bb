"""Answers that runs share: a folder of small files which spares a call that an earlier run has paid for.

Only calls whose answer does not depend on chance are kept: greedy ones, and a judge's. A journal serves one run and
keeps equal prompts of different samples apart; here neither the run nor the sample counts, only what was asked of which
weights, and how.

One file for each call, written beside its place and renamed, so that many processes on many machines can share a
folder on a network mount: no lock, no database, no index. A file that is torn, damaged or not the one it claims to
be is as good as none, and the next answer takes its place.

A greedy answer of vLLM may differ by a rare token from that of another batch. The cache repeats the first one, so runs
that share it show less of this noise than runs that do not.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from lengthwise.config import ConfigError, result_affecting
from lengthwise.engines.base import Engine, Sampling
from lengthwise.records import Completion, Prompt, Usage, digest

_log = logging.getLogger(__name__)

JUDGE = "judge"
"""The role whose calls are kept at any temperature."""
_FORMAT = 1
"""Part of each key: raise it when the same call is to be asked anew."""
_SECONDS_A_DAY = 86400.0


class ResponseCache:
    """A folder of answers."""

    def __init__(
        self,
        folder: Path,
        *,
        max_age_days: float | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Open the folder, making it if need be.

        Args:
            folder: may be shared with other runs, also on other machines.
            max_age_days: answers older than this are asked anew; None keeps them for good.
            clock: the time, with its zone.

        Raises:
            ConfigError: if there can be no such folder.
        """
        self.folder = folder
        self._max_age_days = max_age_days
        self._clock = clock
        self._has_warned = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"response_cache: cannot make the folder {folder}: {error.strerror}. Give one that can be written, "
                "or null for no cache"
            ) from error

    def get(self, key: str) -> list[Completion] | None:
        """Return the completions kept under a key, which cost nothing now; None if there are none to be had."""
        try:
            text = self._file(key).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        try:
            entry = json.loads(text)
            kept, stored_at = entry["completions"], datetime.fromisoformat(entry["stored_at"])
            if entry["key"] != key or entry["digest"] != digest(kept) or self._is_old(stored_at):
                return None
            return [replace(Completion.from_dict(value), usage=Usage()) for value in kept]
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def put(self, key: str, completions: Sequence[Completion]) -> None:
        """Keep an answer. A folder that takes no more costs the next run a call, and this one a warning."""
        kept = [completion.to_dict() for completion in completions]
        entry = {
            "key": key,
            "stored_at": self._clock().isoformat(timespec="seconds"),
            "digest": digest(kept),
            "completions": kept,
        }
        file = self._file(key)
        unnamed = file.with_name(f".{file.name}.{uuid4().hex}")
        try:
            file.parent.mkdir(exist_ok=True)
            unnamed.write_text(json.dumps(entry), encoding="utf-8")
            os.replace(unnamed, file)
        except OSError as error:
            if not self._has_warned:
                _log.warning(
                    "response_cache: cannot write to %s: %s. The run goes on without it",
                    self.folder,
                    error.strerror,
                )
            self._has_warned = True

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def _is_old(self, stored_at: datetime) -> bool:
        if self._max_age_days is None:
            return False
        return (self._clock() - stored_at).total_seconds() > self._max_age_days * _SECONDS_A_DAY


def open_cache(folder: str | None, max_age_days: float | None = None) -> ResponseCache | None:
    """Return the cache that a config asks for; None if it asks for none."""
    return None if folder is None else ResponseCache(Path(folder).expanduser(), max_age_days=max_age_days)


def may_be_shared(sampling: Sampling, role: str) -> bool:
    """Return whether a call's answer may be another run's: a greedy one, or a judge's.

    Example:
        >>> may_be_shared(Sampling(temperature=0.0), "model"), may_be_shared(Sampling(temperature=0.7), "model")
        (True, False)
    """
    return sampling.temperature == 0 or role.startswith(JUDGE)


def response_key(
    engine: Engine,
    prompt: Prompt,
    sampling: Sampling,
    *,
    adapter: str | None,
    role: str,
    attempt: int,
    chance: Sequence[Any],
) -> str:
    """Return the key of a call: what was asked of which weights, served how.

    Args:
        engine: its weights by content, and those of its options that decide a result: the context's length, the data
            type and the chat template's variables are no part of the weights.
        prompt: the turns.
        sampling: without its seed, which holds the sample's id.
        adapter: that answers.
        role: "model" or "judge".
        attempt: 0 for the first asking.
        chance: what tells draws at a temperature above 0 apart (the run's seed, the step), so that the votes of a
            judge stay independent; of a greedy call it is no part.
    """
    options = getattr(engine, "config", None)
    settings = {} if options is None else result_affecting(type(options), options)
    # A remote server shows a name, not its weights: at another address the name may stand for others.
    settings["base_urls"] = sorted(getattr(options, "base_urls", []))
    return digest(
        [
            _FORMAT,
            [type(engine).__module__, engine.weights_identity(adapter), settings],
            [message.to_dict() for message in prompt],
            {**sampling.to_dict(), "seed": None},
            [JUDGE if role.startswith(JUDGE) else "model", attempt],
            [] if sampling.temperature == 0 else list(chance),
        ]
    )
