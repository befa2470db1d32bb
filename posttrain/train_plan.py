"""What a training job will do, settled and checked before any weights are loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.config import ConfigError, result_affecting
from lengthwise.models import ModelRef
from lengthwise.run_dir import InputFile
from posttrain.added_tokens import NewToken, add_to_tokenizer
from posttrain.attention import NAME, Attention, choose_attention, register
from posttrain.base_model import find_base, length_limit, load_tokenizer
from posttrain.batch_layout import BatchLayout, check_resumable
from posttrain.batching import check_row_shards
from posttrain.curriculum import DecompositionOptions
from posttrain.curriculum_order import order_identity
from posttrain.kept_rows import kept_rows, rows_key
from posttrain.lora import check_quantization
from posttrain.precision import prepare_cpu, weights_dtype
from posttrain.resume import BEGUN_WITH, find_checkpoint
from posttrain.row_sources import DataSource
from posttrain.run_batches import run_batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from posttrain.batch_order import BatchOrder
    from posttrain.prepared_rows import PreparedRows
    from posttrain.train_job import TrainJob


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a job will train on and how, before any weights are loaded."""

    folder: Path
    model: ModelRef
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    limit_from: str
    attention: Attention
    data: PreparedRows[Any]
    eval_data: PreparedRows[Any] | None
    args: TrainingArguments
    layout: BatchLayout
    budget: BatchOrder | None
    """The batches of the training, where they are ours."""
    checkpoint: Path | None
    new_tokens: tuple[NewToken, ...] = ()
    """Those that the job adds to the model's; the tokenizer has them."""
    rows_from: Path | None = None
    """The file that the rows were read from, where they had been tokenised before."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch, where rows are not packed."""
        return (self.budget or self.layout).steps_per_epoch

    @property
    def is_packed(self) -> bool:
        """Whether rows share sequences."""
        return bool(getattr(self.args, "packing", False))

    @property
    def inputs(self) -> list[InputFile]:
        """The files that were read."""
        sources = self.data.sources + (self.eval_data.sources if self.eval_data else [])
        return [read for source in sources for read in source.inputs]

    def begun_with(self) -> dict[str, Any]:
        """Return what a resumed run must share beyond its config, as begun_with.json holds it."""
        sha = hashlib.sha256()
        for row in self.data.rows:
            row.add_to(sha)
        autocast = "bf16" if self.args.bf16 else "fp16" if self.args.fp16 else "none"
        dtype = (getattr(self.args, "model_init_kwargs", None) or {}).get("dtype")
        return {
            "data": sha.hexdigest(),
            "precision": f"weights {dtype}, autocast {autocast}",
            "layout": self.layout.to_dict(),
            "token_budget": None if self.budget is None else self.budget.max_tokens,
            "curriculum": None if self.budget is None else order_identity(self.budget),
            "new_tokens": {token.text: token.id for token in self.new_tokens},
        }


def plan_training(
    job: TrainJob,
    folder: Path,
    sources: Sequence[DataSource],
    eval_sources: Sequence[DataSource],
    *,
    keeps_rows: bool = False,
) -> Plan:
    """Find the model, read and tokenise the data, and settle the trainer's arguments.

    Args:
        job: the job.
        folder: its run folder.
        sources: of the rows to train on.
        eval_sources: of those to evaluate on.
        keeps_rows: whether the tokenised rows are kept in the run folder, for other processes and later starts;
            nothing else is written.

    Raises:
        ConfigError: whatever would stop the run, as far as it shows without weights.
    """
    checkpoint = find_checkpoint(folder, job.resume_from_checkpoint)
    if checkpoint is not None and job.trainer.get("save_only_model"):
        raise ConfigError(
            f"save_only_model is true, so {checkpoint} has no optimizer state and cannot be gone on from: "
            "train on it as a model, under another --name"
        )
    trusts = bool(job.trainer.get("trust_remote_code", False))
    check_row_shards(job.batching, job.VERB, os.environ)
    check_quantization(job.lora, on_cuda=_on_cuda(job))
    model = find_base(job.model)
    tokenizer = load_tokenizer(
        model,
        chat_template_path=job.chat_template_path,
        trust_remote_code=trusts,
        needs_template=not isinstance(job.length_curriculum, DecompositionOptions),
    )
    new_tokens = add_to_tokenizer(tokenizer, job.new_tokens)
    max_length, limit_from = length_limit(model, job.max_length, trust_remote_code=trusts)
    attention = plan_attention(job, model)
    args = _trainer_args(job, folder, max_length, attention)
    data, rows_from, eval_data = _rows(
        job, sources, eval_sources, tokenizer, max_length, args, folder if keeps_rows else None
    )
    plan = Plan(
        folder=folder,
        model=model,
        tokenizer=tokenizer,
        max_length=max_length,
        limit_from=limit_from,
        attention=attention,
        data=data,
        eval_data=eval_data,
        args=args,
        layout=job.layout(args, num_rows=len(data.rows)),
        budget=run_batches(
            job.length_curriculum,
            job.batching,
            data,
            args=args,
            folder=folder,
            model=model,
            goes_on=checkpoint is not None,
        ),
        checkpoint=checkpoint,
        new_tokens=new_tokens,
        rows_from=rows_from,
    )
    plan = job.settled(plan)
    if checkpoint is not None:
        check_same_start(plan, checkpoint.parent / BEGUN_WITH, bound_by=_bound_by(job, model, checkpoint))
    return plan


def _rows(
    job: TrainJob,
    sources: Sequence[DataSource],
    eval_sources: Sequence[DataSource],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    args: TrainingArguments,
    folder: Path | None,
) -> tuple[PreparedRows[Any], Path | None, PreparedRows[Any] | None]:
    """Return the rows to train on, the file they are from if it is not the data's own, and those to evaluate on.

    Of the processes of a machine the first one makes them while the others wait, and these read what it kept.
    """
    decisive = result_affecting(type(job), job)
    fields = [field.name for field in dataclasses.fields(job) if field.name not in ("name", "output_dir")]
    settings = {name: decisive.get(name) for name in fields} | {"job": job.VERB, "max_length": max_length}
    settings |= {key: job.trainer.get(key) for key in job.keys_of_rows}

    def rows(of: Sequence[DataSource]) -> tuple[PreparedRows[Any], Path | None]:
        key = None if folder is None else rows_key(of, tokenizer, settings)
        return kept_rows(folder or Path(), key, lambda: job.prepare(of, tokenizer, max_length))

    with args.main_process_first(desc="reading the data"):
        data, rows_from = rows(sources)
        return data, rows_from, rows(eval_sources)[0] if eval_sources else None


def plan_attention(job: TrainJob, model: ModelRef) -> Attention:
    """Return the attention to load the model with; one of our own is made known to transformers."""
    from transformers import AutoConfig

    trusts = bool(job.trainer.get("trust_remote_code", False))
    found = choose_attention(
        AutoConfig.from_pretrained(model.path, trust_remote_code=trusts),
        given=(job.trainer.get("model_init_kwargs") or {}).get("attn_implementation"),
        packed=bool(job.trainer.get("packing") or job.trainer.get("padding_free")),
        on_cuda=_on_cuda(job),
        sharded=bool(job.trainer.get("parallelism_config"))
        or os.environ.get("ACCELERATE_USE_PARALLELISM_CONFIG", "false").lower() == "true",
        padded_left=job.is_online,
        hides_tokens=job.needs_masks,
    )
    if found.implementation == NAME:
        register()
    return found


def _on_cuda(job: TrainJob) -> bool:
    import torch

    return torch.cuda.is_available() and not job.trainer.get("use_cpu")


def _trainer_args(job: TrainJob, folder: Path, max_length: int, attention: Attention) -> TrainingArguments:
    keys = dict(job.trainer)
    prepare_cpu(keys)
    keys.setdefault("report_to", "none")
    keys.setdefault("disable_tqdm", not sys.stderr.isatty())
    chosen = {"attn_implementation": attention.implementation} if attention.implementation else {}
    keys["model_init_kwargs"] = {"dtype": _dtype(job), **chosen, **(keys.get("model_init_kwargs") or {})}
    try:
        return job.trainer_arguments({"output_dir": str(folder), "seed": job.seed, **keys}, max_length)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"TRL refuses these settings: {error}") from error


def check_same_start(plan: Plan, begun_with: Path, *, bound_by: str | None) -> None:
    """Refuse to resume on other data, in another precision, or with other rows in a step.

    The trainer skips as many batches as it did, whatever is in them.

    Raises:
        ConfigError: naming what changed since the run was begun.
    """
    if not begun_with.is_file():
        return  # a checkpoint from elsewhere, given by its path
    before, now = json.loads(begun_with.read_text(encoding="utf-8")), plan.begun_with()
    if before.get("new_tokens", {}) != now["new_tokens"]:
        raise ConfigError(
            f"added_tokens: {plan.folder} was begun with the new tokens {before.get('new_tokens', {})}, now they are "
            f"{now['new_tokens']}: restore added_tokens and the tokenizer, or choose another --name"
        )
    if before["data"] != now["data"]:
        raise ConfigError(
            f"data: the token sequences differ from those that {plan.folder} was begun with (a data file, the "
            "chat template or the tokenizer has changed): restore them, or choose another --name"
        )
    if before["precision"] != now["precision"]:
        raise ConfigError(
            f"dtype: {plan.folder} was begun with {before['precision']}; this machine and config give "
            f"{now['precision']}: set dtype, bf16 and fp16 as they were, or choose another --name"
        )
    if before.get("token_budget") != now["token_budget"]:
        raise ConfigError(
            f"batching.max_tokens: {plan.folder} was begun with {before.get('token_budget')} tokens a batch, now it is "
            f"{now['token_budget']}: set it as it was, or choose another --name"
        )
    check_resumable(type(plan.layout)(**before["layout"]), plan.layout, bound_by=bound_by)
    if before.get("curriculum") != now["curriculum"]:
        raise ConfigError(
            f"curriculum: {plan.folder} was begun with {before.get('curriculum')}, now it is {now['curriculum']}: go "
            "on with the settings and the data files it began with, or choose another --name"
        )


def _bound_by(job: TrainJob, model: ModelRef, checkpoint: Path) -> str | None:
    """Return why a run must go on with the very batch layout it was begun with, or None."""
    if job.batching.name == "token_budget":
        return "token_budget deals its batches to processes and steps"
    if job.trainer.get("packing"):
        return "packs of rows are counted by the batch"
    if job.trainer.get("train_sampling_strategy", "random") not in {"random", "sequential"}:
        return f"{job.trainer['train_sampling_strategy']} orders the rows by the batch size"
    if job.trainer.get("accelerator_config"):
        return "accelerator_config is set, and may deal out the rows otherwise"
    if job.of_batch is not None:
        return job.of_batch
    if any(checkpoint.glob("global_step*")):
        return "DeepSpeed's checkpoints are bound to the number of processes"
    config = json.loads((model.path / "config.json").read_text(encoding="utf-8"))
    dropout = {key for key, value in config.items() if ("dropout" in key or "pdrop" in key) and value}
    if dropout or (job.lora is not None and job.lora.dropout) or job.trainer.get("neftune_noise_alpha"):
        return f"{', '.join(sorted(dropout)) or 'dropout or noise'} would draw other random numbers"
    return None


def _dtype(job: TrainJob) -> str:
    return weights_dtype(job.dtype, is_lora=job.lora is not None)
