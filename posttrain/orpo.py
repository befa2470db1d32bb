"""Odds ratio preference optimisation on pairs (ORPO, arXiv 2403.07691), full or LoRA, with TRL's ORPOTrainer.

One loss teaches the chosen answer and to prefer it, so there is no reference model. TRL counts its trainer among the
experimental ones, and takes the likelihood term over prompt and answer. Rows are read, checked and counted as for
`lengthwise dpo`; batches and loss are TRL's.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lengthwise.job import run_main
from posttrain import train_job
from posttrain.passed_through import PassedThrough
from posttrain.row_sources import DataSource
from posttrain.trl_keys import MANAGED_ORPO

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl.experimental.orpo import ORPOConfig

    from posttrain.pair_data import PairData
    from posttrain.trainers.orpo_trainer import TokensORPOTrainer


@dataclass(kw_only=True)
class ORPOJob(PassedThrough):
    """Train a language model on the chosen of two answers and to prefer it; TRL's ORPOConfig keys apply too."""

    VERB: ClassVar[str] = "orpo"
    EXAMPLE: ClassVar[str] = "accelerate launch posttrain/orpo.py --config configs/orpo/lora.yaml --beta 0.2"

    @property
    def method(self) -> str:
        """What is done to the weights, in words."""
        return f"ORPO (lambda {self.trainer.get('beta', 0.1)}) with {self.update}"

    @property
    def supervised(self) -> str:
        """Which tokens of a row carry loss, in words."""
        return "both answers of a pair, with the end-of-turn token; prompt and chosen answer in the likelihood term"

    @property
    def managed_keys(self) -> Mapping[str, str]:
        """Keys of TRL's ORPOConfig that would do nothing or harm here, with the reason."""
        return MANAGED_ORPO

    def prepare(
        self, sources: Sequence[DataSource], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> PairData:
        """Read, tokenise and mix the pairs of `sources`."""
        from posttrain.pair_data import prepare_pairs

        return prepare_pairs(
            sources,
            tokenizer,
            max_length=max_length,
            over_length=self.over_length,
            on_bad_row=self.on_bad_row,
            mixture_rows=self.mixture_rows,
            seed=self.seed,
        )

    def trainer_arguments(self, keys: dict[str, Any], max_length: int) -> ORPOConfig:
        """Return TRL's config object; the pairs have been checked, so that its limit cuts nothing."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is experimental, the docs say
            from trl.experimental.orpo import ORPOConfig

        return ORPOConfig(max_length=max_length, **keys)

    def trainer_class(self) -> type[TokensORPOTrainer]:
        """Return TRL's trainer for pairs that come as tokens."""
        from posttrain.trainers.orpo_trainer import TokensORPOTrainer

        return TokensORPOTrainer


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the config, then train, or say what would be trained; returns the exit code."""
    return run_main(train_job.run_job, ORPOJob, argv)


def check(argv: Sequence[str] | None) -> tuple[ORPOJob, list[DataSource], list[DataSource]]:
    """Return the job and its sources, checked as far as it goes at once, without torch; writes nothing."""
    return train_job.check(ORPOJob, argv)


if __name__ == "__main__":
    raise SystemExit(main())
