"""What `posttrain/sft.py` does once its config is known to be right."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.config import ConfigError
from lengthwise.models import ModelRef, resolve_model
from lengthwise.run_dir import InputFile, RunDir, atomic_write, run_folder
from posttrain.model_card import model_card
from posttrain.precision import prepare_cpu, weights_dtype
from posttrain.resume import StopRequest, find_checkpoint, keep_run_config, restore_run_config
from posttrain.row_sources import DataSource
from posttrain.run_log import run_log
from posttrain.train_data import TrainingData, header_lines, prepare
from posttrain.training_mask import check_tokenizer

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
    run = RunDir.open_for("sft", folder, job)
    checkpoint = find_checkpoint(folder, job.resume_from_checkpoint)
    if checkpoint is not None and job.trainer.get("save_only_model"):
        raise ConfigError(
            f"save_only_model is true, so {checkpoint} has no optimizer state and cannot be gone on from: "
            "train on it as a model, under another --name"
        )
    model = _resolve(job)
    tokenizer = load_tokenizer(job, model)
    max_length, limit_from = length_limit(job, model)
    data = _prepare(job, sources, tokenizer, max_length)
    eval_data = _prepare(job, eval_sources, tokenizer, max_length) if eval_sources else None
    inputs = [_input(item) for item in data.sources + (eval_data.sources if eval_data else [])]
    if run.writes:
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
    result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.signal is not None:
        if _is_main():
            print(
                f"stopped at step {trainer.state.global_step}; start the same command again to go on",
                flush=True,
            )
        return 128 + stop.signal
    training = _account(job, data, model, max_length, trainer, result.training_loss)
    _save(job, run, trainer, training)
    if run.writes:
        _finish(job, run, model, data, inputs, training)
        print(
            f"finished    {run.path}: {training['steps']} steps, loss {result.training_loss:.4f}", flush=True
        )
    return 0


def load_tokenizer(job: SFTJob, model: ModelRef) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer, with the chat template that the job asks for.

    Raises:
        ConfigError: the template cannot be found, or there is none.
    """
    from transformers import AutoTokenizer

    trusts = bool(job.trainer.get("trust_remote_code", False))
    tokenizer = AutoTokenizer.from_pretrained(model.path, trust_remote_code=trusts)
    wanted = job.chat_template_path
    if wanted is not None and wanted.endswith((".jinja", ".j2")):
        if not Path(wanted).is_file():
            raise ConfigError(f"chat_template_path: there is no file {wanted!r} (looked in {Path.cwd()})")
        tokenizer.chat_template = Path(wanted).read_text(encoding="utf-8")
    elif wanted is not None:
        try:
            other = AutoTokenizer.from_pretrained(wanted, trust_remote_code=trusts)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"chat_template_path: no tokenizer can be loaded from {wanted!r}: {error}"
            ) from error
        tokenizer.chat_template = other.chat_template
    check_tokenizer(tokenizer)
    return tokenizer


def length_limit(job: SFTJob, model: ModelRef) -> tuple[int, str]:
    """Return the longest row in tokens, and where that number is from.

    Raises:
        ConfigError: neither the job nor the model says.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(
        model.path, trust_remote_code=bool(job.trainer.get("trust_remote_code", False))
    ).get_text_config()
    context: int | None = getattr(config, "max_position_embeddings", None)
    if job.max_length is None:
        if not context:
            raise ConfigError(
                "max_length: the model's config does not name its context length: set max_length"
            )
        return context, "the model's context"
    if context and job.max_length > context:
        return job.max_length, f"as set; MORE than the model's context of {context:,}"
    return job.max_length, "as set"


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
        # An adapter should name its base so that it loads on another machine too, not by a path in this
        # cache.
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


def _resolve(job: SFTJob) -> ModelRef:
    try:
        model = resolve_model(job.model)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if model.adapter is not None:
        raise ConfigError(
            f"model: {job.model} is a LoRA adapter: merge it into its base first, and train the merged model "
            "(`lengthwise export`)"
        )
    return model


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


def _input(item: Any) -> InputFile:
    if item.file is not None:
        return InputFile.of(item.file)
    source = item.source
    return InputFile(path=f"{source.path}:{source.subset or ''}:{source.split}", num_rows=len(item.rows))


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
) -> Iterator[str]:
    """Make the saved model stop where it was taught to; an adapter cannot carry this, so it is said."""
    model: Any = trainer.model
    config = model.generation_config
    known = config.eos_token_id
    known = [] if known is None else [known] if isinstance(known, int) else list(known)
    taught = sorted(frozenset[int]().union(*(row.end_of_turn_ids for row in data.rows)))
    missing = [token for token in taught if token not in known]
    if missing:
        config.eos_token_id = [*known, *missing]
        names = ", ".join(repr(tokenizer.decode([token])) for token in missing)
        yield (
            f"WARNING     turns end in {names}, at which the base model's generation_config does not stop: "
            "it is added where a full model is saved; with an adapter give it as a stop token when you "
            "generate"
        )


def _devices(trainer: SFTTrainer) -> str:
    import torch

    processes = trainer.args.world_size
    kind = trainer.args.device.type
    threads = f", {torch.get_num_threads()} threads each" if kind == "cpu" else ""
    return f"{processes} process{'es' if processes > 1 else ''} on {kind}{threads}"


def _account(
    job: SFTJob, data: TrainingData, model: ModelRef, max_length: int, trainer: SFTTrainer, loss: float
) -> dict[str, Any]:
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
        "dtype": _dtype(job),
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "train_loss": loss,
        "num_processes": trainer.args.world_size,
        "device": trainer.args.device.type,
    }


def _save(job: SFTJob, run: RunDir, trainer: SFTTrainer, training: dict[str, Any]) -> None:
    """Write model or adapter, tokenizer and state to the root of the run folder; all ranks take part."""
    if run.writes:
        keep_run_config(run.path)
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


def _finish(
    job: SFTJob,
    run: RunDir,
    model: ModelRef,
    data: TrainingData,
    inputs: Sequence[InputFile],
    training: dict[str, Any],
) -> None:
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


def _dtype(job: SFTJob) -> str:
    return weights_dtype(job.dtype, is_lora=job.lora is not None)


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"
