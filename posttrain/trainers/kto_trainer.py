"""TRL's KTOTrainer on marked answers that come as tokens.

Imported once a job is about to train: it imports TRL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from trl.trainer.kto_trainer import KTOTrainer

from posttrain.trainers.length_trainer import LengthTrainer

MARKED_COLUMNS = frozenset({"prompt_ids", "completion_ids", "label"})


class TokensKTOTrainer(LengthTrainer, KTOTrainer):
    """TRL's trainer and loss; it would tokenise texts, without our checks of template and end of turn."""

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, *rest: Any, **kwargs: Any
    ) -> Any:
        """Return the data, with the answers of other rows by which TRL estimates the divergence from the reference."""
        if not set(dataset.column_names) >= MARKED_COLUMNS:
            raise ValueError(
                f"the data have the columns {dataset.column_names}, expected {sorted(MARKED_COLUMNS)}"
            )
        if not self.calculate_KL:
            return dataset
        others = of_other_rows(dataset["completion_ids"], args.per_device_train_batch_size)
        return dataset.add_column("KL_completion_ids", others)

    def rows_in(self, inputs: Any) -> Iterator[Any]:
        """Yield each row of a batch without padding."""
        for ids, mask in zip(inputs["input_ids"].cpu(), inputs["attention_mask"].cpu(), strict=True):
            yield ids[mask.bool()]

    def batch_facts(self, inputs: Any) -> dict[str, float]:
        """Return the answers' tokens and the share of padding of a batch."""
        return {
            "supervised_tokens_per_batch": int(inputs["completion_mask"].sum()),
            "padding_frac": 1 - float(inputs["attention_mask"].float().mean()),
        }


def of_other_rows(answers: Sequence[list[int]], size: int) -> list[list[int]]:
    """Return for each answer the one before it among `size` neighbours, for the first the last (as TRL pairs them).

    Example:
        >>> of_other_rows([[1], [2], [3], [4], [5]], 2)
        [[2], [1], [4], [3], [5]]
    """
    found: list[list[int]] = []
    for start in range(0, len(answers), size):
        batch = list(answers[start : start + size])
        found += batch[-1:] + batch[:-1]
    return found
