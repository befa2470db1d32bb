"""vLLM within the training process: what TRL leaves to its defaults, and what has to be mended on CPU.

TRL starts vLLM without saying in which type it computes: it would take bfloat16 for a model that trains in float32, and
each answer would come with log-probabilities that the trainer does not find again. So it gets the trainer's type.

On CPU, vLLM packs the weights of linear layers when it loads them, and drops the originals; the first weights that the
trainer sends then find no place. Here layers keep their weights, and multiply by them as torch does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from lengthwise.engines.machine_shares import CORES, environment

CPU_KV_CACHE_GIB = 1
"""Enough for some ten thousand tokens of a small model; a run on CPU is a trial of the settings."""


@contextmanager
def engine_options(*, dtype: str, on_cuda: bool) -> Iterator[None]:
    """Start vLLM in the block as the trainer needs it.

    Args:
        dtype: of vLLM's weights and arithmetic.
        on_cuda: whether it runs on CUDA devices.
    """
    from trl.generation import vllm_generation

    starts: Any = vllm_generation
    options: dict[str, Any] = {"dtype": dtype}
    if not on_cuda:
        _keep_weights()
        options |= {"enforce_eager": True, "kv_cache_memory_bytes": CPU_KV_CACHE_GIB << 30}
    original = starts.LLM
    starts.LLM = partial(original, **options)
    try:
        # The trainer's threads are vLLM's too: bound to single cores, they would leave the others idle.
        with environment(CORES, "nobind"):
            yield
    finally:
        starts.LLM = original


def _keep_weights() -> None:
    """Have vLLM's linear layers on CPU multiply by the weights that the trainer writes, not by a packed copy."""
    import torch
    import vllm.model_executor.layers.utils as layers

    if not hasattr(layers, "dispatch_cpu_unquantized_gemm"):
        raise RuntimeError("vLLM packs its weights elsewhere: this version of vLLM is not known here")

    def plain(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    layers.dispatch_cpu_unquantized_gemm = plain
