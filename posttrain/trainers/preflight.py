"""One forward and backward pass of the longest batch before the first step: what does not fit shows at once.

Else a run may end hours later, when the longest rows come by. Nothing is changed by it: gradients are dropped, random
states and what TRL collects for its log are put back, and the optimizer makes no step.

Imported once a job is about to train: it imports torch.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType

from lengthwise.config import ConfigError
from posttrain.token_budget import cut

_GIB = 1 << 30
_LOGGED = ("_metrics", "_total_train_tokens", "_stored_metrics")
"""Where TRL's trainers collect what they log."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """The longest batch that a run can meet."""

    lengths: Sequence[int] | None
    """What each row adds to a batch, in tokens; None for packs, whose lengths the trainer's data set has."""
    max_tokens: int | None
    """Padded tokens of a batch, where the batches are ours."""
    max_length: int
    sequences_per_row: int = 1
    """2 for pairs, whose lengths are those of both answers' sequences together."""

    def run(self, trainer: Any, model: Any) -> str:
        """Train on the longest batch for nothing, and say in a line what it took.

        Args:
            trainer: one of ours, about to make its first step.
            model: as the trainer trains it, wrapped for several processes.

        Raises:
            ConfigError: it does not fit into memory, with what would make it smaller.
        """
        if trainer.accelerator.distributed_type == DistributedType.DEEPSPEED:
            return "preflight   skipped: DeepSpeed would step the optimizer with the gradients"
        lengths = self.lengths or [len(ids) for ids in trainer.train_dataset["input_ids"]]
        rows = longest_batch(lengths, rows=trainer.args.train_batch_size, max_tokens=self.max_tokens)
        longest = max(lengths[row] for row in rows) // self.sequences_per_row
        what = (
            f"{len(rows):,} {'rows' if self.sequences_per_row == 1 else 'pairs'} of up to {longest:,} tokens"
        )
        on_cuda = trainer.args.device.type == "cuda"
        if on_cuda:
            torch.cuda.reset_peak_memory_stats()
        try:
            with _nothing_changed(trainer, model):
                room = _moments(trainer) if on_cuda else []
                _forward_and_backward(trainer, model, rows)
                del room
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise ConfigError(self._too_large(trainer, what)) from error
        if not on_cuda:
            return f"preflight   the longest batch, {what}, fits"
        peak, total = torch.cuda.max_memory_allocated(), torch.cuda.get_device_properties().total_memory
        return f"preflight   the longest batch, {what}, takes {peak / _GIB:.1f} of {total / _GIB:.1f} GiB"

    def _too_large(self, trainer: Any, what: str) -> str:
        fewer = (
            f"batching.max_tokens (now {self.max_tokens:,})"
            if self.max_tokens is not None
            else f"per_device_train_batch_size (now {trainer.args.per_device_train_batch_size}; raise "
            "gradient_accumulation_steps to keep the step's size)"
        )
        recompute = "" if trainer.args.gradient_checkpointing else ", or set gradient_checkpointing: true"
        return (
            f"preflight: the longest batch, {what}, does not fit into the memory of {trainer.args.device}: lower "
            f"{fewer} or max_length (now {self.max_length:,}){recompute}; preflight: false trains until it is met"
        )


def longest_batch(lengths: Sequence[int], *, rows: int, max_tokens: int | None) -> list[int]:
    """Return the row numbers of the batch with the most padded tokens, of equal ones that with the longest row.

    Args:
        lengths: what each row adds to a batch whose longest row it is, in tokens.
        rows: rows of a batch, where the trainer makes them.
        max_tokens: padded tokens of a batch, where the batches are ours; an epoch's own are held to a little less.

    Example:
        >>> longest_batch([3, 9, 2, 4], rows=2, max_tokens=None)
        [1, 3]
        >>> longest_batch([3, 4, 2, 4, 5], rows=2, max_tokens=9)
        [3, 1]
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    if max_tokens is None:
        return order[::-1][:rows]
    batches, start = [], 0
    for size in cut([lengths[row] for row in order], repeat(max_tokens)):
        batches.append(order[start : start + size][::-1])
        start += size
    return max(batches, key=lambda batch: (len(batch) * lengths[batch[0]], lengths[batch[0]]))


def _forward_and_backward(trainer: Any, model: Any, rows: Sequence[int]) -> None:
    """Do what the trainer does with a batch before it steps."""
    model.train()
    batch = trainer.data_collator([trainer.train_dataset[row] for row in rows])
    inputs = trainer._prepare_inputs(batch)
    with getattr(trainer, "maybe_activation_offload_context", nullcontext()):
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, inputs)
        trainer.accelerator.backward(loss.mean())


@contextmanager
def _nothing_changed(trainer: Any, model: Any) -> Iterator[None]:
    """Put back whatever a forward and a backward pass change, also when they fail."""
    logged = {name: copy.deepcopy(getattr(trainer, name)) for name in _LOGGED if hasattr(trainer, name)}
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        for name, value in logged.items():
            setattr(trainer, name, value)


def _moments(trainer: Any) -> list[torch.Tensor]:
    """Return as much memory as Adam's two moments will take from its first step on; nothing for other optimizers."""
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW) or optimizer.state:
        return []
    weights = [
        weight for group in optimizer.param_groups for weight in group["params"] if weight.requires_grad
    ]
    return [torch.empty_like(weight) for weight in weights for _ in range(2)]


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
