"""Prompts as files: `prompts/<name>.md` of a package, with `${field}` for what changes.

A prompt's digest travels with every call it made, so a row can be traced back to the exact wording. What a
field is filled with is never scanned again: a `$` in a user's text is safe.
"""

from __future__ import annotations

import hashlib
import importlib.util
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A text with `${fields}`."""

    name: str
    text: str

    @property
    def version(self) -> str:
        """The first 12 hex digits of the text's sha256: changes with every edit of the file."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()[:12]

    @property
    def fields(self) -> frozenset[str]:
        """The names that `render` must be given."""
        return frozenset(string.Template(self.text).get_identifiers())

    def render(self, **values: object) -> str:
        """Fill in every field.

        Raises:
            ValueError: for a field without a value, or a value without a field (mostly a typing slip).

        Example:
            >>> PromptTemplate("greeting", "Dear ${name},").render(name="Ada")
            'Dear Ada,'
        """
        if values.keys() != self.fields:
            missing, unknown = sorted(self.fields - values.keys()), sorted(values.keys() - self.fields)
            parts = ([f"lacks {', '.join(missing)}"] if missing else []) + (
                [f"has no place for {', '.join(unknown)}"] if unknown else []
            )
            raise ValueError(
                f"prompt {self.name!r} {' and '.join(parts)}: pass exactly its fields "
                f"({', '.join(sorted(self.fields)) or 'none'})"
            )
        return string.Template(self.text).substitute({k: str(v) for k, v in values.items()})


@cache
def load_prompt(package: str, name: str) -> PromptTemplate:
    """Return the prompt `prompts/<name>.md` of `package` ("data_builders", "evals").

    A literal dollar sign is written `$$` in the file; white space at the end of the file is dropped.

    Raises:
        ValueError: if there is no such file, or if it has a `$` that is neither a field nor `$$`.
    """
    folder = prompt_folder(package)
    path = folder / f"{name}.md"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.md"))) or "none"
        raise ValueError(f"prompt {name!r}: no file {path}; prompts there: {known}")
    return _checked(PromptTemplate(name, path.read_text(encoding="utf-8").rstrip()))


@cache
def load_phrases(package: str, name: str) -> Mapping[str, PromptTemplate]:
    """Return the short texts of `prompts/<name>.md`: one per line, `key: text with ${fields}`.

    Lines that are empty or begin with `#` are skipped.

    Raises:
        ValueError: for a line without a key, or a key given twice.
    """
    phrases: dict[str, PromptTemplate] = {}
    for number, line in enumerate(load_prompt(package, name).text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        key, colon, text = line.partition(":")
        if not colon or not key.isidentifier() or key in phrases:
            raise ValueError(f"prompt {name!r}, line {number}: {line!r} should be 'key: text', each key once")
        phrases[key] = _checked(PromptTemplate(f"{name}:{key}", text.strip()))
    return MappingProxyType(phrases)


def prompt_folder(package: str) -> Path:
    """Return the folder `prompts/` of a package, without importing the package's modules."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"package {package!r} is not installed: run `make setup` in the clone")
    return Path(next(iter(spec.submodule_search_locations))) / "prompts"


def _checked(template: PromptTemplate) -> PromptTemplate:
    if not string.Template(template.text).is_valid():
        raise ValueError(
            f"prompt {template.name!r} has a stray '$': write ${{field}}, or $$ for a dollar sign"
        )
    return template
