"""TRL's DPOTrainer on pairs that come as tokens, in batches of any number of pairs.

Imported once a job is about to train: it imports TRL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from tqdm.auto import tqdm
from trl.trainer.dpo_trainer import DPOTrainer

from posttrain.token_budget import TokenBudget
from posttrain.trainers.length_trainer import LengthTrainer

if TYPE_CHECKING:
    import datasets

PAIR_COLUMNS = {"prompt_ids", "chosen_ids", "rejected_ids"}
NORMALISED = frozenset({"sigmoid_norm", "ipo"})
"""Losses that divide an answer's log-probability by its number of tokens."""
OF_TOKENS = "sft"
"""The loss that is a mean over tokens; the others are means over pairs."""


class LengthDPOTrainer(LengthTrainer, DPOTrainer):
    """TRL's trainer on our batches.

    TRL takes the mean over each batch and then the mean of the batches of a step, so that a pair of a small batch
    would weigh more than one of a large batch. Here each batch is weighted by its pairs over the mean pairs of the
    batches of this step, in all processes: the loss of a step is the mean over its pairs. The loss `sft` is a mean over
    the chosen tokens and is weighted by those.
    """

    def __init__(self, *args: Any, simpo_margin: float | None = None, **kwargs: Any) -> None:
        """Take TRL's arguments and our own; with `simpo_margin` (gamma / beta) there is no reference model."""
        self._simpo_margin = simpo_margin
        self._mean_counts: dict[str, float] = {}
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the data as they are: TRL looks for texts, and fails on tokens."""
        if not set(dataset.column_names) >= PAIR_COLUMNS:
            raise ValueError(
                f"the data have the columns {dataset.column_names}, expected {sorted(PAIR_COLUMNS)}"
            )
        return dataset

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """Add the reference's log-probabilities, of pairs of near-equal length at once, on all processes.

        For SimPO nothing is scored. Its loss (arXiv 2405.14734, equation 6) is TRL's `sigmoid_norm` with a reference
        whose log-probabilities are gamma / beta for each token of the chosen answer and 0 for the rejected one.
        """
        if self._simpo_margin is not None:
            margins = [self._simpo_margin * len(ids) for ids in dataset["chosen_ids"]]
            return dataset.add_column("ref_chosen_logps", margins).add_column(
                "ref_rejected_logps", [0.0] * len(dataset)
            )
        if self.is_deepspeed_enabled:  # TRL knows how to wrap the model for it
            return super()._precompute_ref_logps(dataset, name, batch_size)
        # TRL's own keeps them in a file, whose path differs from process to process for data in memory.
        longest = max(pair_lengths(dataset))
        found = self._by_pair(dataset, self._reference_values, max_tokens=2 * longest * batch_size)
        chosen, rejected = zip(*found, strict=True)
        return dataset.add_column("ref_chosen_logps", list(chosen)).add_column(
            "ref_rejected_logps", list(rejected)
        )

    def _reference_values(self, inputs: Any) -> list[tuple[float, float]]:
        """Return the reference's log-probabilities of the chosen and the rejected answer of each pair."""
        chosen, rejected = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        return list(zip(chosen.tolist(), rejected.tolist(), strict=True))

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Also count what the batches of a step hold on average, in all processes."""
        counts = [batch_counts(batch) for batch in batch_samples]
        totals = torch.tensor(
            [len(counts), *(sum(c[kind] for c in counts) for kind in ("pairs", "tokens"))],
            dtype=torch.float64,
            device="cpu" if device.type == "cpu" else device,
        )
        gathered: Any = self.accelerator.gather(totals)
        num_batches, pairs, tokens = gathered.view(-1, 3).sum(0).tolist()
        if num_batches:
            self._mean_counts = {"pairs": pairs / num_batches, "tokens": tokens / num_batches}
        return super()._get_num_items_in_batch(batch_samples, device)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return TRL's loss with this batch's weight in the step."""
        weights: list[float] = self.loss_weights
        if model.training and self._mean_counts:
            shares = {kind: number / self._mean_counts[kind] for kind, number in batch_counts(inputs).items()}
            self.loss_weights = [
                weight * shares["tokens" if kind == OF_TOKENS else "pairs"]
                for kind, weight in zip(self.loss_types, weights, strict=True)
            ]
        try:
            with uneven_gather(self.accelerator):
                return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            self.loss_weights = weights

    def batch_facts(self, inputs: Any) -> dict[str, float]:
        """Return the pairs, the tokens of answers and the share of padding of a batch."""
        return {
            "pairs_per_batch": len(inputs["input_ids"]) // 2,
            "supervised_tokens_per_batch": int(inputs["completion_mask"].sum()),
            "padding_frac": 1 - float(inputs["attention_mask"].float().mean()),
        }

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log what TRL does, but for the means over pairs: TRL takes the mean over batches.

        The pairs of this process are the weights; those of other processes at the same time have about as many.
        """
        model: Any = self.model
        found: dict[str, list[float]] = self._metrics["train"] if model.training else {}
        sizes = found.get("pairs_per_batch", [])
        for name, values in found.items():
            if name.startswith(("rewards/", "logps/")) and len(values) == len(sizes):
                weighted = sum(v * n for v, n in zip(values, sizes, strict=True))
                found[name] = [weighted / sum(sizes)]
        if self._simpo_margin is not None:  # TRL's rewards are sums over tokens, which SimPO does not compare
            for metrics in self._metrics.values():
                for name in [name for name in metrics if name.startswith("rewards/")]:
                    del metrics[name]
        super().log(logs, *args, **kwargs)

    def margins(self, dataset: datasets.Dataset, *, max_tokens: int) -> list[float]:
        """Return each pair's margin under the trained model, on every process; all of them take part.

        The margin is beta times the difference of the answers' log-ratios to the reference, or of the log-ratios by
        token where the loss has them so (LN-DPO, IPO; SimPO has no reference). It is above 0 where the chosen answer
        is preferred.

        Args:
            dataset: pairs as tokens, in any order.
            max_tokens: padded tokens of a forward pass.
        """
        return self._by_pair(dataset, self._batch_margins, max_tokens=max_tokens)

    def _by_pair(
        self, dataset: datasets.Dataset, measure: Callable[[Any], list[Any]], *, max_tokens: int
    ) -> list[Any]:
        """Return what `measure` finds for each pair, in the order of the data, on every process; all take part."""
        budget = TokenBudget(
            lengths=[2 * length for length in pair_lengths(dataset)],
            max_tokens=max_tokens,
            num_processes=self.args.world_size,
        )
        model: Any = self.model
        was_training = model.training
        model.eval()
        found: list[tuple[int, Any]] = []
        passes = tqdm(budget.epoch(0, 0), desc="scoring pairs", disable=self.args.disable_tqdm, leave=False)
        for batches in passes:
            rows = batches[self.args.process_index]
            inputs = self._prepare_inputs(self.data_collator([dataset[row] for row in rows]))
            found += zip(rows, measure(inputs), strict=True)
        model.train(was_training)
        by_row = dict(gather_object(found))
        return [by_row[row] for row in range(len(dataset))]

    def _batch_margins(self, inputs: Any) -> list[float]:
        ratios = torch.cat(self._answer_logps(inputs, of_reference=False)).double()
        if self._simpo_margin is None:
            ratios -= torch.cat(self._reference_logps(inputs)).double()
        if NORMALISED & set(self.loss_types):
            ratios /= inputs["completion_mask"].sum(dim=1)
        chosen, rejected = ratios.chunk(2)
        return (self.beta * (chosen - rejected)).tolist()

    def _reference_logps(self, inputs: Any) -> tuple[torch.Tensor, ...]:
        if "ref_chosen_logps" in inputs:
            return inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        return self._answer_logps(inputs, of_reference=True)

    def _answer_logps(self, inputs: Any, *, of_reference: bool) -> tuple[torch.Tensor, ...]:
        """Return the log-probabilities of chosen and rejected answers, as the loss has them."""
        reference = self.ref_model
        if of_reference:
            return self.compute_ref_log_probs(reference or self.model_wrapped, inputs)
        self.ref_model = self.model_wrapped  # with a reference model of its own, TRL leaves the adapter on
        try:
            return self.compute_ref_log_probs(self.model_wrapped, inputs)
        finally:
            self.ref_model = reference


def pair_lengths(dataset: Any) -> list[int]:
    """Return the tokens of each pair's prompt with its longer answer."""
    columns = (dataset[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
    return [len(p) + max(len(c), len(r)) for p, c, r in zip(*columns, strict=True)]


def batch_counts(inputs: Any) -> dict[str, int]:
    """Return the pairs of a batch, and the tokens of their chosen answers.

    Args:
        inputs: `completion_mask` [2 B, T], first of the B chosen answers, then of the rejected ones.
    """
    chosen, _ = inputs["completion_mask"][:, 1:].chunk(2)
    return {"pairs": len(chosen), "tokens": int(chosen.sum())}


@contextmanager
def uneven_gather(accelerator: Any) -> Iterator[None]:
    """Let `accelerator.gather` join vectors of which each process has another number of values.

    TRL logs means over the pairs of all processes; torch's gather hangs, or returns noise, where the numbers differ.
    """
    if accelerator.num_processes == 1:
        yield
        return
    plain = accelerator.gather

    def gather(tensor: Any) -> Any:
        if not isinstance(tensor, torch.Tensor) or tensor.dim() == 0:
            return plain(tensor)
        sizes = plain(torch.tensor([len(tensor)], device=tensor.device)).tolist()
        parts = plain(accelerator.pad_across_processes(tensor)).chunk(len(sizes))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    accelerator.gather = gather
    try:
        yield
    finally:
        del accelerator.gather
