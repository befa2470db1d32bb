"""Reads YAML so that each key knows its file and line.

YAML 1.2 decides what a plain word is: only true and false are booleans (`save_strategy: no` is the
text "no"), `1e-4` is a number, and dates stay text. PyYAML alone follows YAML 1.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lengthwise.value_types import ConfigError


class LocatedMap(dict[str, Any]):
    """A map that also knows where each key was written, so that a late check can still name the line."""

    def __init__(self, *args: Any, origins: Mapping[str, str] | None = None) -> None:
        """Make a map; `origins` gives "file:line" or "--flag" per key."""
        super().__init__(*args)
        self.origins: dict[str, str] = dict(origins or {})

    def copy(self) -> LocatedMap:
        """Return a shallow copy that keeps the origins."""
        return LocatedMap(self, origins=self.origins)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the plain words of YAML 1.2."""


_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
_RESOLVERS = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789")),
    ("tag:yaml.org,2002:merge", r"<<", ["<"]),
)
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    """Read a number by Python's rules: YAML 1.1 takes 010 for octal and does not know 1e-4."""
    text = loader.construct_scalar(node)
    return int(text) if node.tag.endswith(":int") else float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))


_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)


_REMEDIES = {
    "'\\t'": "indent with spaces, not with tabs",
    "another document": "a config is one document: delete the `---` and what does not belong to it",
}
"""What to do about some of the parser's problems, by a part of its wording."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes whatever `_Loader` would not read back as text."""


_Dumper.yaml_implicit_resolvers = {
    first: [
        *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
        *_Loader.yaml_implicit_resolvers.get(first, []),
    ]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def dump_yaml(value: Mapping[str, Any]) -> str:
    """Return plain data as YAML, keys in their order."""
    return yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def parse_scalar(text: str) -> Any:
    """Return what a YAML file would make of `text`, or the text itself where that is not YAML."""
    try:
        loaded = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError):
        return text
    return text if loaded is None and text.strip() not in {"", "~", "null", "Null", "NULL"} else loaded


def load_yaml(path: str | Path) -> LocatedMap:
    """Return the map in a YAML file.

    Raises:
        ConfigError: no such file, not UTF-8, broken YAML, empty, not a map, or a key given twice.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"--config {path}: it is a folder; name a file, as {path / 'run_config.json'}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"--config {path}: there is no such file (looked in {Path.cwd()})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: cannot be read as UTF-8 text: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> LocatedMap:
    """Return the map in YAML `text`; `source` names it in messages."""
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:  # a character that no text has
        raise ConfigError(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from None
    try:
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(f"{source}: the file is empty; it needs lines such as `name: my_run`")
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{source}:{_line(node)}: the file must be a map of `key: value` lines")
        return _located(loader, node, source, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        problem = error.problem or error.context or ""
        for sign, remedy in _REMEDIES.items():
            problem += f"; {remedy}" if sign in problem else ""
        raise ConfigError(f"{where}: not valid YAML: {problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{source}: not valid YAML: {error}") from None
    finally:
        loader.dispose()


def _line(node: yaml.Node) -> int:
    """Return the line of a node, counted from 1."""
    return node.start_mark.line + 1


def _located(loader: _Loader, node: yaml.Node, source: str, above: tuple[int, ...]) -> Any:
    """Return the data of a node; maps become `LocatedMap`, wherever they stand."""
    if id(node) in above:
        raise ConfigError(f"{source}:{_line(node)}: an alias contains itself")
    above = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        return [_located(loader, item, source, above) for item in node.value]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    _refuse_duplicates(node, source)
    loader.flatten_mapping(node)
    result = LocatedMap()
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise ConfigError(f"{source}:{_line(key_node)}: key {key!r} is not a word; put it in quotes")
        result[key] = _located(loader, value_node, source, above)
        result.origins[key] = f"{source}:{_line(key_node)}"
    return result


def _refuse_duplicates(node: yaml.MappingNode, source: str) -> None:
    """Raise for a key given twice: YAML would silently take the last one."""
    lines: dict[str, int] = {}
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag.endswith(":merge"):
            continue
        key = key_node.value
        if key in lines:
            raise ConfigError(
                f"{source}:{_line(key_node)}: key {key!r} is given twice (see line {lines[key]}); delete one"
            )
        lines[key] = _line(key_node)
