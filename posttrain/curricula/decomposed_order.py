"""Steps of `BucketSchedule` as the batches of processes: what a trainer takes of Dataset Decomposition."""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.curricula.bucket_schedule import BucketSchedule
from posttrain.token_budget import Batch


@dataclass(frozen=True, kw_only=True)
class DecomposedOrder:
    """How the steps of a schedule are dealt to processes and accumulated batches.

    All batches of a step are of one bucket, as in arXiv 2405.13226 (section 3.2), so all processes draw the same one.

    Example:
        >>> schedule = BucketSchedule(log2=[1] * 8, tokens_per_step=8, num_processes=4, cycles=1)
        >>> order = DecomposedOrder(schedule=schedule, num_processes=2, accumulation=2)
        >>> (order.max_tokens, order.num_batches, order.steps_per_epoch)
        (2, 4, 2)
    """

    schedule: BucketSchedule
    """Its parts are the processes' batches of one pass after the other: processes times accumulation."""
    num_processes: int
    accumulation: int

    def __post_init__(self) -> None:
        """Check what the schedule was made for."""
        assert self.schedule.num_processes == self.num_processes * self.accumulation

    @property
    def max_tokens(self) -> int:
        """Tokens of a batch, the same in all."""
        return self.schedule.tokens_per_step // self.schedule.num_processes

    @property
    def num_batches(self) -> int:
        """Batches of each process in an epoch, the same in all epochs."""
        return self.schedule.num_steps * self.accumulation

    @property
    def num_repeated(self) -> int:
        """None: what fills no step is left out."""
        return 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return self.num_batches // self.accumulation

    def __str__(self) -> str:
        """Return how batches make up a step, as the config and the launcher name it."""
        return (
            f"batches of {self.max_tokens:,} tokens x gradient_accumulation_steps {self.accumulation} x "
            f"{self.num_processes} process{'es' if self.num_processes > 1 else ''}"
        )

    def epoch(self, seed: int, epoch: int) -> list[list[Batch]]:
        """Return the batches of an epoch, in their order: of each forward pass the batch of each process."""
        return [
            step.sequences[start : start + self.num_processes]
            for step in self.schedule.steps(seed, epoch)
            for start in range(0, self.schedule.num_processes, self.num_processes)
        ]
