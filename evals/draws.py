"""Which of a task's samples a limited run takes: a seeded draw that shows every kind of prompt."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from evals.base import Task
from lengthwise.apportion import apportion
from lengthwise.records import Sample


def stratified(
    samples: Sequence[Sample], limit: int | None, seed: int, stratum: Callable[[Sample], str]
) -> list[Sample]:
    """Return `limit` samples drawn at random from each stratum, in the order of the source.

    Each stratum gives in proportion to its size, so that a small run shows every kind; the first N of a file that
    is sorted would show one. The draw depends on `seed` and the samples only. None, or a limit of at least all,
    returns all.
    """
    if limit is None or limit >= len(samples):
        return list(samples)
    members: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        members.setdefault(stratum(sample), []).append(index)
    names = sorted(members)
    stream = random.Random(seed)
    shares = apportion(limit, [len(members[name]) for name in names])
    chosen = [
        i for name, share in zip(names, shares, strict=True) for i in stream.sample(members[name], share)
    ]
    return [samples[index] for index in sorted(chosen)]


def first_slice(task: Task, sample: Sample) -> str:
    """Return what a limited run of a task is stratified by: the first kind of its slices, such as the length bin."""
    return next(iter(task.slices(sample).values()), "")
