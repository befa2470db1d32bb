"""Batches of near-equal length under a fixed number of padded tokens, dealt to processes and steps.

The rows are sorted by length and cut where one more would put the batch, padded to its longest row, over the budget.
No row is split or left out; one that is longer than the budget is a batch of its own. In each epoch every batch is held
to a little less than the budget, by a random share, so that other rows come together.

Processes get neighbouring batches at the same time, so that none waits for another; the batches of one optimizer
step come from all parts of the length distribution, so that each step sees the data's mixture. The constant tokens
per batch are those of Dataset Decomposition (arXiv 2405.13226, section 3); the rest is ours, since conversations cannot
be cut at powers of two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Batch = list[int]
"""Row numbers of one forward pass of one process."""

SLACKS = tuple(i / 100 for i in range(20, -1, -1))
"""Largest shares of the budget that a batch may leave unused; the first that needs no more batches than there are."""
SPARE_FRAC = 0.05
"""Batches of an epoch above the least number, as a share of it: room for the cuts to fall elsewhere."""


@dataclass(frozen=True, kw_only=True)
class TokenBudget:
    """How rows of known lengths become the batches of an epoch."""

    lengths: Sequence[int]
    """Tokens of each row, at least 1."""
    max_tokens: int
    """Padded tokens of a batch: rows times the longest of them."""
    num_processes: int = 1
    accumulation: int = 1
    """Batches of a process for one step."""

    @property
    def num_batches(self) -> int:
        """Batches of each process in an epoch, the same in all epochs."""
        return self._num_groups // self.num_processes

    @property
    def num_repeated(self) -> int:
        """Rows that an epoch has twice, where there are fewer rows than processes to give them to."""
        return max(0, self._num_groups - len(self.lengths))

    @property
    def num_over(self) -> int:
        """Rows longer than the budget, each a batch of its own."""
        return sum(length > self.max_tokens for length in self.lengths)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last one may have fewer batches."""
        return -(-self.num_batches // self.accumulation)

    def __str__(self) -> str:
        """Return how batches make up a step, as the config and the launcher name it."""
        return (
            f"batching.max_tokens {self.max_tokens:,} x gradient_accumulation_steps {self.accumulation} x "
            f"{self.num_processes} process{'es' if self.num_processes > 1 else ''}"
        )

    @cached_property
    def _num_groups(self) -> int:
        """Batches of all processes in an epoch; what is missing to this number is made by halving."""
        least = num_cuts(self.lengths, self.max_tokens)
        return with_room(least, len(self.lengths), self.num_processes)

    def epoch(self, seed: int, epoch: int) -> list[list[Batch]]:
        """Return the batches of an epoch, in their order: of each forward pass the batch of each process.

        The result depends on the arguments and fields only.
        """
        import numpy as np

        stream = np.random.default_rng([seed, epoch])
        batches = near_equal_batches(self.lengths, self.max_tokens, self._num_groups, stream)
        passes = [batches[i : i + self.num_processes] for i in range(0, len(batches), self.num_processes)]
        return [passes[i] for i in mixed_order(len(passes), self.accumulation, stream)]


def num_cuts(lengths: Sequence[int], max_tokens: int) -> int:
    """Return the least number of batches that rows make.

    Example:
        >>> num_cuts([5, 9, 2, 3, 2], 9)
        3
    """
    return len(cut(sorted(lengths), repeat(max_tokens)))


def with_room(least: int, most: int, num_processes: int) -> int:
    """Return a number of batches above the least, a multiple of `num_processes`.

    Args:
        least: batches that there must be.
        most: batches that the rows can fill; above it only where `num_processes` does not divide it.
        num_processes: processes that train side by side.

    Example:
        >>> with_room(100, 1000, 2), with_room(100, 101, 2), with_room(1, 9, 1)
        (106, 102, 1)
    """
    spare = 0 if least == 1 else math.ceil(SPARE_FRAC * least)
    return -(-min(least + spare, most) // num_processes) * num_processes


def near_equal_batches(
    lengths: Sequence[int], max_tokens: int, number: int, stream: np.random.Generator
) -> list[Batch]:
    """Return rows as `number` batches of near-equal lengths, the shortest first; where the cuts fall is random.

    Args:
        lengths: tokens of each row.
        max_tokens: padded tokens of a batch; a longer row is alone.
        number: batches, at least `num_cuts`; where there are fewer rows, the first ones come again.
        stream: what is drawn from; it is advanced.
    """
    import numpy as np

    shuffled = stream.permutation(len(lengths))
    rows = shuffled[np.argsort(np.asarray(lengths)[shuffled], kind="stable")].tolist()
    ascending = [lengths[row] for row in rows]
    shares = stream.random(number)
    for slack in SLACKS:  # the last one, none, needs the least number
        sizes = cut(ascending, chain(max_tokens * (1 - slack * shares), repeat(0)))
        if len(sizes) <= number:
            break
    sizes = split_to(sizes, number)
    ends = np.cumsum(sizes).tolist()
    batches = [rows[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    return batches + [[rows[i % len(rows)]] for i in range(number - len(batches))]


def cut(lengths: Sequence[int], budgets: Iterable[float]) -> list[int]:
    """Return the sizes of the batches that ascending lengths are cut into, each as large as its budget allows.

    With one budget for all there are as few batches as there can be.

    Example:
        >>> cut([2, 2, 3, 5, 9], repeat(9))
        [3, 1, 1]
    """
    sizes: list[int] = []
    size, left = 0, iter(budgets)
    budget = next(left)
    for length in lengths:
        if size and (size + 1) * length > budget:
            sizes.append(size)
            size, budget = 0, next(left)
        size += 1
    return [*sizes, size] if size else sizes


def split_to(sizes: Sequence[int], number: int) -> list[int]:
    """Return the sizes with the largest ones halved until there are `number`, or until all are 1.

    Example:
        >>> split_to([5, 1, 2], 5)
        [2, 1, 2, 1, 2]
    """
    found = list(sizes)
    while len(found) < number and max(found) > 1:
        place = found.index(max(found))
        found[place : place + 1] = [found[place] // 2, found[place] - found[place] // 2]
    return found


def mixed_order(number: int, accumulation: int, stream: np.random.Generator) -> list[int]:
    """Return 0 to `number` - 1 in an order whose every `accumulation` in a row come from all parts of the range.

    With an accumulation of A, the range is cut into A parts of equal size and each A in a row have one from each;
    only the last ones are fewer, where A does not divide `number`, and spread over the range as well.

    Example:
        >>> import numpy
        >>> order = mixed_order(7, 3, numpy.random.default_rng(0))
        >>> [sorted(order[:3]), sorted(order[3:6]), order[6:]]
        [[0, 2, 6], [1, 3, 4], [5]]
    """
    import numpy as np

    num_left = number % accumulation
    last = [
        int(stream.integers(part[0], part[-1] + 1))
        for part in np.array_split(np.arange(number), num_left or 1)
    ][:num_left]
    rest = np.setdiff1d(np.arange(number), last)
    parts = [stream.permutation(part) for part in np.array_split(rest, accumulation)]
    return [*np.stack(parts, axis=1).flatten().tolist(), *last]
