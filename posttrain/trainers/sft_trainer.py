"""TRL's SFTTrainer with batches, a head and a log of our own; everything else is theirs.

Imported once a job is about to train: it imports TRL.
"""

from __future__ import annotations

from typing import Any

from trl.trainer.sft_trainer import SFTTrainer

from posttrain.train_data import NOT_SUPERVISED
from posttrain.trainers.length_trainer import LengthTrainer


class LengthSFTTrainer(LengthTrainer, SFTTrainer):
    """TRL's trainer on our batches.

    The loss is TRL's: the sum over the supervised tokens of a step divided by their number, however many rows each
    batch of the step has.
    """

    def batch_facts(self, inputs: Any) -> dict[str, float]:
        """Return the rows, supervised tokens and share of padding of a batch; of joined rows, nothing."""
        if "attention_mask" not in inputs:
            return {}
        return {
            "rows_per_batch": len(inputs["input_ids"]),
            "supervised_tokens_per_batch": int((inputs["labels"] != NOT_SUPERVISED).sum()),
            "padding_frac": 1 - float(inputs["attention_mask"].float().mean()),
        }
