"""The plugin that takes the busy loop out of vLLM's queue finds what it changes in the pinned vLLM."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import subprocess
import sys

import pytest

from lengthwise.engines.orphans import OWNER

pytest.importorskip("vllm", reason="vLLM is not installed")

PROBE = """
from lengthwise.engines.cpu_waiting import wait_asleep
wait_asleep()
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
import inspect
print(inspect.signature(SpinCondition.__init__).parameters["busy_loop_s"].default)
"""


def busy_loop_seconds(**environment: str) -> float:
    """Return the busy loop of a process that called the plugin with this environment."""
    env = {**{k: v for k, v in os.environ.items() if k != OWNER}, **environment}
    done = subprocess.run([sys.executable, "-c", PROBE], env=env, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def test_the_loop_is_the_only_default_of_vllms_constructor():
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    parameters = inspect.signature(SpinCondition.__init__).parameters.values()
    assert [p.name for p in parameters if p.default is not p.empty] == ["busy_loop_s"]


def test_processes_of_our_engine_wait_asleep_on_a_cpu_and_others_as_vllm_does():
    from vllm.platforms import current_platform

    assert busy_loop_seconds(**{OWNER: "1"}) == (0.0 if current_platform.is_cpu() else 1.0)
    assert busy_loop_seconds() == 1.0


def test_vllm_is_told_of_the_plugin():
    names = {point.name for point in importlib.metadata.entry_points(group="vllm.general_plugins")}
    assert {"lengthwise_orphans", "lengthwise_cpu_waiting"} <= names
