"""Batches of a token budget in cycles, each with the same mix of lengths and sources, short or long ones first.

A conversation cannot be cut at powers of two: an answer would lose its question. What carries over of Dataset
Decomposition (arXiv 2405.13226, sections 3.2 and 3.3) is the order: batches of near-equal length and about equal
tokens are a bucket, and the next bucket is drawn by the odds of `length_odds`. The rest is ours:

- Buckets are K parts of a cycle's batches of equal number, ranked by length. A batch has about equally many tokens,
  so the buckets do too, as those of the paper's curricula.
- Rows are dealt to an epoch's cycles first, and cut into batches then. Rows of neighbouring lengths of one source go
  to different cycles, so that each cycle has the same lengths and sources. In one long cycle a curriculum is a drift
  from the sources of short rows to those of long ones (arXiv 2503.15450 found one cycle worse than none).
- A draw decides a forward pass, not an optimizer step: all processes are given batches of one bucket at the same
  time, and the batches that a step accumulates have the mixture that the odds say.

A cycle belongs to an epoch; a run of three epochs of 8 cycles has 24.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lengthwise.apportion import apportion
from posttrain.curricula.choices import Odds
from posttrain.curricula.length_odds import Weights, bucket_weights, draw_order, emptying_shares
from posttrain.token_budget import Batch, TokenBudget, near_equal_batches, num_cuts, with_room


@dataclass(frozen=True, kw_only=True)
class LengthBuckets:
    """How the rows of a token budget become the cycles of an epoch.

    Raises:
        ValueError: if there are fewer rows than a batch for each process in each cycle.

    Example:
        >>> budget = TokenBudget(lengths=[1, 1, 1, 1, 9, 9], max_tokens=9)
        >>> order = LengthBuckets(budget=budget, odds="grow_p100", cycles=2, num_buckets=2)
        >>> [[budget.lengths[row] for row in batch] for (batch,) in order.epoch(seed=0, epoch=0)]
        [[1], [1], [9], [1], [1], [9]]
    """

    budget: TokenBudget
    odds: Odds
    cycles: int
    """Cycles of an epoch."""
    num_buckets: int = 6
    """K; as many as a cycle has forward passes where those are fewer."""
    sources: Sequence[str] | None = None
    """The source of each row; None does not look at sources."""

    def __post_init__(self) -> None:
        """Refuse cycles without a row for each process."""
        if len(self.budget.lengths) < self.cycles * self.budget.num_processes:
            raise ValueError(
                f"there are {len(self.budget.lengths)} rows for {self.cycles} cycles of "
                f"{self.budget.num_processes} processes: lower curriculum.cycles, or add data"
            )
        bucket_weights(self.odds, [1], "released")  # refuses unknown names now

    @property
    def max_tokens(self) -> int:
        """Padded tokens of a batch."""
        return self.budget.max_tokens

    @property
    def num_batches(self) -> int:
        """Batches of each process in an epoch, the same in all epochs."""
        return sum(self.passes_per_cycle)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last one may have fewer batches."""
        return -(-self.num_batches // self.budget.accumulation)

    @property
    def num_repeated(self) -> int:
        """Rows that an epoch has twice, where the rows of a cycle cannot be dealt evenly to the processes."""
        groups = [passes * self.budget.num_processes for passes in self.passes_per_cycle]
        return sum(max(0, number - rows) for number, rows in zip(groups, self._rows_per_cycle, strict=True))

    def __str__(self) -> str:
        """Return how batches make up a step, as the config and the launcher name it."""
        return str(self.budget)

    @cached_property
    def passes_per_cycle(self) -> list[int]:
        """Shape [cycles]: forward passes of a process in each cycle, the same in all epochs.

        No cycle's rows are longer, rank by rank, than the longest of each block that is dealt to the cycles; what
        suffices for these suffices for all.
        """
        lengths = np.asarray(self.budget.lengths)
        order = self._dealing_order(np.arange(len(lengths)))
        longest = [int(block.max()) for block in _blocks(lengths[order], self.cycles)]
        whole = len(lengths) // self.cycles
        found = []
        for rows in self._rows_per_cycle:
            least = num_cuts(longest[:rows] if rows == whole else longest, self.budget.max_tokens)
            found.append(with_room(least, rows, self.budget.num_processes) // self.budget.num_processes)
        return found

    def bucket_sizes(self, cycle: int) -> list[int]:
        """Return the forward passes of each bucket in a cycle, shortest first; they add up to the cycle's."""
        passes = self.passes_per_cycle[cycle]
        return apportion(passes, [1] * min(self.num_buckets, passes))

    def emptying_shares(self) -> NDArray[np.float64]:
        """Return the share of a cycle after which each bucket is empty, in the limit of many batches; shape [K]."""
        return emptying_shares(self.bucket_sizes(0), self._weights(0))

    def epoch(self, seed: int, epoch: int) -> list[list[Batch]]:
        """Return the batches of an epoch, in their order: of each forward pass the batch of each process.

        The result depends on the arguments and fields only.
        """
        return [batches for _, _, batches in self.labelled(seed, epoch)]

    def labelled(self, seed: int, epoch: int) -> list[tuple[int, int, list[Batch]]]:
        """Return the cycle and the bucket (0 is the shortest) of each forward pass of an epoch, and its batches."""
        stream = np.random.default_rng([seed, epoch])
        found: list[tuple[int, int, list[Batch]]] = []
        for cycle, rows in enumerate(self._deal(stream)):
            sizes = self.bucket_sizes(cycle)
            buckets = self._buckets(rows, sizes, stream)
            drawn = draw_order(sizes, self._weights(cycle), stream)
            found += [(cycle, rank, buckets[rank].pop()) for rank in drawn]
        return found

    def _weights(self, cycle: int) -> Weights:
        return bucket_weights(self.odds, self.bucket_sizes(cycle), "released")

    @cached_property
    def _rows_per_cycle(self) -> list[int]:
        """Rows of each cycle: the first ones have one more where the number does not go up."""
        whole, rest = divmod(len(self.budget.lengths), self.cycles)
        return [whole + (cycle < rest) for cycle in range(self.cycles)]

    def _dealing_order(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the rows by source and then by length, longest first, equal ones in the order given."""
        _, source = np.unique(list(self.sources or [""] * len(rows)), return_inverse=True)
        return rows[np.lexsort((-np.asarray(self.budget.lengths)[rows], source[rows]))]

    def _deal(self, stream: np.random.Generator) -> list[list[int]]:
        """Return the rows of each cycle: of each block of neighbours one."""
        order = self._dealing_order(stream.permutation(len(self.budget.lengths)))
        cycles: list[list[int]] = [[] for _ in range(self.cycles)]
        for block in _blocks(order, self.cycles):
            for cycle, row in enumerate(stream.permutation(block).tolist()):
                cycles[cycle].append(row)
        return cycles

    def _buckets(
        self, rows: Sequence[int], sizes: Sequence[int], stream: np.random.Generator
    ) -> list[list[list[Batch]]]:
        """Return the forward passes of each bucket, those of a bucket in random order."""
        lengths, processes = self.budget.lengths, self.budget.num_processes
        batches = near_equal_batches(
            [lengths[row] for row in rows], self.budget.max_tokens, sum(sizes) * processes, stream
        )
        batches = [[rows[place] for place in batch] for batch in batches]
        passes = [batches[start : start + processes] for start in range(0, len(batches), processes)]
        ends = np.cumsum(sizes).tolist()
        return [
            [passes[i] for i in stream.permutation(np.arange(end - size, end)).tolist()]
            for size, end in zip(sizes, ends, strict=True)
        ]


def _blocks(values: NDArray, size: int) -> list[NDArray]:
    """Return the values in blocks of `size`; the last one may be smaller."""
    return np.split(values, range(size, len(values), size))
