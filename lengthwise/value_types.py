"""Checks and converts the values of a config against type annotations; also names the types for messages.

Covers what a config may hold: int, float, bool, str, None, Path, Literal, unions, list, tuple, dict, nested
dataclasses, Any.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin


class ConfigError(ValueError):
    """The user's config or command line is wrong. A job prints the message and ends with exit code 2."""


class Misfit(Exception):
    """A value has not the wanted type; the text says what was expected, the caller adds field and line."""


_NONE = type(None)
_SEQUENCES = (list, tuple, set, frozenset, Sequence)


def members(hint: Any) -> Sequence[Any]:
    """Return the alternatives of a union annotation, or the annotation alone."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(m for arg in get_args(hint) for m in members(arg))
    return (_NONE if hint is None else hint,)


def is_list(hint: Any) -> bool:
    """Return whether the annotation is a list or another sequence."""
    return (get_origin(hint) or hint) in _SEQUENCES


def is_map(hint: Any) -> bool:
    """Return whether the annotation is a map or a nested dataclass."""
    return (get_origin(hint) or hint) in (dict, Mapping) or hasattr(hint, "__dataclass_fields__")


def describe(hint: Any) -> str:
    """Return the annotation as a user would write it.

    Example:
        >>> describe(int | None), describe(Literal["a", "b"]), describe(list[str])
        ('int or null', "'a' or 'b'", 'list of str')
    """
    if len(members(hint)) > 1:
        parts = [describe(m) for m in members(hint)]
        return " or ".join([p for p in parts if p != "null"] + ["null"] * ("null" in parts))
    hint = members(hint)[0]
    origin = get_origin(hint)
    if hint in (Any, object):
        return "any value"
    if hint is _NONE:
        return "null"
    if origin is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    if is_list(hint):
        inner = get_args(hint)
        return f"list of {describe(inner[0])}" if inner and inner[0] is not Any else "list"
    if is_map(hint):
        return "map"
    return {Path: "path"}.get(hint, getattr(hint, "__name__", str(hint)))


def _scalar(value: Any, hint: Any) -> Any:
    """Return `value` as the plain type `hint`; an int is a float too, a bool is never a number."""
    if hint is _NONE and value is None:
        return None
    if hint is float and type(value) is int:
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is float and not math.isfinite(value):
        raise Misfit("a finite number")
    if hint in (int, float, bool, str, Path) and (
        type(value) is hint or (hint is Path and isinstance(value, Path))
    ):
        return value
    raise Misfit(describe(hint))


def _items(value: Any, hint: Any, nested: Callable[[Any, Any], Any]) -> Any:
    """Return `value` as the sequence type `hint`, each item checked."""
    if not isinstance(value, list | tuple):
        raise Misfit(describe(hint))
    kind = get_origin(hint) or hint
    args = get_args(hint)
    if kind is tuple and args and args[-1] is not Ellipsis:
        if len(args) != len(value):
            raise Misfit(f"list of {len(args)} values")
        return tuple(coerce(v, a, nested) for v, a in zip(value, args, strict=True))
    try:
        items = [coerce(v, args[0], nested) if args else v for v in value]
    except Misfit:
        raise Misfit(describe(hint)) from None
    return items if kind in (list, Sequence) else kind(items)


def coerce(value: Any, hint: Any, nested: Callable[[Any, Any], Any]) -> Any:
    """Return `value` in the annotated type.

    Args:
        value: what YAML or the command line gave.
        hint: the annotation.
        nested: builds a dataclass from a map, called with (dataclass, map).

    Raises:
        Misfit: the value does not fit; its text names the expected type.
    """
    if hint in (Any, object):
        return value
    options = members(hint)
    if len(options) > 1:
        return _coerce_union(value, hint, options, nested)
    hint = options[0]
    if get_origin(hint) is Literal:
        for choice in get_args(hint):
            if choice == value and type(choice) is type(value):
                return value
        raise Misfit(describe(hint))
    if hasattr(hint, "__dataclass_fields__"):
        if not isinstance(value, Mapping):
            raise Misfit("map")
        return nested(hint, value)
    if is_map(hint):
        return _entries(value, hint, nested)
    if is_list(hint):
        return _items(value, hint, nested)
    return _scalar(value, hint)


def _entries(value: Any, hint: Any, nested: Callable[[Any, Any], Any]) -> Any:
    """Return `value` as a map, its values checked, its class (which knows the lines) kept."""
    if not isinstance(value, Mapping):
        raise Misfit(describe(hint))
    args = get_args(hint)
    if not args or args[1] is Any:
        return value
    result = value.copy() if isinstance(value, dict) else dict(value)
    for key, item in value.items():
        try:
            result[key] = coerce(item, args[1], nested)
        except Misfit as error:
            raise Misfit(f"{error} under {key!r} (there it is {item!r})") from None
    return result


def _coerce_union(value: Any, hint: Any, options: Sequence[Any], nested: Callable[[Any, Any], Any]) -> Any:
    """Return `value` in the first alternative that fits; one of exactly its own type goes first."""
    if value is None and _NONE in options:
        return None
    real = [o for o in options if o is not _NONE]
    for option in sorted(real, key=lambda o: (get_origin(o) or o) is not type(value)):
        try:
            return coerce(value, option, nested)
        except Misfit:
            continue
    raise Misfit(describe(hint))
