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
    return "\n".join(
        [
            *_head(base_model, "peft" if is_adapter else "transformers", ["lengthwise", "trl", job]),
            f"# {name}",
            "",
            f"`{base_model}`, trained by {method}. Made with Lengthwise and TRL's `{job.upper()}Trainer`.",
            "Nothing here says how good the model is: evaluate it.",
            "",
            *_data_and_training(training, settings),
            "`manifest.json` holds the whole config, the digests of data and base model, and the package "
            "versions.",
            "",
        ]
    )


def export_card(
    *,
    name: str,
    job: str | None,
    base_model: str,
    training: Mapping[str, Any],
    settings: Mapping[str, Any],
    record: Mapping[str, Any],
) -> str:
    """Return the card of an exported model.

    Args:
        name: the run's name.
        job: sft or dpo, None for an adapter from elsewhere.
        base_model: the base as the config names it.
        training: the manifest's `training` entry, empty where there is none.
        settings: the run's config.
        record: what `export.json` holds.
    """
    close = record["checks"]["log_probs"]
    method = f"trained by {training['method']}" if training else "with an adapter whose training is not known"
    quantized = (
        " The adapter was trained on a base of 4 bits a weight; here the base has all its bits."
        if record["trained_on_4_bits"]
        else ""
    )
    return "\n".join(
        [
            *_head(base_model, "transformers", ["lengthwise", *(["trl", job] if job else [])]),
            f"# {name}",
            "",
            f"`{base_model}`, {method}, merged into one model by Lengthwise, weights in {record['dtype']}.{quantized}",
            "Nothing here says how good the model is: evaluate it.",
            "",
            *(_data_and_training(training, settings) if training else []),
            "## Export",
            "",
            f"- log-probabilities of {close['num_tokens']:,} tokens against the trained model: mean difference "
            f"{close['mean_difference']:.2g} nats, largest {close['largest_difference']:.2g}",
            f"- rendered prompts with the same tokens: {record['checks']['prompts_with_same_tokens']}",
            f"- generation stops at the token ids {record['checks']['eos_token_id']}",
            "",
            "`export.json` holds where the weights are from, all that was compared, and the package versions.",
            "",
        ]
    )


def _head(base_model: str, library: str, tags: list[str]) -> list[str]:
    is_hub_id = base_model.count("/") == 1 and not base_model.startswith((".", "~", "/"))
    head = {
        **({"base_model": base_model} if is_hub_id else {}),
        "library_name": library,
        "pipeline_tag": "text-generation",
        "tags": tags,
    }
    return ["---", yaml.safe_dump(head, sort_keys=False).rstrip(), "---", ""]


def _data_and_training(training: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    over = training["over_length"]
    loss = training.get("train_loss")
    return [
        "## Data",
        "",
        "| source | rows read | trained on | unreadable | over-length |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| `{s['path']}` | {s['read']:,} | {s['drawn']:,} | {s['failed']:,} | {s['over_length']:,} |"
            for s in training["sources"]
        ),
        "",
        f"One epoch: {training['num_rows']:,} rows, {training['num_tokens']:,} tokens{_supervised(training)}. "
        f"Longest row: {training['longest_row']:,} tokens.",
        f"Length limit: {training['max_length']:,} tokens; {over['rows']:,} rows ({over['tokens']:,} "
        f"tokens) were longer (policy: {over['policy']}).",
        "",
        "## Training",
        "",
        f"- optimizer steps: {training['steps']:,}",
        *([] if loss is None else [f"- mean training loss: {loss:.4f}"]),
        *(f"- {key}: {settings[key]}" for key in _SHOWN_SETTINGS if key in settings),
        f"- weights in {training['dtype']}",
        "",
    ]


def _supervised(training: Mapping[str, Any]) -> str:
    """Return which tokens carry loss, in words: a share of the rows', or others that are written in training."""
    if not training["num_supervised_tokens"]:
        return f"; loss is on {training['supervised']}"
    return f", of which {training['num_supervised_tokens']:,} carry loss ({training['supervised']})"
