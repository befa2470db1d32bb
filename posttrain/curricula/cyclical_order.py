"""Mini-epochs of a cyclical curriculum (arXiv 2202.05531) as the batches of a run.

`cyclical_curriculum` says how many rows each mini-epoch has and which; here each is cut into batches of near-equal
length under the token budget, and the run takes one mini-epoch after the other.

A trainer wants an equal number of batches in each of its epochs, which mini-epochs are not: so its epoch is as many
batches as the token budget makes of all rows, whatever mini-epochs they belong to, and the run goes through
mini-epochs until it has all its batches. The paper makes the rows seen equal to those of the epochs replaced; ours
makes the batches equal, and with them the padded tokens, so that a comparison with the same epochs is fair where short
or long rows are preferred. A mini-epoch of a share S has about S times the batches of an epoch, more or fewer as its
rows are longer or shorter.

The largest share is 1, and a run that does not get through the first mini-epoch of all rows is refused: no row goes
unseen. Of the paper's variants, the first half without a curriculum, scores anew from the model in training, and
scores that age with use are not built.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from posttrain.batch_order import passes_of
from posttrain.curricula.choices import Preference
from posttrain.curricula.cyclical_curriculum import draw_rows, selection_chances, size_schedule
from posttrain.token_budget import Batch, TokenBudget

CLIP = (0.2, 5.0)
"""Least and most chance of a row, in units of the uniform one: lengths and losses have long tails."""


@dataclass(frozen=True, kw_only=True)
class CyclicalOrder:
    """How the rows of a token budget become the mini-epochs of a run.

    Raises:
        ValueError: if the run ends before all rows have come, or a field is out of its range.

    Example:
        >>> budget = TokenBudget(lengths=[4, 4, 4, 4], max_tokens=4)
        >>> order = CyclicalOrder(budget=budget, num_steps=8, values=[1.0, 2.0, 3.0, 4.0])
        >>> sorted(row for (batch,) in order.epoch(seed=0, epoch=0) + order.epoch(0, 1) for row in batch)[-1]
        3
    """

    budget: TokenBudget
    num_steps: int
    """Optimizer steps of the run."""
    values: Sequence[float] | None
    """How hard each row is, at least 0: its length, loss, or a column of the user's. None: not known yet."""
    preference: Preference = "easy"
    start: float = 0.25
    """The smallest share, above 0 and at most 1."""
    alpha: float = 0.5
    """Factor from one share to the next, between 0 and 1."""

    def __post_init__(self) -> None:
        """Refuse values that are none, and a run without a mini-epoch of all rows."""
        sizes = size_schedule(1, start=self.start, alpha=self.alpha)  # refuses what is out of range
        if self.values is not None:
            _ = self.chances
        while sizes[-1] < 1:
            sizes = size_schedule(sum(sizes) + 0.5 * self.start, start=self.start, alpha=self.alpha)
        num_epochs = self.num_passes / self.num_batches
        if num_epochs < sum(sizes):
            raise ValueError(
                f"the run has {num_epochs:.4g} epochs, but the first mini-epoch of all rows ends after "
                f"{sum(sizes):.4g}: raise num_train_epochs or max_steps, or curriculum.start"
            )

    @property
    def max_tokens(self) -> int:
        """Padded tokens of a batch."""
        return self.budget.max_tokens

    @property
    def num_batches(self) -> int:
        """Batches of each process in an epoch, the same in all epochs."""
        return self.budget.num_batches

    @property
    def num_repeated(self) -> int:
        """Rows that an epoch of the budget has twice, where there are fewer rows than processes."""
        return self.budget.num_repeated

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last one may have fewer batches."""
        return self.budget.steps_per_epoch

    @property
    def num_passes(self) -> int:
        """Forward passes of a process in the whole run."""
        return passes_of(self.num_steps, self.num_batches, self.budget.accumulation)

    @cached_property
    def chances(self) -> NDArray[np.float64]:
        """Shape [N]: what rows are drawn by; the sum is 1."""
        assert self.values is not None
        return selection_chances(self.values, self.preference, clip=CLIP)

    def __str__(self) -> str:
        """Return how batches make up a step, as the config and the launcher name it."""
        return str(self.budget)

    def epoch(self, seed: int, epoch: int) -> list[list[Batch]]:
        """Return the batches of an epoch, in their order: of each forward pass the batch of each process."""
        first = epoch * self.num_batches
        last = first + self.num_batches
        return [batches for _, batches in self._passes(seed, last)[first:last]]

    def sizes(self, seed: int) -> list[float]:
        """Return the shares of the mini-epochs that the run has a batch of."""
        number = self._passes(seed, self.num_passes)[self.num_passes - 1][0]
        return list(itertools.islice(self._all_sizes(), number + 1))

    def num_unseen(self, seed: int) -> int:
        """Return the rows that the run has no batch of."""
        passes = self._passes(seed, self.num_passes)[: self.num_passes]
        seen = {row for _, batches in passes for batch in batches for row in batch}
        return len(self.budget.lengths) - len(seen)

    @cached_property
    def _runs(self) -> dict[int, list[tuple[int, list[Batch]]]]:
        """The forward passes of each seed, as many as were asked for, with the numbers of their mini-epochs."""
        return {}

    def _passes(self, seed: int, at_least: int) -> list[tuple[int, list[Batch]]]:
        found = self._runs.setdefault(seed, [])
        if len(found) < at_least:
            begun = found[-1][0] + 1 if found else 0
            for number, size in itertools.islice(enumerate(self._all_sizes()), begun, None):
                found += [(number, batches) for batches in self._mini_epoch(seed, number, size)]
                if len(found) >= at_least:
                    break
        return found

    def _mini_epoch(self, seed: int, number: int, size: float) -> list[list[Batch]]:
        """Return the forward passes of one mini-epoch."""
        num_rows = max(1, int(len(self.budget.lengths) * size))
        rows = draw_rows(self.chances, num_rows, np.random.default_rng([seed, number]))
        part = replace(self.budget, lengths=[self.budget.lengths[row] for row in rows])
        return [[[rows[i] for i in batch] for batch in batches] for batches in part.epoch(seed, number)]

    def _all_sizes(self) -> Iterator[float]:
        """Yield the shares of mini-epochs without end."""
        done, num_epochs = 0, 8.0
        while True:
            sizes = size_schedule(num_epochs, start=self.start, alpha=self.alpha)
            yield from sizes[done:]
            done, num_epochs = len(sizes), 2 * num_epochs
