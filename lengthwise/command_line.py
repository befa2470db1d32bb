"""Splits `--field value` arguments and writes the `--help` page of a config class."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lengthwise.schemas import FieldSpec
from lengthwise.value_types import ConfigError, Misfit, coerce, describe, is_list, is_map, members
from lengthwise.yaml_source import parse_scalar

SPECIAL = ("config", "dry_run", "print_config", "print_schema", "help")
"""Flags that every job understands and that are no fields."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One settable key, of a config class or passed through."""

    name: str
    hint: Any
    default: Any
    """MISSING for a required key."""
    help: str
    operational: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    """One `--name value ...` of a command line; `tokens` is empty for a bare `--name`."""

    name: str
    tokens: tuple[str, ...]


def ordered_fields(cls: type) -> list[Field[Any]]:
    """Return the fields of a config dataclass, its own before those of its bases: as a reader looks for them."""
    own = vars(cls).get("__annotations__", {})
    return sorted(fields(cls), key=lambda field: field.name not in own)


def entries_of(cls: type) -> dict[str, Entry]:
    """Return the settable fields of a config dataclass by name."""
    hints = get_type_hints(cls)
    found = {}
    for field in ordered_fields(cls):
        if not field.init:
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        help_text, operational = field.metadata.get("help", ""), field.metadata.get("operational", False)
        found[field.name] = Entry(field.name, hints[field.name], default, help_text, operational)
    return found


def passthrough_entries(passthrough: Mapping[str, FieldSpec] | None) -> dict[str, Entry]:
    """Return the keys of another library's config that this one hands on."""
    return {s.name: Entry(s.name, s.hint, s.default, s.help) for s in (passthrough or {}).values()}


def split_flags(argv: Sequence[str]) -> list[Flag]:
    """Split a command line; values run up to the next `--`, or stand behind `=`.

    Raises:
        ConfigError: a stray word, or a flag given twice.
    """
    flags: list[tuple[str, list[str]]] = []
    closed = True  # by `=`, which gives a flag its one value
    for token in argv:
        if token == "-h":
            flags.append(("help", []))
            closed = True
        elif token.startswith("--") and len(token) > 2:
            name, equals, value = token[2:].partition("=")
            flags.append((name, [value] if equals else []))
            closed = bool(equals)
        elif closed or _is_flag_by_mistake(token):
            meant = token.lstrip("-\u2013\u2014").partition("=")[0]
            raise ConfigError(
                f"unexpected argument {token!r}: options are written --field value, as --{meant}"
            )
        else:
            flags[-1][1].append(token)
    names = [name for name, _ in flags]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"--{name} is given twice; delete one")
    return [Flag(name, tuple(tokens)) for name, tokens in flags]


def _is_flag_by_mistake(token: str) -> bool:
    """Return whether a word begins with one dash, or with a longer dash that an editor made of two."""
    return token[:1] in {"-", "\u2013", "\u2014"} and token[1:2].isalpha()


def from_tokens(tokens: Sequence[str], hint: Any) -> Any:
    """Return what the words after a flag mean for a field of type `hint`; the caller checks the type.

    Raises:
        Misfit: no value where one is needed, or several where one is.
    """
    options = members(hint)
    lists = [o for o in options if is_list(o)]
    if not tokens:
        if bool in options or hint is Any:
            return True
        raise Misfit(f"{describe(hint)} after the flag")
    if len(tokens) > 1:
        if not lists and hint is not Any:
            raise Misfit(f"one value ({describe(hint)}), not {len(tokens)}")
        item = (get_args(lists[0]) or (Any,))[0] if lists else Any
        return [_word(token, members(item)) for token in tokens]
    token = tokens[0]
    if lists and token.lstrip().startswith("["):
        return parse_scalar(token)
    value = _word(token, options)
    wraps = lists and value is not None and not any(o is str or is_map(o) for o in options)
    if wraps:
        return [_word(token, members((get_args(lists[0]) or (Any,))[0]))]
    return value


def _word(token: str, options: Sequence[Any]) -> Any:
    """Return one word of the command line as the first meaning that a type in `options` allows."""
    text = str in options or Path in options
    if type(None) in options and (token == "null" or (token in {"None", "none"} and not text)):
        return None
    if any(get_origin(o) is Literal and token in get_args(o) for o in options):
        return token
    value = parse_scalar(token)
    if not text:
        return value
    for option in options:
        if option not in (str, Path, type(None)):
            try:
                return coerce(value, option, lambda _, mapping: mapping)
            except Misfit:
                continue
    return token


def usage(prog: str, example: str) -> str:
    """Return the short usage with one command that is ready to run."""
    return (
        f"usage: {prog} --config FILE.yaml [--field value ...] [--dry_run] [--print_config] [--help]\n"
        f"for example:\n  {example}"
    )


def help_page(cls: type, prog: str, example: str, passthrough: Mapping[str, FieldSpec] | None) -> str:
    """Return the `--help` page: each field with type, default and help, then the passed-through keys."""
    lines = [usage(prog, example), "", *textwrap.wrap((cls.__doc__ or "").strip().split("\n\n")[0], 100), ""]
    lines += [
        "In a file, fields are flat `key: value` lines. The command line wins over the file; --a.b value",
        "sets one entry of a map; lists are --field a b. --dry_run checks everything that shows without",
        "loading a model, says what would run, and writes nothing; --print_config prints the resolved",
        "config, --print_schema a JSON schema for editors.",
        "",
        "fields:",
    ]
    own = entries_of(cls)
    for entry in own.values():
        if passthrough is not None and entry.name == "trainer":
            continue
        default = "required" if entry.default is MISSING else f"default {_short(entry.default)}"
        lines.append(f"  --{entry.name}  {describe(entry.hint)}, {default}")
        lines += textwrap.wrap(entry.help, 100, initial_indent="      ", subsequent_indent="      ")
    others = [e for e in passthrough_entries(passthrough).values() if e.name not in own]
    if others:
        lines += ["", "passed through to the trainer:"]
    for entry in others:
        line = f"  --{entry.name}  {_kind(entry.hint)} = {_short(entry.default)}  {entry.help}"
        lines.append(line if len(line) <= 150 else f"{line[:147]}...")
    return "\n".join(lines)


def _kind(hint: Any) -> str:
    """Return a type for the one-line list, where long choices would push the help out of sight."""
    text = describe(hint)
    return text if len(text) <= 40 else "choice"


def _short(value: Any) -> str:
    """Return a default as YAML would spell it."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), repr(value))
