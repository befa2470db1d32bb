"""vLLM's processes on a CPU wait asleep for each other, and leave the cores to the model.

Between two messages a reader of vLLM 0.32's shared-memory queue yields the processor in a loop for up to a
second before it sleeps. One step of a model takes less, so the engine's core process never sleeps. On a quiet machine
the model's threads hardly notice; where other work wants the cores too, each step waits for the thread that got least
of them, and a third of the speed is left. The queue's own way of sleeping (a notification over a socket for every
message) is there: this makes it start at once.
"""

from __future__ import annotations

import os

from lengthwise.engines.orphans import OWNER


def wait_asleep() -> None:
    """Take the busy loop out of vLLM's message queue, in the processes of our engines on a CPU; else do nothing.

    A vLLM plugin (see `pyproject.toml`): vLLM calls it in each of its processes before queues are made.
    """
    if OWNER not in os.environ:
        return
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    SpinCondition.__init__.__defaults__ = (0.0,)  # busy_loop_s
