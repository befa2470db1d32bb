"""What our trainers add to TRL's: batches of a token budget, a log of the rows, and a smaller head.

Imported once a job is about to train: it imports TRL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import Trainer
from transformers.trainer_pt_utils import BatchRebalanceSampler
from trl.trainer import utils as trl_utils

from posttrain.step_rows import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from posttrain.batch_order import BatchOrder
    from posttrain.step_rows import StepRows
    from posttrain.token_budget import Batch
    from posttrain.trainers.preflight import Preflight


class TokenBudgetSampler(BatchRebalanceSampler):
    """One process's batches of a token budget.

    Of the base it has nothing but the class: by that the trainer knows that batches come ready, and already dealt to
    the processes.
    """

    def __init__(self, budget: BatchOrder, *, seed: int, rank: int) -> None:  # pyright: ignore[reportMissingSuperCall]
        """Deal the batches of `budget`; those of `rank` are this process's."""
        self.budget = budget
        self.seed = seed
        self.rank = rank
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say whose batches come next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        """Yield the row numbers of each forward pass of this process."""
        for batches in self.budget.epoch(self.seed, self.epoch):
            yield batches[self.rank]

    def __len__(self) -> int:
        """Return the forward passes of an epoch."""
        return self.budget.num_batches


class LengthTrainer(Trainer):
    """To stand before one of TRL's trainers; it may take its batches from a token budget and tell which rows it saw."""

    def __init__(
        self,
        *args: Any,
        token_budget: BatchOrder | None = None,
        step_rows: StepRows | None = None,
        preflight: Preflight | None = None,
        **kwargs: Any,
    ) -> None:
        """Take TRL's arguments and our own."""
        self._preflight = preflight
        self._token_budget = token_budget
        self._step_rows = step_rows
        project_supervised_only()
        super().__init__(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self._token_budget is None:
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return TokenBudgetSampler(self._token_budget, seed=seed, rank=self.args.process_index)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Train on a batch, the first time on the longest one for nothing; and note what it was made of."""
        if self._preflight is not None:
            preflight, self._preflight = self._preflight, None
            self.accelerator.print(preflight.run(self, model), flush=True)
        if self._step_rows is not None:
            self._step_rows.see(self.rows_in(inputs))
        metrics: Any = self
        for name, value in self.batch_facts(inputs).items():
            metrics._metrics["train"][name].append(value)
        return super().training_step(model, inputs, *args, **kwargs)

    def rows_in(self, inputs: Any) -> Iterator[Any]:
        """Yield the token ids of each row of a batch, or of each pair, without padding."""
        return rows_of(inputs)

    def batch_facts(self, inputs: Any) -> dict[str, float]:
        """Return what is logged of a batch of this process, beside what TRL logs."""
        raise NotImplementedError


def project_supervised_only() -> None:
    """Make TRL's fused head project the positions that carry loss, on every device.

    TRL does so on devices with Triton and else projects all, prompts and padding included, to spare compilers changing
    shapes; torch itself does not mind them. Loss and gradients are the same.
    """
    hooks: Any = trl_utils
    if not callable(getattr(hooks, "_use_triton", None)):
        raise RuntimeError(
            "TRL has moved the switch of its fused head: this version of TRL is not known here"
        )
    hooks._use_triton = lambda device: True
