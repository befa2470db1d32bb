"""Writes the JSON schemas in this folder from the installed TRL: `python -m lengthwise.schemas.generate`."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import importlib.metadata
import json
from typing import Any, Literal, get_args, get_origin

from lengthwise.files import atomic_write
from lengthwise.schemas import FOLDER
from lengthwise.value_types import members

CLASSES = {
    "sft": ("trl", "SFTConfig"),
    "dpo": ("trl", "DPOConfig"),
    "kto": ("trl", "KTOConfig"),
    "orpo": ("trl.experimental.orpo", "ORPOConfig"),
    "grpo": ("trl", "GRPOConfig"),
}
"""Job to the module and class whose keys it passes through."""

_PLAIN = {int: "int", float: "float", bool: "bool", str: "str", dict: "dict", list: "list", Any: "Any"}


def spell(hint: Any) -> str:
    """Return an annotation as text of builtins, Any and Literal.

    An enum becomes its choices (the `str` beside an enum only lets users write them as text). A class that no
    YAML value can be becomes None: the key exists, but only null may be given.

    Example:
        >>> spell(int | None), spell(dict[str, Any])
        ('int | None', 'dict[str, Any]')
    """
    options = members(hint)
    if any(isinstance(o, type) and issubclass(o, enum.Enum) for o in options):
        options = tuple(o for o in options if o is not str)
    parts = sorted((_spell_one(option) for option in options), key=lambda text: text == "None")
    return " | ".join(dict.fromkeys(parts))


def _spell_one(hint: Any) -> str:
    """Return one alternative of a union as text."""
    if get_origin(hint) is Literal:
        return f"Literal[{', '.join(map(repr, get_args(hint)))}]"
    if get_origin(hint) in (list, dict):
        inner = ", ".join(spell(arg) for arg in get_args(hint))
        return f"{get_origin(hint).__name__}[{inner}]"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return f"Literal[{', '.join(repr(choice.value) for choice in hint)}]"
    return _PLAIN.get(hint, "None")


def generate(job: str) -> dict[str, Any]:
    """Return the schema of a job's passed-through class, from the live class."""
    module, class_name = CLASSES[job]
    cls = getattr(importlib.import_module(module), class_name)
    entries = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        default = default.value if isinstance(default, enum.Enum) else default
        choices = field.metadata.get("choices")
        kind = spell(field.type)
        if choices:  # named for argparse only; the annotation is str
            kind = kind.replace("str", _spell_one(Literal[*choices]))
        entries.append({"name": field.name, "type": kind, "default": default})
    version = importlib.metadata.version(module.partition(".")[0])
    return {
        "source": f"{module}.{class_name}",
        "version": version,
        "fields": entries,
    }


def main() -> int:
    """Write every schema."""
    for job in CLASSES:
        atomic_write(FOLDER / f"{job}.json", json.dumps(generate(job), indent=1, ensure_ascii=False) + "\n")
        print(f"wrote {FOLDER / f'{job}.json'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
