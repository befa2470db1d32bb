"""The README.md of a trained model: what it was made from and how, without claims about quality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

_SHOWN_SETTINGS = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "packing",
)


def model_card(
    *,
    name: str,
    job: str,
    base_model: str,
    method: str,
    is_adapter: bool,
    training: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> str:
    """Return the card.

    Args:
        name: the run's name.
        job: sft or dpo.
        base_model: the base as the config names it.
        method: what was done, as "full fine-tuning" or "LoRA (r=16, alpha=32)".
        is_adapter: whether the folder holds an adapter instead of a model.
        training: the manifest's `training` entry.
        settings: the trainer's arguments; the decisive ones are listed.
    """
    is_hub_id = base_model.count("/") == 1 and not base_model.startswith((".", "~", "/"))
    head = {
        **({"base_model": base_model} if is_hub_id else {}),
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["lengthwise", "trl", job],
    }
    over = training["over_length"]
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).rstrip(),
        "---",
        "",
        f"# {name}",
        "",
        f"`{base_model}`, trained by {method}. Made with Lengthwise and TRL's `{job.upper()}Trainer`.",
        "Nothing here says how good the model is: evaluate it.",
        "",
        "## Data",
        "",
        "| source | rows read | trained on | unreadable | over-length |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| `{s['path']}` | {s['read']:,} | {s['drawn']:,} | {s['failed']:,} | {s['over_length']:,} |"
            for s in training["sources"]
        ),
        "",
        f"One epoch: {training['num_rows']:,} rows, {training['num_tokens']:,} tokens, of which "
        f"{training['num_supervised_tokens']:,} carry loss ({training['supervised']}). "
        f"Longest row: {training['longest_row']:,} tokens.",
        f"Length limit: {training['max_length']:,} tokens; {over['rows']:,} rows ({over['tokens']:,} "
        f"tokens) were longer (policy: {over['policy']}).",
        "",
        "## Training",
        "",
        f"- optimizer steps: {training['steps']:,}",
        f"- mean training loss: {training['train_loss']:.4f}"
        if training.get("train_loss") is not None
        else "",
        *(f"- {key}: {settings[key]}" for key in _SHOWN_SETTINGS if key in settings),
        f"- weights in {training['dtype']}",
        "",
        "`manifest.json` holds the whole config, the digests of data and base model, and the package "
        "versions.",
        "",
    ]
    return "\n".join(lines)
