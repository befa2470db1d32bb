"""Batches in which parts of a draft are hidden; see `posttrain.past_generation`.

Imported once a job is about to train.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from posttrain.past_generation import hidden_tokens

COLUMN = "past"
"""Of the training rows: 1 where a token may be hidden. Rows to evaluate on have no such column."""


@dataclass
class PastGenerationCollator:
    """Makes a batch as another collator does, and hides tokens of it."""

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    frac: float
    seed: int
    epoch: int = 0

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch; a row's hidden tokens have attention_mask 0, as padding has."""
        rows = [{key: value for key, value in row.items() if key != COLUMN} for row in examples]
        batch = self.collate(rows)
        for place, row in enumerate(examples):
            if COLUMN in row:
                hidden = hidden_tokens(
                    np.asarray(row[COLUMN]),
                    np.asarray(row["input_ids"]),
                    frac=self.frac,
                    seed=self.seed,
                    epoch=self.epoch,
                )
                batch["attention_mask"][place, : len(hidden)][torch.from_numpy(hidden)] = 0
        return batch

    def callback(self) -> TrainerCallback:
        """Return what tells the collator which epoch it is, also after a resumption in the middle of one."""
        collator = self

        class SetEpoch(TrainerCallback):
            def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                collator.epoch = int((state.epoch or 0) + 1e-6)

        return SetEpoch()
