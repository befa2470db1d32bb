"""LoRA adapters with random weights, strong enough to tell their replies from the base's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

PROJECTIONS = ("q_proj", "v_proj", "o_proj", "down_proj")


def write_adapter(folder: Path, base: Path, *, seed: int, rank: int = 8, narrower_by: int = 0) -> Path:
    """Write an adapter for the model in `base`; with `narrower_by`, one whose matrices do not fit it."""
    draw = np.random.default_rng(seed)
    tensors = {}
    with safe_open(base / "model.safetensors", "np") as weights:
        for key in weights.keys():  # noqa: SIM118
            module = key.removesuffix(".weight")
            if not module.endswith(PROJECTIONS):
                continue
            num_out, num_in = weights.get_slice(key).get_shape()
            name = f"base_model.model.{module}"
            shape_a, shape_b = (rank, num_in - narrower_by), (num_out, rank)
            tensors[f"{name}.lora_A.weight"] = draw.normal(0, num_in**-0.5, shape_a).astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = draw.normal(0, 0.2, shape_b).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(PROJECTIONS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
