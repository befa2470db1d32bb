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

from lengthwise.apportion import apportion
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
        [(1, [[1, 0]]), (1, [[2, 3]]), (2, [[4]])]
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

    @property
    def steps_per_cycle(self) -> dict[int, int]:
        """Steps of each bucket in each cycle, by its power, shortest first."""
        return {
            power: sum(parts) // self.sequences_per_step(power) for power, parts in self._per_cycle.items()
        }

    @property
    def num_steps(self) -> int:
        """Steps of an epoch, the same in all epochs."""
        return self.cycles * sum(self.steps_per_cycle.values())

    @property
    def num_left_out(self) -> dict[int, int]:
        """Sequences of each bucket that an epoch does not have: no full step in each cycle, or over the quota."""
        return {
            power: number - self.cycles * sum(self._per_cycle[power])
            for power, number in self._num_sequences.items()
        }

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
            batches = {power: iter(self._batches(power, pools[power], cycle, stream)) for power in powers}
            found += [Step(powers[rank], cycle, next(batches[powers[rank]])) for rank in order]
        return found

    def left_out(self, seed: int, epoch: int) -> list[int]:
        """Return the numbers of the sequences that this epoch does not have; another epoch leaves out others."""
        pools = self._pools(np.random.default_rng([seed, epoch]))
        return sorted(
            number
            for power, parts in pools.items()
            for part, size in zip(parts, self._per_cycle[power], strict=True)
            for number in part[self.cycles * size :].tolist()
        )

    @cached_property
    def _strata(self) -> dict[int, list[NDArray[np.intp]]]:
        """The sequences of each bucket, apart by source."""
        log2 = np.asarray(self.log2)
        labels = [""] * len(log2) if self.sources is None else list(self.sources)
        _, source = np.unique(labels, return_inverse=True)
        found = {}
        for power in np.unique(log2).tolist():
            members = np.flatnonzero(log2 == power)
            found[power] = [members[source[members] == label] for label in np.unique(source[members])]
        return found

    @cached_property
    def _num_sequences(self) -> dict[int, int]:
        """Sequences of each bucket."""
        return {power: sum(len(part) for part in parts) for power, parts in self._strata.items()}

    @cached_property
    def _per_cycle(self) -> dict[int, list[int]]:
        """Sequences that each cycle has of each bucket and source: full steps, the same in all cycles."""
        found = {}
        for power, parts in self._strata.items():
            most = [len(part) // self.cycles for part in parts]
            num_steps = sum(most) // self.sequences_per_step(power)
            if self.quotas is not None:
                quota = self.quotas.get(power, 0)
                num_steps = min(num_steps, quota // self.tokens_per_step // self.cycles)
            number = num_steps * self.sequences_per_step(power)
            found[power] = apportion(number, most) if number else [0] * len(parts)
        return found

    def _pools(self, stream: np.random.Generator) -> dict[int, list[NDArray[np.intp]]]:
        """Return the shuffled sequences of each bucket and source, of which cycle j takes the j-th piece."""
        return {power: [stream.permutation(part) for part in parts] for power, parts in self._strata.items()}

    def _batches(
        self, power: int, pool: list[NDArray[np.intp]], cycle: int, stream: np.random.Generator
    ) -> list[list[list[int]]]:
        """Return the batches of a bucket in a cycle, each dealt to the processes."""
        pieces = [
            part[cycle * size : (cycle + 1) * size]
            for part, size in zip(pool, self._per_cycle[power], strict=True)
        ]
        per_process = self.sequences_per_step(power) // self.num_processes
        mixed = stream.permutation(np.concatenate(pieces))
        return mixed.reshape(-1, self.num_processes, per_process).tolist()


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
