"""Which rows each step trains on, and why a resumed run sees the same ones.

The order of an epoch's rows depends on the seed and the epoch only. A step takes the next
`batch_size * accumulation * processes` of them, so a run may go on with other factors of the same product, and
trains each step on the same rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lengthwise.config import ConfigError

if TYPE_CHECKING:
    from transformers import TrainerCallback

CHECKED_HERE = frozenset({"per_device_train_batch_size", "gradient_accumulation_steps"})
"""Keys of the config that may differ on resume where `check_resumable` finds that the steps stay the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLayout:
    """How the rows of an epoch are dealt out."""

    num_rows: int
    batch_size: int
    """Rows of one forward pass of one process."""
    accumulation: int
    """Forward passes of a process for one step."""
    num_processes: int
    drop_last: bool = False

    @property
    def global_batch_size(self) -> int:
        """Rows of one step."""
        return self.batch_size * self.accumulation * self.num_processes

    @property
    def rows_per_epoch(self) -> int:
        """Rows that an epoch trains on; several processes fill the last batch up with the epoch's first rows.

        Example:
            >>> [BatchLayout(num_rows=6, batch_size=2, accumulation=1, num_processes=n).rows_per_epoch
            ...  for n in (1, 2)]
            [6, 8]
        """
        at_once = self.batch_size * self.num_processes
        if self.drop_last:
            return self.num_rows // at_once * at_once
        return self.num_rows if self.num_processes == 1 else -(-self.num_rows // at_once) * at_once

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last one may have fewer rows."""
        return max(1, -(-self.rows_per_epoch // self.global_batch_size))

    def __str__(self) -> str:
        """Return the factors as the config and the launcher name them."""
        return (
            f"per_device_train_batch_size {self.batch_size} x gradient_accumulation_steps {self.accumulation} "
            f"x {self.num_processes} process{'es' if self.num_processes > 1 else ''} = "
            f"{self.global_batch_size} rows a step"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, which `BatchLayout(**data)` reads back."""
        return asdict(self)


def check_resumable(before: BatchLayout, now: BatchLayout, *, bound_by: str | None) -> None:
    """Refuse to go on with a layout that would train other steps than those the run was begun with.

    Args:
        before: the layout at the start.
        now: the layout of the resumed run, on the same rows.
        bound_by: why this run cannot change its layout at all, or None.

    Raises:
        ConfigError: with both layouts and the reason.
    """
    if before == now:
        return
    reason = bound_by
    if before.global_batch_size != now.global_batch_size:
        reason = "each step would train on other rows"
        rest, at_once = before.global_batch_size, now.batch_size * now.num_processes
        if rest % at_once == 0:
            reason += f" (with gradient_accumulation_steps {rest // at_once} it could go on)"
    elif before.rows_per_epoch != now.rows_per_epoch:
        reason = (
            f"an epoch would have {now.rows_per_epoch:,} rows instead of {before.rows_per_epoch:,}, since the "
            "last batch of several processes is filled up or left out"
        )
    if reason is not None:
        raise ConfigError(
            f"the run was begun with {before}; now it is {now}: {reason}. Go on with the values it began with, "
            "or choose another --name"
        )


def same_order_after_resume() -> TrainerCallback:
    """Return a callback that ties each epoch's order to seed and epoch.

    Left alone, a run that is resumed within its second epoch with several processes shuffles as in its first
    (accelerate's `set_epoch` does not reach the sampler below two wrappers), and one with `group_by_length` as the
    global random state happens to be.
    """
    import torch
    from transformers import TrainerCallback
    from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler

    class SameOrder(TrainerCallback):
        def on_epoch_begin(
            self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any
        ) -> None:
            epoch = int(state.epoch or 0)
            if hasattr(train_dataloader, "set_epoch"):
                train_dataloader.set_epoch(epoch)
            sampler = _innermost(train_dataloader)
            if isinstance(sampler, BatchRebalanceSampler):
                sampler.set_epoch(epoch)
            if isinstance(sampler, LengthGroupedSampler):
                sampler.generator = torch.Generator().manual_seed(args.seed + epoch)

    return SameOrder()


def _innermost(loader: Any) -> Any:
    """Return the sampler below all wrappers, the one that draws the order."""
    for name in ("batch_sampler", "sampler"):
        if getattr(loader, name, None) is not None:
            return _innermost(getattr(loader, name))
    return loader
