"""Jobs whose rows go to one of TRL's trainers as they are: our account of the data, TRL's batches and loss."""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.train_job import TrainJob


@dataclass(kw_only=True)
class PassedThrough(TrainJob):
    """A job that prepares the rows and leaves the rest to TRL."""

    def __post_init__(self) -> None:
        """Refuse batches and orders that TRL's trainer would not make."""
        hint = f"{self.VERB} hands its rows to TRL's trainer, which takes them as they come"
        if self.batching.name != "padded" or self.trainer.get("packing"):
            raise ValueError(
                f"batching.name is {self.batching.name if self.batching.name != 'padded' else 'packed'}, but {hint}: "
                "leave batching out, or use sft or dpo"
            )
        if self.curriculum is not None:
            raise ValueError(f"curriculum is set, but {hint}: leave it out, or use sft or dpo")
        super().__post_init__()

    @property
    def of_batch(self) -> str:
        """Why the loss of a step depends on how its rows are dealt to forward passes."""
        return f"TRL's {self.VERB} loss is not a mean over the rows of a step"
