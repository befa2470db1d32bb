"""Any OpenAI-compatible server, one or many base URLs.

This file says what is asked and what is made of an answer. How servers that fail are dealt with is in
`lengthwise.engines.openai_servers`.

`n` completions are n requests with seeds of their own. One request with `n` would have the prompt read once, but
servers then tell the tokens of all choices together, and some ignore `n`; counts that are not a choice's own are no
measure of its length. With a prefix cache (vLLM's) the prompt costs little again; each completion's `usage` says
what its own request cost, retries whose cost a server told included.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lengthwise.config import ConfigError, option
from lengthwise.engines.base import (
    Capabilities,
    ContextOverflow,
    EngineDead,
    EngineError,
    Sampling,
    room_for,
)
from lengthwise.engines.chat_tokenizer import TEMPLATE_HELP, ChatTokenizer
from lengthwise.engines.openai_messages import (
    Answer,
    Fault,
    chat_request,
    is_base_url,
    seed_of_choice,
    share_of_reasoning,
)
from lengthwise.engines.openai_servers import Patience, Servers
from lengthwise.engines.reasoning import (
    AUTO,
    TAGS_HELP,
    THINK,
    check_tags,
    cut_at_stop,
    find_tags,
    split_reasoning,
)
from lengthwise.engines.request_log import RequestLog
from lengthwise.records import Completion, Prompt, Usage, digest

_MOST_BYTES_A_TOKEN = 8
"""Of ordinary text in any language; the mean is 4 to 5."""

_NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""vLLM's words for "not used"; of what a request leaves open it else takes the model's generation_config.json."""


@dataclass(kw_only=True)
class Config:
    """Options of an OpenAI-compatible server."""

    base_urls: list[str] = option(
        default_factory=lambda: ["http://127.0.0.1:8000/v1"],
        help="servers of the same model",
        operational=True,
    )
    api_key_env: str = option(
        "OPENAI_API_KEY", help="environment variable that holds the key", operational=True
    )
    context_length: int | None = option(None, help="tokens; default: what the server says (vLLM does)")
    tokenizer: str | None = option(
        None,
        help="model id whose tokenizer counts tokens exactly; default: prompts are estimated from characters",
    )
    wait_seconds: float = option(
        0.0, help="at the start, how long to wait for a server that is still loading", operational=True
    )
    timeout_seconds: float = option(
        600.0, help="longest wait for one answer, from sending to its last byte", operational=True
    )
    max_retries: int = option(
        6,
        help="retries of one request after a server's fault; being told to wait (429) is none",
        operational=True,
    )
    max_in_flight: int = option(
        256, help="most requests under way at one server; fewer when it is overloaded", operational=True
    )
    dead_after_seconds: float = option(
        300.0, help="stop the run when no server has worked for this long", operational=True
    )
    json_schema: bool = option(True, help="the server follows response_format json_schema")
    prefill: bool = option(False, help="the server continues a last assistant turn (vLLM does)")
    seeds: bool = option(True, help="the server takes a seed")
    extra_body: dict[str, Any] = option(
        default_factory=dict, help="further request fields, passed as they are"
    )
    reasoning_tags: str | list[str] | None = option(
        AUTO, help=TAGS_HELP + "; auto without a tokenizer takes <think>"
    )
    chat_template_kwargs: dict[str, Any] = option(
        default_factory=dict, help=TEMPLATE_HELP + "; sent to the server (vLLM and SGLang take them)"
    )
    request_log: str | None = option(None, help="file for the engine's own log of requests", operational=True)

    def __post_init__(self) -> None:
        """Refuse values that no run can have."""
        check_tags(self.reasoning_tags)
        if not self.base_urls:
            raise ValueError("base_urls: give at least one server, such as http://127.0.0.1:8000/v1")
        for url in self.base_urls:
            if not is_base_url(url):
                raise ValueError(f"base_urls: {url!r} is no address, such as http://127.0.0.1:8000/v1")
        for name, least in (("max_in_flight", 1), ("max_retries", 0), ("wait_seconds", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least {least}")
        for name in ("timeout_seconds", "dead_after_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give seconds above 0")


class Engine:
    """A served model. `adapter` names another model that the same servers serve (vLLM's LoRA names)."""

    def __init__(self, model: str, config: Config, *, adapter: str | None = None):
        """Name the served model; nothing is asked before `start`."""
        self.model = model if adapter is None else adapter
        self.config = config
        self.context_length = config.context_length or 0
        self.capabilities = Capabilities(
            prefill=config.prefill,
            json_schema=config.json_schema,
            seeds=config.seeds,
            adapters=True,
            exact_token_counts=config.tokenizer is not None,
        )
        self._log = RequestLog(config.request_log)
        self._servers = Servers(
            config.base_urls,
            model=self.model,
            key_variable=config.api_key_env,
            max_in_flight=config.max_in_flight,
            patience=Patience(
                wait_seconds=config.wait_seconds,
                timeout_seconds=config.timeout_seconds,
                max_retries=config.max_retries,
                dead_after_seconds=config.dead_after_seconds,
            ),
        )
        self._tokenizer: Any = None
        self._extra_body = config.extra_body
        if config.chat_template_kwargs:
            self._extra_body = {**config.extra_body, "chat_template_kwargs": config.chat_template_kwargs}
        self._is_guess = config.reasoning_tags == AUTO and config.tokenizer is None
        self._tags = THINK if self._is_guess else find_tags(config.reasoning_tags, "")

    async def start(self) -> None:
        """Reach the servers and learn the context length.

        Raises:
            ConfigError: for a model that is not served, a refused key, or an unknown context length.
            EngineError: if no server answers within `wait_seconds`.
        """
        if self.config.tokenizer is not None:
            from lengthwise.models import resolve_model

            path = resolve_model(self.config.tokenizer).path
            self._tokenizer = ChatTokenizer(
                path, self.config.reasoning_tags, self.config.chat_template_kwargs
            )
            self._tags = self._tokenizer.tags
        await self._servers.open(os.environ.get(self.config.api_key_env) or "none")
        if self._servers.are_vllm:
            self._extra_body = _NEUTRAL | self._extra_body
        self.context_length = self.config.context_length or self._servers.max_model_len or 0
        if not self.context_length:
            raise ConfigError(
                "engine: the server does not tell its context length: set engine.context_length (tokens), and "
                f"check that the base URL is right (most end in /v1): {', '.join(self.config.base_urls)}"
            )

    async def stop(self) -> None:
        """Close the connections."""
        await self._servers.close()
        self._log.close()

    def weights_identity(self, adapter: str | None = None) -> str:
        """Return a digest of the served name: a remote server does not show its weights."""
        return digest(["openai_http", adapter or self.model])

    def count_tokens(self, prompt: Prompt) -> int:
        """Return the exact number with `tokenizer` set, else an estimate on the high side."""
        if self._tokenizer is not None:
            return len(self._tokenizer.encode(prompt))
        return sum(8 + len(m.content.encode()) // 3 + 1 for m in prompt)

    async def generate(
        self, prompt: Prompt, sampling: Sampling, *, adapter: str | None = None
    ) -> list[Completion]:
        """Return `sampling.n` completions, each from the server that is least busy.

        Raises:
            ContextOverflow: if prompt and `max_tokens` cannot fit; before anything is sent where that is known.
            EngineDead: if no server works any more, or none will ever take such requests.
            EngineError: if there is no answer after all retries, or the request was refused.
        """
        self._check_room(prompt, sampling)
        if sampling.n > 1 and sampling.temperature == 0:
            raise EngineError(
                f"{sampling.n} completions at temperature 0 would be equal: ask for 1 or raise the temperature"
            )
        self._log.write("started", prompt, sampling, adapter)
        completions = await _all_or_none(
            [
                self._complete(
                    prompt,
                    replace(sampling, seed=seed_of_choice(sampling.seed, index)),
                    adapter or self.model,
                )
                for index in range(sampling.n)
            ]
        )
        self._log.write("finished", prompt, sampling, adapter)
        return completions

    def _check_room(self, prompt: Prompt, sampling: Sampling) -> None:
        """Refuse what cannot fit; without a tokenizer only what is far too long, the rest is the server's to say."""
        if self._tokenizer is not None:
            room_for(self.count_tokens(prompt), sampling, self.context_length)
            return
        least = sum(len(m.content.encode()) for m in prompt) // _MOST_BYTES_A_TOKEN
        if least >= self.context_length:
            raise ContextOverflow(
                f"a prompt of at least {least} tokens does not fit the context of {self.context_length}: set "
                "engine.tokenizer to the model's id for an exact count"
            )

    async def _complete(self, prompt: Prompt, sampling: Sampling, model: str) -> Completion:
        # Stop strings are for the answer. A server's model is not known to think unless somebody says so.
        thinks = self._tags is not None and not self._is_guess
        asked = replace(sampling, stop=()) if thinks else sampling
        request = chat_request(prompt, asked, model, seeds=self.config.seeds, extra_body=self._extra_body)
        return await self._servers.ask(
            request, lambda answer, is_proven: self._completion(answer, prompt, sampling, is_proven)
        )

    def _completion(self, answer: Answer, prompt: Prompt, sampling: Sampling, is_proven: bool) -> Completion:
        """Return an answer as a completion, its thinking part apart.

        Raises:
            Fault: if nobody knows how many tokens it has.
        """
        text, reasoning = answer.text, answer.reasoning
        if reasoning is None:
            inside = None if self._tokenizer is None else self._tokenizer.begins_inside(prompt)
            text, reasoning = split_reasoning(
                text, self._tags, inside=inside, has_grammar=sampling.json_schema is not None
            )
        num_tokens, usage = answer.num_tokens, answer.usage
        if num_tokens is None:
            num_tokens = self._count_reply(answer, is_proven)
            usage += Usage(prompt_tokens=self.count_tokens(prompt), completion_tokens=num_tokens)
        num_reasoning_tokens = answer.num_reasoning_tokens or 0
        if reasoning is not None and not num_reasoning_tokens:
            num_reasoning_tokens = self._count_reasoning(num_tokens, reasoning, text)
        text, stopped = cut_at_stop(text, sampling.stop)
        return Completion(
            text=text,
            finish_reason="stop" if stopped else answer.finish_reason,
            num_tokens=num_tokens,
            reasoning=reasoning,
            num_reasoning_tokens=num_reasoning_tokens,
            model=answer.model,
            usage=usage,
        )

    def _count_reply(self, answer: Answer, is_proven: bool) -> int:
        if self._tokenizer is not None:
            return self._tokenizer.count((answer.reasoning or "") + answer.text)
        words = (
            "the server does not say how many tokens it generated (no usage): set engine.tokenizer to the model's id, "
            "to count them here"
        )
        raise Fault("bad", words) if is_proven else EngineDead(f"engine: {words}")

    def _count_reasoning(self, num_tokens: int, reasoning: str, answer: str) -> int:
        if self._tokenizer is None:
            return share_of_reasoning(num_tokens, reasoning, answer)
        return max(0, num_tokens - self._tokenizer.count(answer))


async def _all_or_none(calls: Sequence[Coroutine[Any, Any, Completion]]) -> list[Completion]:
    """Run the calls side by side; the first that fails ends the others."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
