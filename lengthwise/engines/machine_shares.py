"""Divides a machine among the replicas of a model: GPUs, or cores where there are none."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from lengthwise.value_types import ConfigError

CORES = "VLLM_CPU_OMP_THREADS_BIND"
"""What vLLM reads on CPU: a list of cores for each worker, divided by `|`."""
_NO_LISTS = ("auto", "nobind")


def core_groups(num_groups: int, option: str = "engine.data_parallel_size") -> list[str]:
    """Return as many disjoint lists of cores, in vLLM's notation, as there are workers of vLLM.

    vLLM's own choice, "auto", keeps a core per worker in reserve and gives two replicas the same cores. The user's
    environment wins where it has a list for each worker.

    Args:
        num_groups: workers, on all replicas together.
        option: the field to name in messages.

    Raises:
        ConfigError: if there are fewer cores than workers.

    Example:
        On cores 0 to 3, two groups are `["0,1", "2,3"]`.
    """
    given = os.environ.get(CORES, "")
    if given in _NO_LISTS:
        return [given] * num_groups
    if given and given.count("|") == num_groups - 1:
        return given.split("|")
    if not hasattr(os, "sched_getaffinity"):
        return ["nobind"] * num_groups
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < num_groups:
        raise ConfigError(
            f"{option}: {num_groups} processes that compute need a core each, and this one may use {len(cores)}: "
            "lower it"
        )
    bounds = [len(cores) * index // num_groups for index in range(num_groups + 1)]
    return [",".join(map(str, cores[first:last])) for first, last in pairwise(bounds)]


def binding(groups: Sequence[str]) -> str:
    """Return the value of `CORES` for one engine whose workers take these groups.

    Example:
        >>> binding(["0", "1"]), binding(["nobind", "nobind"])
        ('0|1', 'nobind')
    """
    return groups[0] if groups[0] in _NO_LISTS else "|".join(groups)


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set a variable while the block runs: what starts inside inherits it, the next engine does not."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def gpu_groups(num_groups: int | None, gpus_each: int, ids: Sequence[str]) -> list[str]:
    """Return values of CUDA_VISIBLE_DEVICES for servers that take `gpus_each` GPUs.

    Args:
        num_groups: servers; None takes as many as the GPUs suffice for.
        gpus_each: GPUs of one server.
        ids: the GPUs there are.

    Raises:
        ConfigError: if they do not suffice.

    Example:
        >>> gpu_groups(None, 2, ["0", "1", "2", "3", "4"])
        ['0,1', '2,3']
    """
    wanted = max(1, len(ids) // gpus_each) if num_groups is None else num_groups
    if wanted * gpus_each > len(ids):
        raise ConfigError(
            f"engine.num_servers: {wanted} servers of {gpus_each} GPUs each (engine.tensor_parallel_size) need "
            f"{wanted * gpus_each}, and this machine shows {len(ids)}: lower one of the two"
        )
    return [",".join(ids[index * gpus_each : (index + 1) * gpus_each]) for index in range(wanted)]


def visible_gpus() -> list[str]:
    """Return the ids of the GPUs that this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [part.strip() for part in given.split(",") if part.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
