"""What this machine computes with, told without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path


@cache
def has_cuda() -> bool:
    """Return whether an NVIDIA driver with at least one GPU is here."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or shutil.which("nvidia-smi") is None:
        return False
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


@cache
def cpu_has_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 matrices in hardware (AVX512-BF16, AMX, or Arm's own).

    Elsewhere they are emulated: 2 to 29 times slower than float32 on an AVX2 machine, by the shape. With AVX512-BF16
    they are 2.6 times faster.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def best_dtype() -> str:
    """Return `bfloat16` where the machine multiplies in it natively, else `float32`."""
    return "bfloat16" if has_cuda() or cpu_has_bfloat16() else "float32"


def num_cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
