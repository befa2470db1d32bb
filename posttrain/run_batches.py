"""The batches of a run, ours where the config asks for a token budget, and what a header says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.config import ConfigError
from posttrain.batching import Batching, real_token_frac, token_budget
from posttrain.curriculum import Curriculum, CyclicalOptions
from posttrain.curriculum_lines import context_line, curriculum_lines
from posttrain.curriculum_order import RunLength, curriculum_order, with_losses
from posttrain.row_scores import keep_losses, kept_losses

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from lengthwise.models import ModelRef
    from posttrain.batch_order import BatchOrder
    from posttrain.prepared_rows import PreparedRows


def run_batches(
    curriculum: Curriculum | None,
    batching: Batching,
    data: PreparedRows[Any],
    *,
    args: TrainingArguments,
    folder: Path,
    model: ModelRef,
    goes_on: bool,
) -> BatchOrder | None:
    """Return the order of a run's batches; None where the trainer makes them. Loads no weights.

    Args:
        curriculum: the config's field, read.
        batching: the config's field of that name.
        data: what is trained on.
        args: the trainer's arguments.
        folder: the run's folder, which may hold the rows' losses.
        model: the base model.
        goes_on: whether the run goes on from a checkpoint.

    Raises:
        ConfigError: the rows or the run do not fit the curriculum.
    """
    budget = token_budget(
        batching,
        data.lengths,
        rows=args.train_batch_size,
        num_processes=args.world_size,
        accumulation=args.gradient_accumulation_steps,
    )
    if budget is None or curriculum is None:
        return budget
    return curriculum_order(
        curriculum,
        batching,
        budget,
        sources=[row.row.source for row in data.rows],
        run=RunLength(max_steps=args.max_steps, num_epochs=args.num_train_epochs),
        seed=order_seed(args),
        sequences_per_row=data.sequences_per_row,
        scores=_scores(curriculum, data.rows, folder, model, goes_on=goes_on),
    )


def _scores(
    curriculum: Curriculum, rows: Sequence[Any], folder: Path, model: ModelRef, *, goes_on: bool
) -> list[float] | None:
    """Return how hard rows are, where that is a column or was kept.

    Raises:
        ConfigError: a row has no number in the column, or a resumed run has lost its losses.
    """
    if not isinstance(curriculum, CyclicalOptions) or curriculum.score == "length":
        return None
    if curriculum.score == "loss":
        return kept_losses(folder, model, rows, goes_on=goes_on)
    missing = [row.row for row in rows if row.row.score is None]
    if missing:
        raise ConfigError(
            f"curriculum.column is {curriculum.column!r}, but {len(missing):,} of {len(rows):,} rows have no "
            f"number of at least 0 there, the first one {missing[0].source}, line {missing[0].line}: give each row one"
        )
    return [row.row.score for row in rows]


def with_scores(
    order: BatchOrder | None,
    rows: Sequence[Any],
    *,
    args: TrainingArguments,
    folder: Path,
    model: ModelRef,
    dtype: str,
) -> BatchOrder | None:
    """Return the order with the base model's losses, computed now if it waits for them; all processes take part."""
    from posttrain.curricula.cyclical_order import CyclicalOrder

    if not isinstance(order, CyclicalOrder) or order.values is not None:
        return order
    losses = keep_losses(
        folder,
        model,
        rows,
        max_tokens=order.max_tokens,
        dtype=dtype,
        device=args.device,
        trust_remote_code=bool(getattr(args, "trust_remote_code", False)),
    )
    return with_losses(order, losses, seed=order_seed(args))


def order_seed(args: TrainingArguments) -> int:
    """Return what the order of rows is drawn by."""
    return args.seed if args.data_seed is None else args.data_seed


def batches_lines(
    order: BatchOrder, curriculum: Curriculum | None, data: PreparedRows[Any], args: TrainingArguments
) -> Iterator[str]:
    """Say how much of what is computed is padding, and in which order lengths come."""
    from posttrain.curricula.cyclical_order import CyclicalOrder

    lengths, real, seed = data.lengths, data.real_lengths, order_seed(args)
    yield context_line(data.sequence_lengths)
    if isinstance(order, CyclicalOrder) and order.values is None:
        passes = order.budget.epoch(seed, 0)  # its mini-epochs wait for the losses
    else:
        passes = order.epoch(seed, 0)
    batches = [batch for batches in passes for batch in batches]
    line = (
        f"batches     token_budget: {len(batches):,} of at most {order.max_tokens:,} tokens, "
        f"{real_token_frac(lengths, batches, real):.1%} of them no padding"
    )
    num_over = sum(length > order.max_tokens for length in lengths)
    if num_over:
        line += f"; {num_over:,} longer rows are a batch each"
    if order.num_repeated:
        line += f"; {order.num_repeated} rows come twice, since there are fewer than processes"
    yield line
    if curriculum is not None:
        sources = [row.row.source for row in data.rows]
        yield from curriculum_lines(
            curriculum,
            order,
            lengths=[length // data.sequences_per_row for length in lengths],
            sources=sources,
            seed=seed,
        )
