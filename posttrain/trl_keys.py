"""What the training jobs make of the keys of TRL's config classes: which they manage, rename, bound, and let differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lengthwise.config import did_you_mean

_MANAGED = {
    "auto_find_batch_size": "the rows of a step would change under way; choose a size that fits",
    "dataset_num_proc": "the data is prepared here",
    "do_eval": "eval_strategy says when to evaluate",
    "do_predict": "this job only trains",
    "do_train": "this job only trains",
    "enable_jit_checkpoint": "SIGTERM and Ctrl-C save a checkpoint anyway",
    "hub_token": "it would be written to run_config.json; log in with `hf auth login`",
    "ignore_data_skip": "a resumed run would train on rows that it has trained on",
    "pad_token": "it comes with the tokenizer",
    "truncation_mode": "over_length says what happens to rows over max_length",
}

MANAGED_SFT = _MANAGED | {
    "assistant_only_loss": "only assistant turns carry loss, always; train_on chooses which",
    "completion_only_loss": "the prompt of a prompt-completion row never carries loss",
    "dataset_kwargs": "the data is prepared here",
    "dataset_text_field": "rows are conversations, or plain texts in the column text with curriculum: {name: "
    "dataset_decomposition}",
}
"""Keys of TRL's SFTConfig that would do nothing or harm here, with the reason."""

MANAGED_DPO = _MANAGED | {
    "padding_free": "TRL has switched it off for preference pairs; batching: {name: token_budget} saves the padding",
}
"""Keys of TRL's DPOConfig that would do nothing or harm here, with the reason."""

MANAGED_KTO = _MANAGED
"""Keys of TRL's KTOConfig that would do nothing or harm here, with the reason."""

MANAGED_ORPO = _MANAGED | {
    "generate_during_eval": "it needs a tracker's table; use length_eval",
    "is_encoder_decoder": "the model says so itself, and only decoders are trained here",
    "max_completion_length": "over_length says what happens to rows over max_length",
    "padding_value": "it comes with the tokenizer",
}
"""Keys of TRL's ORPOConfig that would do nothing or harm here, with the reason."""

MANAGED_GRPO = _MANAGED | {
    "log_completions_hub_repo": "completions are kept in rollouts/ of the run folder",
    "log_multimodal": "prompts are text",
    "max_tool_calling_iterations": "no tools are called here",
    "remove_unused_columns": "rewards read the rows' columns",
    "reward_weights": "each reward has its own: rewards: {answer_correct: {weight: 1}}",
    "train_sampling_strategy": "the answers to a prompt stay together, and prompts come in random order",
    "use_transformers_paged": "TRL has renamed it use_transformers_continuous_batching",
    "vllm_importance_sampling_cap": "TRL has renamed it vllm_importance_sampling_clip_max",
}
"""Keys of TRL's GRPOConfig that would do nothing or harm here, with the reason."""

# fmt: off
OPERATIONAL = frozenset({
    "logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter", "log_level",
    "log_level_replica", "log_on_each_node", "disable_tqdm", "report_to", "run_name", "project",
    "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "save_strategy", "save_steps",
    "save_total_limit", "save_on_each_node", "eval_strategy", "eval_steps", "eval_delay",
    "eval_on_start", "per_device_eval_batch_size", "eval_accumulation_steps",
    "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers",
    "dataloader_prefetch_factor", "gradient_checkpointing", "gradient_checkpointing_kwargs",
    "activation_offloading", "torch_empty_cache_steps", "ddp_timeout", "ddp_broadcast_buffers",
    "ddp_bucket_cap_mb", "push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo",
    "hub_always_push", "hub_revision",
    "log_completions", "num_completions_to_print", "log_unique_prompts", "vllm_gpu_memory_utilization",
    "vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_group_port",
})
# fmt: on
"""Keys of TRL's config classes that may change when a run is resumed.

Not among them are num_train_epochs and max_steps: they stretch the schedule of the learning rate.
"""

_EVALUATION = frozenset({"eval_strategy", "eval_steps", "eval_delay", "per_device_eval_batch_size"})
_SAVING = frozenset({"save_strategy", "save_steps"})

RENAMED = {
    "dataset_name": "data",
    "dataset": "data",
    "dataset_config": "data: [{path: ..., subset: ...}]",
    "dataset_train_split": "data: [{path: ..., split: ...}]",
    "model_name_or_path": "model",
    "max_seq_length": "max_length",
    "max_seq_len": "max_length",
    "torch_dtype": "dtype",
    "use_peft": "lora: {r: 16, alpha: 32}",
    "peft_config": "lora",
    "lora_r": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "lora_target_modules": "lora.target_modules",
    "attn_implementation": "model_init_kwargs: {attn_implementation: ...}",
    "evaluation_strategy": "eval_strategy",
    "group_by_length": "train_sampling_strategy: group_by_length",
    "warmup_ratio": "warmup_steps, where a value below 1 is a share of all steps",
    "no_cuda": "use_cpu",
    "use_liger": "use_liger_kernel",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "push_to_hub_model_id": "hub_model_id",
}
"""Keys that TRL, its scripts or transformers had, or that people bring from there: what to write here."""

_AT_LEAST: Mapping[str, float] = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "eval_accumulation_steps": 1,
    "save_total_limit": 1,
    "learning_rate": 0,
    "weight_decay": 0,
    "warmup_steps": 0,
    "max_grad_norm": 0,
    "neftune_noise_alpha": 0,
    "dataloader_num_workers": 0,
}
REPORT_TO = frozenset({
    "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "kubeflow", "mlflow",
    "neptune", "swanlab", "tensorboard", "trackio", "wandb",
})  # fmt: skip
"""The trackers that transformers knows; asking it would import torch, and a test compares them."""
_ABOVE_0 = ("num_train_epochs", "logging_steps", "save_steps", "eval_steps")


def also_decisive(trainer: Mapping[str, Any]) -> frozenset[str]:
    """Return the operational keys that decide the result after all, since an evaluation's loss has a say in it.

    Example:
        >>> sorted(also_decisive({"lr_scheduler_type": "greedy"}))
        ['eval_delay', 'eval_steps', 'eval_strategy', 'per_device_eval_batch_size']
    """
    if trainer.get("load_best_model_at_end"):
        return _EVALUATION | _SAVING
    steers_rate = trainer.get("lr_scheduler_type") in {"reduce_lr_on_plateau", "greedy"}
    return _EVALUATION if steers_rate else frozenset()


def check_trainer_keys(trainer: Mapping[str, Any], managed: Mapping[str, str]) -> None:
    """Refuse what the trainer would take and fail on much later, or not at all; `managed` keys in any case.

    Raises:
        ValueError: naming the key, the value and the remedy.
    """
    for key, reason in managed.items():
        if key in trainer:
            raise ValueError(f"{key} is set, but {reason}: remove the key")
    for key, least in _AT_LEAST.items():
        if (value := trainer.get(key)) is not None and value < least:
            raise ValueError(f"{key} is {value}: it must be at least {least}")
    for key in _ABOVE_0:
        if (value := trainer.get(key)) is not None and value <= 0:
            raise ValueError(f"{key} is {value}: it must be above 0")
    if (steps := trainer.get("max_steps", -1)) != -1 and steps < 1:
        raise ValueError(
            f"max_steps is {steps}: it must be at least 1; leave it out to train num_train_epochs"
        )
    if trainer.get("fp16") and trainer.get("bf16"):
        raise ValueError("fp16 and bf16 are both true: choose one")
    _check_report_to(trainer.get("report_to", "none"))
    _check_model_init_kwargs(trainer.get("model_init_kwargs"))
    _check_packing(trainer)


def _check_report_to(value: Any) -> None:
    """Refuse a tracker that the trainer does not know: it would say so once the weights are loaded."""
    names = value if isinstance(value, list) else [value]
    if len(names) == 1 and names[0] in ("none", "all"):
        return
    for name in names:
        if name not in REPORT_TO:
            near = did_you_mean(str(name), sorted(REPORT_TO))
            raise ValueError(
                f"report_to is {value!r}: "
                + (near or f"there are {', '.join(sorted(REPORT_TO))}; or give none or all alone")
            )


def _check_model_init_kwargs(kwargs: Any) -> None:
    """Refuse text in place of a map, and a second word on the type of the weights."""
    if kwargs is None:
        return
    if not isinstance(kwargs, dict):
        raise ValueError(f"model_init_kwargs is {kwargs!r}: write a map, without quotes around it")
    for key in ("dtype", "torch_dtype"):
        if key in kwargs:
            raise ValueError(
                f"model_init_kwargs has {key}: {kwargs[key]}: write dtype: {kwargs[key]} instead"
            )


def _check_packing(trainer: Mapping[str, Any]) -> None:
    """Refuse packs that would cut rows, or let them attend to each other."""
    joins_rows = trainer.get("packing") or trainer.get("padding_free")
    if trainer.get("eval_packing") and not trainer.get("packing"):
        raise ValueError("eval_packing is true, but packing is not: set packing: true too, or remove the key")
    if joins_rows and trainer.get("packing_strategy") == "wrapped":
        raise ValueError(
            "packing_strategy is 'wrapped', which cuts rows anywhere, and lets them attend to each other: use bfd"
        )
