"""What a training run leaves in its folder: the model in HF's layout, its card, and the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.engines.chat_tokenizer import template_digest
from lengthwise.files import atomic_write
from lengthwise.models import run_of_model
from lengthwise.run_dir import RunDir
from posttrain.kept_rows import forget_rows
from posttrain.model_card import model_card
from posttrain.precision import weights_dtype
from posttrain.prepared_rows import PreparedRows, SourceCount
from posttrain.run_log import mean_loss

if TYPE_CHECKING:
    from transformers import Trainer

    from posttrain.train_job import TrainJob
    from posttrain.train_plan import Plan


def account(job: TrainJob, plan: Plan, trainer: Trainer) -> dict[str, Any]:
    """Return the manifest's `training` entry."""
    data = plan.data
    rows, tokens = data.over_length
    return {
        "num_rows": len(data.rows),
        "num_tokens": data.num_tokens,
        "num_supervised_tokens": data.num_supervised_tokens,
        "longest_row": data.longest,
        "max_length": plan.max_length,
        "over_length": {"rows": rows, "tokens": tokens, "policy": job.over_length},
        "supervised": job.supervised,
        "sources": [_source(count) for count in data.counts],
        "eval_sources": [_source(count) for count in plan.eval_data.counts] if plan.eval_data else [],
        "chat_template": template_digest(
            plan.tokenizer
        ),  # an evaluation checks that it renders with the same
        "base_model": {"name": plan.model.name, "identity": plan.model.identity},
        "method": job.method,
        "dtype": weights_dtype(job.dtype, is_lora=job.lora is not None),
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "train_loss": mean_loss(trainer.state.log_history),
        "num_processes": trainer.args.world_size,
        "device": trainer.args.device.type,
    }


def _source(count: SourceCount) -> dict[str, Any]:
    return {
        "path": count.path,
        "read": count.read,
        "failed": count.failed,
        "over_length": count.over_length,
        "drawn": count.drawn,
    }


def save(job: TrainJob, run: RunDir, trainer: Trainer) -> None:
    """Write model or adapter, tokenizer and state to the root of the run folder; all ranks take part."""
    if trainer.is_fsdp_enabled:
        # A sharded state would leave no model in HF's layout at the root.
        plugin: Any = trainer.accelerator.state.fsdp_plugin
        plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(run.path))
    trainer.save_state()
    if not run.writes:
        return
    if job.lora is None:
        trained: Any = trainer.model
        trained.generation_config.save_pretrained(run.path)


def describe(job: TrainJob, run: RunDir, trainer: Trainer, training: dict[str, Any]) -> None:
    """Write the model's card."""
    settings = trainer.args.to_dict()
    settings["lr_scheduler_type"] = str(
        getattr(trainer.args.lr_scheduler_type, "value", settings["lr_scheduler_type"])
    )
    card = model_card(
        name=run.name,
        job=job.VERB,
        base_model=job.model,
        method=job.method,
        is_adapter=job.lora is not None,
        training=training,
        settings=settings,
    )
    atomic_write(run.file("README.md"), card)


def finish(
    job: TrainJob,
    run: RunDir,
    plan: Plan,
    training: dict[str, Any],
    *,
    length_evals: dict[str, Any] | None = None,
) -> None:
    """Write the manifest, the last act of the run; `length_evals` says what the checkpoints' evaluations came to."""
    outputs = [f.name for f in sorted(run.path.iterdir()) if f.is_file() and not f.name.startswith(".")]
    run.finish(
        seed=job.seed,
        inputs=plan.inputs,
        outputs=outputs,
        parents=parents(plan),
        counts=row_counts(plan),
        extra={"training": training, **({"length_evals": length_evals} if length_evals else {})},
    )
    forget_rows(run.path)


def parents(plan: Plan) -> list[Path]:
    """Return the run folders whose rows or weights went into the run, each once."""
    sources = plan.data.sources + (plan.eval_data.sources if plan.eval_data else [])
    found = [item.run_folder for item in sources if item.run_folder is not None]
    model = run_of_model(plan.model.path)
    found += [] if model is None else [model]
    return list(dict.fromkeys(found))


def row_counts(plan: Plan) -> dict[str, int]:
    """Return what became of all rows; those of eval_data have keys of their own, which begin with `eval_`."""
    counts = {**_ends(plan.data), "drawn": len(plan.data.rows)}
    if plan.eval_data is not None:
        counts |= {f"eval_{end}": number for end, number in _ends(plan.eval_data).items()}
    return counts


def _ends(data: PreparedRows[Any]) -> dict[str, int]:
    outcomes = [r.outcome for r in data.refused]
    return {
        "read": sum(c.read for c in data.counts),
        "kept": sum(c.usable for c in data.counts),
        "truncated": outcomes.count("truncated"),  # part of the kept
        "rejected": outcomes.count("rejected"),
        "failed": outcomes.count("failed"),
    }
