"""A deterministic stand-in for a model: for tests of failure, retry and resume paths, never a proof of quality.

Its replies are a function of the prompt and the seed alone, so a resumed run is byte-equal to an uninterrupted
one. Faults strike a fixed share of the requests, chosen by the same digest.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lengthwise.config import ConfigError, option
from lengthwise.engines.base import (
    Capabilities,
    ContextOverflow,
    EngineDead,
    EngineError,
    Likelihood,
    Sampling,
)
from lengthwise.engines.request_log import RequestLog
from lengthwise.records import Completion, Prompt, Usage, digest

FAULTS = (
    "empty",
    "refusal",
    "truncated",
    "malformed",
    "error",
    "hang",
    "rate_limit",
    "thinking",
    "thinking_cut",
    "dead",
    "missing_key",
    "out_of_range",
)
"""What a call may end in. `thinking` is none: the reply has a thinking part before its answer; with
`thinking_cut` the cap is hit before that part ends. `rate_limit` is an engine's error after its own patience with a
server that says 429, `error` one after retries, and `dead` the end of the engine for all calls. `missing_key` and
`out_of_range` make a verdict of a judge that breaks its form: it lacks its last key, or its numbers are 1000."""

_NUM_THINKING_WORDS = 20

Responder = Callable[[Prompt, Sampling, int], str]
"""(prompt, sampling, draw) -> text; `draw` is 32 bits that depend on the prompt and the seed only."""


@dataclass(kw_only=True)
class Config:
    """Options of the scripted engine."""

    responder: str = option(
        "lengthwise.engines.scripted:obedient", help="function that replies, `module:name`"
    )
    delay_seconds: float = option(0.0, help="time each call takes", operational=True)
    context_length: int = option(32768, help="tokens (here: words) of prompt and completion")
    json_schema: bool = option(True, help="claim to follow JSON schemas")
    faults: dict[str, Any] = option(
        default_factory=dict, help=f"share of calls that end in a fault, by its name: {', '.join(FAULTS)}"
    )
    request_log: str | None = option(None, help="file for the engine's own log of requests", operational=True)

    def __post_init__(self) -> None:
        """Refuse unknown faults and shares that are none."""
        for name, share in self.faults.items():
            if name not in FAULTS:
                raise ValueError(f"faults: {name!r} is unknown: choose from {', '.join(FAULTS)}")
            if not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ValueError(f"faults: {name!r} is {share!r}: give a share from 0 to 1")
        if sum(self.faults.values()) > 1 + 1e-9:
            raise ValueError(f"faults: the shares add up to {sum(self.faults.values()):g}: at most 1 in all")


class Engine:
    """Answers from a function. One token is one word."""

    def __init__(
        self,
        model: str,
        config: Config | None = None,
        *,
        adapter: str | None = None,
        responder: Responder | None = None,
    ):
        """Use `responder` if given (tests), else the one that the config names."""
        self.model = model if adapter is None else f"{model}+{adapter}"
        self.config = config or Config()
        self.context_length = self.config.context_length
        self.capabilities = Capabilities(
            prefill=True, json_schema=self.config.json_schema, seeds=True, adapters=True, prompt_logprobs=True
        )
        self._responder = responder or _load_responder(self.config.responder)
        self._log = RequestLog(self.config.request_log)

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Close the request log."""
        self._log.close()

    def weights_identity(self, adapter: str | None = None) -> str:
        """Return a digest of the script's name."""
        return digest(["scripted", self.model, self.config.responder, adapter])

    def count_tokens(self, prompt: Prompt) -> int:
        """Return the number of words."""
        return sum(len(m.content.split()) for m in prompt)

    async def generate(
        self, prompt: Prompt, sampling: Sampling, *, adapter: str | None = None
    ) -> list[Completion]:
        """Return `sampling.n` replies, or what the faults make of them."""
        num_prompt_tokens = self.count_tokens(prompt)
        room = self.context_length - num_prompt_tokens
        if room < (sampling.max_tokens or 1):
            raise ContextOverflow(
                f"{num_prompt_tokens} words and max_tokens {sampling.max_tokens} do not fit the context of "
                f"{self.context_length}"
            )
        self._log.write("started", prompt, sampling, adapter)
        completions = []
        for index in range(sampling.n):
            draw = int(digest([[m.to_dict() for m in prompt], sampling.seed, adapter, index])[:8], 16)
            completions.append(
                await self._complete(prompt, sampling, draw, num_prompt_tokens if index == 0 else 0)
            )
        self._log.write("finished", prompt, sampling, adapter)
        return completions

    async def loglikelihood(
        self, prompt: Prompt, continuation: str, *, adapter: str | None = None
    ) -> Likelihood:
        """Return a number in [-100, 0) that depends on the prompt, the continuation and the adapter only."""
        draw = int(digest([[m.to_dict() for m in prompt], continuation, adapter])[:8], 16)
        self._log.write_likelihood("started", prompt, continuation, adapter)
        await asyncio.sleep(self.config.delay_seconds)
        self._log.write_likelihood("finished", prompt, continuation, adapter)
        num_tokens = self.count_tokens(prompt) + len(continuation.split())
        return Likelihood(
            logprob=-(1 + draw % 10_000) / 100, is_greedy=draw % 7 == 0, num_prompt_tokens=num_tokens
        )

    async def _complete(
        self, prompt: Prompt, sampling: Sampling, draw: int, num_prompt_tokens: int
    ) -> Completion:
        fault = self._fault(draw)
        await asyncio.sleep(3600 if fault == "hang" else self.config.delay_seconds)
        if fault == "error":
            raise EngineError("scripted fault: the server answered 500 until the retries were used up")
        if fault == "rate_limit":
            raise EngineError("scripted fault: the server answered 429 until the retries were used up")
        if fault == "dead":
            raise EngineDead("scripted fault: the engine died")
        text = self._responder(prompt, sampling, draw)
        if fault == "empty":
            text = ""
        elif fault == "refusal":
            text = "I'm sorry, but I cannot help with that request."
        elif fault == "malformed":
            text = text[: len(text) // 2] + " {[ not what was asked for"
        elif fault in ("missing_key", "out_of_range"):
            text = _broken_form(text, fault)
        for stop in sampling.stop:
            text = text.partition(stop)[0]
        words = re.findall(r"\S+\s*", text)
        num_thought = _NUM_THINKING_WORDS if fault in ("thinking", "thinking_cut") else 0
        cap = self.context_length - self.count_tokens(prompt)
        if sampling.max_tokens is not None:
            cap = sampling.max_tokens
        if fault == "truncated":
            cap = min(cap, len(words) // 2)
        if fault == "thinking_cut":
            cap = min(cap, num_thought - 1)
        truncated = cap < num_thought + len(words)
        num_tokens = min(cap, num_thought + len(words))
        num_thought = min(cap, num_thought)
        return Completion(
            text="".join(words[: cap - num_thought]) if truncated else text,
            finish_reason="length" if truncated else "stop",
            num_tokens=num_tokens,
            reasoning=prose(draw, num_thought) if num_thought else None,
            num_reasoning_tokens=num_thought,
            model=self.model,
            usage=Usage(prompt_tokens=num_prompt_tokens, completion_tokens=num_tokens),
        )

    def _fault(self, draw: int) -> str | None:
        # Other bits than the responder uses, so that faults do not go with certain texts.
        point = (draw >> 8) % 10_000 / 10_000
        for name in FAULTS:
            point -= float(self.config.faults.get(name, 0))
            if point < 0:
                return name
        return None


def obedient(prompt: Prompt, sampling: Sampling, draw: int) -> str:
    """Do as told: a plan or a form that a schema asks for, else the number of words last wished for."""
    from lengthwise.length_wishes import find_length_wishes

    text = "\n".join(m.content for m in prompt)
    wishes = find_length_wishes(text)
    if sampling.json_schema is not None:
        total = int(wishes[0].nominal) if wishes else 600
        properties = sampling.json_schema.get("properties", {})
        if properties and "sections" not in properties:
            return json.dumps({key: _filled(value, draw, key) for key, value in properties.items()})
        num_sections = max(2, round(total / 300))
        plan = [
            {"main_point": prose(draw + i, 12), "num_words": total // num_sections}
            for i in range(num_sections)
        ]
        return json.dumps(plan if sampling.json_schema.get("type") == "array" else {"sections": plan})
    return prose(draw, int(wishes[-1].nominal) if wishes else 120)


def _filled(schema: Mapping[str, Any], draw: int, key: str) -> Any:
    """Return some value that a schema allows, another for each key."""
    number = int(digest([draw, key])[:8], 16)
    if "enum" in schema:
        return schema["enum"][number % len(schema["enum"])]
    return prose(number, 8)


def _broken_form(text: str, fault: str) -> str:
    """Return a JSON object without its last key, or with numbers outside every scale; another text as it is."""
    try:
        values = json.loads(text)
    except ValueError:
        return text
    if not isinstance(values, dict) or not values:
        return text
    if fault == "missing_key":
        return json.dumps(dict(list(values.items())[:-1]))
    return json.dumps({key: 1000 if isinstance(value, int) else value for key, value in values.items()})


def prose(draw: int, num_words: int) -> str:
    """Return `num_words` words in sentences of twelve; long texts do not repeat a 10-gram."""
    state = draw or 1
    words = []
    for index in range(num_words):
        state = (1103515245 * state + 12345) % (1 << 31)
        word = _WORDS[(state >> 12) % len(_WORDS)]
        if index % 12 == 0:
            word = word.capitalize()
        if index % 12 == 11 or index == num_words - 1:
            word += "."
        words.append(word)
    return " ".join(words)


_VOCABULARY = """
river stone morning window letter garden winter copper signal harbor lantern meadow paper thunder market
silver orchard station bridge candle forest engine ribbon valley mirror pepper anchor velvet compass
blanket cellar ladder marble needle pocket saddle temple walnut yellow quiet narrow gentle hollow early
gathers carries follows listens measures opens returns settles turns weaves under beyond before along
against between toward without during after
"""
_WORDS = _VOCABULARY.split()


def _load_responder(name: str) -> Responder:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"engine.responder: {name!r} is not `module:function`: {error}") from error
