"""The settings of a build run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lengthwise.budget import Limits
from lengthwise.config import ConfigError, option


@dataclass(kw_only=True)
class BuildConfig(Limits):
    """Settings of a build run."""

    EXAMPLE: ClassVar[str] = "lengthwise build --config configs/data/agent_write_debug.yaml"

    builder: dict[str, Any] = option(
        default_factory=lambda: {"name": "agent_write"}, help="{name: agent_write, its options}"
    )
    model: str | None = option(
        None,
        help="embedded:smollm2-135m, a folder, or a hub id; roles may name others; null for a builder that asks no "
        "model",
    )
    adapter: str | None = option(None, help="LoRA adapter on the model: a folder or hub id")
    engine: dict[str, Any] = option(
        default_factory=lambda: {"name": "vllm"},
        help="{name: vllm | openai_http | hf | scripted, its options}",
        component="lengthwise.engines",
    )
    roles: dict[str, Any] = option(
        default_factory=dict,
        help="other models for single roles, as in {planner: {model: ..., engine: {name: ...}}}; what is "
        "left out is as above",
        component="lengthwise.engines",
        each="engine",
    )
    data: str | None = option(
        None, help="file, folder, build run or hub id with prompts; null: the shipped instructions"
    )
    split: str = option("train", help="split of a hub data set")
    subset: str | None = option(None, help="configuration of a hub data set")
    data_revision: str | None = option(None, help="commit, tag or branch of a hub data set")
    on_bad_row: Literal["raise", "drop"] = option(
        "raise", help="what to do with rows of the data that cannot be used"
    )
    prompt_column: str = option(
        "prompt", help="column with a text or a list of {role, content} turns; of a build run it is messages"
    )
    id_column: str | None = option("id", help="column with the row's id, if it is there")
    length_column: str | None = option(
        "length",
        help="column with the wanted words (number, or map as LengthTarget), if it is there; null ignores it",
    )
    limit: int | None = option(
        None,
        help="take this many random rows of the usable ones (a larger limit adds to them)",
        operational=True,
    )
    rows_per_prompt: int = option(1, help="rows to make of each prompt, each with chances of its own")
    seed: int = option(0, help="of the row choice and of every request")
    max_concurrent_samples: int = option(64, help="samples under way at once", operational=True)
    min_kept_frac: float = option(
        0.5, help="below this share of kept rows the job says so loudly", operational=True
    )
    name: str | None = option(None, help="the run's name; it is written to outputs/build/<name>")
    output_dir: str | None = option(None, help="the run folder, in place of outputs/build/<name>")

    def __post_init__(self) -> None:
        """Refuse values that no run can have."""
        for name, least in (("max_concurrent_samples", 1), ("limit", 1), ("rows_per_prompt", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}: it must be at least {least}")
        if not 0 <= self.min_kept_frac <= 1:
            raise ConfigError(f"min_kept_frac is {self.min_kept_frac}: it must lie between 0 and 1")
        super().__post_init__()
