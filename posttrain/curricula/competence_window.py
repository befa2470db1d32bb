"""Batches of a token budget in an order whose longest allowed length grows; longer ones are deferred, never dropped.

At the progress u of the run, 0 to 1, only batches of rows up to w(u) tokens may come, and one of them is drawn at
random. w grows from one length to another until u = u_e and then stays: an idea of competence-based curricula
(arXiv 1903.09848), here over whole conversations, so that none is cut. Where no batch that is left is short enough,
the shortest one comes.

Progress is that of the whole run, not of an epoch: a window that opened anew in each epoch would go from short to
long as often as there are epochs. The batches are exactly those that the token budget would give a run of as many
steps, in another order. So each row comes as often as it would without a window: in a run of E epochs E times. In
exchange an epoch's first part may have a short row twice, and the run's last part is heavy with long rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np

from posttrain.batch_order import passes_of
from posttrain.curricula.choices import Shape
from posttrain.token_budget import Batch, TokenBudget


@dataclass(frozen=True, kw_only=True)
class CompetenceWindow:
    """How the batches of a run come in the order of a growing window.

    Raises:
        ValueError: naming the field, its value and the remedy.

    Example:
        >>> budget = TokenBudget(lengths=[2, 4, 8, 16], max_tokens=16)
        >>> order = CompetenceWindow(budget=budget, num_steps=4, start=2, end=16, until=1.0)
        >>> [[budget.lengths[row] for row in batch] for (batch,) in order.epoch(seed=0, epoch=0)]
        [[2], [4], [8], [16]]
    """

    budget: TokenBudget
    num_steps: int
    """Optimizer steps of the run."""
    start: float
    """Tokens of the longest row that may come at first."""
    end: float
    """Tokens of the longest row that may come from `until` on."""
    until: float = 0.5
    """u_e: the progress, above 0 and at most 1, at which `end` is reached."""
    shape: Shape = "log"

    def __post_init__(self) -> None:
        """Refuse a window that does not grow, or not within the run."""
        if not 0 < self.until <= 1:
            raise ValueError(f"until is {self.until}: it must be above 0 and at most 1, a share of the run")
        if not 0 < self.start <= self.end:
            raise ValueError(f"start is {self.start:g} and end is {self.end:g} tokens: give 0 < start <= end")
        if self.shape not in get_args(Shape):
            raise ValueError(f"shape is {self.shape!r}: choose one of {', '.join(get_args(Shape))}")

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
    def num_epochs(self) -> int:
        """Epochs that the run begins."""
        return -(-self.num_steps // self.steps_per_epoch)

    @property
    def num_passes(self) -> int:
        """Forward passes of a process in the whole run."""
        return passes_of(self.num_steps, self.num_batches, self.budget.accumulation)

    def __str__(self) -> str:
        """Return how batches make up a step, as the config and the launcher name it."""
        return str(self.budget)

    def width(self, progress: float) -> float:
        """Return w(u), in tokens."""
        return window(progress, start=self.start, end=self.end, until=self.until, shape=self.shape)

    def epoch(self, seed: int, epoch: int) -> list[list[Batch]]:
        """Return the batches of an epoch, in their order: of each forward pass the batch of each process."""
        return self._run(seed)[0][epoch * self.num_batches : (epoch + 1) * self.num_batches]

    def num_early(self, seed: int) -> int:
        """Return the forward passes whose batch is longer than the window, since no shorter one was left."""
        return self._run(seed)[1]

    @cached_property
    def _runs(self) -> dict[int, tuple[list[list[Batch]], int]]:
        """The run of each seed, kept since every epoch is a part of it."""
        return {}

    def _run(self, seed: int) -> tuple[list[list[Batch]], int]:
        """Return the forward passes of all epochs, and how many of them come before their length's time.

        Behind the run's last one stand those that its last epoch does not come to.
        """
        if seed not in self._runs:
            epochs = [self.budget.epoch(seed, epoch) for epoch in range(self.num_epochs)]
            passes = list(itertools.chain.from_iterable(epochs))
            of_run, never = passes[: self.num_passes], passes[self.num_passes :]
            longest = [
                max(self.budget.lengths[row] for row in itertools.chain(*batches)) for batches in of_run
            ]
            widths = [self.width(i / len(of_run)) for i in range(len(of_run))]
            order = deferred_order(longest, widths, np.random.default_rng([seed, self.num_epochs]))
            early = sum(longest[i] > width for i, width in zip(order, widths, strict=True))
            self._runs[seed] = ([of_run[i] for i in order] + never, early)
        return self._runs[seed]


def window(progress: float, *, start: float, end: float, until: float, shape: Shape) -> float:
    """Return the longest length that may come at a moment of the run.

    With x = min(u / u_e, 1): `linear` is start + (end - start) x; `log` grows in equal factors, as lengths do,
    exp(log start + (log end - log start) x); `sqrt` is the root of start^2 + (end^2 - start^2) x, which grows fast
    at first (the form that arXiv 1903.09848 found best).

    Args:
        progress: u, 0 to 1.
        start: length at u = 0, in tokens.
        end: length from u_e on, in tokens.
        until: u_e, above 0.
        shape: how it grows.

    Example:
        >>> [round(window(0.25, start=100, end=1600, until=0.5, shape=s)) for s in ("linear", "log", "sqrt")]
        [850, 400, 1134]
    """
    part = min(progress / until, 1.0)
    if part == 1:
        return end  # no rounding: the longest row may come
    if shape == "linear":
        return start + (end - start) * part
    if shape == "log":
        return math.exp(math.log(start) + (math.log(end) - math.log(start)) * part)
    return math.sqrt(start**2 + (end**2 - start**2) * part)


def deferred_order(longest: Sequence[int], widths: Sequence[float], stream: np.random.Generator) -> list[int]:
    """Return an order of batches in which each is no longer than the window at its place, where that is possible.

    Of the batches that the window admits one is drawn at random; if it admits none that is left, the shortest is
    taken.

    Args:
        longest: shape [N], tokens of the longest row of each batch.
        widths: shape [N], the window at each place, not falling.
        stream: what is drawn from; it is advanced.

    Returns:
        Each of 0 to N - 1 once.

    Example:
        >>> deferred_order([9, 3, 5], [3, 3, 9], np.random.default_rng(0))
        [1, 2, 0]
    """
    waiting = sorted(range(len(longest)), key=lambda i: longest[i], reverse=True)
    admitted: list[int] = []
    order: list[int] = []
    for width in widths:
        while waiting and longest[waiting[-1]] <= width:
            admitted.append(waiting.pop())
        if not admitted:
            admitted.append(waiting.pop())
        place = int(stream.integers(len(admitted)))
        admitted[place], admitted[-1] = admitted[-1], admitted[place]
        order.append(admitted.pop())
    return order
