"""Several vLLM servers of one model on this machine, started by the job: data parallelism in processes.

Each server has GPUs of its own, or a share of the cores, and its own cache of prefixes; the least busy one gets the
next request. One that dies is left out, the others go on. Requests go through `openai_http`; what is different here is
that the model's files are known: the weights have an identity by content, and prompts are counted exactly.

A server answers for one model, the base or its adapter, never for both: vLLM 0.32 on CPU mixes them up in a batch.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lengthwise.config import ConfigError, option
from lengthwise.devices import best_dtype, has_cuda
from lengthwise.engines import openai_http
from lengthwise.engines.base import Capabilities, EngineDead, EngineError, Sampling
from lengthwise.engines.chat_tokenizer import TEMPLATE_HELP, ChatTokenizer
from lengthwise.engines.lora_slots import LoraSlots, lora_rank, served_rank
from lengthwise.engines.machine_shares import (
    CORES,
    binding,
    core_groups,
    environment,
    gpu_groups,
    visible_gpus,
)
from lengthwise.engines.reasoning import AUTO, TAGS_HELP, check_tags
from lengthwise.engines.server_processes import ServerCommand, ServerProcesses, free_ports, told_context
from lengthwise.models import resolve_model
from lengthwise.records import Completion, Prompt
from lengthwise.scratch import Scratch, remove_abandoned

LAUNCH = [sys.executable, "-m", "lengthwise.engines.serve_vllm"]
"""What starts a server; its arguments follow."""

_KEY = "VLLM_API_KEY"
"""Where the servers find the key that they ask for, if it is set."""
_OURS = ("host", "port", "uds", "model", "served_model_name", "lora_modules")


@dataclass(kw_only=True)
class Config:
    """Options of the servers."""

    num_servers: int | None = option(
        None, help="servers; default: as many as the GPUs suffice for, 1 on CPU", operational=True
    )
    max_model_len: int | None = option(None, help="context in tokens; default: the model's own")
    dtype: str = option("auto", help="auto: bfloat16 where it is native, else float32; or a dtype's name")
    enforce_eager: bool | None = option(
        None, help="skip graph capture; default: on for CPU, off for CUDA", operational=True
    )
    max_lora_rank: int | None = option(None, help="largest rank served; default: the adapter's")
    tensor_parallel_size: int = option(1, help="GPUs one server spans", operational=True)
    gpu_memory_utilization: float = option(0.9, help="share of GPU memory vLLM may take", operational=True)
    cpu_kv_cache_gib: int = option(2, help="KV cache on CPU, GiB for each server", operational=True)
    start_seconds: float = option(1800.0, help="longest wait until all servers are ready", operational=True)
    timeout_seconds: float = option(3600.0, help="longest wait for one answer", operational=True)
    max_in_flight: int = option(256, help="most requests under way at one server", operational=True)
    reasoning_tags: str | list[str] | None = option(AUTO, help=TAGS_HELP)
    chat_template_kwargs: dict[str, Any] = option(default_factory=dict, help=TEMPLATE_HELP)
    request_log: str | None = option(None, help="file for the engine's own log of requests", operational=True)
    server_options: dict[str, Any] = option(
        default_factory=dict,
        help="any further flag of vLLM's server: {max_num_seqs: 64, trust_remote_code: true}",
    )

    def __post_init__(self) -> None:
        """Refuse values that no server can have."""
        check_tags(self.reasoning_tags)
        for name in ("num_servers", "tensor_parallel_size", "cpu_kv_cache_gib", "max_in_flight"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        for name in ("start_seconds", "timeout_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give seconds above 0")
        for name in self.server_options:
            if name.replace("-", "_") in _OURS:
                raise ValueError(f"server_options.{name} is chosen by the engine: leave it out")


class Engine:
    """A model, or an adapter on it, behind servers of our own."""

    capabilities = Capabilities(prefill=True, json_schema=True, seeds=True)

    def __init__(self, model: str, config: Config, *, adapter: str | None = None):
        """Name the model; nothing is started before `start`."""
        self.model = model if adapter is None else f"{model}+{adapter}"
        self.config = config
        self.context_length = 0
        self._spec = (model, adapter)
        self._open = ExitStack()
        self._servers: ServerProcesses | None = None
        self._client: openai_http.Engine | None = None
        self._obituary: asyncio.Task[str] | None = None
        """Ends when no server is left."""

    async def start(self) -> None:
        """Start the servers and wait until they answer.

        Raises:
            ConfigError: for a model or adapter that cannot be served, or too few GPUs or cores.
            EngineError: if vLLM is not installed, or a server does not start.
        """
        if importlib.util.find_spec("vllm") is None:
            raise EngineError("engine: vLLM is not installed: `make setup` installs it")
        self._ref = resolve_model(*self._spec)
        self._tokenizer = ChatTokenizer(
            self._ref.path, self.config.reasoning_tags, self.config.chat_template_kwargs
        )
        if self._tokenizer.tags_are_hidden and "reasoning_parser" not in self.config.server_options:
            raise ConfigError(
                "engine.reasoning_tags: a server leaves this model's tags out of its text, since they are special "
                "tokens: set engine.server_options.reasoning_parser to vLLM's name for it, or take the engine vllm"
            )
        shares = _shares(self.config)
        remove_abandoned()
        scratch = Scratch("engine")
        self._open.callback(scratch.remove)
        arguments = command_line(
            self._flags() | self._adapter_flags(scratch.path) | self.config.server_options
        )
        ports = free_ports(len(shares))
        self._servers = ServerProcesses(f"vllm_server: {self.model}", scratch.path)
        commands = [
            ServerCommand(
                arguments=[*LAUNCH, *arguments, f"--port={port}"],
                environment={"VLLM_NO_USAGE_STATS": "1", **share},
                health_url=f"http://127.0.0.1:{port}/health",
            )
            for port, share in zip(ports, shares, strict=True)
        ]
        await self._servers.start(commands, self.config.start_seconds)
        self._obituary = asyncio.create_task(self._servers.wait_until_all_are_gone())
        await self._connect([f"http://127.0.0.1:{port}/v1" for port in ports])

    def _flags(self) -> dict[str, Any]:
        """Return the flags of a server of the base, the port left out."""
        config, on_cpu = self.config, not has_cuda()
        flags: dict[str, Any] = {
            "model": str(self._ref.path),
            "served_model_name": self.model,
            "host": "127.0.0.1",
            "dtype": best_dtype() if config.dtype == "auto" else config.dtype,
            "max_model_len": config.max_model_len,
            "tensor_parallel_size": config.tensor_parallel_size,
            "enforce_eager": on_cpu if config.enforce_eager is None else config.enforce_eager,
            # Else the model's generation_config.json would set what a request leaves open, such as top_k.
            "generation_config": "vllm",
            # The prompt asks for JSON; without this a small model fills its budget with white space.
            "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
            "disable_log_stats": True,
            "disable_uvicorn_access_log": True,
        }
        if on_cpu:
            flags["kv_cache_memory_bytes"] = config.cpu_kv_cache_gib << 30
            # A seeded request whose prompt is prefilled in chunks kills the engine: see `vllm.py`.
            flags["enable_chunked_prefill"] = False
        else:
            flags["gpu_memory_utilization"] = config.gpu_memory_utilization
        return flags

    def _adapter_flags(self, scratch: Path) -> dict[str, Any]:
        """Return the flags that have the adapter, checked and copied, answer under the model's name."""
        if self._ref.adapter is None:
            return {}
        rank = served_rank(self.config.max_lora_rank or lora_rank(self._ref.adapter))
        slot = LoraSlots(scratch, self._ref.path).slot(self._ref.adapter, rank)
        return {
            "served_model_name": "base",  # asked for by nobody
            "enable_lora": True,
            "max_lora_rank": rank,
            "lora_modules": {"name": self.model, "path": str(slot.folder)},
        }

    async def _connect(self, urls: Sequence[str]) -> None:
        config = self.config
        client = openai_http.Engine(
            self.model,
            openai_http.Config(
                base_urls=list(urls),
                api_key_env=_KEY,
                context_length=await asyncio.to_thread(told_context, urls[0], os.environ.get(_KEY)),
                tokenizer=str(self._ref.path),
                timeout_seconds=config.timeout_seconds,
                max_in_flight=config.max_in_flight,
                prefill=True,
                reasoning_tags=config.reasoning_tags,
                chat_template_kwargs=config.chat_template_kwargs,
                request_log=config.request_log,
            ),
        )
        self._client = client
        with environment("no_proxy", "*"):  # a proxy does not reach the servers of this machine
            await client.start()
        self.context_length = client.context_length

    async def stop(self) -> None:
        """End the servers; no process is left."""
        if self._obituary is not None:
            self._obituary.cancel()
        try:
            if self._client is not None:
                await self._client.stop()
        finally:
            if self._servers is not None:
                await self._servers.stop()
            self._open.close()

    def weights_identity(self, adapter: str | None = None) -> str:
        """Return the content digest of the weights that answer: the model's files are on this machine."""
        return self._ref.identity_with(adapter)

    def count_tokens(self, prompt: Prompt) -> int:
        """Return the exact number of tokens of the rendered prompt."""
        return len(self._tokenizer.encode(prompt))

    async def generate(
        self, prompt: Prompt, sampling: Sampling, *, adapter: str | None = None
    ) -> list[Completion]:
        """Return `sampling.n` completions, each from the server that is least busy.

        Raises:
            ContextOverflow: if prompt and `max_tokens` do not fit the context.
            EngineDead: if no server is left.
            EngineError: if there is no answer, or the request cannot be served.
        """
        if adapter is not None:
            raise EngineError("engine: vllm_server serves no adapters by request: take the engine vllm")
        if sampling.json_schema is not None and prompt[-1].role == "assistant":
            # A grammar starts at its root with the first generated token, whatever stands before it.
            raise EngineError(
                "vLLM cannot follow a JSON schema from the middle: ask for a schema or a prefill"
            )
        if sampling.temperature == 0:  # a greedy request batches faster without a generator of its own
            sampling = replace(sampling, seed=None)
        assert self._client is not None and self._obituary is not None
        answer = asyncio.ensure_future(self._client.generate(prompt, sampling))
        try:
            await asyncio.wait((answer, self._obituary), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise EngineDead(
                    f"{self._obituary.result()} Start the same command again to go on where it stopped"
                )
            return answer.result()
        finally:
            answer.cancel()


def _shares(config: Config) -> list[dict[str, str]]:
    """Return the environment that gives each server its part of the machine."""
    each = config.tensor_parallel_size
    if has_cuda():
        groups = gpu_groups(config.num_servers, each, visible_gpus())
        return [{"CUDA_VISIBLE_DEVICES": group} for group in groups]
    num_servers = config.num_servers or 1
    cores = core_groups(num_servers * each, "engine.num_servers")
    return [{CORES: binding(cores[index * each : (index + 1) * each])} for index in range(num_servers)]


def command_line(options: Mapping[str, Any]) -> list[str]:
    """Return options as flags of vLLM's command line; null is left out.

    Example:
        >>> command_line({"max_num_seqs": 8, "enforce_eager": True, "enable_chunked_prefill": False, "seed": None})
        ['--max-num-seqs=8', '--enforce-eager', '--no-enable-chunked-prefill']
    """
    flags = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if value is True:
            flags.append(f"--{flag}")
        elif value is False:
            flags.append(f"--no-{flag}")
        elif isinstance(value, Mapping):
            flags.append(f"--{flag}={json.dumps(value)}")
        elif isinstance(value, list | tuple):
            flags += [f"--{flag}", *map(str, value)]
        elif value is not None:
            flags.append(f"--{flag}={value}")
    return flags
