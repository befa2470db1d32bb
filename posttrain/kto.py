"""Kahneman-Tversky optimisation (KTO, arXiv 2402.01306) on answers marked good or bad, with TRL's KTOTrainer.

A row is a conversation and a mark: true where its last answer is wanted, false where it is not. Rows are read, checked
and counted as for `lengthwise sft`; batches and loss are TRL's. TRL takes the mean over each batch and pads it to its
longest row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lengthwise.config import did_you_mean, option
from lengthwise.job import run_main
from posttrain import train_job
from posttrain.passed_through import PassedThrough
from posttrain.row_sources import DataSource
from posttrain.trl_keys import MANAGED_KTO

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.kto_config import KTOConfig

    from posttrain.marked_data import MarkedData
    from posttrain.trainers.kto_trainer import TokensKTOTrainer

LOSSES = ("kto", "apo_zero_unpaired")
"""TRL's losses; it would name them once the model is loaded."""


@dataclass(kw_only=True)
class KTOJob(PassedThrough):
    """Train a language model on answers marked good or bad; all keys of TRL's KTOConfig apply too."""

    VERB: ClassVar[str] = "kto"
    EXAMPLE: ClassVar[str] = "accelerate launch posttrain/kto.py --config configs/kto/lora.yaml --beta 0.2"

    label_column: str = option("label", help="the column that says true of a wanted answer, false of others")

    def __post_init__(self) -> None:
        """Refuse what would fail once the model is loaded."""
        super().__post_init__()
        loss = self.trainer.get("loss_type", LOSSES[0])
        if loss not in LOSSES:
            near = did_you_mean(loss, LOSSES) or f"there are {', '.join(LOSSES)}"
            raise ValueError(f"loss_type is {loss!r}: {near}")
        if self.trainer.get("train_sampling_strategy", "sequential") != "sequential":
            raise ValueError(
                f"train_sampling_strategy is {self.trainer['train_sampling_strategy']!r}, but TRL's KTO goes through "
                "the rows in order, which the seed has shuffled before: leave it out"
            )
        if loss == "kto" and self.trainer.get("per_device_train_batch_size", 8) < 2:
            raise ValueError(
                "per_device_train_batch_size is 1, but KTO compares each answer with that of another row of its "
                "batch: it must be at least 2"
            )

    @property
    def method(self) -> str:
        """What is done to the weights, in words."""
        loss = self.trainer.get("loss_type", LOSSES[0])
        return f"KTO ({loss}, beta {self.trainer.get('beta', 0.1)}) with {self.update}"

    @property
    def supervised(self) -> str:
        """Which tokens of a row carry loss, in words."""
        return "the last assistant turn of a conversation, with the end-of-turn token"

    @property
    def managed_keys(self) -> Mapping[str, str]:
        """Keys of TRL's KTOConfig that would do nothing or harm here, with the reason."""
        return MANAGED_KTO

    def prepare(
        self, sources: Sequence[DataSource], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> MarkedData:
        """Read, tokenise and mix the marked answers of `sources`."""
        from posttrain.marked_data import prepare_marked

        return prepare_marked(
            sources,
            tokenizer,
            label_column=self.label_column,
            max_length=max_length,
            over_length=self.over_length,
            on_bad_row=self.on_bad_row,
            mixture_rows=self.mixture_rows,
            seed=self.seed,
        )

    def trainer_arguments(self, keys: dict[str, Any], max_length: int) -> KTOConfig:
        """Return TRL's config object; of checked rows its limit cuts nothing, but prompts with another row's answer."""
        from trl.trainer.kto_config import KTOConfig

        return KTOConfig(max_length=max_length, **keys)

    def trainer_class(self) -> type[TokensKTOTrainer]:
        """Return TRL's trainer for rows that come as tokens."""
        from posttrain.trainers.kto_trainer import TokensKTOTrainer

        return TokensKTOTrainer


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the config, then train, or say what would be trained; returns the exit code."""
    return run_main(train_job.run_job, KTOJob, argv)


def check(argv: Sequence[str] | None) -> tuple[KTOJob, list[DataSource], list[DataSource]]:
    """Return the job and its sources, checked as far as it goes at once, without torch; writes nothing."""
    return train_job.check(KTOJob, argv)


if __name__ == "__main__":
    raise SystemExit(main())
