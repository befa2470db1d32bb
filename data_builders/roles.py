"""Who plays the roles of a builder: which model, through which engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lengthwise.config import ConfigError
from lengthwise.engines import build_engine
from lengthwise.engines.base import Engine


@dataclass(frozen=True, kw_only=True, slots=True)
class RoleSpec:
    """Who plays a role: equal specs share one engine."""

    model: str
    adapter: str | None
    engine: Mapping[str, Any]

    @property
    def full_name(self) -> str:
        """The model as a card names it."""
        return self.model if self.adapter is None else f"{self.model}+{self.adapter}"

    @property
    def key(self) -> str:
        """Equal for equal specs."""
        return json.dumps([self.model, self.adapter, dict(self.engine)], sort_keys=True)


def open_engines(specs: Mapping[str, RoleSpec]) -> dict[str, Engine]:
    """Return the engine of every role, its options checked and nothing loaded; equal specs share one.

    Raises:
        ConfigError: an unknown engine or option.
    """
    opened: dict[str, Engine] = {}
    for role, spec in specs.items():
        if spec.key not in opened:
            opened[spec.key] = build_engine(
                spec.engine, spec.model, spec.adapter, where=f"engine of the {role}"
            )
    return {role: opened[spec.key] for role, spec in specs.items()}


def role_specs(default: RoleSpec, given: Mapping[str, Any], roles: Sequence[str]) -> dict[str, RoleSpec]:
    """Return the model, adapter and engine of every role.

    A role that names a model of its own does not inherit the adapter.

    Raises:
        ConfigError: a role that the builder does not have, or an unknown key in one.
    """
    for role, own in given.items():
        if role not in roles:
            raise ConfigError(f"roles: {role!r} is no role of this builder: it has {', '.join(roles)}")
        if not isinstance(own, Mapping) or not set(own) <= {"model", "adapter", "engine"}:
            raise ConfigError(f"roles.{role} is {own!r}: it takes model, adapter and engine")
        if not isinstance(own.get("engine", {}), Mapping):
            raise ConfigError(f"roles.{role}.engine is {own['engine']!r}: write {{name: ..., its options}}")
    return {role: _role_spec(default, given.get(role, {})) for role in roles}


def _role_spec(default: RoleSpec, own: Mapping[str, Any]) -> RoleSpec:
    return RoleSpec(
        model=own.get("model", default.model),
        adapter=own.get("adapter", None if "model" in own else default.adapter),
        engine=own.get("engine", default.engine),
    )
