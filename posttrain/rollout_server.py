"""A vLLM server of its own GPUs that writes the answers while a model is trained: started, waited for, and ended here.

TRL talks to stock `vllm serve` and sends it the weights over NCCL, so both sides need CUDA. What it asks of the server
is in the flags below; the log-probabilities that come back are held against the trainer's after each sync
(`rl_guards`, `logp_gap`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.config import ConfigError, option
from lengthwise.engines.server_processes import ServerCommand, ServerProcesses, free_ports
from lengthwise.engines.vllm_server import LAUNCH, command_line
from lengthwise.scratch import Scratch, remove_abandoned
from posttrain.length_eval import is_of_launcher

_OURS = ("model", "host", "port", "dtype", "max_model_len", "weight_transfer_config", "logprobs_mode")


@dataclass(kw_only=True)
class RolloutServer:
    """Where the server runs, and how."""

    devices: str = option(
        help='CUDA devices of the server alone, such as "6,7": the trainer must not use them'
    )
    gpu_memory_utilization: float = option(0.9, help="share of their memory")
    start_seconds: float = option(1800.0, help="how long to wait until it answers")
    options: dict[str, Any] = option(
        default_factory=dict, help="more flags of `vllm serve`, such as {enable_prefix_caching: true}"
    )

    def __post_init__(self) -> None:
        """Refuse what names no device, and flags that are set here."""
        if not self.device_ids or not all(self.device_ids):
            raise ValueError(f'vllm_server.devices is {self.devices!r}: write device ids, such as "6,7"')
        for name in _OURS:
            if name in self.options or name.replace("_", "-") in self.options:
                raise ValueError(f"vllm_server.options has {name}, which is settled here: remove it")

    @property
    def device_ids(self) -> list[str]:
        """The devices one by one: the model is shared out to all of them."""
        return [device.strip() for device in str(self.devices).split(",")]

    def command(self, *, model: Path, dtype: str, max_model_len: int, port: int) -> ServerCommand:
        """Return how the server is started.

        Args:
            model: the folder of the model that the training begins from.
            dtype: what it computes in.
            max_model_len: tokens of the longest prompt with its answer.
            port: where it listens, on this machine only.
        """
        flags = {
            "model": str(model),
            "host": "127.0.0.1",
            "port": port,
            "dtype": dtype,
            "max_model_len": max_model_len,
            "tensor_parallel_size": len(self.device_ids),
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "weight_transfer_config": {"backend": "nccl"},
            "logprobs_mode": "processed_logprobs",
        }
        return ServerCommand(
            arguments=[*LAUNCH, *command_line(flags | self.options)],
            environment={
                "CUDA_VISIBLE_DEVICES": ",".join(self.device_ids),
                "VLLM_SERVER_DEV_MODE": "1",  # behind it vLLM keeps the routes by which weights come
                "VLLM_NO_USAGE_STATS": "1",
            },
            health_url=f"http://127.0.0.1:{port}/health",
        )


def check_rollout_server(server: RolloutServer | None, *, on_cuda: bool) -> None:
    """Refuse a server where weights could not reach it.

    Raises:
        ConfigError: there is no CUDA device, or the trainer would train on the server's.
    """
    if server is None:
        return
    if not on_cuda:
        raise ConfigError(
            "vllm_server: there is no CUDA device, and TRL sends weights to a server over NCCL only: on CPU, set "
            "use_vllm: true and leave vllm_server out, and vLLM runs in the training process"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:  # then each process of the trainer takes the device of its number
        trainers = {str(number) for number in range(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))}
    else:
        trainers = {device.strip() for device in visible.split(",")}
    shared = set(server.device_ids) & trainers
    if shared:
        raise ConfigError(
            f"vllm_server.devices is {server.devices!r}, and the trainer may use {', '.join(sorted(shared))} too: set "
            "CUDA_VISIBLE_DEVICES to the trainer's devices, or gpu_ids in the accelerate config"
        )


@contextmanager
def running(command: ServerCommand, start_seconds: float) -> Iterator[None]:
    """Keep a server while the block runs.

    Raises:
        EngineError: it does not start; with the cause that its log names.
    """
    remove_abandoned()
    scratch = Scratch("engine")
    servers = ServerProcesses("vllm_server", scratch.path)
    try:
        with without_launcher():
            asyncio.run(servers.start([command], start_seconds))
        yield
    finally:
        asyncio.run(servers.stop())
        scratch.remove()


@contextmanager
def without_launcher() -> Iterator[None]:
    """Hide what a launcher says to a training process, which a server would take for itself."""
    hidden = {name: value for name, value in os.environ.items() if is_of_launcher(name)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def free_port() -> int:
    """Return a port that nobody on this machine listens to now."""
    return free_ports(1)[0]
