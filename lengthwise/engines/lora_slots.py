"""LoRA adapters for the vLLM engine: checked, copied and named by content before vLLM sees them.

Three traps are closed here. A request with a bad adapter path kills vLLM's engine, so the files are checked
first. An adapter overwritten at its old path keeps the old prefix cache, so each version gets a folder and a
name of its own, made from its digest. And on CPU a base request batched with an adapter request gets the
adapter's weights (vLLM 0.32), so the base is served through an adapter of zeros.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.models import folder_digest
from lengthwise.value_types import ConfigError

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as max_lora_rank


@dataclass(frozen=True, slots=True)
class LoraSlot:
    """One version of one adapter, ready to serve."""

    name: str
    number: int
    """vLLM's adapter id, never used twice."""
    folder: Path


class LoraSlots:
    """The adapters one engine has met, by content."""

    def __init__(self, scratch: Path, base: Path):
        """Keep copies under `scratch`, a folder that lives as long as the engine which serves `base`."""
        self._scratch = scratch
        self._base = base
        self._by_digest: dict[str, LoraSlot] = {}

    def slot(self, adapter: Path, max_rank: int) -> LoraSlot:
        """Return the slot of the adapter as its files are now, a new one when they changed.

        Raises:
            ConfigError: if the folder holds no adapter that the engine can serve.
        """
        rank = lora_rank(adapter)
        if rank > max_rank:
            raise ConfigError(
                f"adapter: {adapter} has rank {rank}, above the engine's max_lora_rank {max_rank}: "
                f"set engine.max_lora_rank to {served_rank(rank)}"
            )
        identity = folder_digest(adapter)
        if identity not in self._by_digest:
            _check_widths(adapter, self._base)
            number = len(self._by_digest) + 1
            folder = self._scratch / f"adapter-{identity[:16]}"
            partial = folder.with_suffix(".partial")  # a copy that a full disk cut short must not be served
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(adapter, partial, ignore=shutil.ignore_patterns("checkpoint-*", "*.pt"))
            partial.rename(folder)
            self._by_digest[identity] = LoraSlot(f"adapter-{identity[:16]}", number, folder)
        return self._by_digest[identity]


def lora_rank(adapter: Path) -> int:
    """Return the rank of a PEFT LoRA folder after checking that its files are there and whole."""
    config_file = adapter / "adapter_config.json"
    weights = adapter / "adapter_model.safetensors"
    if not config_file.is_file():
        raise ConfigError(f"adapter: {adapter} has no adapter_config.json: give the folder of a PEFT adapter")
    if not weights.is_file():
        raise ConfigError(f"adapter: {adapter} has no adapter_model.safetensors: save the adapter again")
    if not any(".lora_" in name for name in _tensor_shapes(weights)):
        raise ConfigError(
            f"adapter: {weights} is a safetensors file without LoRA matrices: save the adapter again"
        )
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        rank = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"adapter: {config_file} does not describe a LoRA adapter (no rank r): vLLM serves LoRA adapters "
            "as PEFT saves them; merge others into the base"
        ) from error
    _refuse_unserved(adapter, config)
    return rank


def _refuse_unserved(adapter: Path, config: Mapping[str, Any]) -> None:
    """Refuse kinds of LoRA that vLLM 0.32 does not serve: asked for one, its engine would fail the request."""
    kinds = {
        "use_dora": "a DoRA adapter",
        "modules_to_save": f"an adapter with modules trained in full ({config.get('modules_to_save')})",
        "trainable_token_indices": "an adapter with rows of its own for tokens",
        "lora_bias": "an adapter with biases",
        "layer_replication": "an adapter that repeats layers of its base",
    }
    found = [kind for key, kind in kinds.items() if config.get(key)]
    if config.get("bias", "none") != "none":
        found.append("an adapter with biases")
    if found:
        raise ConfigError(
            f"adapter: {adapter} is {found[0]}, which vLLM does not serve: write the merged model with "
            f"`lengthwise export {adapter} --merge`, and give its folder as the model; or use engine: {{name: hf}}"
        )


def served_rank(rank: int) -> int:
    """Return the smallest rank setting of vLLM that serves adapters of `rank`."""
    for served in _RANKS:
        if rank <= served:
            return served
    raise ConfigError(f"adapter: vLLM serves LoRA up to rank {_RANKS[-1]}, not {rank}: merge the adapter")


def write_zero_adapter(base: Path, folder: Path) -> Path:
    """Write an adapter of zeros for the model in `base`: serving it is serving the base.

    One projection of the first layer is enough: vLLM fills the modules an adapter does not name with zeros.

    Raises:
        ConfigError: if the base has no safetensors weights with a layer-0 projection in them.
    """
    import numpy as np
    from safetensors.numpy import save_file

    rank = _RANKS[0]
    for file in sorted(base.glob("*.safetensors")):
        for key, shape in _tensor_shapes(file).items():
            if ".layers.0." in key and key.endswith(("q_proj.weight", "qkv_proj.weight", "o_proj.weight")):
                module = key.removesuffix(".weight")
                name = f"base_model.model.{module}"
                num_out, num_in = shape
                folder.mkdir(parents=True, exist_ok=True)
                zeros = {
                    f"{name}.lora_A.weight": np.zeros((rank, num_in), dtype=np.float32),
                    f"{name}.lora_B.weight": np.zeros((num_out, rank), dtype=np.float32),
                }
                save_file(zeros, folder / "adapter_model.safetensors")
                config = {
                    "peft_type": "LORA",
                    "task_type": "CAUSAL_LM",
                    "base_model_name_or_path": str(base),
                    "r": rank,
                    "lora_alpha": rank,
                    "lora_dropout": 0.0,
                    "bias": "none",
                    "target_modules": [module.rsplit(".", 1)[-1]],
                }
                (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
                return folder
    raise ConfigError(
        f"model: no safetensors weights with a layer-0 attention projection in {base}: adapters cannot be "
        "served beside the base on CPU; merge the adapter into the base and serve the merged model"
    )


def _check_widths(adapter: Path, base: Path) -> None:
    """Refuse an adapter made for a base of other widths: vLLM copies a smaller matrix in without a word."""
    config = base / "config.json"
    if config.is_file() and "quantization_config" in json.loads(config.read_text(encoding="utf-8")):
        return  # packed weights do not show their widths
    widths: dict[str, tuple[int, ...]] = {}
    for file in base.glob("*.safetensors"):
        widths |= _tensor_shapes(file)
    for key, shape in _tensor_shapes(adapter / "adapter_model.safetensors").items():
        module, _, matrix = key.removeprefix("base_model.model.").partition(".lora_")
        wanted = widths.get(f"{module}.weight", ())
        side = {"A.weight": 1, "B.weight": 0}.get(matrix)
        if side is None or len(wanted) != 2 or len(shape) != 2:
            continue
        if shape[side] != wanted[side]:
            raise ConfigError(
                f"adapter: {adapter} does not fit the model: {key} is {shape[side]} wide where the model has "
                f"{wanted[side]}: give the base it was trained on"
            )


def _tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes in a safetensors file from its header alone."""
    try:
        with open(file, "rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            if size > file.stat().st_size:
                raise ValueError("header past the end of the file")
            header = json.loads(stream.read(size))
        last = max(
            (entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0
        )
        if file.stat().st_size < 8 + size + last:
            raise ValueError("weights end early")
    except (struct.error, ValueError, AttributeError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{file} is not a whole safetensors file ({error}): copy or save it again"
        ) from error
    return {key: tuple(entry["shape"]) for key, entry in header.items() if key != "__metadata__"}
