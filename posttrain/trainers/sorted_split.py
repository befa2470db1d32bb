"""The completions of a step, dealt to its forward passes by length: one that is long pads only those beside it.

TRL shuffles what it has generated and cuts it into batches, each padded to the longest completion of all. Within an
optimizer step the order does not matter where the loss is a sum over its completions or tokens with a weight that the
batch does not decide; there the rows of a step are sorted, and each batch is trimmed to its own longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

SUMS = frozenset({"grpo", "dapo", "dr_grpo", "cispo"})
"""Losses of TRL whose step is the same sum however its completions are dealt to batches of equal numbers of rows."""

Batch = dict[str, Any]


def sorted_split(batches: Sequence[Batch], *, per_step: int) -> list[Batch]:
    """Return the batches with the rows of each optimizer step sorted by length, each trimmed to its longest.

    Args:
        batches: of equal numbers of rows B, as `GRPOTrainer` buffers them: `completion_mask` [B, C] and `prompt_mask`
            [B, P], padded on the right and on the left; other tensors [B], [B, C], [B, 1] or [B, P], or of no rows.
        per_step: batches of an optimizer step; rows do not move from one step to another.
    """
    found: list[Batch] = []
    for start in range(0, len(batches), per_step):
        step = batches[start : start + per_step]
        rows = step[0]["completion_mask"].size(0)
        joined = {name: _joined([batch[name] for batch in step]) for name in step[0]}
        order = joined["completion_mask"].sum(1).argsort(stable=True)
        for i in range(len(step)):
            picked = order[i * rows : (i + 1) * rows]
            found.append(
                trimmed(
                    {name: value[picked] if _has_rows(value) else value for name, value in joined.items()}
                )
            )
    return found


def trimmed(batch: Batch) -> Batch:
    """Return a batch without the columns in which no row has a token."""
    completion, prompt = batch["completion_mask"], batch["prompt_mask"]
    longest, first = int(completion.sum(1).max()), prompt.size(1) - int(prompt.sum(1).max())
    # A masked completion (cut, and left out of the loss) has no token in its mask; one column keeps shapes whole.
    longest = max(1, longest)
    found = {}
    for name, value in batch.items():
        if name.startswith("prompt_"):
            value = value[:, first:]
        elif isinstance(value, torch.Tensor) and value.dim() == 2 and value.size(1) == completion.size(1):
            value = value[:, :longest]
        found[name] = value
    return found


def _has_rows(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0


def _joined(values: Sequence[Any]) -> Any:
    return torch.cat(list(values)) if _has_rows(values[0]) else values[0]
