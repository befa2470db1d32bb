"""transformers' own `generate`: slow, one request at a time, for machines and models that vLLM does not take."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lengthwise.config import option
from lengthwise.devices import best_dtype
from lengthwise.engines.base import (
    Capabilities,
    ContextOverflow,
    EngineError,
    Likelihood,
    Sampling,
    room_for,
)
from lengthwise.engines.chat_tokenizer import TEMPLATE_HELP, ChatTokenizer, token_ids
from lengthwise.engines.reasoning import AUTO, TAGS_HELP, check_tags
from lengthwise.engines.request_log import RequestLog
from lengthwise.models import ModelRef, folder_digest, resolve_model
from lengthwise.records import Completion, Prompt, Usage
from lengthwise.vocabulary import fit_rows

T = TypeVar("T")


@dataclass(kw_only=True)
class Config:
    """Options of the transformers engine."""

    max_model_len: int | None = option(None, help="context in tokens; default: the model's own")
    dtype: str = option("auto", help="auto: bfloat16 where it is native, else float32; or a dtype's name")
    device: str = option("auto", help="auto, cpu, cuda", operational=True)
    reasoning_tags: str | list[str] | None = option(AUTO, help=TAGS_HELP)
    chat_template_kwargs: dict[str, Any] = option(default_factory=dict, help=TEMPLATE_HELP)
    request_log: str | None = option(None, help="file for the engine's own log of requests", operational=True)

    def __post_init__(self) -> None:
        """Refuse tags that are none."""
        check_tags(self.reasoning_tags)


class Engine:
    """A model run by transformers."""

    capabilities = Capabilities(prefill=True, seeds=True, adapters=True, logprobs=True, prompt_logprobs=True)

    def __init__(self, model: str, config: Config, *, adapter: str | None = None):
        """Name the model; nothing is loaded before `start`."""
        self.model = model if adapter is None else f"{model}+{adapter}"
        self.config = config
        self.context_length = 0
        self._spec = (model, adapter)
        self._log = RequestLog(config.request_log)
        self._busy = asyncio.Lock()
        self._model: Any = None
        self._adapters: dict[str, str] = {}

    async def start(self) -> None:
        """Load the model."""
        import torch
        from transformers import AutoModelForCausalLM

        self._ref = resolve_model(*self._spec)
        self._tokenizer = ChatTokenizer(
            self._ref.tokenizer_path, self.config.reasoning_tags, self.config.chat_template_kwargs
        )
        device = self.config.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = getattr(torch, best_dtype() if self.config.dtype == "auto" else self.config.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise EngineError(
                f"engine.dtype: {self.config.dtype!r} is no torch dtype: use bfloat16 or float32"
            )
        model: Any = AutoModelForCausalLM.from_pretrained(self._ref.path, dtype=dtype)
        if self._ref.adapter is not None:
            fit_rows(model, len(self._tokenizer.tokenizer))  # an adapter may bring tokens that its base lacks
        self._model = model.to(device).eval()
        tokenizer = self._tokenizer.tokenizer
        self._pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.context_length = self.config.max_model_len or self._model.config.max_position_embeddings

    async def stop(self) -> None:
        """Drop the model."""
        self._model = None
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
        """The tokens at which every reply ends: those of the generation config alone."""
        return token_ids(self._model.generation_config.eos_token_id)

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
            ContextOverflow: if prompt and `max_tokens` do not fit the context.
            EngineError: if a JSON schema is asked for, which transformers cannot follow.
        """
        if sampling.json_schema is not None:
            raise EngineError(
                "the hf engine cannot follow a JSON schema: use vllm, or a prompt that asks for it"
            )
        if sampling.n > 1 and sampling.temperature == 0:
            raise EngineError(
                f"{sampling.n} completions at temperature 0 would be equal: ask for 1 or raise the temperature"
            )
        ids = self._tokenizer.encode(prompt)
        room = room_for(len(ids), sampling, self.context_length)
        self._log.write("started", prompt, sampling, adapter)
        async with self._busy:
            folder = Path(adapter) if adapter is not None else self._ref.adapter
            self._use_adapter(folder)
            cancelled = threading.Event()
            asked = self._tokenizer.for_model(sampling)
            completions = await _in_thread(lambda: self._generate(ids, asked, room, cancelled), cancelled)
        self._log.write("finished", prompt, sampling, adapter)
        return [self._tokenizer.separate(reply, prompt, sampling) for reply in completions]

    async def loglikelihood(
        self, prompt: Prompt, continuation: str, *, adapter: str | None = None
    ) -> Likelihood:
        """Return how likely `continuation` follows the rendered prompt: one forward pass.

        Raises:
            ContextOverflow: if both together do not fit the context.
            EngineError: if the continuation is empty, or the adapter cannot be loaded.
        """
        ids, start = self._tokenizer.encode_with(prompt, continuation)
        if len(ids) > self.context_length:
            raise ContextOverflow(
                f"a prompt with its continuation of {len(ids)} tokens does not fit the context of "
                f"{self.context_length}: use a longer one (engine.max_model_len)"
            )
        self._log.write_likelihood("started", prompt, continuation, adapter)
        async with self._busy:
            self._use_adapter(Path(adapter) if adapter is not None else self._ref.adapter)
            found = await _in_thread(lambda: self._likelihood(ids, start), threading.Event())
        self._log.write_likelihood("finished", prompt, continuation, adapter)
        return found

    def _likelihood(self, ids: list[int], start: int) -> Likelihood:
        import torch

        inputs = torch.tensor([ids], device=self._model.device)
        with torch.inference_mode():
            # The logits at a place are those of the token after it.
            logits = self._model(inputs, use_cache=False).logits[0, start - 1 : -1].float()
        own = logits.log_softmax(-1).gather(1, inputs[0, start:, None])[:, 0]
        return Likelihood(
            logprob=float(own.sum()),
            is_greedy=bool((logits.argmax(-1) == inputs[0, start:]).all()),
            num_prompt_tokens=len(ids),
        )

    def _use_adapter(self, folder: Path | None) -> None:
        if folder is None:
            if self._adapters:
                self._model.disable_adapters()
            return
        identity = folder_digest(folder)
        if identity not in self._adapters:
            name = f"adapter_{identity[:16]}"
            try:
                self._model.load_adapter(str(folder), adapter_name=name)
            except Exception as error:  # transformers and PEFT raise whatever they meet
                with suppress(Exception):
                    self._model.delete_adapter(name)  # half of it may be in place
                raise EngineError(f"adapter: transformers cannot load {folder}: {error}") from error
            self._adapters[identity] = name
        self._model.enable_adapters()
        self._model.set_adapter(self._adapters[identity])

    def _generate(
        self, ids: list[int], sampling: Sampling, max_tokens: int, cancelled: threading.Event
    ) -> list[Completion]:
        import torch
        from transformers import StoppingCriteriaList

        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        greedy = sampling.temperature == 0
        inputs = torch.tensor([ids], device=self._model.device)
        tokenizer = self._tokenizer.tokenizer
        with torch.inference_mode():
            output = self._model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                do_sample=not greedy,
                temperature=None if greedy else sampling.temperature,
                top_p=None if greedy else sampling.top_p,
                top_k=None if greedy else sampling.top_k or 0,
                repetition_penalty=sampling.repetition_penalty,
                num_return_sequences=sampling.n,
                max_new_tokens=max_tokens,
                stop_strings=list(sampling.stop) or None,
                stopping_criteria=StoppingCriteriaList([lambda ids, scores, **_: cancelled.is_set()]),
                tokenizer=tokenizer,
                pad_token_id=self._pad,
                output_logits=sampling.logprobs,
                return_dict_in_generate=True,
            )
        ends = self._model.generation_config.eos_token_id
        ends = set(ends) if isinstance(ends, list) else {ends}
        return [
            self._completion(ids, output, row, index, ends, sampling)
            for index, row in enumerate(output.sequences[:, len(ids) :].tolist())
        ]

    def _completion(
        self,
        prompt_ids: list[int],
        output: Any,
        row: list[int],
        index: int,
        ends: set[int],
        sampling: Sampling,
    ) -> Completion:
        end = next((i for i, token in enumerate(row) if token in ends), None)
        tokens = row if end is None else row[: end + 1]  # padding after the end left out
        text = self._tokenizer.tokenizer.decode(tokens, skip_special_tokens=True)
        stopped = end is not None
        for stop in sampling.stop:
            if stop in text:
                text, stopped = text[: text.index(stop)], True
                # A row that stopped before the others is filled up.
                while tokens[-1] in ends or tokens[-1] == self._pad:
                    tokens = tokens[:-1]
        logprobs = None
        if sampling.logprobs:
            import torch

            steps = torch.stack([step[index] for step in output.logits[: len(tokens)]]).float()
            chosen = torch.tensor(tokens, device=steps.device)[:, None]
            logprobs = tuple(steps.log_softmax(-1).gather(1, chosen)[:, 0].tolist())
        return Completion(
            text=text,
            finish_reason="stop" if stopped else "length",
            num_tokens=len(tokens),
            token_ids=tuple(tokens),
            model=self.model,
            logprobs=logprobs,
            usage=Usage(prompt_tokens=len(prompt_ids) if index == 0 else 0, completion_tokens=len(tokens)),
        )


async def _in_thread(work: Callable[[], T], cancelled: threading.Event) -> T:
    """Run `work` in a thread; when cancelled, say so to it and wait: the next request needs the model."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        cancelled.set()
        await asyncio.wait([task])
        raise
