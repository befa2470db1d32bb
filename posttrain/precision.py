"""Which number type to train in, and with how many threads, by what the hardware is good at."""

from __future__ import annotations

import os
from typing import Any

from lengthwise.devices import cpu_has_bfloat16, num_cores


def on_cpu() -> bool:
    """Return whether this machine has no accelerator."""
    import torch

    return not torch.accelerator.is_available()


def weights_dtype(choice: str, *, is_lora: bool) -> str:
    """Return the type of the loaded weights for a config's `dtype`.

    `auto` is float32 for full fine-tuning: bfloat16 keeps 8 bits of a weight, so most updates at a learning rate of
    1e-5 would round to nothing. The arithmetic still runs in bfloat16 (autocast) where the hardware has it. Under
    LoRA the base is frozen and the adapter stays in float32, so bfloat16 costs nothing.
    """
    if choice != "auto":
        return choice
    return "bfloat16" if is_lora and (not on_cpu() or cpu_has_bfloat16()) else "float32"


def prepare_cpu(keys: dict[str, Any]) -> None:
    """Set the trainer's keys and torch's threads for a machine without an accelerator; else do nothing."""
    import torch

    if not on_cpu():
        return
    keys.setdefault("use_cpu", True)
    if not keys.get("fp16") and keys.setdefault("bf16", cpu_has_bfloat16()) is False:
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # the launcher's word would win over bf16: false
    # Launchers set one thread for each process; the cores are there to be shared out.
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(max(1, num_cores() // processes))
