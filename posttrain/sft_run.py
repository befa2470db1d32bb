"""What `posttrain/sft.py` does once its config is known to be right."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.config import ConfigError
from lengthwise.models import ModelRef
from lengthwise.run_dir import InputFile, RunDir, atomic_write, run_folder
from posttrain.base_model import find_base, length_limit, load_tokenizer
from posttrain.precision import prepare_cpu, weights_dtype
from posttrain.resume import (
    StopRequest,
    clear_unstarted,
    find_checkpoint,
    restore_run_config,
)
from posttrain.row_sources import DataSource
from posttrain.run_log import run_log
from posttrain.sft_output import account, finish, save
from posttrain.train_data import TrainingData, header_lines, prepare

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from posttrain.sft import SFTJob


def train(job: SFTJob, sources: Sequence[DataSource], eval_sources: Sequence[DataSource]) -> int:
    """Run the job; returns the exit code (128 + n if signal n stopped it, with a checkpoint)."""
    folder = run_folder("sft", job.name, job.output_dir)
    if _is_main():
        restore_run_config(folder)
        clear_unstarted(folder)
    run = RunDir.open_for("sft", folder, job)
    checkpoint = find_checkpoint(folder, job.resume_from_checkpoint)
    if checkpoint is not None and job.trainer.get("save_only_model"):
        raise ConfigError(
            f"save_only_model is true, so {checkpoint} has no optimizer state and cannot be gone on from: "
            "train on it as a model, under another --name"
        )
    trusts = bool(job.trainer.get("trust_remote_code", False))
    model = find_base(job.model)
    tokenizer = load_tokenizer(model, chat_template_path=job.chat_template_path, trust_remote_code=trusts)
    max_length, limit_from = length_limit(model, job.max_length, trust_remote_code=trusts)
    data = _prepare(job, sources, tokenizer, max_length)
    eval_data = _prepare(job, eval_sources, tokenizer, max_length) if eval_sources else None
    inputs: list[InputFile] = []
    if run.writes:
        loaded = data.sources + (eval_data.sources if eval_data else [])
        inputs = [read for source in loaded for read in source.inputs]
        _same_data_as_before(run, data)
        refused = [*data.refused, *(eval_data.refused if eval_data else [])]
        lines = [json.dumps(r.to_dict(), ensure_ascii=False) + "\n" for r in refused]
        atomic_write(run.file("dropped.jsonl"), "".join(lines))

    stop = StopRequest()
    trainer = make_trainer(job, run, model, tokenizer, data, eval_data, max_length, stop)
    stop_note = _stop_at_end_of_turn(trainer, tokenizer, data)
    if _is_main():
        header = [
            f"sft         {run.path}: {job.method} of {job.model}, weights in {_dtype(job)}, "
            f"{_devices(trainer)}",
            *header_lines(data, max_length=max_length, limit_from=limit_from, policy=job.over_length),
            *stop_note,
            f"start       {f'from {checkpoint}' if checkpoint else 'at step 0'}",
        ]
        print("\n".join(header), flush=True)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.signal is not None and trainer.state.global_step < trainer.state.max_steps:
        if _is_main():
            print(
                f"stopped at step {trainer.state.global_step}; start the same command again to go on",
                flush=True,
            )
        return 128 + stop.signal
    training = account(job, data, model, max_length, trainer)
    save(job, run, trainer, training)
    if run.writes:
        finish(job, run, model, data, inputs, training)
        loss = training["train_loss"]
        shown = "not logged" if loss is None else f"{loss:.4f}"
        print(f"finished    {run.path}: {training['steps']} steps, mean loss {shown}", flush=True)
    return 0


def make_trainer(
    job: SFTJob,
    run: RunDir,
    model: ModelRef,
    tokenizer: PreTrainedTokenizerBase,
    data: TrainingData,
    eval_data: TrainingData | None,
    max_length: int,
    stop: StopRequest,
) -> SFTTrainer:
    """Build TRL's trainer on rows that it takes as they are: input_ids and labels, nothing left to cut."""
    from trl.trainer.sft_trainer import SFTTrainer

    trainer = SFTTrainer(
        model=str(model.path),
        args=_trainer_args(job, run, max_length),
        train_dataset=data.to_dataset(),
        eval_dataset=eval_data.to_dataset() if eval_data else None,
        processing_class=tokenizer,
        peft_config=_lora_config(job),
        callbacks=[run_log(run.path / "metrics.jsonl"), stop.callback()],
    )
    if job.lora is not None and not Path(job.model).exists() and not job.model.startswith("embedded:"):
        # By its id, not by a path in this cache, the adapter finds its base on another machine too.
        model_with_adapter: Any = trainer.model
        model_with_adapter.peft_config["default"].base_model_name_or_path = job.model
    return trainer


def _trainer_args(job: SFTJob, run: RunDir, max_length: int) -> SFTConfig:
    from trl.trainer.sft_config import SFTConfig

    keys = dict(job.trainer)
    prepare_cpu(keys)
    keys.setdefault("report_to", "none")
    keys.setdefault("disable_tqdm", not sys.stderr.isatty())
    keys["model_init_kwargs"] = {"dtype": _dtype(job), **(keys.get("model_init_kwargs") or {})}
    try:
        return SFTConfig(
            output_dir=str(run.path),
            seed=job.seed,
            # Packing needs the size of a pack. Else there is nothing to cut: the rows have been checked.
            max_length=max_length if keys.get("packing") else None,
            **keys,
        )
    except (ValueError, ImportError) as error:
        raise ConfigError(f"TRL's SFTConfig refuses these settings: {error}") from error


def _lora_config(job: SFTJob) -> LoraConfig | None:
    if job.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=job.lora.r,
        lora_alpha=job.lora.alpha,
        lora_dropout=job.lora.dropout,
        target_modules=job.lora.target_modules,
        task_type="CAUSAL_LM",
    )


def _prepare(
    job: SFTJob, sources: Sequence[DataSource], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> TrainingData:
    return prepare(
        sources,
        tokenizer,
        max_length=max_length,
        over_length=job.over_length,
        on_bad_row=job.on_bad_row,
        train_on=job.train_on,
        mixture_rows=job.mixture_rows,
        seed=job.seed,
    )


def _same_data_as_before(run: RunDir, data: TrainingData) -> None:
    """Refuse to resume on other data: the trainer skips as many batches as it did, whatever is in them.

    Raises:
        ConfigError: the rows, the template or the tokenizer changed since the run was begun.
    """
    sha = hashlib.sha256()
    for row in data.rows:
        sha.update(len(row.input_ids).to_bytes(8, "little"))
        sha.update(row.input_ids.tobytes())
        sha.update(row.labels.tobytes())
    file = run.file("data_digest.txt")
    if run.resumed and file.is_file() and file.read_text(encoding="ascii").strip() != sha.hexdigest():
        raise ConfigError(
            f"data: the token sequences differ from those that {run.path} was begun with (a data file, the "
            "chat template or the tokenizer has changed): restore them, or choose another --name"
        )
    atomic_write(file, sha.hexdigest() + "\n")


def _stop_at_end_of_turn(
    trainer: SFTTrainer, tokenizer: PreTrainedTokenizerBase, data: TrainingData
) -> list[str]:
    """Make the saved model stop where it was taught to; an adapter cannot carry this, so it is said."""
    model: Any = trainer.model
    config = model.generation_config
    known = config.eos_token_id
    known = [] if known is None else [known] if isinstance(known, int) else list(known)
    taught = sorted(frozenset[int]().union(*(row.end_of_turn_ids for row in data.rows)))
    missing = [token for token in taught if token not in known]
    if not missing:
        return []
    config.eos_token_id = [*known, *missing]
    names = ", ".join(repr(tokenizer.decode([token])) for token in missing)
    return [
        f"WARNING     turns end in {names}, at which the base model's generation_config does not stop: it is "
        "added where a full model is saved; for an adapter add it to eos_token_id in the base's own file"
    ]


def _devices(trainer: SFTTrainer) -> str:
    import torch

    processes = trainer.args.world_size
    kind = trainer.args.device.type
    threads = f", {torch.get_num_threads()} threads each" if kind == "cpu" else ""
    return f"{processes} process{'es' if processes > 1 else ''} on {kind}{threads}"


def _dtype(job: SFTJob) -> str:
    return weights_dtype(job.dtype, is_lora=job.lora is not None)


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"
