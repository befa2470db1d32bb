"""Strict configs: one dataclass per job, filled from a flat YAML file and from `--field value` flags.

Whatever is unknown, renamed, given twice or of the wrong type stops the job before any work, with the file
and line, the value and the remedy. Nothing heavy is imported here, so `--help` and errors come at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from lengthwise.command_line import (
    SPECIAL,
    Entry,
    Flag,
    entries_of,
    from_tokens,
    help_page,
    ordered_fields,
    passthrough_entries,
    split_flags,
    usage,
)
from lengthwise.schemas import FieldSpec
from lengthwise.value_types import ConfigError, Misfit, coerce, is_map, members
from lengthwise.yaml_source import LocatedMap, dump_yaml, load_yaml

__all__ = [
    "TRAINER",
    "ConfigError",
    "build_component",
    "component_name",
    "config_to_dict",
    "did_you_mean",
    "is_dry_run",
    "option",
    "parse_config",
    "result_affecting",
]

T = TypeVar("T")

TRAINER = "trainer"
"""The field that collects passed-through keys. Files, dumps and `run_config.json` show them flat, as TRL does."""


def option(
    default: Any = MISSING,
    *,
    default_factory: Callable[[], Any] | None = None,
    help: str,
    operational: bool = False,
    component: str | None = None,
    each: str | None = None,
) -> Any:
    """Return a dataclass field with its help text.

    Args:
        default: the default; without one (and without a factory) the field is required.
        default_factory: makes the default of a mutable type.
        help: one sentence with unit and range.
        operational: the field changes how a run goes, not its result: it may differ when the run is resumed.
        component: the package whose plugins the field's map chooses from; their operational options may differ
            likewise.
        each: the field is a map of maps, each of which may hold such a component under this key.
    """
    metadata = {"help": help, "operational": operational, "component": component, "each": each}
    if default_factory is not None:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return "did you mean 'x'?" with the nearest known name, or an empty string."""
    near = difflib.get_close_matches(name.replace("-", "_"), list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else ""


def parse_config(
    cls: type[T],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    passthrough: Mapping[str, FieldSpec] | None = None,
) -> T:
    """Return the config that a command line and the YAML file it names describe.

    A class may have the ClassVars `EXAMPLE` (a ready command for the usage) and `RENAMED` (old key: new).

    Args:
        cls: a keyword-only dataclass whose fields come from `option`.
        argv: the arguments, by default those of the process.
        prog: how the user called the job.
        passthrough: keys of another library's config; they are type-checked and land in the field `trainer`.

    Raises:
        ConfigError: the file or a flag is wrong; all wrong keys are listed.
        SystemExit: 0 after --help, --print_config or --print_schema; 2 after usage when there is no config.
    """
    flags = split_flags(sys.argv[1:] if argv is None else argv)
    _refuse_overlaps(flags)
    special = {flag.name: flag for flag in flags if flag.name in SPECIAL}
    for flag in special.values():
        if flag.tokens and flag.name != "config":
            raise ConfigError(f"--{flag.name} takes no value, not {' '.join(flag.tokens)!r}")
    example = getattr(cls, "EXAMPLE", f"{prog} --config FILE.yaml")
    if "help" in special:
        _print_and_exit(help_page(cls, prog, example, passthrough))
    if "print_schema" in special:
        from lengthwise.schemas.json_schema import json_schema

        _print_and_exit(json.dumps(json_schema(cls, passthrough), indent=2, ensure_ascii=False))
    given = load_yaml(_config_path(special["config"])) if "config" in special else LocatedMap()
    entries = _settable(cls, passthrough)
    values = _checked(cls, entries, given, [flag for flag in flags if flag.name not in SPECIAL])
    required = [e for e in entries.values() if e.default is MISSING and e.name not in values]
    if required:
        missing = "; ".join(f"{e.name} ({e.help})" for e in required)
        if "config" not in special:
            print(f"{usage(prog, example)}\n\nstill needed: {missing}", file=sys.stderr)
            raise SystemExit(2)
        raise ConfigError(f"{special['config'].tokens[0]}: missing: {missing}")
    config = _construct(
        cls, values, passthrough, special["config"].tokens[0] if "config" in special else prog
    )
    if "print_config" in special:
        _print_and_exit(dump_yaml(config_to_dict(config)))
    return config


def is_dry_run(argv: Sequence[str] | None) -> bool:
    """Return whether a job was asked to say what it would do, and to do nothing; None: the process's arguments."""
    return any(flag.name == "dry_run" for flag in split_flags(sys.argv[1:] if argv is None else argv))


def _refuse_overlaps(flags: Sequence[Flag]) -> None:
    """Refuse a flag for a whole map beside one for an entry of it: which wins would depend on their order."""
    for flag in flags:
        for other in flags:
            if other.name.startswith(f"{flag.name}."):
                raise ConfigError(f"--{flag.name} and --{other.name} both set {other.name}; delete one")


def _print_and_exit(text: str) -> None:
    """Print an answer that is not a run, and end the process well."""
    try:
        print(text.rstrip("\n"), flush=True)
    except BrokenPipeError:
        # `--help | head` has read enough; without this Python would complain again while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(0)


def _config_path(flag: Flag) -> str:
    """Return the value of --config."""
    if len(flag.tokens) != 1 or not flag.tokens[0]:
        raise ConfigError(f"--config takes one file, not {len(flag.tokens)}: --config configs/NAME.yaml")
    return flag.tokens[0]


def _settable(cls: type, passthrough: Mapping[str, FieldSpec] | None) -> dict[str, Entry]:
    """Return every key that may be given: the class's own, which win, and the passed-through ones."""
    own = entries_of(cls)
    if passthrough is not None:
        own.pop(TRAINER)
    others = passthrough_entries(passthrough)
    return {**own, **{name: entry for name, entry in others.items() if name not in own}}


def _construct(
    cls: type[T], values: dict[str, Any], passthrough: Mapping[str, FieldSpec] | None, where: str
) -> T:
    """Make the dataclass; what its own checks refuse becomes a `ConfigError`."""
    if passthrough is not None:
        own = entries_of(cls)
        trainer = {key: values.pop(key) for key in list(values) if key not in own}
        values[TRAINER] = _plain(trainer)
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _checked(
    cls: type, entries: Mapping[str, Entry], given: LocatedMap, flags: Sequence[Flag]
) -> dict[str, Any]:
    """Return the given values in their types, flags over file; one error lists all that is wrong."""
    merged, problems = given.copy(), []
    for flag in flags:
        try:
            _apply_flag(cls, entries, merged, flag)
        except ConfigError as error:
            problems.append(str(error))
    values = {}
    for key, value in merged.items():
        try:
            values[key] = _check(cls, entries, key, value, merged.origins[key])
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return values


def _check(
    cls: type, entries: Mapping[str, Entry], key: str, value: Any, origin: str, where: str = ""
) -> Any:
    """Return one value in the type of its field, or raise with origin, field, value, type and remedy."""
    if key not in entries:
        raise ConfigError(_unknown(cls, entries, key, value, origin))

    def nested(inner: type, mapping: Any) -> Any:
        return build_component(inner, mapping, where=f"{where}{key}")

    try:
        return coerce(value, entries[key].hint, nested)
    except Misfit as misfit:
        raise ConfigError(_misfit(f"{where}{key}", entries[key], value, origin, str(misfit))) from None


def _unknown(cls: type, entries: Mapping[str, Any], key: str, value: Any, origin: str) -> str:
    """Return the message for a key that does not exist, or no longer does."""
    renamed: Mapping[str, str] = getattr(cls, "RENAMED", {})
    if key in renamed:
        return f"{origin}: key {key!r} (value {value!r}) was renamed: write {renamed[key]!r}"
    if key == TRAINER and TRAINER in {f.name for f in dataclasses.fields(cls)}:
        return f"{origin}: key 'trainer' cannot be given: write the trainer's keys flat, beside the others"
    hint = did_you_mean(key, list(entries)) or f"known keys: {', '.join(list(entries)[:30])}"
    return f"{origin}: unknown key {key!r} (value {value!r}): {hint}"


def _misfit(name: str, entry: Entry, value: Any, origin: str, expected: str) -> str:
    """Return the message for a value of the wrong type."""
    remedy = ""
    kinds = members(entry.hint)
    if any(is_map(kind) for kind in kinds) and not isinstance(value, Mapping):
        remedy = f"write {name}: {{name: ..., its options}}"
    elif isinstance(value, str):
        choices = [c for kind in kinds for c in getattr(kind, "__args__", ()) if isinstance(c, str)]
        remedy = did_you_mean(value, choices) or ("write true or false" if bool in kinds else "")
    elif bool in kinds and value in (0, 1):
        remedy = "write true or false"
    elif isinstance(value, float) and int in kinds and value.is_integer():
        remedy = f"write {int(value)}"
    elif isinstance(value, int | float) and str in kinds:
        remedy = f"put it in quotes: '{json.dumps(value)}'"
    return f"{origin}: {name} is {value!r}, expected {expected}" + (f"; {remedy}" if remedy else "")


def _apply_flag(cls: type, entries: Mapping[str, Entry], merged: LocatedMap, flag: Flag) -> None:
    """Put one flag into the merged values; a dotted one replaces one entry of a map."""
    name, *path = flag.name.split(".")
    if not path and name not in entries and name.startswith("no_") and not flag.tokens:
        positive = entries.get(name.removeprefix("no_"))
        if positive is not None and bool in members(positive.hint):
            merged[positive.name], merged.origins[positive.name] = False, f"--{name}"
            return
    origin = f"--{flag.name}"
    if name not in entries:
        raise ConfigError(_unknown(cls, entries, name, " ".join(flag.tokens), origin))
    entry = entries[name]
    hint = _hint_at(entry.hint, path)
    if path and not any(is_map(kind) for kind in members(entry.hint)):
        raise ConfigError(f"{origin}: {name} is not a map, so {'.'.join(path)!r} cannot be set in it")
    try:
        value = from_tokens(flag.tokens, hint)
    except Misfit as misfit:
        raise ConfigError(f"{origin} {' '.join(flag.tokens)}: expected {misfit}") from None
    if not path:
        merged[name], merged.origins[name] = value, origin
        return
    base = merged.get(name)
    if name not in merged and entry.default is not MISSING:
        base = _plain(entry.default)
    merged[name] = _with_entry(base, path, value, origin)
    merged.origins.setdefault(name, origin)


def _hint_at(hint: Any, path: Sequence[str]) -> Any:
    """Return the annotation at a dotted path; inside a component, whose class is not known yet, Any."""
    for key in path:
        found: Any = Any
        for kind in members(hint):
            if dataclasses.is_dataclass(kind) and isinstance(kind, type):
                found = get_type_hints(kind).get(key, Any)
        hint = found
    return hint


def _with_entry(base: Any, path: Sequence[str], value: Any, origin: str) -> LocatedMap:
    """Return a copy of the map `base` with `value` at `path`."""
    if base is not None and not isinstance(base, Mapping):
        raise ConfigError(f"{origin}: sets an entry of a map, but the file has the value {base!r} there")
    result = base.copy() if isinstance(base, LocatedMap) else LocatedMap(base or {})
    key, *rest = path
    result[key] = _with_entry(result.get(key), rest, value, origin) if rest else value
    result.origins[key] = origin
    return result


def build_choice(kinds: Mapping[str, type[Any]], given: Mapping[str, Any], *, where: str) -> Any:
    """Return the component that a map chooses by its `name`, built of the map's other entries.

    Args:
        kinds: the dataclasses by name.
        given: the map.
        where: the field that holds it, for messages.

    Raises:
        ConfigError: an unknown name, or an option that is wrong or another component's.
    """
    name = component_name(given, where=where)
    if name not in kinds:
        hint = did_you_mean(name, list(kinds)) or f"there are {', '.join(kinds)}"
        raise ConfigError(f"{where}.name is {name!r}: {hint}")
    return build_component(kinds[name], given, where=where)


def build_component(cls: type[T], mapping: Mapping[str, Any], *, where: str) -> T:
    """Return the config of a component from its map, as strict as a job's.

    The key `name`, which chose the component, is skipped unless the class has a field of that name.

    Args:
        cls: the component's dataclass.
        mapping: its options, with or without `name`.
        where: the field that holds the map, for messages.

    Raises:
        ConfigError: an unknown or missing key, or a wrong type.
    """
    entries = entries_of(cls)
    origins = getattr(mapping, "origins", {})
    values, problems = {}, []
    for key, value in mapping.items():
        if key == "name" and key not in entries:
            continue
        try:
            if key not in entries and key not in getattr(cls, "RENAMED", {}):
                raise ConfigError(
                    _unknown(cls, {**entries, "name": None}, key, value, origins.get(key, where))
                )
            values[key] = _check(cls, entries, key, value, origins.get(key, where), f"{where}.")
        except ConfigError as error:
            problems.append(str(error))
    for entry in entries.values():
        if entry.default is MISSING and entry.name not in values and entry.name not in mapping:
            place = next(iter(origins.values()), where)
            problems.append(f"{place}: {where}.{entry.name} is missing ({entry.help})")
    if problems:
        raise ConfigError("\n".join(problems))
    return _construct(cls, values, None, where)


def component_name(mapping: Mapping[str, Any], *, where: str) -> str:
    """Return the name that chooses a component.

    Raises:
        ConfigError: the map has no name, or one that is not text.
    """
    name = mapping.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{where} is {dict(mapping)!r}: it needs a name, as in {{name: ..., its options}}")
    return name


def _plain(value: Any) -> Any:
    """Return a value as data that JSON and YAML can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in ordered_fields(type(value)) if f.init}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    return str(value) if isinstance(value, Path) else value


def config_to_dict(config: Any) -> dict[str, Any]:
    """Return a config as plain data that `--config` reads back; passed-through keys stand flat."""
    flat = _plain(config)
    trainer = flat.pop(TRAINER, {})
    return {**flat, **trainer}


def result_affecting(cls: type, config: Any, *, also: Iterable[str] = ()) -> dict[str, Any]:
    """Return the part of a config that decides the result: all but operational fields.

    Operational are the fields marked so by `option` and the passed-through keys in the class's `OPERATIONAL`.

    Args:
        cls: the config's class.
        config: an instance, or its values as plain data.
        also: passed-through keys that decide the result after all, because of other settings.
    """
    full = config_to_dict(config) if dataclasses.is_dataclass(config) else dict(config)
    skipped = {name for name, entry in entries_of(cls).items() if entry.operational}
    skipped |= set(getattr(cls, "OPERATIONAL", ())) - set(also)
    components = {f.name: f.metadata for f in dataclasses.fields(cls) if f.metadata.get("component")}
    return {
        key: _decisive(value, components[key], key) if key in components else value
        for key, value in full.items()
        if key not in skipped
    }


def _decisive(value: Mapping[str, Any], metadata: Mapping[str, Any], field: str) -> dict[str, Any]:
    """Return a component's map, or a map of maps that may hold one each, without what may change on resume."""
    package, key = metadata["component"], metadata.get("each")
    if key is None:
        return _without_operational(value, package, field)
    return {
        name: {**inner, key: _without_operational(inner[key], package, f"{field}.{name}.{key}")}
        if isinstance(inner, Mapping) and isinstance(inner.get(key), Mapping)
        else inner
        for name, inner in value.items()
    }


def _without_operational(component: Mapping[str, Any], package: str, field: str) -> dict[str, Any]:
    """Return a component's map without the options that may change on resume."""
    from lengthwise.plugins import load_plugin

    module = load_plugin(package, component_name(component, where=field))
    return {"name": component["name"], **result_affecting(module.Config, component)}
