"""A scripted engine that counts the requests which reach it."""

from __future__ import annotations

from typing import Any

from lengthwise.engines.base import Sampling
from lengthwise.engines.scripted import Config, Engine
from lengthwise.records import Prompt


class Counting(Engine):
    """Keeps the sampling of each request in `asked`, and each continuation in `continuations`."""

    def __init__(self, model: str = "m", **options: Any):
        super().__init__(model, Config(**options))
        self.asked: list[Sampling] = []
        self.continuations: list[str] = []

    async def generate(self, prompt: Prompt, sampling: Sampling, *, adapter: str | None = None):
        self.asked.append(sampling)
        return await super().generate(prompt, sampling, adapter=adapter)

    async def loglikelihood(self, prompt: Prompt, continuation: str, *, adapter: str | None = None):
        self.continuations.append(continuation)
        return await super().loglikelihood(prompt, continuation, adapter=adapter)
