"""What an SFT run leaves in its folder: the model in HF's layout, its card, and the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lengthwise.models import ModelRef
from lengthwise.run_dir import InputFile, RunDir, atomic_write
from posttrain.model_card import model_card
from posttrain.precision import weights_dtype
from posttrain.run_log import mean_loss
from posttrain.train_data import TrainingData

if TYPE_CHECKING:
    from trl.trainer.sft_trainer import SFTTrainer

    from posttrain.sft import SFTJob


def account(
    job: SFTJob, data: TrainingData, model: ModelRef, max_length: int, trainer: SFTTrainer
) -> dict[str, Any]:
    """Return the manifest's `training` entry."""
    rows, tokens = data.over_length
    return {
        "num_rows": len(data.rows),
        "num_tokens": data.num_tokens,
        "num_supervised_tokens": data.num_supervised_tokens,
        "longest_row": data.longest,
        "max_length": max_length,
        "over_length": {"rows": rows, "tokens": tokens, "policy": job.over_length},
        "train_on": job.train_on,
        "sources": [
            {
                "path": c.path,
                "read": c.read,
                "failed": c.failed,
                "over_length": c.over_length,
                "drawn": c.drawn,
            }
            for c in data.counts
        ],
        "base_model": {"name": model.name, "identity": model.identity},
        "method": job.method,
        "dtype": weights_dtype(job.dtype, is_lora=job.lora is not None),
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "train_loss": mean_loss(trainer.state.log_history),
        "num_processes": trainer.args.world_size,
        "device": trainer.args.device.type,
    }


def save(job: SFTJob, run: RunDir, trainer: SFTTrainer, training: dict[str, Any]) -> None:
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
    settings = trainer.args.to_dict()
    settings["lr_scheduler_type"] = str(
        getattr(trainer.args.lr_scheduler_type, "value", settings["lr_scheduler_type"])
    )
    card = model_card(
        name=run.name,
        base_model=job.model,
        method=job.method,
        is_adapter=job.lora is not None,
        training=training,
        settings=settings,
    )
    atomic_write(run.file("README.md"), card)


def finish(
    job: SFTJob,
    run: RunDir,
    model: ModelRef,
    data: TrainingData,
    inputs: Sequence[InputFile],
    training: dict[str, Any],
) -> None:
    """Write the manifest, the last act of the run."""
    parents = [item.run_folder for item in data.sources if item.run_folder is not None]
    if (model.path / "manifest.json").is_file():
        parents.append(model.path)
    outcomes = [r.outcome for r in data.refused]
    outputs = [f.name for f in sorted(run.path.iterdir()) if f.is_file() and not f.name.startswith(".")]
    run.finish(
        seed=job.seed,
        inputs=inputs,
        outputs=outputs,
        parents=parents,
        counts={
            "read": sum(c.read for c in data.counts),
            "kept": sum(c.usable for c in data.counts),
            "truncated": outcomes.count("truncated"),  # part of the kept
            "rejected": outcomes.count("rejected"),
            "failed": outcomes.count("failed"),
            "drawn": len(data.rows),
        },
        extra={"training": training},
    )
