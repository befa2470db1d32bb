"""TRL's ORPOTrainer on pairs that come as tokens.

Imported once a job is about to train: it imports TRL.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch

from posttrain.trainers.dpo_trainer import PAIR_COLUMNS
from posttrain.trainers.length_trainer import LengthTrainer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it is experimental, the job's docs say
    from trl.experimental.orpo import ORPOTrainer


class TokensORPOTrainer(LengthTrainer, ORPOTrainer):
    """TRL's trainer and loss; it would tokenise texts, without our checks of template and end of turn."""

    def __init__(self, *args: Any, quantization_config: Any = None, **kwargs: Any) -> None:
        """Take TRL's arguments and our own."""
        tokenizer = kwargs["processing_class"]
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token  # as TRL's other trainers do; this one would refuse it
        training_args = kwargs["args"]
        training_args.model_init_kwargs = {
            "device_map": None,  # TRL's is auto, which spreads the model over all devices, and fails with several ranks
            **(training_args.model_init_kwargs or {}),
            **({} if quantization_config is None else {"quantization_config": quantization_config}),
        }
        super().__init__(*args, **kwargs)

    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
        """Return the columns that TRL's collator pads: for each answer the whole sequence, the prompt without label."""
        missing = PAIR_COLUMNS - feature.keys()
        if missing:
            raise ValueError(f"the data have no column {min(missing)}, expected {sorted(PAIR_COLUMNS)}")
        prompt = feature["prompt_ids"]
        row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for name in ("chosen", "rejected"):
            answer = feature[f"{name}_ids"]
            row[f"{name}_input_ids"] = prompt + answer
            row[f"{name}_attention_mask"] = [1] * (len(prompt) + len(answer))
            row[f"{name}_labels"] = [-100] * len(prompt) + answer
        return row

    def rows_in(self, inputs: Any) -> Iterator[Any]:
        """Yield prompt and chosen answer, then prompt and rejected answer, of each pair of a batch."""
        sides = [
            [
                ids[mask.bool()].cpu()
                for ids, mask in zip(
                    inputs[f"{name}_input_ids"], inputs[f"{name}_attention_mask"], strict=True
                )
            ]
            for name in ("chosen", "rejected")
        ]
        yield from (torch.cat(pair) for pair in zip(*sides, strict=True))

    def batch_facts(self, inputs: Any) -> dict[str, float]:
        """Return nothing: TRL's trainer keeps its figures otherwise."""
        return {}
