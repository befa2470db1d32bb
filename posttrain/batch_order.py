"""What a trainer needs to know of the order of its batches: a token budget's, or a length curriculum's."""

from __future__ import annotations

from typing import Protocol

from posttrain.token_budget import Batch


class BatchOrder(Protocol):
    """The batches of every epoch, dealt to processes.

    All of it depends on the fields of the object, the seed and the epoch, so a run that stopped goes on with a new
    object, at the batch where it was.
    """

    @property
    def num_batches(self) -> int:
        """Batches of each process in an epoch, the same in all epochs."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        ...

    @property
    def max_tokens(self) -> int:
        """Padded tokens of a batch."""
        ...

    @property
    def num_repeated(self) -> int:
        """Rows that an epoch has twice, since there are fewer than processes to give them to."""
        ...

    def epoch(self, seed: int, epoch: int) -> list[list[Batch]]:
        """Return the batches of an epoch, in their order: of each forward pass the batch of each process."""
        ...


def passes_of(num_steps: int, num_batches: int, accumulation: int) -> int:
    """Return the forward passes of a process in the first steps of a run; an epoch's last step may have fewer.

    Args:
        num_steps: optimizer steps.
        num_batches: batches of a process in an epoch.
        accumulation: batches of a process for one step.

    Example:
        >>> [passes_of(steps, 5, 2) for steps in (1, 2, 3, 4, 6)]
        [2, 4, 5, 7, 10]
    """
    epochs, rest = divmod(num_steps, -(-num_batches // accumulation))
    return epochs * num_batches + min(rest * accumulation, num_batches)
