"""What a training job says before it begins: what is trained on what, in which batches, from where."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.batching import real_token_frac
from posttrain.curriculum import DecompositionOptions
from posttrain.curriculum_lines import context_line
from posttrain.kept_content import bos_lines
from posttrain.precision import weights_dtype
from posttrain.row_sources import DataSource
from posttrain.run_batches import batches_lines
from posttrain.train_plan import Plan, plan_training

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from posttrain.train_job import TrainJob


def dry_run(
    job: TrainJob, folder: Path, sources: Sequence[DataSource], eval_sources: Sequence[DataSource]
) -> int:
    """Say what the job would train on, and check all that can be checked without weights; writes nothing."""
    plan = plan_training(job, folder, sources, eval_sources)
    args, per_epoch = plan.args, plan.steps_per_epoch
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)
    counted = "not known before packing" if plan.is_packed else f"{steps:,}, {per_epoch:,} an epoch"
    dealt = "" if job.is_online else f": {plan.layout if plan.budget is None else plan.budget}"
    print("\n".join([*header(job, plan), f"steps       {counted}{dealt}", "dry run     nothing was written"]))
    return 0


def header(job: TrainJob, plan: Plan) -> list[str]:
    """Return the lines that say what is trained on what, and from where."""
    dtype = weights_dtype(job.dtype, is_lora=job.lora is not None)
    return [
        f"{job.VERB:<12}{plan.folder}: {job.method} of {job.model}, weights in {dtype}, {_devices(plan.args)}",
        *plan.data.header_lines(
            max_length=plan.max_length, limit_from=plan.limit_from, policy=job.over_length
        ),
        *_bos(job, plan),
        *(
            [f"tokens      of {plan.rows_from}, made by an earlier start or another process"]
            if plan.rows_from
            else []
        ),
        *_batches(job, plan),
        *job.notes(plan),
        str(plan.attention),
        f"start       {f'from {plan.checkpoint}' if plan.checkpoint else 'at step 0'}",
        *([f"evaluates   each checkpoint as {job.length_eval.config} says"] if job.length_eval else []),
    ]


def _bos(job: TrainJob, plan: Plan) -> list[str]:
    """Say where conversations do not begin as the model's texts did; pieces of documents begin anywhere."""
    if isinstance(job.length_curriculum, DecompositionOptions):
        return []
    return list(bos_lines(plan.tokenizer, [row.sequence for row in plan.data.rows]))


def _batches(job: TrainJob, plan: Plan) -> list[str]:
    """Say how much of what is computed is padding; of packs nothing is known yet, and of answers even less."""
    if job.is_online:
        return [f"batches     {plan.layout}"]
    if plan.is_packed:
        return []
    lengths, real = plan.data.lengths, plan.data.real_lengths
    if plan.budget is None:
        size = plan.layout.batch_size
        if plan.args.train_sampling_strategy == "group_by_length":
            rows, how = (
                _grouped(lengths, size * plan.args.gradient_accumulation_steps, job.seed),
                "of like length",
            )
        else:
            rows, how = random.Random(job.seed).sample(range(len(lengths)), len(lengths)), "as they come"
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        frac = real_token_frac(lengths, batches, real)
        return [
            context_line(plan.data.sequence_lengths),
            f"batches     padded: {size} rows {how}, about {frac:.0%} of their tokens are no padding",
        ]
    return list(batches_lines(plan.budget, job.length_curriculum, plan.data, plan.args))


def _grouped(lengths: Sequence[int], size: int, seed: int) -> list[int]:
    """Return an order of the rows as the trainer's sampler draws it."""
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    return get_length_grouped_indices(list(lengths), size, generator=torch.Generator().manual_seed(seed))


def _devices(args: TrainingArguments) -> str:
    import torch

    processes = args.world_size
    kind = args.device.type
    threads = f", {torch.get_num_threads()} threads each" if kind == "cpu" else ""
    return f"{processes} process{'es' if processes > 1 else ''} on {kind}{threads}"
