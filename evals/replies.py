"""Where the replies to a task's prompts come from: a model, or the samples files of a finished evaluation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from evals.plan import PlannedTask
from evals.sources import doc_of, identity_hashes
from lengthwise.caller import Caller
from lengthwise.config import ConfigError
from lengthwise.outcomes import Failed
from lengthwise.records import Attempt, Completion, Prompt, Sample


class Replies(Protocol):
    """Gives the replies to one prompt, or says why there are none."""

    async def __call__(
        self, sample: Sample, planned: PlannedTask, prompt: Prompt
    ) -> list[Completion] | Failed:
        """Return the completions of `prompt`."""
        ...


async def ask(
    sample: Sample, planned: PlannedTask, prompt: Prompt, caller: Caller
) -> list[Completion] | Failed:
    """Ask the model, with as many new tokens as the task allows and the context has room for."""
    num_prompt_tokens = caller.count_tokens(prompt)
    room = caller.context_length - num_prompt_tokens
    if room < 1 and caller.capabilities.exact_token_counts:  # of an estimate the server has the last word
        return Failed(
            "prompt longer than the context",
            {"num_prompt_tokens": num_prompt_tokens, "context_length": caller.context_length},
        )
    sampling = planned.sampling
    if sampling.max_tokens is not None:
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room) if room > 0 else None)
    own = getattr(planned.task, "ask", None)
    if own is not None:
        return await own(sample, caller, sampling)
    return await caller(prompt, sampling, step="generate")


class SavedReplies:
    """The replies of a finished evaluation, read from its samples files; memory holds one offset a reply."""

    def __init__(self, run: Path, *, field: str = "rescore"):
        """Index the run's samples files; `field` is where the config names the run, for messages.

        Raises:
            ConfigError: the folder holds none.
        """
        self._run = run
        self._places: dict[tuple[str, str], list[tuple[Path, int]]] = {}
        for file in sorted(run.glob("samples_*.jsonl")):
            task = file.name.removeprefix("samples_").rpartition("_")[0]
            for offset, row in _rows_of(file):
                self._places.setdefault((task, row["id"]), []).append((file, offset))
        if not self._places:
            raise ConfigError(
                f"{field}: {run} holds no samples_*.jsonl: name the folder of a finished evaluation"
            )

    async def __call__(
        self, sample: Sample, planned: PlannedTask, prompt: Prompt
    ) -> list[Completion] | Failed:
        """Return what the run has for the sample; none if it was not asked, or was asked something else."""
        return await self.of_prompt(planned.name, sample, prompt)

    async def of_prompt(self, task: str, sample: Sample, prompt: Prompt) -> list[Completion] | Failed:
        """Return what the run has for a prompt of the task that it calls `task`."""
        return await asyncio.to_thread(self._read, task, sample, prompt)

    def _read(self, task: str, sample: Sample, prompt: Prompt) -> list[Completion] | Failed:
        places = self._places.get((task, sample.id))
        if places is None:
            return Failed("not in the saved run", {"run": str(self._run)})
        rows = [_row_at(file, offset) for file, offset in places]
        wanted = identity_hashes(doc_of(sample), prompt, None)["prompt_hash"]
        if any(row["prompt_hash"] != wanted for row in rows):
            return Failed("asked otherwise in the saved run", {"run": str(self._run)})
        return [_completion(row) for row in sorted(rows, key=lambda row: row["completion_index"])]


def _rows_of(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open("rb") as stream:
        offset = 0
        for line in stream:
            yield offset, json.loads(line)
            offset += len(line)


def _row_at(file: Path, offset: int) -> dict[str, Any]:
    with file.open("rb") as stream:
        stream.seek(offset)
        return json.loads(stream.readline())


def _completion(row: Mapping[str, Any]) -> Completion:
    return Completion(
        text=row["resps"][0],
        finish_reason=row["finish_reason"],
        num_tokens=row["num_tokens"],
        num_reasoning_tokens=row["num_reasoning_tokens"],
        reasoning=row.get("reasoning"),
        attempts=tuple(Attempt(**attempt) for attempt in row.get("attempts", ())),
        total_tokens=row.get("total_tokens"),
    )
