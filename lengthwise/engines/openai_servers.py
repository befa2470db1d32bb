"""Asks OpenAI-compatible servers through the `openai` client, until one answers or all are dead.

Who is asked next is decided in `lengthwise.engines.endpoints`; here requests are sent, wait, and are sent again. A
server that is down is checked until it is well: it must list the model and generate one token. So a request that no
server can answer fails alone, and servers that answer nothing stop the run.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from lengthwise.engines.base import EngineDead, EngineError, Sampling
from lengthwise.engines.endpoints import Endpoint, Endpoints
from lengthwise.engines.openai_messages import (
    Answer,
    Fault,
    brief,
    chat_request,
    connection_fault,
    connection_words,
    fault_of_status,
    read_answer,
    refusal,
    status_words,
)
from lengthwise.records import Completion, Usage, user
from lengthwise.value_types import ConfigError

_log = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
_FIRST_REST_SECONDS = 1.0
_LONGEST_REST_SECONDS = 30.0
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 8.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long and how often servers are asked; the options of the same names say more."""

    wait_seconds: float
    timeout_seconds: float
    max_retries: int
    dead_after_seconds: float


class Servers:
    """The servers of one model."""

    def __init__(
        self, urls: Sequence[str], *, model: str, key_variable: str, max_in_flight: int, patience: Patience
    ):
        """Name them; nothing is asked before `open`."""
        self.max_model_len: int | None = None
        """The smallest context that a server told, in tokens."""
        self.are_vllm = False
        """Whether a server says of the model that vLLM serves it."""
        self._model = model
        self._key_variable = key_variable
        self._patience = patience
        self._endpoints = Endpoints(urls, ceiling=max_in_flight)
        self._clients: dict[str, Any] = {}
        self._checks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        """Set, and replaced by a new one, when a waiting request should look again."""
        self._has_answered = False

    async def open(self, key: str) -> None:
        """Ask every server for its models until one answers; the others are checked later.

        Raises:
            ConfigError: if a server refuses the key, or does not serve the model.
            EngineError: if no server answers within `wait_seconds`.
        """
        import httpx2
        from openai import AsyncOpenAI

        timeout = httpx2.Timeout(
            self._patience.timeout_seconds, connect=min(_CONNECT_SECONDS, self._patience.timeout_seconds)
        )
        self._clients = {
            e.url: AsyncOpenAI(base_url=e.url, api_key=key, timeout=timeout, max_retries=0)
            for e in self._endpoints.all
        }
        now = asyncio.get_running_loop().time
        deadline = now() + self._patience.wait_seconds
        while all(errors := await asyncio.gather(*map(self._list_models, self._endpoints.all))):
            if now() >= deadline:
                told = "; ".join(
                    f"{e.url}: {error}" for e, error in zip(self._endpoints.all, errors, strict=True)
                )
                raise EngineError(
                    f"engine: no server answers (is it up, is the port right? engine.wait_seconds, now "
                    f"{self._patience.wait_seconds:g}, waits for one that is loading): {told}"
                )
            await asyncio.sleep(_FIRST_REST_SECONDS)
        for endpoint, error in zip(self._endpoints.all, errors, strict=True):
            if error:
                self._note(endpoint, 0.0, Fault("unreachable", error))

    async def close(self) -> None:
        """End the checks and the connections."""
        for task in self._checks:
            task.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        for client in self._clients.values():
            await client.close()
        self._clients = {}

    # --- requests -------------------------------------------------------------------------------------

    async def ask(self, request: dict[str, Any], read: Callable[[Answer, bool], Completion]) -> Completion:
        """Return what `read` makes of an answer; ask again, elsewhere if possible, after a fault.

        Args:
            request: the arguments of the client's call.
            read: gets the answer, and whether any has been read before; it may raise `Fault` too.

        Raises:
            EngineDead: if no server works any more, or none takes such requests.
            EngineError: if there is no answer after all retries, or the request was refused.
        """
        faults: list[str] = []
        spent = Usage()
        endpoint: Endpoint | None = None
        while len(faults) <= self._patience.max_retries:
            if faults:
                await asyncio.sleep(_backoff_seconds(len(faults)))
            endpoint = await self._take(avoid=endpoint)
            started = self._endpoints.started(endpoint)
            try:
                completion = read(await self._send(endpoint, request), self._has_answered)
                self._endpoints.answered(endpoint)
                self._has_answered = True
                return replace(completion, usage=completion.usage + spent)
            except Fault as fault:
                spent += fault.usage
                self._note(endpoint, started, fault)
                if fault.kind in ("slow", "bad"):
                    faults.append(f"{endpoint.url}: {fault}")
            finally:
                self._endpoints.ended(endpoint)
                self._wake()
        if spent != Usage():
            _log.warning("a request that failed cost %s tokens, which no total holds", spent)
        shown = list(dict.fromkeys(faults))
        raise EngineError(f"no answer after {self._patience.max_retries} retries: " + "; ".join(shown))

    async def _send(self, endpoint: Endpoint, request: dict[str, Any]) -> Answer:
        """Return one server's answer.

        Raises:
            Fault: if asking again may help.
            EngineError: if the request was refused.
            EngineDead: if every request would be.
        """
        from openai import APIConnectionError, APIStatusError

        try:
            # The client's own time-out starts anew with each byte.
            async with asyncio.timeout(self._patience.timeout_seconds):
                response = await self._clients[endpoint.url].chat.completions.create(**request)
        except APIStatusError as error:
            raise self._status_error(endpoint, error, request["model"]) from error
        except (TimeoutError, APIConnectionError) as error:
            raise connection_fault(error, self._patience.timeout_seconds) from error
        except ValueError as error:  # what the client cannot parse
            raise Fault("bad", f"an answer that is no JSON ({error})") from error
        return read_answer(response)

    def _status_error(self, endpoint: Endpoint, error: Any, model: str) -> Exception:
        status, text = error.status_code, status_words(error)
        fault = fault_of_status(status, text, error.response.headers, datetime.now(UTC))
        if fault is not None:
            return fault
        if status == 401:
            return EngineDead(self._key_words(endpoint.url, error))
        refused = refusal(status, text, endpoint.url)
        if status == 402:  # every further request would fail; stopped, the run can go on when it is paid for
            return EngineDead(str(refused))
        if status in (403, 404) and model == self._model:
            if not self._has_answered:
                return EngineDead(
                    f"{refused}. No request has been served yet: is the base URL right (most end in /v1)?"
                )
            if status == 404:  # it was there before: a proxy has lost its server, or the model was changed
                return Fault("bad", brief(f"HTTP 404 {text}"))
        return refused

    def _key_words(self, url: str, error: Any) -> str:
        return (
            f"engine: {url} refuses the key with HTTP {error.status_code}: {brief(status_words(error))}. Set the "
            f"environment variable {self._key_variable} (engine.api_key_env) to a valid key"
        )

    # --- which server ---------------------------------------------------------------------------------

    async def _take(self, avoid: Endpoint | None) -> Endpoint:
        """Return a server that may take a request, waiting for one if need be.

        Raises:
            EngineDead: when no server has worked for `dead_after_seconds`.
        """
        while (endpoint := self._endpoints.choose(avoid)) is None:
            waits = [self._endpoints.seconds_to_next_pause_end()]
            dead = self._endpoints.seconds_dead()
            if dead is not None:
                if dead >= self._patience.dead_after_seconds:
                    raise EngineDead(self._obituary())
                waits.append(self._patience.dead_after_seconds - dead)
            seconds = min((wait for wait in waits if wait is not None), default=None)
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return endpoint

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _note(self, endpoint: Endpoint, started: float, fault: Fault) -> None:
        """Account for a fault, and have a server that is down by it checked."""
        words = str(fault)
        match fault.kind:
            case "overloaded":
                self._endpoints.overloaded(endpoint, started, words, fault.retry_after_seconds)
                return
            case "slow":
                is_down = self._endpoints.slow(endpoint, started, words)
            case "unreachable":
                is_down = self._endpoints.unreachable(endpoint, words)
            case "bad":
                is_down = self._endpoints.bad(endpoint, words)
        if is_down:
            _log.warning("%s is down (%s): it is checked until it is well again", endpoint.url, words)
            task = asyncio.create_task(self._revive(endpoint))
            self._checks.add(task)
            task.add_done_callback(self._checks.discard)

    async def _revive(self, endpoint: Endpoint) -> None:
        rest = _FIRST_REST_SECONDS
        while True:
            await asyncio.sleep(rest)
            if not endpoint.is_down:  # a request that was still under way has been answered
                return
            error = await self._check(endpoint)
            if not error:
                _log.warning("%s is well again", endpoint.url)
                self._endpoints.recovered(endpoint)
                self._wake()
                return
            endpoint.last_error = error
            rest = min(2 * rest, _LONGEST_REST_SECONDS)

    async def _check(self, endpoint: Endpoint) -> str:
        """Return what is wrong with a server, or an empty string: its models first, then one token.

        A server that lists its models may still answer nothing; one that answers this is not at fault when it
        cannot answer certain requests.
        """
        try:
            error = await self._list_models(endpoint)
            if not error:
                one = chat_request(
                    user("Say yes."), Sampling(max_tokens=1), self._model, seeds=False, extra_body={}
                )
                await self._send(endpoint, one)
        except Fault as fault:
            return "" if fault.kind == "overloaded" else str(fault)
        except (EngineDead, ConfigError) as refused:
            return str(refused)
        except EngineError:  # it has looked at the request
            return ""
        return error

    async def _list_models(self, endpoint: Endpoint) -> str:
        """Learn from one server's list of models; return why there is none, or an empty string.

        Raises:
            ConfigError: if the server refuses the key, or does not serve the model.
        """
        from openai import APIConnectionError, APIStatusError

        try:
            async with asyncio.timeout(min(_CONNECT_SECONDS, self._patience.timeout_seconds)):
                listed = [m async for m in self._clients[endpoint.url].models.list()]
                models = {m.id: m for m in listed if isinstance(m.id, str)}
        except (TimeoutError, APIConnectionError) as error:
            return connection_words(error)
        except APIStatusError as error:
            if error.status_code in (401, 403):
                raise ConfigError(self._key_words(endpoint.url, error)) from error
            if error.status_code not in (404, 405):  # no model list is offered: the first call will tell
                return brief(f"HTTP {error.status_code} {status_words(error)}")
            models = {}
        except (
            ValueError,
            AttributeError,
            TypeError,
        ):  # the client passes on what is no JSON, as text or as an error
            return "no model list in the answer (most base URLs end in /v1)"
        if models and self._model not in models:
            raise ConfigError(
                f"model: {endpoint.url} does not serve {self._model!r}; it serves {', '.join(sorted(models))}"
            )
        self.are_vllm |= getattr(models.get(self._model), "owned_by", None) == "vllm"
        told = getattr(models.get(self._model), "max_model_len", None)
        if type(told) is int and told > 0:
            self.max_model_len = min(told, self.max_model_len or told)
        return ""

    def _obituary(self) -> str:
        errors = "; ".join(f"{e.url}: {e.last_error}" for e in self._endpoints.all)
        return (
            f"no server has worked for {self._patience.dead_after_seconds:g} s (engine.dead_after_seconds): {errors}. "
            "Finished calls are kept. Bring a server up, engine.base_urls may name another one"
        )


def _backoff_seconds(num_faults: int) -> float:
    """Return how long a request waits after its faults; spread, so that those of one moment do not return in one."""
    seconds = min(_FIRST_BACKOFF_SECONDS * 2 ** (num_faults - 1), _LONGEST_BACKOFF_SECONDS)
    return seconds * random.uniform(0.75, 1.25)
