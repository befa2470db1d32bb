"""The keys of the pinned TRL configs, readable without importing TRL or torch.

Importing `trl.SFTConfig` takes many seconds. The JSON files here hold the name, type and default of
each of its fields; `python -m lengthwise.schemas.generate` writes them, and a test compares them with TRL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One key of a config class that is not imported."""

    name: str
    type: str
    """A Python annotation of builtins, Any and Literal, such as "int | None"."""
    default: Any = None
    help: str = ""

    @property
    def hint(self) -> Any:
        """The annotation that `type` spells."""
        holder = type("Holder", (), {"__annotations__": {"value": self.type}})
        return get_type_hints(holder, {"Any": Any, "Literal": Literal})["value"]


def load_schema(job: str) -> Mapping[str, FieldSpec]:
    """Return the TRL keys that a job passes through, by name.

    Args:
        job: the name of a JSON file in this folder, such as "sft".
    """
    stored = json.loads((FOLDER / f"{job}.json").read_text(encoding="utf-8"))
    return {entry["name"]: FieldSpec(**entry) for entry in stored["fields"]}
