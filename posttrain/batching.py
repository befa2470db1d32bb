"""How rows become batches: the config's field `batching`, and what it comes to for the rows at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lengthwise.config import ConfigError, option

if TYPE_CHECKING:
    from posttrain.token_budget import TokenBudget


@dataclass(kw_only=True)
class Batching:
    """How rows become batches."""

    name: Literal["padded", "token_budget", "packed"] = option(
        "padded",
        help="padded: per_device_train_batch_size rows as they come; token_budget: rows of near-equal length, as "
        "many as fit; packed: several rows in one sequence, which needs flash attention",
    )
    max_tokens: int | None = option(
        None,
        help="token_budget: most tokens of one forward pass of a process, padding included; default: as many as "
        "per_device_train_batch_size rows have on average without padding",
    )

    def __post_init__(self) -> None:
        """Refuse a budget that is none, or that nothing would hold to."""
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"batching.max_tokens is {self.max_tokens}: it must be at least 1")
        if self.max_tokens is not None and self.name != "token_budget":
            raise ValueError(
                f"batching.max_tokens is set, but batching.name is {self.name}: only token_budget has a budget"
            )


def check_batching(batching: Batching, trainer: Mapping[str, Any]) -> None:
    """Refuse keys of the trainer that say otherwise than `batching`.

    Raises:
        ValueError: naming both and the remedy.
    """
    if batching.name != "token_budget":
        return
    reasons = {
        "packing": "rows cannot be packed and batched at once: choose batching: {name: packed}",
        "padding_free": "it joins the rows of a batch, which then need no budget for padding",
        "train_sampling_strategy": "the budget decides which rows come together",
        "dataloader_drop_last": "no row is left out",
        "accelerator_config": "it may deal out the rows otherwise",
        "auto_find_batch_size": "the budget decides how many rows come together",
    }
    for key, reason in reasons.items():
        if trainer.get(key):
            raise ValueError(
                f"batching.name is token_budget and {key} is {trainer[key]!r}, but {reason}; leave {key} out"
            )


def token_budget(
    batching: Batching, lengths: Sequence[int], *, rows: int, num_processes: int, accumulation: int
) -> TokenBudget | None:
    """Return the batches that a config asks for; None where the trainer makes them.

    Args:
        batching: the config's field.
        lengths: tokens of each row.
        rows: what a batch would have of rows without a budget.
        num_processes: processes that train side by side.
        accumulation: batches of a process for one step.
    """
    if batching.name != "token_budget":
        return None
    from posttrain.token_budget import TokenBudget

    return TokenBudget(
        lengths=lengths,
        max_tokens=batching.max_tokens or math.ceil(rows * sum(lengths) / len(lengths)),
        num_processes=num_processes,
        accumulation=accumulation,
    )


def real_token_frac(
    lengths: Sequence[int], batches: Sequence[Sequence[int]], real_lengths: Sequence[int] | None = None
) -> float:
    """Return the share of the tokens of padded batches that are not padding.

    Args:
        lengths: what each row adds to a batch whose longest row it is, in tokens.
        batches: row numbers.
        real_lengths: tokens of each row that are no padding in any batch; default: its length.

    Example:
        >>> real_token_frac([2, 4, 6], [[0, 1], [2]])
        0.8571428571428571
    """
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    real = lengths if real_lengths is None else real_lengths
    return sum(real[row] for batch in batches for row in batch) / padded


def check_row_shards(batching: Batching, verb: str, environment: Mapping[str, str]) -> None:
    """Refuse to share out rows along their length to several devices where whole rows are counted on.

    Args:
        batching: the config's field.
        verb: the job's.
        environment: as `accelerate launch` sets it.

    Raises:
        ConfigError: naming the launcher's config and the remedy.
    """
    shares = [int(environment.get(f"PARALLELISM_CONFIG_{kind}_SIZE", "1")) for kind in ("SP", "CP")]
    if environment.get("ACCELERATE_USE_PARALLELISM_CONFIG", "false").lower() != "true" or max(shares) == 1:
        return
    if verb == "sft" and batching.name == "padded":
        return
    what = f"batching.name is {batching.name}" if verb == "sft" else f"the job is {verb}"
    remedy = "choose padded" if verb == "sft" else "it is for SFT alone"
    raise ConfigError(
        f"--accelerate_config: its parallelism_config shares each row out to {max(shares)} devices, and {what}, which "
        f"needs whole rows: {remedy}, or launch with fsdp2 or deepspeed_zero3"
    )
