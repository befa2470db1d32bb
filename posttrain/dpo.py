"""Direct preference optimisation on pairs (arXiv 2305.18290), full or LoRA, with TRL's DPOTrainer.

Every loss of TRL's applies by `loss_type`. Those that mind length are sigmoid_norm (LN-DPO, as in arXiv 2411.15124:
log-ratios by token), `ld_alpha` below 1 (LD-DPO, arXiv 2409.06411: less weight behind the shorter answer's length),
and `simpo` (SimPO, arXiv 2405.14734). An adapter is its own reference: switched off, it leaves the base model.

Before the training the header says how far the pairs can be told apart by length alone; after it, the manifest holds
the model's margins by how much longer the chosen answers are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lengthwise.config import did_you_mean, option
from lengthwise.job import run_main
from posttrain import train_job
from posttrain.curriculum import check_of_pairs
from posttrain.row_sources import DataSource
from posttrain.train_job import TrainJob
from posttrain.trl_keys import MANAGED_DPO

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.dpo_config import DPOConfig

    from posttrain.pair_data import PairData
    from posttrain.train_plan import Plan
    from posttrain.trainers.dpo_trainer import LengthDPOTrainer

LOSSES = (
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot",
    "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft",
)  # fmt: skip
"""TRL's losses; it would name them once the first batch is through the model."""

_COMPARES_PAIRS = {"aot", "aot_unpaired"}


@dataclass(kw_only=True)
class SimPO:
    """SimPO (arXiv 2405.14734): log-probabilities by token, a margin to reach, and no reference model."""

    beta: float = option(2.0, help="scale of the log-probabilities by token; the paper: 2.0 to 2.5")
    gamma: float = option(1.0, help="margin between the answers, before the sigmoid; the paper: 0.3 to 1.6")
    nll_weight: float = option(
        0.0, help="weight of the chosen answers' mean negative log-likelihood beside it"
    )

    def __post_init__(self) -> None:
        """Refuse values under which the loss prefers nothing, or the wrong answer."""
        if self.beta <= 0 or self.gamma < 0 or self.nll_weight < 0:
            raise ValueError(
                f"simpo: beta is {self.beta}, gamma {self.gamma}, nll_weight {self.nll_weight}: beta must be above 0, "
                "the others not below it"
            )


@dataclass(kw_only=True)
class DPOJob(TrainJob):
    """Train a language model to prefer the chosen of two answers; all keys of TRL's DPOConfig apply too."""

    VERB: ClassVar[str] = "dpo"
    EXAMPLE: ClassVar[str] = (
        "accelerate launch posttrain/dpo.py --config configs/dpo/lora.yaml --loss_type '[sigmoid_norm]'"
    )

    simpo: SimPO | None = option(None, help="SimPO instead of DPO: {beta, gamma, nll_weight}")
    margin_pairs: int = option(
        512,
        help="pairs whose margins are measured after training, of eval_data if set; 0: none",
        operational=True,
    )

    def __post_init__(self) -> None:
        """Refuse combinations that would fail late or do nothing."""
        if self.batching.name == "packed" or self.trainer.get("packing"):
            raise ValueError(
                "batching.name is packed, but pairs cannot be packed: TRL compares two rows; choose "
                "batching: {name: token_budget}, which needs hardly any padding"
            )
        if self.trainer.get("train_sampling_strategy") == "group_by_length":
            raise ValueError(
                "train_sampling_strategy is group_by_length, which looks for a column that pairs do not have: choose "
                "batching: {name: token_budget}"
            )
        if self.trainer.get("sync_ref_model") and (
            self.lora is not None or self.trainer.get("precompute_ref_log_probs")
        ):
            raise ValueError(
                "sync_ref_model is true, but there is no reference model to keep in step: an adapter is its own "
                "reference, and precomputed log-probs stay as they are; remove it"
            )
        if self.margin_pairs < 0:
            raise ValueError(f"margin_pairs is {self.margin_pairs}: it must be at least 0")
        self._check_loss()
        super().__post_init__()
        check_of_pairs(self.length_curriculum)

    def _check_loss(self) -> None:
        for loss in self.trainer.get("loss_type", []):
            if loss not in LOSSES:
                near = did_you_mean(loss, LOSSES) or f"there are {', '.join(LOSSES)}"
                raise ValueError(f"loss_type has {loss!r}: {near}")
        if "exo_pair" in self.trainer.get("loss_type", []) and not self.trainer.get("label_smoothing"):
            raise ValueError(
                "loss_type has exo_pair, which needs label_smoothing above 0: set it, such as 1e-3"
            )
        compared = _COMPARES_PAIRS & set(self.trainer.get("loss_type", []))
        if compared and self.batching.name == "token_budget":
            raise ValueError(
                f"loss_type has {min(compared)}, which sorts the pairs of a batch by their log-ratios, and "
                "batching.name is token_budget, which would have it compare pairs of like length: choose padded"
            )
        if self.simpo is None:
            return
        for key in ("loss_type", "loss_weights", "beta", "ld_alpha", "precompute_ref_log_probs", "sync_ref_model",
                    "f_divergence_type"):  # fmt: skip
            if key in self.trainer:
                raise ValueError(
                    f"{key} and simpo are both set: SimPO has its own loss and beta and no reference; remove {key}"
                )

    @property
    def method(self) -> str:
        """What is done to the weights, in words."""
        if self.simpo is not None:
            simpo = self.simpo
            nll = f", nll_weight {simpo.nll_weight}" if simpo.nll_weight else ""
            return f"SimPO (beta {simpo.beta}, gamma {simpo.gamma}{nll}) with {self.update}"
        losses = " + ".join(self.trainer.get("loss_type", ["sigmoid"]))
        tail = f", ld_alpha {self.trainer['ld_alpha']}" if self.trainer.get("ld_alpha") is not None else ""
        return f"DPO ({losses}, beta {self.trainer.get('beta', 0.1)}{tail}) with {self.update}"

    @property
    def of_batch(self) -> str | None:
        """Why the loss of a step depends on how its rows are dealt to forward passes; None where it does not."""
        compared = _COMPARES_PAIRS & set(self.trainer.get("loss_type", []))
        return f"{min(compared)} sorts the pairs of each forward pass" if compared else None

    @property
    def supervised(self) -> str:
        """Which tokens of a row carry loss, in words."""
        return "both answers of a pair, with the end-of-turn token"

    @property
    def managed_keys(self) -> Mapping[str, str]:
        """Keys of TRL's DPOConfig that would do nothing or harm here, with the reason."""
        return MANAGED_DPO

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

    def trainer_arguments(self, keys: dict[str, Any], max_length: int) -> DPOConfig:
        """Return TRL's config object; there is nothing to cut: the pairs have been checked."""
        from trl.trainer.dpo_config import DPOConfig

        if self.simpo is not None:
            keys |= {
                "beta": self.simpo.beta,
                "loss_type": ["sigmoid_norm", *(["sft"] if self.simpo.nll_weight else [])],
                "loss_weights": [1.0, *([self.simpo.nll_weight] if self.simpo.nll_weight else [])],
                "precompute_ref_log_probs": True,  # it reads them off the data, where SimPO's margin is put
            }
        return DPOConfig(max_length=None, **keys)

    def trainer_class(self) -> type[LengthDPOTrainer]:
        """Return TRL's trainer with our batches."""
        from posttrain.trainers.dpo_trainer import LengthDPOTrainer

        return LengthDPOTrainer

    def trainer_options(self, plan: Plan) -> dict[str, Any]:
        """Return the margin that replaces SimPO's reference."""
        return {} if self.simpo is None else {"simpo_margin": self.simpo.gamma / self.simpo.beta}

    def after_training(
        self, trainer: Any, data: PairData, eval_data: PairData | None
    ) -> tuple[dict[str, Any], list[str]]:
        """Return the length bias of the pairs and the trained model's margins by length gap."""
        from posttrain.margin_report import measure_margins
        from posttrain.pair_bias import length_bias

        found: dict[str, Any] = {"length_bias": length_bias(data.rows).to_dict()}
        if not self.margin_pairs:
            return found, []
        margins = measure_margins(trainer, data, eval_data, num_pairs=self.margin_pairs, seed=self.seed)
        return {**found, "margins": margins.to_dict()}, list(margins.lines())


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the config, then train, or say what would be trained; returns the exit code."""
    return run_main(train_job.run_job, DPOJob, argv)


def check(argv: Sequence[str] | None) -> tuple[DPOJob, list[DataSource], list[DataSource]]:
    """Return the job and its sources, checked as far as it goes at once, without torch; writes nothing."""
    return train_job.check(DPOJob, argv)


if __name__ == "__main__":
    raise SystemExit(main())
