"""Any OpenAI-compatible server, one or many base URLs, through the `openai` client.

The client itself retries 408, 409, 429, 5xx and timeouts with back-off and jitter and honours Retry-After; what
it does not know is that there may be other servers: a call whose server fails goes to the next one, and the
failing one rests for a while.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, Literal

from lengthwise.config import option
from lengthwise.engines.base import Capabilities, ContextOverflow, EngineError, Sampling
from lengthwise.engines.request_log import RequestLog
from lengthwise.records import Completion, Prompt, Usage, digest

_REST_SECONDS = 30.0


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
        help="model id whose tokenizer counts prompt tokens exactly; default: an estimate from characters",
    )
    timeout_seconds: float = option(600.0, help="longest wait for one answer", operational=True)
    max_retries: int = option(6, help="retries at one server before the next is tried", operational=True)
    json_schema: bool = option(True, help="the server follows response_format json_schema")
    prefill: bool = option(False, help="the server continues a last assistant turn (vLLM does)")
    seeds: bool = option(True, help="the server takes a seed")
    extra_body: dict[str, Any] = option(
        default_factory=dict, help="further request fields, passed as they are"
    )
    request_log: str | None = option(None, help="file for the engine's own log of requests", operational=True)

    def __post_init__(self) -> None:
        """Refuse an empty list of servers."""
        if not self.base_urls:
            raise ValueError("base_urls: give at least one server, such as http://127.0.0.1:8000/v1")


@dataclass
class _Server:
    url: str
    client: Any
    in_flight: int = 0
    resting_until: float = 0.0


class Engine:
    """A served model. `adapter` names another model that the same servers serve (vLLM's LoRA names)."""

    def __init__(self, model: str, config: Config, *, adapter: str | None = None):
        """Name the served model; nothing is asked before `start`."""
        self.model = model if adapter is None else adapter
        self.config = config
        self.context_length = config.context_length or 0
        self.capabilities = Capabilities(
            prefill=config.prefill, json_schema=config.json_schema, seeds=config.seeds, adapters=True
        )
        self._log = RequestLog(config.request_log)
        self._servers: list[_Server] = []
        self._tokenizer: Any = None

    async def start(self) -> None:
        """Reach the servers and learn the context length.

        Raises:
            EngineError: if no server answers, or none serves the model.
        """
        from openai import AsyncOpenAI

        key = os.environ.get(self.config.api_key_env) or "none"
        self._servers = [
            _Server(
                url,
                AsyncOpenAI(
                    base_url=url,
                    api_key=key,
                    timeout=self.config.timeout_seconds,
                    max_retries=self.config.max_retries,
                ),
            )
            for url in self.config.base_urls
        ]
        if self.config.tokenizer is not None:
            from lengthwise.engines.chat_tokenizer import ChatTokenizer
            from lengthwise.models import resolve_model

            self._tokenizer = ChatTokenizer(resolve_model(self.config.tokenizer).path)
        await self._probe()

    async def _probe(self) -> None:
        from openai import APIConnectionError, APIStatusError

        errors = []
        for server in self._servers:
            try:
                served = {model.id: model async for model in server.client.models.list()}
            except APIConnectionError as error:
                errors.append(f"{server.url}: {error}")
                server.resting_until = time.monotonic() + _REST_SECONDS
                continue
            except APIStatusError as error:
                if error.status_code in (404, 405):  # no model list is offered: the first call will tell
                    served = {}
                else:
                    errors.append(f"{server.url}: HTTP {error.status_code} {error.message}")
                    continue
            except (
                ValueError,
                AttributeError,
            ):  # the client passes on what is no JSON, as text or as an error
                errors.append(f"{server.url}: no model list in the answer (most base URLs end in /v1)")
                continue
            if served and self.model not in served:
                raise EngineError(
                    f"model: {server.url} does not serve {self.model!r}; it serves {', '.join(sorted(served))}"
                )
            told = getattr(served.get(self.model), "max_model_len", None)
            if told and self.config.context_length is None:
                self.context_length = min(told, self.context_length or told)
        if len(errors) == len(self._servers):
            raise EngineError(
                "engine: no server answers (is it up, is the port right?): " + "; ".join(errors)
            )
        if not self.context_length:
            raise EngineError(
                "engine: the server does not tell its context length: set engine.context_length (tokens), and "
                f"check that the base URL is right (most end in /v1): {', '.join(self.config.base_urls)}"
            )

    async def stop(self) -> None:
        """Close the connections."""
        for server in self._servers:
            await server.client.close()
        self._servers = []
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
        """Return `sampling.n` completions from the least busy server.

        Raises:
            ContextOverflow: if the prompt cannot fit.
            EngineError: if no server gives an answer after all retries.
        """
        if self.count_tokens(prompt) >= self.context_length:
            raise ContextOverflow(
                f"a prompt of about {self.count_tokens(prompt)} tokens does not fit the context of "
                f"{self.context_length}"
                + ("" if self._tokenizer else ": set engine.tokenizer to the model's id for an exact count")
            )
        request = self._request(prompt, sampling, adapter or self.model)
        self._log.write("started", prompt, sampling, adapter)
        response = await self._ask(request)
        self._log.write("finished", prompt, sampling, adapter)
        return _completions(response)

    def _request(self, prompt: Prompt, sampling: Sampling, model: str) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": model,
            "messages": [m.to_dict() for m in prompt],
            "n": sampling.n,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if sampling.max_tokens is not None:
            request["max_tokens"] = sampling.max_tokens
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        if sampling.seed is not None and self.config.seeds:
            request["seed"] = sampling.seed
        if sampling.json_schema is not None:
            request["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": dict(sampling.json_schema), "strict": True},
            }
        extra = dict(self.config.extra_body)
        if sampling.top_k is not None:
            extra["top_k"] = sampling.top_k
        if sampling.repetition_penalty != 1.0:
            extra["repetition_penalty"] = sampling.repetition_penalty
        if prompt[-1].role == "assistant":
            extra |= {"continue_final_message": True, "add_generation_prompt": False}
        if extra:
            request["extra_body"] = extra
        return request

    async def _ask(self, request: dict[str, Any]) -> Any:
        from openai import APIConnectionError, APIStatusError

        errors = []
        for server in self._by_readiness():
            server.in_flight += 1
            try:
                return await server.client.chat.completions.create(**request)
            except APIConnectionError as error:  # time-outs included
                errors.append(f"{server.url}: {error}")
            except APIStatusError as error:
                if error.status_code not in (408, 409, 429) and error.status_code < 500:
                    raise _refused(error, server.url) from error
                errors.append(f"{server.url}: HTTP {error.status_code}")
            except ValueError as error:
                errors.append(f"{server.url}: an answer that is no JSON ({error})")
            finally:
                server.in_flight -= 1
            server.resting_until = time.monotonic() + _REST_SECONDS
        raise EngineError(f"no answer after {self.config.max_retries} retries each: " + "; ".join(errors))

    def _by_readiness(self) -> list[_Server]:
        now = time.monotonic()
        return sorted(self._servers, key=lambda s: (s.resting_until > now, s.in_flight))


def _refused(error: Any, url: str) -> EngineError:
    text = str(error)
    too_long = "context" in text.lower() or "maximum model length" in text.lower()
    if error.status_code == 400 and too_long:
        return ContextOverflow(f"{url} refused the prompt as too long: {text}")
    return EngineError(f"{url} refused the request with HTTP {error.status_code}: {text}")


_FINISH: dict[str | None, Literal["stop", "length", "content_filter", "abort"]] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "tool_calls": "stop",
}


def _completions(response: Any) -> list[Completion]:
    if not getattr(response, "choices", None):  # the client hands on a page of text as a str
        raise EngineError("the server answered without a single choice")
    usage = response.usage
    num_choices = len(response.choices)
    details = getattr(usage, "completion_tokens_details", None)
    num_reasoning_tokens = getattr(details, "reasoning_tokens", None) or 0
    cached = getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None) or 0
    completions = []
    for index, choice in enumerate(response.choices):
        # Not a field of OpenAI's: vLLM calls it reasoning, other servers reasoning_content.
        reasoning = getattr(choice.message, "reasoning", None) or getattr(
            choice.message, "reasoning_content", None
        )
        # The API counts the tokens of all choices together; the shares add up to its count.
        num_tokens = _share(usage.completion_tokens, num_choices, index) if usage else 0
        completions.append(
            Completion(
                text=choice.message.content or "",
                finish_reason=_FINISH.get(choice.finish_reason, "abort"),
                num_tokens=num_tokens,
                reasoning=reasoning,
                num_reasoning_tokens=_share(num_reasoning_tokens, num_choices, index),
                model=response.model,
                usage=Usage(
                    prompt_tokens=usage.prompt_tokens if usage and index == 0 else 0,
                    cached_tokens=cached if index == 0 else 0,
                    completion_tokens=num_tokens,
                ),
            )
        )
    return completions


def _share(total: int, num_parts: int, index: int) -> int:
    return total // num_parts + (index < total % num_parts)
