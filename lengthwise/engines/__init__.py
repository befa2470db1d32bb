"""Engines by name: `async with open_engine({"name": "vllm"}, model) as engine: ...`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from lengthwise.engines.base import Engine
from lengthwise.value_types import ConfigError


def build_engine(
    spec: Mapping[str, Any], model: str, adapter: str | None = None, *, where: str = "engine"
) -> Engine:
    """Return the engine that a config's `engine` map describes, not yet started.

    Args:
        spec: `{name: vllm, <its options>}`.
        model: a model id as `lengthwise.models` reads it, or the served name for `openai_http`.
        adapter: a LoRA adapter that answers by default.
        where: the field that holds the map, for messages.

    Raises:
        ConfigError: for an unknown engine or option.
    """
    from lengthwise.config import build_component, component_name
    from lengthwise.plugins import load_plugin

    name = component_name(spec, where=where)
    module = load_plugin("lengthwise.engines", name)
    options = {key: value for key, value in spec.items() if key != "name"}
    return module.Engine(model, build_component(module.Config, options, where=where), adapter=adapter)


@asynccontextmanager
async def open_engine(
    spec: Mapping[str, Any], model: str, adapter: str | None = None
) -> AsyncIterator[Engine]:
    """Build and start an engine, and stop it at the end, whatever happens in between."""
    async with started(build_engine(spec, model, adapter)) as engine:
        yield engine


@asynccontextmanager
async def started(engine: Engine) -> AsyncIterator[Engine]:
    """Start an engine and stop it at the end, whatever happens in between.

    Raises:
        ConfigError: the model or adapter is not to be had.
        EngineError: the engine does not start.
    """
    try:
        try:
            await engine.start()
        except ValueError as error:
            raise ConfigError(str(error)) from error
        yield engine
    finally:
        await engine.stop()
