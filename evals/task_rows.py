"""The rows of one task: a sample's replies become scored rows, and rows and dropped prompts go to their files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from evals.base import score_completion
from evals.plan import PlannedTask
from evals.replies import Replies
from evals.sources import doc_of, identity_hashes
from evals.spread import with_spread
from lengthwise.outcomes import Counts, Failed, Kept, Outcome
from lengthwise.records import Completion, Sample
from lengthwise.rows import BadRow


async def answer(sample: Sample, planned: PlannedTask, replies: Replies, doc_id: int) -> Outcome:
    """Get one sample's completions and score them."""
    prompt = planned.task.prompt(sample)
    completions = await replies(sample, planned, prompt)
    if isinstance(completions, Failed):
        return completions
    doc = doc_of(sample)
    base = {
        "doc_id": doc_id,  # lm-eval's key: the place among the samples drawn
        "id": sample.id,
        "doc": doc,
        "target": sample.target,
        "arguments": [message.to_dict() for message in prompt],
        "summaries": {metric.name: metric.summary for metric in planned.measured.METRICS},
        **identity_hashes(doc, prompt, [sample.target, sample.length and sample.length.to_dict()]),
    }
    rows = [partial(_row, base, sample, planned, index, reply) for index, reply in enumerate(completions)]
    # In a thread: long texts and hard answers would stall the event loop.
    scored = await asyncio.to_thread(lambda: [row() for row in rows])
    # Of a chain of calls the cap is each call's, and no chain's.
    cap = None if any(reply.attempts for reply in completions) else planned.sampling.max_tokens
    return Kept({"rows": with_spread(scored, cap)})


def _row(
    base: Mapping[str, Any], sample: Sample, planned: PlannedTask, index: int, completion: Completion
) -> dict[str, Any]:
    scored = score_completion(
        planned.task,
        sample,
        completion.text,
        completion.finish_reason,
        completion.num_tokens,
        completion.num_reasoning_tokens,
        completion.attempts,
        completion.total_tokens,
    )
    more: dict[str, Any] = {} if completion.reasoning is None else {"reasoning": completion.reasoning}
    if completion.attempts:
        more["attempts"] = [attempt.to_dict() for attempt in completion.attempts]
    if completion.total_tokens is not None:
        more["total_tokens"] = completion.total_tokens
    return {**base, "completion_index": index, "resps": [completion.text], **more, **scored}


@dataclass(frozen=True, slots=True)
class TaskFiles:
    """Where a task's rows and its dropped prompts go, in the order of the source."""

    planned: PlannedTask
    rows: IO[str]
    dropped: IO[str]
    counts: Counts

    def write_bad_row(self, bad: BadRow) -> None:
        """Write a row of the task's data that could not be used, and count it."""
        self.planned.num_bad_rows += 1
        write_line(self.dropped, {**bad.to_dict(), "task": self.planned.name})

    def write(self, sample: Sample, outcome: Outcome) -> None:
        """Write what a prompt gave, and count it."""
        self.counts.add(outcome.end, outcome.reason)
        if isinstance(outcome, Kept):
            for row in outcome.record["rows"]:
                write_line(self.rows, row)
            return
        self.planned.num_failed += 1
        entry = {
            "id": sample.id,
            "task": self.planned.name,
            "outcome": outcome.end,
            "reason": outcome.reason,
        }
        write_line(self.dropped, {**entry, **outcome.record, "doc": doc_of(sample)})


def write_line(file: IO[str], row: Mapping[str, Any]) -> None:
    """Write one row, at once: a reader of an unfinished run sees all that has ended."""
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    file.flush()
