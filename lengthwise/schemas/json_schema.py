"""Turns a job's config class into a JSON schema, so that an editor completes and checks its YAML files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from lengthwise.command_line import Entry, entries_of, passthrough_entries
from lengthwise.schemas import FieldSpec
from lengthwise.value_types import is_list, is_map, members

_PLAIN = {int: "integer", float: "number", bool: "boolean", str: "string", Path: "string", type(None): "null"}


def json_schema(cls: type, passthrough: Mapping[str, FieldSpec] | None = None) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a config class and the keys that it passes through."""
    entries = entries_of(cls)
    if passthrough is not None:
        entries.pop("trainer")
        entries = {
            **entries,
            **{k: e for k, e in passthrough_entries(passthrough).items() if k not in entries},
        }
    schema = _object(entries)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": cls.__name__, **schema}


def _object(entries: Mapping[str, Entry]) -> dict[str, Any]:
    """Return the schema of a map with exactly these keys."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _property(entry) for name, entry in entries.items()},
        "additionalProperties": False,
    }
    required = [name for name, entry in entries.items() if entry.default is MISSING]
    return {**schema, "required": required} if required else schema


def _property(entry: Entry) -> dict[str, Any]:
    """Return the schema of one key with its help."""
    schema = {**_of_type(entry.hint), "description": entry.help}
    if entry.default is None or isinstance(entry.default, str | int | float | list | dict):
        schema["default"] = entry.default
    return schema


def _of_type(hint: Any) -> dict[str, Any]:
    """Return the schema of an annotation."""
    options = members(hint)
    if len(options) > 1:
        return {"anyOf": [_of_type(option) for option in options]}
    hint = options[0]
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    if hasattr(hint, "__dataclass_fields__"):
        return _object(entries_of(hint))
    if is_list(hint):
        inner = get_args(hint)
        return {"type": "array", **({"items": _of_type(inner[0])} if inner else {})}
    if is_map(hint):
        return {"type": "object"}
    return {"type": _PLAIN[hint]} if hint in _PLAIN else {}
