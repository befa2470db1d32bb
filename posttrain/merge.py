"""Passes a trained model on: `lengthwise export RUN --merge`, one folder that vLLM and transformers load.

An adapter is added to its base's weights in float32 and rounded once; a full model is written as it is. The folder is
read back and compared with what was trained before it gets its name: a model that is not the trained one is not left
there. Beside the weights lie tokenizer, chat template, a generation config that stops where turns end, a card, and
`export.json` with what was compared and where the weights are from.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lengthwise.config import ConfigError
from lengthwise.engines.chat_tokenizer import ChatTokenizer, template_digest, token_ids
from lengthwise.files import atomic_write
from lengthwise.job import run_main
from lengthwise.models import folder_digest
from lengthwise.provenance import git_commit, package_versions
from lengthwise.run_dir import run_folder
from lengthwise.vocabulary import fit_rows
from posttrain.end_of_turn import stop_ids
from posttrain.merge_check import (
    LEAST_TOLERANCE,
    Agreement,
    Expected,
    compare,
    generation_settings,
    release,
    table,
    token_logprobs,
)
from posttrain.merge_texts import conversations, rendered
from posttrain.model_card import export_card
from posttrain.trained_model import TrainedModel, find_trained

DTYPES = ("auto", *LEAST_TOLERANCE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 1 if what was written is not the trained model."""
    parser = argparse.ArgumentParser(
        prog="lengthwise export",
        description="Write the model of a training as one folder that vLLM and transformers load, and check it. Needs "
        "4 bytes of memory a parameter.",
        epilog="example: lengthwise export outputs/sft/lora_example --merge "
        "(for the numbers of an evaluation: lengthwise export --help)",
        allow_abbrev=False,
    )
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="run folder of sft or dpo, a checkpoint, or an adapter"
    )
    parser.add_argument(
        "--merge", action="store_true", required=True, help="write the model, adapter and base as one"
    )
    parser.add_argument(
        "--output_dir", type=Path, help="a new folder; default: outputs/export/<name of the run>"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="of the weights; auto: that of the base"
    )
    parser.add_argument("--base", help="the adapter's base, where it is not where the adapter says")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to merge and compare"
    )
    return run_main(_run, parser.parse_args(argv))


def _run(arguments: argparse.Namespace) -> int:
    trained = find_trained(arguments.run, arguments.base)
    output = run_folder("export", trained.name, arguments.output_dir)
    if output.exists():
        raise ConfigError(f"--output_dir: {output} exists and is not overwritten: give another folder")
    return export(trained, output, dtype=arguments.dtype, device=arguments.device)


def export(trained: TrainedModel, output: Path, *, dtype: str = "auto", device: str = "auto") -> int:
    """Write a trained model to a new folder, compare the two, and return the exit code."""
    trusts = bool(trained.run and trained.run.config.get("trust_remote_code"))
    dtype = _stored_dtype(trained, trusts) if dtype == "auto" else dtype
    device = _device(device)
    what = "adapter merged into its base" if trained.model.adapter else "the whole model"
    print(f"export      {trained.folder}: {what}, weights in {dtype}, on {device}", flush=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that a kill or a failed comparison never leaves there what would be taken for the model.
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        expected = _write(trained, partial, dtype, device, trusts)
        checks, close = compare(expected, partial, dtype, device, trusts)
        print("\n".join(table(checks)), flush=True)
        problems = [check.problem for check in checks if check.problem]
        if problems:
            print(f"stopped: {output} is not written: {'; '.join(problems)}", flush=True)
            return 1
        _describe(trained, partial, expected, close, dtype)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"finished    {output}: give it as --model to eval, vLLM or transformers", flush=True)
    return 0


def _write(trained: TrainedModel, folder: Path, dtype: str, device: str, trusts: bool) -> Expected:
    """Write weights, tokenizer and generation config; return what they have to give again."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained.model.tokenizer_path, trust_remote_code=trusts)
    found, source = conversations(trained)
    sequences = rendered(tokenizer, found)
    if not sequences:
        raise ConfigError(
            f"RUN: the chat template in {trained.model.tokenizer_path} refuses every conversation"
        )
    rounded, _ = _load(trained, dtype, device, trusts, sequences, len(tokenizer))
    in_dtype = token_logprobs(rounded, sequences)
    release(rounded)
    model, base_logprobs = _load(trained, "float32", device, trusts, sequences, len(tokenizer))
    logprobs = token_logprobs(model, sequences)
    if trained.model.adapter is not None:
        model = model.merge_and_unload()
    if tokenizer.chat_template:
        end = ChatTokenizer(trained.model.tokenizer_path).turn_end().token_id
        model.generation_config.eos_token_id = stop_ids(model.generation_config.eos_token_id, token_ids(end))
    generation = generation_settings(model.generation_config)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    release(model)
    return Expected(
        tokenizer=tokenizer,
        found=found,
        source=source,
        sequences=sequences,
        logprobs=logprobs,
        in_dtype=in_dtype,
        base_logprobs=base_logprobs,
        generation=generation,
    )


def _load(
    trained: TrainedModel,
    dtype: str,
    device: str,
    trusts: bool,
    sequences: Sequence[Sequence[int]],
    num_tokens: int,
) -> tuple[Any, list[list[float]] | None]:
    """Return the trained model, not merged, and what its base alone says of the tokens; None without an adapter.

    The base has no rows for tokens that the training added: the adapter brings those, in the places made here.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        trained.model.path, dtype=getattr(torch, dtype), trust_remote_code=trusts
    )
    fit_rows(model, num_tokens)
    model.to(device)
    if trained.model.adapter is None:
        return model, None
    from peft import PeftModel

    of_base = token_logprobs(model, sequences) if dtype == "float32" else None
    return PeftModel.from_pretrained(model, str(trained.model.adapter)), of_base


def _describe(trained: TrainedModel, folder: Path, expected: Expected, close: Agreement, dtype: str) -> None:
    """Write export.json and the card beside the weights."""
    record = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "dtype": dtype,
        "lineage": trained.lineage(),
        "method": trained.training.get("method"),
        "trained_on_4_bits": trained.was_quantized,
        "exported_identity": folder_digest(folder),
        "checks": {
            "log_probs": {
                **close.to_dict(),
                "conversations": len(expected.sequences),
                "source": expected.source,
            },
            "chat_template": template_digest(expected.tokenizer),
            "prompts_with_same_tokens": len(expected.found),
            "eos_token_id": expected.generation.get("eos_token_id"),
        },
        "git_commit": git_commit(),
        "packages": package_versions(),
    }
    atomic_write(folder / "export.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    config = {} if trained.run is None else trained.run.config
    card = export_card(
        name=trained.name,
        job=None if trained.run is None else trained.run.job,
        base_model=str(config.get("model") or trained.model.path.name),
        training=trained.training,
        settings=config,
        record=record,
    )
    atomic_write(folder / "README.md", card)


def _stored_dtype(trained: TrainedModel, trusts: bool) -> str:
    """Return the type of the weights on the disk, float32 where the config does not say or has another one."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(trained.model.path, trust_remote_code=trusts)
    name = str(getattr(config, "dtype", None)).removeprefix("torch.")
    return name if name in LEAST_TOLERANCE else "float32"


def _device(choice: str) -> str:
    import torch

    if choice == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device is cuda, but there is no CUDA device: give cpu, or leave it out")
    return ("cuda" if torch.cuda.is_available() else "cpu") if choice == "auto" else choice
