"""Low-rank adapters instead of full fine-tuning: LoRA, rsLoRA, DoRA and QLoRA, as PEFT has them.

LoRA (arXiv 2106.09685, section 4.1) trains W + (alpha / r) B A with A [r, in] and B [out, r], W frozen. rsLoRA (arXiv
2312.03732, section 3) scales by alpha / sqrt(r), so that a larger r does not learn less. DoRA (arXiv 2402.09353,
section 3.2) parts W into a length for each output and a direction, and trains the lengths beside the adapter of the
direction. QLoRA (arXiv 2305.14314, section 3) keeps W in 4 bits, as NormalFloat with quantised constants, and computes
in the type of the other weights.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lengthwise.config import ConfigError, option
from lengthwise.yaml_source import parse_yaml

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

VLLM = frozenset({"vllm", "vllm_server"})
"""Engines that serve an adapter as vLLM does."""


@dataclass(kw_only=True)
class LoraOptions:
    """A low-rank adapter (arXiv 2106.09685) instead of full fine-tuning."""

    r: int = option(16, help="rank of the update matrices")
    alpha: int = option(32, help="scale: the update is multiplied by alpha / r")
    dropout: float = option(0.0, help="dropout on the adapter's input, 0 to 1")
    target_modules: str | list[str] = option(
        "all-linear", help="modules to adapt: all-linear (without the output head), or a list of names"
    )
    use_rslora: bool = option(False, help="rsLoRA: the scale is alpha / sqrt(r), for large ranks")
    use_dora: bool = option(
        False, help="DoRA: also trains the length of each output's weights; slower, and vLLM needs it merged"
    )
    modules_to_save: list[str] | None = option(
        None, help="modules trained in full beside the adapter, as lm_head; vLLM needs such an adapter merged"
    )
    quantization: Literal["none", "4bit"] = option(
        "none",
        help="4bit: QLoRA, the frozen base in 4 bits (NF4, double quantisation); needs CUDA and bitsandbytes",
    )

    def __post_init__(self) -> None:
        """Refuse values that PEFT would refuse much later."""
        if self.r < 1 or self.alpha < 1:
            raise ValueError(f"r is {self.r} and alpha {self.alpha}: both must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}: it must be at least 0 and below 1")
        if not self.target_modules:
            raise ValueError("target_modules is empty: name modules to adapt, or all-linear")
        if self.modules_to_save is not None and not self.modules_to_save:
            raise ValueError("modules_to_save is an empty list: name modules, or leave it out")

    def __str__(self) -> str:
        """Say what is trained.

        Example:
            >>> str(LoraOptions(r=64, alpha=16, use_rslora=True, quantization="4bit"))
            'QLoRA + rsLoRA (r=64, alpha=16)'
        """
        asked = (("QLoRA", self.quantization != "none"), ("rsLoRA", self.use_rslora), ("DoRA", self.use_dora))
        names = [name for name, is_asked in asked if is_asked] or ["LoRA"]
        saved = f", {' and '.join(self.modules_to_save)} in full" if self.modules_to_save else ""
        return f"{' + '.join(names)} (r={self.r}, alpha={self.alpha}{saved})"

    @property
    def unserved(self) -> str | None:
        """Why vLLM does not serve such an adapter, or None."""
        if self.use_dora:
            return "lora.use_dora is true"
        return f"lora.modules_to_save is {self.modules_to_save}" if self.modules_to_save else None


def lora_config(options: LoraOptions, **more: Any) -> LoraConfig:
    """Return PEFT's config of an adapter; `more` are keys of it beside the options."""
    from peft import LoraConfig

    return LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=options.target_modules,
        use_rslora=options.use_rslora,
        use_dora=options.use_dora,
        modules_to_save=options.modules_to_save,
        task_type="CAUSAL_LM",
        **more,
    )


def quantization_config(options: LoraOptions, dtype: str) -> BitsAndBytesConfig | None:
    """Return how transformers loads the base in 4 bits, None if it does not.

    Args:
        options: the adapter's.
        dtype: of the other weights; the arithmetic is in it too.
    """
    if options.quantization == "none":
        return None
    import torch
    from transformers import BitsAndBytesConfig

    kind = getattr(torch, dtype)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=kind,
        bnb_4bit_quant_storage=kind,  # FSDP shards a module only if all its parameters have one type
    )


def check_quantization(options: LoraOptions | None, *, on_cuda: bool) -> None:
    """Refuse 4-bit weights where they cannot be.

    Args:
        options: the adapter's, None for full fine-tuning.
        on_cuda: whether there is a GPU to train on.

    Raises:
        ConfigError: naming what is missing.
    """
    if options is None or options.quantization == "none":
        return
    if not on_cuda:
        raise ConfigError(
            f"lora.quantization is {options.quantization}, but there is no CUDA device to train on: bitsandbytes "
            "trains on 4-bit weights only there; leave the key out (LoRA on 16-bit weights), or run it on a GPU"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"lora.quantization is {options.quantization}, which needs the package bitsandbytes: "
            "`pip install bitsandbytes`, or leave the key out"
        )


def check_served(reason: str | None, eval_config: str) -> None:
    """Refuse to evaluate checkpoints by vLLM that it would not serve.

    Args:
        reason: why vLLM does not serve the adapter, as `LoraOptions.unserved`; None where it does.
        eval_config: the file of an evaluation of checkpoints.

    Raises:
        ConfigError: naming the setting of the adapter.
    """
    if reason is None:
        return
    engine = parse_yaml(Path(eval_config).read_text(encoding="utf-8"), eval_config).get("engine") or {}
    name = engine.get("name", "vllm") if isinstance(engine, dict) else str(engine)
    if name in VLLM:
        raise ConfigError(
            f"length_eval.config: {eval_config} evaluates checkpoints by {name}, but {reason}, and vLLM serves no such "
            "adapter: set engine: {name: hf} there; or evaluate after the training what `lengthwise export RUN "
            "--merge` writes"
        )
