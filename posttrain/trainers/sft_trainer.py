"""TRL's SFTTrainer with batches, a head and a log of our own; everything else is theirs.

Imported once a job is about to train: it imports TRL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trl.trainer.sft_trainer import SFTTrainer

from posttrain.train_data import NOT_SUPERVISED
from posttrain.trainers.length_trainer import LengthTrainer
from posttrain.trainers.past_generation_collator import COLUMN, PastGenerationCollator

if TYPE_CHECKING:
    from posttrain.past_generation import PastGeneration


class LengthSFTTrainer(LengthTrainer, SFTTrainer):
    """TRL's trainer on our batches.

    The loss is TRL's: the sum over the supervised tokens of a step divided by their number, however many rows each
    batch of the step has.
    """

    def __init__(self, *args: Any, past_generation: PastGeneration | None = None, **kwargs: Any) -> None:
        """Take TRL's arguments, our own, and what hides parts of earlier drafts."""
        self._past = past_generation
        held_out = kwargs.get("eval_dataset")
        if held_out is not None and COLUMN in held_out.column_names:  # nothing is hidden in an evaluation
            kwargs["eval_dataset"] = held_out.remove_columns(COLUMN)
        super().__init__(*args, **kwargs)
        if past_generation is not None:
            collator = PastGenerationCollator(self.data_collator, past_generation.frac, self.args.seed)
            self.data_collator = collator
            self.add_callback(collator.callback())

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns: Any = self._signature_columns
        if self._past is not None and COLUMN not in columns:
            columns.append(COLUMN)

    def batch_facts(self, inputs: Any) -> dict[str, float]:
        """Return the rows, supervised tokens and share of padding of a batch; of joined rows, nothing."""
        if "attention_mask" not in inputs:
            return {}
        facts: dict[str, float] = {
            "rows_per_batch": len(inputs["input_ids"]),
            "supervised_tokens_per_batch": int((inputs["labels"] != NOT_SUPERVISED).sum()),
        }
        seen = inputs["attention_mask"].bool()
        real = seen.flip(1).cummax(1).values.flip(1)  # up to a row's last token: hidden ones are no padding
        if self._past is not None:
            facts["hidden_frac"] = 1 - float(seen.sum() / real.sum())
        return {**facts, "padding_frac": 1 - float(real.float().mean())}
