"""The model that a trainer begins with: a folder for TRL to load, or one in memory that has been given new tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lengthwise.config import ConfigError
from posttrain.added_tokens import start_rows, trained_rows
from posttrain.base_model import linear_modules
from posttrain.lora import lora_config, quantization_config
from posttrain.precision import weights_dtype

if TYPE_CHECKING:
    from posttrain.train_job import TrainJob
    from posttrain.train_plan import Plan


@contextmanager
def model_arguments(job: TrainJob, plan: Plan) -> Iterator[dict[str, Any]]:
    """Yield what TRL's trainer is told of the model and its adapter; the trainer is to be made inside the block.

    A model with new tokens is loaded here, as TRL would: its rows have to be there before PEFT wraps it, and TRL has no
    place between the two.

    Raises:
        ConfigError: the adapter names modules that the model lacks, or the new rows cannot be made.
    """
    dtype = weights_dtype(job.dtype, is_lora=job.lora is not None)
    quantization = None if job.lora is None else quantization_config(job.lora, dtype)
    kept = getattr(plan.args, "model_init_kwargs", None)
    model: Any = str(plan.model.path)
    rows: dict[str, Any] = {}
    if plan.new_tokens:
        model = _with_new_rows(job, plan, quantization)
        saved = None if job.lora is None else job.lora.modules_to_save
        rows = {} if job.lora is None else trained_rows(model, plan.new_tokens, saved)
        vars(plan.args)["model_init_kwargs"] = None  # TRL would warn that it ignores them
    try:
        yield {
            "model": model,
            "peft_config": None if job.lora is None else lora_config(job.lora, **rows),
            "quantization_config": None if plan.new_tokens else quantization,
        }
    except ValueError as error:
        if job.lora is None or not str(error).startswith(("Target modules", "No modules were targeted")):
            raise
        names = linear_modules(plan.model, trust_remote_code=bool(job.trainer.get("trust_remote_code")))
        raise ConfigError(
            f"lora.target_modules is {job.lora.target_modules!r}: {job.model} has no such modules; it has "
            f"{', '.join(names)}"
        ) from error
    finally:
        if plan.new_tokens:
            vars(plan.args)["model_init_kwargs"] = kept


def _with_new_rows(job: TrainJob, plan: Plan, quantization: Any) -> Any:
    """Return the model with rows for the new tokens."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
    from trl.trainer.utils import create_model_from_path

    if is_deepspeed_zero3_enabled():
        raise ConfigError(
            "added_tokens: DeepSpeed ZeRO-3 has dealt out the embeddings before the new rows could be set: train with "
            "--accelerate_config deepspeed_zero2 or fsdp2"
        )
    keys: dict[str, Any] = dict(getattr(plan.args, "model_init_kwargs", None) or {})
    if quantization is not None:
        keys["quantization_config"] = quantization
    state: Any = plan.args.distributed_state
    if state.distributed_type in (
        "MULTI_GPU",
        "DEEPSPEED",
    ):  # as TRL: one device a process
        keys["device_map"] = None
    keys.setdefault("trust_remote_code", bool(job.trainer.get("trust_remote_code")))
    model = create_model_from_path(str(plan.model.path), **keys)
    assert job.new_tokens is not None
    start_rows(model, plan.tokenizer, plan.new_tokens, job.new_tokens.start)
    return model
