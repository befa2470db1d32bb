"""Supervised fine-tuning on conversations, full or LoRA, with TRL's SFTTrainer.

The loss is the mean over all supervised tokens of a global batch, as LongWriter asks for (arXiv 2408.07055:
a mean over rows would give each token of a long answer too little weight); that is TRL's
default. Only assistant turns with their end-of-turn token carry loss. There is no silent length limit: see
`over_length`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lengthwise.config import ConfigError, option
from lengthwise.job import run_main
from posttrain import train_job
from posttrain.added_tokens import AddedTokens
from posttrain.curriculum import CyclicalOptions, DecompositionOptions, check_of_conversations
from posttrain.past_generation import PastGeneration
from posttrain.row_sources import DataSource
from posttrain.train_job import TrainJob
from posttrain.trl_keys import MANAGED_SFT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.sft_config import SFTConfig

    from posttrain.train_data import TrainingData
    from posttrain.train_plan import Plan
    from posttrain.trainers.sft_trainer import LengthSFTTrainer


@dataclass(kw_only=True)
class SFTJob(TrainJob):
    """Fine-tune a language model on conversations, full or LoRA; all keys of TRL's SFTConfig apply too."""

    VERB: ClassVar[str] = "sft"
    EXAMPLE: ClassVar[str] = (
        "accelerate launch posttrain/sft.py --config configs/sft/lora.yaml --learning_rate 1e-4"
    )

    train_on: Literal["all", "last"] = option("all", help="which assistant turns of a row carry loss")
    added_tokens: AddedTokens | None = option(
        None,
        help="tokens to add to the vocabulary and train: mlt_format (Ruler's nine meta length tokens), texts, start",
    )

    past_generation_masking: PastGeneration | None = option(
        None,
        help="hide tokens of an earlier draft that a prompt holds, anew each epoch (CYCLE): frac, start, end",
    )

    def __post_init__(self) -> None:
        """Refuse combinations that would fail late or do nothing."""
        if self.batching.name == "packed":
            self.trainer = {**self.trainer, "packing": True}
        super().__post_init__()
        check_of_conversations(self.length_curriculum, self.train_on)
        if self.past_generation_masking is not None:
            self._check_masking()
        by_loss = (
            isinstance(self.length_curriculum, CyclicalOptions) and self.length_curriculum.score == "loss"
        )
        if self.added_tokens is not None and by_loss:
            raise ValueError(
                "curriculum.score is loss, but the base model has no loss on added_tokens: set score to length"
            )

    def _check_masking(self) -> None:
        shared = [key for key in ("packing", "padding_free") if self.trainer.get(key)]
        if isinstance(self.length_curriculum, DecompositionOptions):
            shared.append("the curriculum dataset_decomposition")
        if shared:
            raise ValueError(
                f"past_generation_masking hides tokens of single rows, and with {shared[0]} several share a sequence "
                "without a mask: leave one of the two out"
            )
        if self.trainer.get("dataloader_persistent_workers"):
            raise ValueError(
                "past_generation_masking is drawn anew in each epoch, and dataloader_persistent_workers would keep the "
                "masks of the first: leave that out"
            )
        attention = (self.trainer.get("model_init_kwargs") or {}).get("attn_implementation", "sdpa")
        if attention not in ("sdpa", "eager"):
            raise ValueError(
                f"past_generation_masking is set, but {attention} does not read masks with holes: leave "
                "model_init_kwargs.attn_implementation out, or set it to sdpa or eager"
            )

    @property
    def needs_masks(self) -> bool:
        """Whether tokens within a row are hidden, so that attention has to be told which."""
        return self.past_generation_masking is not None

    @property
    def method(self) -> str:
        """What is done to the weights, in words."""
        if self.added_tokens is None:
            return self.update
        return f"{self.update} with {len(self.added_tokens.all_texts)} added tokens"

    @property
    def new_tokens(self) -> AddedTokens | None:
        """What is added to the vocabulary; None where nothing is."""
        return self.added_tokens

    @property
    def unserved(self) -> str | None:
        """Why vLLM does not serve the adapter that is trained, None where it does or there is none."""
        adds = self.lora is not None and self.added_tokens is not None
        return super().unserved or ("added_tokens is set" if adds else None)

    @property
    def supervised(self) -> str:
        """Which tokens of a row carry loss, in words."""
        if isinstance(self.length_curriculum, DecompositionOptions):
            return "every token of plain texts"
        turns = "all assistant turns" if self.train_on == "all" else "the last assistant turn"
        return f"{turns} of a conversation, with the end-of-turn token"

    @property
    def managed_keys(self) -> Mapping[str, str]:
        """Keys of TRL's SFTConfig that would do nothing or harm here, with the reason."""
        return MANAGED_SFT

    def prepare(
        self, sources: Sequence[DataSource], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> TrainingData:
        """Read, tokenise, mask and mix the conversations of `sources`, or cut its plain texts."""
        from posttrain.text_data import prepare_texts
        from posttrain.train_data import prepare

        curriculum = self.length_curriculum
        if isinstance(curriculum, DecompositionOptions):
            return prepare_texts(
                sources,
                tokenizer,
                curriculum,
                max_length=max_length,
                max_tokens=self.batching.max_tokens,
                on_bad_row=self.on_bad_row,
                mixture_rows=self.mixture_rows,
                seed=self.seed,
            )
        return prepare(
            sources,
            tokenizer,
            max_length=max_length,
            over_length=self.over_length,
            on_bad_row=self.on_bad_row,
            train_on=self.train_on,
            mixture_rows=self.mixture_rows,
            seed=self.seed,
            score_column=curriculum.column if isinstance(curriculum, CyclicalOptions) else None,
            past_generation=self.past_generation_masking,
        )

    def trainer_arguments(self, keys: dict[str, Any], max_length: int) -> SFTConfig:
        """Return TRL's config object."""
        from trl.trainer.sft_config import SFTConfig

        # Packing needs the size of a pack. Else there is nothing to cut: the rows have been checked.
        return SFTConfig(max_length=max_length if keys.get("packing") else None, **keys)

    def trainer_options(self, plan: Plan) -> dict[str, Any]:
        """Return what hides parts of earlier drafts."""
        return {"past_generation": self.past_generation_masking}

    def notes(self, plan: Plan) -> list[str]:
        """Say how many rows hold a draft that is hidden in part."""
        masking = self.past_generation_masking
        if masking is None:
            return []
        rows: Any = plan.data.rows
        found = [row.past for row in rows if row.past is not None]
        if not found:
            raise ConfigError(
                f"past_generation_masking: none of {len(rows):,} rows has a line that begins with {masking.start!r} "
                f"and one with {masking.end!r} before its answer: set start and end, or leave the key out"
            )
        tokens = sum(int(past.sum()) for past in found)
        return [
            f"masking     {masking.frac:.0%} of {tokens:,} prompt tokens between {masking.start!r} and "
            f"{masking.end!r}, in {len(found):,} of {len(rows):,} rows, drawn anew each epoch"
        ]

    def trainer_class(self) -> type[LengthSFTTrainer]:
        """Return TRL's trainer with our batches."""
        from posttrain.trainers.sft_trainer import LengthSFTTrainer

        return LengthSFTTrainer


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the config, then train, or say what would be trained; returns the exit code."""
    return run_main(train_job.run_job, SFTJob, argv)


def check(argv: Sequence[str] | None) -> tuple[SFTJob, list[DataSource], list[DataSource]]:
    """Return the job and its sources, checked as far as it goes at once, without torch; writes nothing."""
    return train_job.check(SFTJob, argv)


if __name__ == "__main__":
    raise SystemExit(main())
