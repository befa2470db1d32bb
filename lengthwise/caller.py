"""One sample's handle on an engine: looks into the journal, derives the seed, asks, keeps the answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from lengthwise.budget import Meter
from lengthwise.engines.base import (
    Capabilities,
    ContextOverflow,
    Engine,
    EngineError,
    Likelihood,
    LikelihoodEngine,
    Sampling,
)
from lengthwise.journal import Journal, call_key
from lengthwise.records import Completion, Prompt, Usage, digest
from lengthwise.response_cache import ResponseCache, may_be_shared, response_key


class CallTimeout(EngineError):
    """The engine gave no answer in the time that the call had."""


@dataclass(kw_only=True)
class Caller:
    """One sample's handle on an engine: journals each call and derives its seed.

    Calling it twice with the same prompt, sampling, step and attempt returns the same answer; another
    `attempt` asks anew with another seed.
    """

    engine: Engine
    journal: Journal
    sample_id: str
    run_seed: int = 0
    role: str = "model"
    adapter: str | None = None
    meter: Meter = field(default_factory=Meter)
    cache: ResponseCache | None = None
    """Answers of other runs, asked after the journal and before the engine; for greedy calls and a judge's."""
    timeout_seconds: float | None = None
    """Time that the engine has for a call, its queue included; what comes later is not waited for."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    """One entry per call, in order: what a row's provenance says of it."""

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        return self.engine.capabilities

    @property
    def context_length(self) -> int:
        """Tokens of prompt and completion together."""
        return self.engine.context_length

    @property
    def model(self) -> str:
        """The model's name as the user wrote it."""
        return self.engine.model

    def count_tokens(self, prompt: Prompt) -> int:
        """Return the number of tokens of the rendered prompt."""
        return self.engine.count_tokens(prompt)

    def with_room(self, prompt: Prompt, sampling: Sampling, *, least: int = 1, reserve: int = 0) -> Sampling:
        """Return the sampling with no more tokens than the context has room for behind a prompt.

        Of an estimated count the server has the last word: then the sampling stays as it is.

        Args:
            prompt: what is to be asked.
            sampling: its cap may be None, all that there is room for.
            least: tokens below which an answer would be cut by the context and not by its cap.
            reserve: tokens of the prompt that are added later.

        Raises:
            ContextOverflow: there is less room.
        """
        if not self.capabilities.exact_token_counts:
            return sampling
        room = self.context_length - self.count_tokens(prompt) - reserve
        if room < least:
            raise ContextOverflow(
                f"the context of {self.context_length} tokens leaves {max(0, room)}, and {least} are needed"
            )
        return replace(
            sampling, max_tokens=room if sampling.max_tokens is None else min(sampling.max_tokens, room)
        )

    async def __call__(
        self, prompt: Prompt, sampling: Sampling, *, step: str, attempt: int = 0
    ) -> list[Completion]:
        """Return `sampling.n` completions, from the journal if this call was finished before.

        An answer from the cache goes into the journal too, so that a resumed run needs no cache; it cost nothing
        in this run, and its usage says so.

        Raises:
            EngineError: if the engine has no answer after its own retries or in time, or broke one off. Such a
                call is not in the journal: a resumed run makes it again.
            LimitReached: if the engine would have to be asked and a limit of the run is used up.
        """
        salt = [self.sample_id, self.role, step, attempt]
        if sampling.seed is None:
            sampling = replace(sampling, seed=call_seed(self.run_seed, salt))
        key = call_key(
            weights=self.engine.weights_identity(self.adapter),
            prompt=[m.to_dict() for m in prompt],
            sampling=sampling.to_dict(),
            salt=salt,
        )

        async def ask() -> list[Completion]:
            return await self.engine.generate(prompt, sampling, adapter=self.adapter)

        shared = None
        if self.cache is not None and may_be_shared(sampling, self.role):
            shared = response_key(
                self.engine,
                prompt,
                sampling,
                adapter=self.adapter,
                role=self.role,
                attempt=attempt,
                chance=[self.run_seed, step],
            )
        completions = await self._recorded(key, salt, ask, shared)
        self.calls.append(_describe_call(self, step, attempt, sampling, completions))
        return completions

    async def loglikelihood(self, prompt: Prompt, continuation: str, *, step: str) -> Likelihood:
        """Return how likely the model holds `continuation` to be the reply, from the journal if asked before.

        The journal holds it as a completion of no generated token whose text is [log-probability, is_greedy].

        Raises:
            EngineError: if the engine has no answer.
            LimitReached: if the engine would have to be asked and a limit of the run is used up.
        """
        salt = [self.sample_id, self.role, step, 0]
        key = call_key(
            weights=self.engine.weights_identity(self.adapter),
            prompt=[m.to_dict() for m in prompt],
            sampling={"loglikelihood": continuation},  # no sampling has this key
            salt=salt,
        )

        async def ask() -> list[Completion]:
            engine = cast(LikelihoodEngine, self.engine)
            found = await engine.loglikelihood(prompt, continuation, adapter=self.adapter)
            text = json.dumps([found.logprob, found.is_greedy])
            usage = Usage(prompt_tokens=found.num_prompt_tokens)
            return [Completion(text=text, finish_reason="stop", num_tokens=0, model=self.model, usage=usage)]

        (kept,) = await self._recorded(key, salt, ask)
        logprob, is_greedy = json.loads(kept.text)
        num_prompt_tokens = kept.usage.prompt_tokens
        self.calls.append(
            {
                "role": self.role,
                "step": step,
                "model": self.model,
                "loglikelihood": continuation,
                "prompt_tokens": num_prompt_tokens,
                "completion_tokens": 0,
            }
        )
        return Likelihood(logprob=logprob, is_greedy=is_greedy, num_prompt_tokens=num_prompt_tokens)

    async def _recorded(
        self,
        key: str,
        salt: Sequence[Any],
        ask: Callable[[], Awaitable[list[Completion]]],
        shared: str | None = None,
    ) -> list[Completion]:
        """Return the journal's answer, that of another run under the key `shared`, or the engine's, and keep it."""
        completions = self.journal.get(key)
        if completions is not None:
            if not self.journal.holds(
                key
            ):  # another run paid for it; this one must not depend on that run's files
                free = [replace(completion, usage=Usage()) for completion in completions]
                await self.journal.put(key, salt, free)
            return completions
        # In threads: a folder on a slow mount would stall the other samples.
        if self.cache is not None and shared is not None:
            completions = await asyncio.to_thread(self.cache.get, shared)
            if completions is not None:
                self.meter.num_cached_calls += 1
                await self.journal.put(key, salt, completions)
                return completions
        limit = self.meter.reached()
        if limit is not None:
            raise limit
        try:
            # Around the engine alone: an answer that is there must also be kept, however slow the disk is.
            async with asyncio.timeout(self.timeout_seconds):
                completions = await ask()
        except TimeoutError:
            raise CallTimeout(f"the engine gave no answer within {self.timeout_seconds:g} s") from None
        self.meter.add(completions)
        if any(completion.finish_reason == "abort" for completion in completions):
            raise EngineError("the engine broke the reply off (finish_reason abort)")
        await self.journal.put(key, salt, completions)
        if self.cache is not None and shared is not None:
            await asyncio.to_thread(self.cache.put, shared, completions)
        return completions


def call_seed(run_seed: int, salt: Sequence[Any]) -> int:
    """Return the request seed of one call, in [0, 2**31): a function of the run's seed and the salt only."""
    return int(digest([run_seed, list(salt)])[:8], 16) & 0x7FFFFFFF


def _describe_call(
    caller: Caller, step: str, attempt: int, sampling: Sampling, completions: Sequence[Completion]
) -> dict[str, Any]:
    usage = sum((c.usage for c in completions), Usage())
    return {
        "role": caller.role,
        "step": step,
        "attempt": attempt,
        "model": caller.model,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        "finish_reasons": [c.finish_reason for c in completions],
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "num_tokens": sum(c.num_tokens for c in completions),
    }
