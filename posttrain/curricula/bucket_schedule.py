"""The steps of an epoch over buckets of sequences of 2^i tokens, in the order of a length curriculum.

Each step trains on the same number of tokens, b, in b / 2^i sequences of one bucket (arXiv 2405.13226, section
3.2), the same number on each process: so no process waits, and the learning rate needs no rescaling. An epoch
is a number of cycles, each with the same token mix; inside a cycle the next bucket is drawn without replacement
by the odds of `length_odds` (Algorithm 1). Where the sequences' sources are known, the cycles have the same mix
of them too (ours: length goes with domain, so a curriculum would otherwise be a drift between domains).

The order depends on the fields, the seed and the epoch only. A run that stopped after `n` steps goes on at
`steps(...)[n:]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from posttrain.curricula.choices import Odds, Weighting
from posttrain.curricula.length_odds import bucket_weights, draw_order


@dataclass(frozen=True)
class Step:
    """The sequences of one optimizer step."""

    log2: int
    """The bucket i: each sequence has 2^i tokens."""
    cycle: int
    """From 0."""
    sequences: list[list[int]]
    """Shape [num_processes, b / 2^i / num_processes]: the numbers of each process's sequences."""


@dataclass(frozen=True, kw_only=True)
class BucketSchedule:
    """How sequences become the steps of an epoch.

    Raises:
        ValueError: if a step cannot give each process as many tokens of every bucket, if a bucket's quota is
            more than the bucket has, if no bucket has a step for each cycle, or if a name is unknown.

    Example:
        >>> schedule = BucketSchedule(log2=[1, 1, 1, 1, 2], tokens_per_step=4, cycles=1, curriculum="grow_p100")
        >>> [(step.log2, step.sequences) for step in schedule.steps(seed=0, epoch=1)]
        [(1, [[0, 2]]), (1, [[1, 3]]), (2, [[4]])]
    """

    log2: Sequence[int] | NDArray[np.int64]
    """The power i of each sequence, which has 2^i tokens (`Decomposition.log2`)."""
    tokens_per_step: int
    """b: tokens of all processes in an optimizer step."""
    num_processes: int = 1
    """The equal parts that a step is dealt to; with gradient accumulation, processes times micro-batches."""
    cycles: int = 8
    """Cycles of an epoch. A growing curriculum in one cycle did worse than no order (arXiv 2503.15450)."""
    curriculum: Odds = "natural"
    weighting: Weighting = "released"
    """See `length_odds.bucket_weights`."""
    sources: Sequence[str] | None = None
    """The source of each sequence, to be spread evenly over the cycles; None does not look at sources."""
    quotas: Mapping[int, int] | None = None
    """Most tokens of an epoch from each bucket, by its power; a bucket that is not named gives none. None: all."""
    longest_first: bool = True
    """Whether epoch 0 begins with a step of the longest bucket, so that too little memory shows at once."""

    def __post_init__(self) -> None:
        """Refuse what cannot be dealt out evenly."""
        if not len(self.log2) or self.cycles < 1 or self.num_processes < 1:
            raise ValueError(
                f"there are {len(self.log2)} sequences, {self.cycles} cycles and {self.num_processes} processes: "
                "at least one of each is needed"
            )
        if self.sources is not None and len(self.sources) != len(self.log2):
            raise ValueError(
                f"sources has {len(self.sources)} labels for {len(self.log2)} sequences: "
                "give each its own, or None"
            )
        bucket_weights(self.curriculum, [1], self.weighting)  # refuses unknown names now
        _check_step(self.tokens_per_step, int(max(self.log2)), self.num_processes)
        for power, quota in (self.quotas or {}).items():
            tokens = self._num_sequences.get(power, 0) << power
            if not 0 <= quota <= tokens:
                raise ValueError(
                    f"quotas has {quota:,} tokens for sequences of 2^{power}, of which there are {tokens:,} "
                    "tokens: choose from 0 to that, or train another epoch"
                )
        if not self.num_steps:
            raise ValueError(
                f"no bucket has a step of {self.tokens_per_step:,} tokens for each of {self.cycles} cycles: "
                "lower tokens_per_step or cycles, raise the quotas, or add data"
            )

    @cached_property
    def steps_per_cycle(self) -> dict[int, int]:
        """Steps of each bucket in each cycle, by its power, shortest first."""
        found = {}
        for power, number in self._num_sequences.items():
            found[power] = number // self.cycles // self.sequences_per_step(power)
            if self.quotas is not None:
                quota = self.quotas.get(power, 0)
                found[power] = min(found[power], quota // self.tokens_per_step // self.cycles)
        return found

    @property
    def num_steps(self) -> int:
        """Steps of an epoch, the same in all epochs."""
        return self.cycles * sum(self.steps_per_cycle.values())

    @property
    def num_left_out(self) -> dict[int, int]:
        """Sequences of each bucket that an epoch does not have: no full step in each cycle, or over the quota."""
        return {power: number - self._num_taken(power) for power, number in self._num_sequences.items()}

    @property
    def num_tokens_left_out(self) -> int:
        """Tokens of the sequences that an epoch does not have."""
        return sum(number << power for power, number in self.num_left_out.items())

    def sequences_per_step(self, power: int) -> int:
        """Return the sequences of 2^power tokens in a step, of all processes together."""
        return self.tokens_per_step >> power

    def steps(self, seed: int, epoch: int) -> list[Step]:
        """Return the steps of an epoch, in their order.

        Args:
            seed: at least 0.
            epoch: from 0.
        """
        stream = np.random.default_rng([seed, epoch])
        pools = self._pools(stream)
        powers = list(self.steps_per_cycle)
        counts = list(self.steps_per_cycle.values())
        weights = bucket_weights(self.curriculum, counts, self.weighting)
        found: list[Step] = []
        for cycle in range(self.cycles):
            order = draw_order(counts, weights, stream)
            if self.longest_first and epoch == 0 and cycle == 0:
                order.insert(0, order.pop(order.index(max(order))))
            batches = {power: iter(self._batches(power, pools[power][cycle], stream)) for power in powers}
            found += [Step(powers[rank], cycle, next(batches[powers[rank]])) for rank in order]
        return found

    def left_out(self, seed: int, epoch: int) -> list[int]:
        """Return the numbers of the sequences that this epoch does not have; another epoch leaves out others."""
        pools = self._pools(np.random.default_rng([seed, epoch]))
        taken = np.concatenate([pool.ravel() for pool in pools.values()])
        return np.setdiff1d(np.arange(len(self.log2)), taken).tolist()

    @cached_property
    def _by_source(self) -> NDArray[np.intp]:
        """The number of each sequence's source."""
        labels = [""] * len(self.log2) if self.sources is None else list(self.sources)
        return np.unique(labels, return_inverse=True)[1]

    @cached_property
    def _num_sequences(self) -> dict[int, int]:
        """Sequences of each bucket."""
        powers, numbers = np.unique(np.asarray(self.log2), return_counts=True)
        return dict(zip(powers.tolist(), numbers.tolist(), strict=True))

    def _num_taken(self, power: int) -> int:
        """Return the sequences of a bucket in an epoch: full steps, the same in all cycles."""
        return self.cycles * self.steps_per_cycle[power] * self.sequences_per_step(power)

    def _pools(self, stream: np.random.Generator) -> dict[int, NDArray[np.intp]]:
        """Return the sequences of each bucket in each cycle, shape [cycles, n].

        In random order within each source, source after source, evenly spaced ones are taken, and each block of
        neighbours gives one to each cycle: so the cycles differ by two sequences of a source at most.
        """
        return {power: self._dealt(power, stream) for power in self._num_sequences}

    def _dealt(self, power: int, stream: np.random.Generator) -> NDArray[np.intp]:
        members = stream.permutation(np.flatnonzero(np.asarray(self.log2) == power))
        members = members[np.argsort(self._by_source[members], kind="stable")]
        number = self._num_taken(power)
        places = ((np.arange(number) + stream.random()) * len(members) / max(number, 1)).astype(int)
        blocks = members[places].reshape(-1, self.cycles)
        return stream.permuted(blocks, axis=1).T

    def _batches(
        self, power: int, pool: NDArray[np.intp], stream: np.random.Generator
    ) -> list[list[list[int]]]:
        """Return the batches of a bucket in a cycle, each dealt to the processes; `pool` is the cycle's, shape [n]."""
        per_process = self.sequences_per_step(power) // self.num_processes
        return stream.permutation(pool).reshape(-1, self.num_processes, per_process).tolist()


def _check_step(tokens_per_step: int, longest: int, num_processes: int) -> None:
    """Refuse tokens per step that do not give each process the same whole number of the longest sequences."""
    needed = num_processes << longest
    if tokens_per_step > 0 and tokens_per_step % needed == 0:
        return
    reason = (
        f"tokens_per_step is {tokens_per_step:,}, but the longest bucket has sequences of 2^{longest} = "
        f"{1 << longest:,} tokens and each of {num_processes} processes takes the same number of "
        f"them, at least one: raise tokens_per_step to {-(-max(tokens_per_step, 1) // needed) * needed:,}"
    )
    share, rest = divmod(tokens_per_step, num_processes)
    if share > 0 and not rest:
        reason += f", or cut documents with a max_log2 of {(share & -share).bit_length() - 1} at most"
    raise ValueError(reason)
