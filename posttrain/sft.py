"""Supervised fine-tuning on conversations, full or LoRA, with TRL's SFTTrainer.

The loss is the mean over all supervised tokens of a global batch, as LongWriter asks for (arXiv 2408.07055:
a mean over rows would give each token of a long answer too little weight); that is TRL's
default. Only assistant turns with their end-of-turn token carry loss. There is no silent length limit: see
`over_length`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lengthwise.config import option, parse_config
from lengthwise.job import run_main
from lengthwise.schemas import load_schema
from posttrain.row_sources import DataSource, data_sources

_MANAGED = {
    "assistant_only_loss": "only assistant turns carry loss, always; train_on chooses which",
    "completion_only_loss": "the prompt of a prompt-completion row never carries loss",
    "dataset_kwargs": "the data is prepared here",
    "dataset_num_proc": "the data is prepared here",
    "dataset_text_field": "rows are conversations; give an untemplated text as prompt and completion",
    "do_eval": "eval_strategy says when to evaluate",
    "do_predict": "this job only trains",
    "do_train": "this job only trains",
    "enable_jit_checkpoint": "SIGTERM and Ctrl-C save a checkpoint anyway",
    "hub_token": "it would be written to config.json; log in with `hf auth login`",
    "pad_token": "it comes with the tokenizer",
    "truncation_mode": "over_length says what happens to rows over max_length",
}
"""Keys of TRL's SFTConfig that would do nothing or harm here, with the reason."""

# fmt: off
_OPERATIONAL = frozenset({
    "logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter", "log_level",
    "log_level_replica", "log_on_each_node", "disable_tqdm", "report_to", "run_name", "project",
    "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "save_strategy", "save_steps",
    "save_total_limit", "save_on_each_node", "num_train_epochs", "max_steps", "eval_strategy",
    "eval_steps", "eval_delay", "eval_on_start", "per_device_eval_batch_size",
    "eval_accumulation_steps", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_persistent_workers", "dataloader_prefetch_factor", "gradient_checkpointing",
    "gradient_checkpointing_kwargs", "activation_offloading", "torch_empty_cache_steps", "ddp_timeout",
    "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "push_to_hub", "hub_model_id", "hub_strategy",
    "hub_private_repo", "hub_always_push", "hub_revision",
})
# fmt: on
"""Keys of TRL's SFTConfig that may change when a run is resumed."""


@dataclass(kw_only=True)
class LoraOptions:
    """A low-rank adapter (arXiv 2106.09685) instead of full fine-tuning."""

    r: int = option(16, help="rank of the update matrices")
    alpha: int = option(32, help="scale: the update is multiplied by alpha / r")
    dropout: float = option(0.0, help="dropout on the adapter's input, 0 to 1")
    target_modules: str | list[str] = option(
        "all-linear", help="modules to adapt: all-linear (without the output head), or a list of names"
    )

    def __post_init__(self) -> None:
        """Refuse values that PEFT would refuse much later."""
        if self.r < 1 or self.alpha < 1:
            raise ValueError(f"r is {self.r} and alpha {self.alpha}: both must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}: it must be at least 0 and below 1")


@dataclass(kw_only=True)
class SFTJob:
    """Fine-tune a language model on conversations, full or LoRA; all keys of TRL's SFTConfig apply too."""

    EXAMPLE: ClassVar[str] = (
        "accelerate launch posttrain/sft.py --config configs/sft/lora.yaml --learning_rate 1e-4"
    )
    RENAMED: ClassVar[dict[str, str]] = {
        "dataset_name": "data",
        "dataset": "data",
        "model_name_or_path": "model",
        "max_seq_length": "max_length",
        "torch_dtype": "dtype",
        "lora_r": "lora.r",
        "lora_alpha": "lora.alpha",
        "lora_target_modules": "lora.target_modules",
    }
    OPERATIONAL: ClassVar[frozenset[str]] = _OPERATIONAL

    name: str = option(help="name of the run and of its folder")
    model: str = option(help="embedded:smollm2-135m, a folder, or a hub id")
    data: str | list[DataSource] = option(
        help="a build's run folder, a .jsonl, .json or .parquet file, a hub id; or a list of maps with "
        "path, split, subset, revision, weight"
    )
    eval_data: str | None = option(None, help="rows for the evaluation loss; goes with eval_strategy")
    mixture_rows: int | None = option(
        None, help="rows of a weighted mixture; default: as many as all sources have"
    )
    on_bad_row: Literal["raise", "drop"] = option("raise", help="what to do with rows that cannot be read")
    max_length: int | None = option(None, help="longest row in tokens; default: the model's context length")
    over_length: Literal["raise", "drop", "truncate"] = option(
        "raise",
        help="what to do with rows over max_length; truncate cuts the end, and with it the end-of-turn token",
    )
    train_on: Literal["all", "last"] = option("all", help="which assistant turns of a row carry loss")
    chat_template_path: str | None = option(
        None, help="a .jinja file, or a model whose chat template to use, instead of the model's own"
    )
    lora: LoraOptions | None = option(
        None, help="train an adapter: r, alpha, dropout, target_modules; null: full"
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = option(
        "auto",
        help="type of the loaded weights; auto: float32, or bfloat16 for LoRA where the hardware has it",
    )
    seed: int = option(42, help="decides data order, mixture, and the adapter's start")
    output_dir: str | None = option(None, help="run folder; default: outputs/sft/<name>")
    resume_from_checkpoint: bool | str = option(
        "auto", help="auto (the last checkpoint, if any), true, false, or a path", operational=True
    )
    trainer: dict[str, Any] = option(default_factory=dict, help="the keys of TRL's SFTConfig")

    def __post_init__(self) -> None:
        """Refuse combinations that would fail late or do nothing."""
        for key, reason in _MANAGED.items():
            if key in self.trainer:
                raise ValueError(f"{key} is set, but {reason}: remove the key")
        for key in ("max_length", "mixture_rows"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{key} is {value}: it must be at least 1")
        if self.mixture_rows and (isinstance(self.data, str) or self.data[0].weight is None):
            raise ValueError("mixture_rows is set, but the data has no weights: give each source a weight")
        wants_eval = self.trainer.get("eval_strategy", "no") != "no"
        if wants_eval and self.eval_data is None:
            raise ValueError("eval_strategy is set, but there is nothing to evaluate on: set eval_data")
        self._check_packing()

    def _check_packing(self) -> None:
        """Refuse joined rows without flash attention: they would attend to each other."""
        joins_rows = self.trainer.get("packing") or self.trainer.get("padding_free")
        kwargs = self.trainer.get("model_init_kwargs") or {}
        attention = str(kwargs.get("attn_implementation", "")) if isinstance(kwargs, dict) else str(kwargs)
        if joins_rows and "flash" not in attention:
            raise ValueError(
                "packing and padding_free put several rows into one sequence, and only flash attention "
                "keeps them apart: add model_init_kwargs: {attn_implementation: flash_attention_2}, or "
                "leave them out"
            )
        if joins_rows and self.trainer.get("packing_strategy") == "wrapped":
            raise ValueError(
                "packing_strategy is 'wrapped', which cuts rows anywhere and loses their ends: use bfd"
            )

    @property
    def method(self) -> str:
        """What is done to the weights, in words."""
        if self.lora is None:
            return "full fine-tuning"
        return f"LoRA (r={self.lora.r}, alpha={self.lora.alpha})"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the config, then train; returns the exit code."""
    return run_main(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    job = parse_config(SFTJob, argv, prog="python posttrain/sft.py", passthrough=load_schema("sft"))
    sources = data_sources(job.data)
    eval_sources = data_sources(job.eval_data, field="eval_data") if job.eval_data else []
    from posttrain.sft_run import train

    return train(job, sources, eval_sources)


if __name__ == "__main__":
    raise SystemExit(main())
