"""From a config's curriculum to the order of batches of a run, settled before any weights are loaded."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from lengthwise.config import ConfigError
from posttrain.batching import Batching
from posttrain.curriculum import (
    FEWEST_CYCLES,
    Curriculum,
    CyclicalOptions,
    DecompositionOptions,
    LengthBucketsOptions,
    WindowOptions,
    default_cycles,
    is_ordered,
    percentile,
)

if TYPE_CHECKING:
    from posttrain.batch_order import BatchOrder
    from posttrain.curricula.choices import Odds
    from posttrain.curricula.competence_window import CompetenceWindow
    from posttrain.curricula.cyclical_order import CyclicalOrder
    from posttrain.curricula.decomposed_order import DecomposedOrder
    from posttrain.curricula.length_buckets import LengthBuckets
    from posttrain.token_budget import TokenBudget


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLength:
    """How long a run is, as the trainer counts it."""

    max_steps: int
    """Optimizer steps; 0 and below: as the epochs say."""
    num_epochs: float

    def steps(self, steps_per_epoch: int) -> int:
        """Return the optimizer steps of the run.

        Example:
            >>> RunLength(max_steps=-1, num_epochs=1.5).steps(7)
            11
        """
        return self.max_steps if self.max_steps > 0 else math.ceil(self.num_epochs * steps_per_epoch)


def curriculum_order(
    curriculum: Curriculum,
    batching: Batching,
    budget: TokenBudget,
    *,
    sources: Sequence[Hashable],
    run: RunLength,
    seed: int,
    sequences_per_row: int = 1,
    scores: Sequence[float] | None = None,
) -> BatchOrder:
    """Return the order of batches that a config asks for.

    Args:
        curriculum: the config's field, read.
        batching: the config's field of that name.
        budget: the batches without a curriculum; of sequences where texts are decomposed.
        sources: shape [N], where each row is from.
        run: how long the run is.
        seed: of the run's order.
        sequences_per_row: 2 for pairs, whose lengths are those of both answers' sequences together.
        scores: shape [N], how hard each row is, where they are a column or already known; else None.

    Raises:
        ConfigError: the rows or the run are too few for it, or the batches do not fit.
    """
    labels = _as_met(sources)
    try:
        if isinstance(curriculum, LengthBucketsOptions):
            return _length_buckets(curriculum, budget, labels, run)
        if isinstance(curriculum, DecompositionOptions):
            return _decomposed(curriculum, batching, budget, labels, run)
        if isinstance(curriculum, WindowOptions):
            return _window(curriculum, budget, run, sequences_per_row)
        return _cyclical(curriculum, budget, run, scores, seed)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"curriculum: {error}") from error


def order_identity(order: BatchOrder) -> dict[str, Any] | None:
    """Return what decides a curriculum beside its rows' lengths, as plain data for a resumed run to compare.

    Long lists (sources, scores) go as digests. None for a token budget alone.
    """
    from posttrain.token_budget import TokenBudget

    if isinstance(order, TokenBudget):
        return None
    found: dict[str, Any] = {"order": type(order).__name__}
    parts = [order, schedule] if (schedule := getattr(order, "schedule", None)) is not None else [order]
    for part in parts:
        for field in fields(part):  # pyright: ignore[reportArgumentType]
            value = getattr(part, field.name)
            if field.name in ("sources", "values"):
                found[field.name] = None if value is None else _digest(value)
            elif value is None or isinstance(value, bool | int | float | str):
                found[field.name] = value
    return found


def with_losses(order: CyclicalOrder, losses: Sequence[float], *, seed: int) -> CyclicalOrder:
    """Return the order of a run whose rows' losses were not known before.

    Args:
        order: the order without them.
        losses: shape [N].
        seed: of the run's order.

    Raises:
        ConfigError: the run would not see all rows.
    """
    return _all_seen(replace(order, values=losses), seed)


def _all_seen(order: CyclicalOrder, seed: int) -> CyclicalOrder:
    """Return the order, if its run sees all rows; long rows in the parts before may make these longer than planned."""
    unseen = order.num_unseen(seed)
    if unseen:
        raise ConfigError(
            f"curriculum: the run ends before {unseen:,} of {len(order.budget.lengths):,} rows have come: raise "
            "num_train_epochs or max_steps"
        )
    return order


def _length_buckets(
    options: LengthBucketsOptions, budget: TokenBudget, sources: Sequence[str], run: RunLength
) -> LengthBuckets:
    from posttrain.curricula.length_buckets import LengthBuckets

    odds, cycles = settled_cycles(options.odds, options.cycles, budget.steps_per_epoch)
    order = LengthBuckets(
        budget=budget, odds=odds, cycles=cycles, num_buckets=options.num_buckets, sources=sources
    )
    _check_run(odds, cycles, order.steps_per_epoch, run)
    return order


def _decomposed(
    options: DecompositionOptions,
    batching: Batching,
    budget: TokenBudget,
    sources: Sequence[str],
    run: RunLength,
) -> DecomposedOrder:
    from posttrain.curricula.bucket_schedule import BucketSchedule
    from posttrain.curricula.decomposed_order import DecomposedOrder

    log2 = [length.bit_length() - 1 for length in budget.lengths]
    longest = 1 << max(log2)
    max_tokens = batching.max_tokens or -(-budget.max_tokens // longest) * longest
    if max_tokens % longest:
        raise ConfigError(
            f"batching.max_tokens is {max_tokens:,}, but the longest sequences have {longest:,} tokens, and each batch "
            f"has equally many tokens: set it to {-(-max_tokens // longest) * longest:,}, or lower curriculum.max_log2"
        )
    parts = budget.num_processes * budget.accumulation
    steps = sum(budget.lengths) // (max_tokens * parts)
    odds, cycles = settled_cycles(options.odds, options.cycles, steps)
    try:
        schedule = BucketSchedule(
            log2=log2,
            tokens_per_step=max_tokens * parts,
            num_processes=parts,
            cycles=cycles,
            curriculum=odds,
            weighting=options.weighting,
            sources=sources,
        )
    except ValueError as error:
        raise ConfigError(
            f"data: {sum(budget.lengths):,} tokens are {steps:,} steps of {max_tokens * parts:,}, and no length of "
            f"sequences has one for each of {cycles} cycles: add data, or lower batching.max_tokens, "
            "gradient_accumulation_steps or curriculum.cycles"
        ) from error
    order = DecomposedOrder(
        schedule=schedule, num_processes=budget.num_processes, accumulation=budget.accumulation
    )
    _check_run(odds, cycles, order.steps_per_epoch, run)
    return order


def _window(
    options: WindowOptions, budget: TokenBudget, run: RunLength, sequences_per_row: int
) -> CompetenceWindow:
    from posttrain.curricula.competence_window import CompetenceWindow

    return CompetenceWindow(
        budget=budget,
        num_steps=run.steps(budget.steps_per_epoch),
        start=_tokens(options.start, budget.lengths, sequences_per_row),
        end=_tokens(options.end, budget.lengths, sequences_per_row),
        until=options.until,
        shape=options.shape,
    )


def _cyclical(
    options: CyclicalOptions, budget: TokenBudget, run: RunLength, scores: Sequence[float] | None, seed: int
) -> CyclicalOrder:
    from posttrain.curricula.cyclical_order import CyclicalOrder

    order = CyclicalOrder(
        budget=budget,
        num_steps=run.steps(budget.steps_per_epoch),
        values=[float(n) for n in budget.lengths] if options.score == "length" else scores,
        preference=options.preference,
        start=options.start,
        alpha=options.alpha,
    )
    return order if order.values is None else _all_seen(order, seed)


def settled_cycles(odds: Odds, cycles: int | None, steps_per_epoch: int) -> tuple[Odds, int]:
    """Return the odds and cycles of an epoch; natural in one cycle where there are too few steps for an order.

    Example:
        >>> settled_cycles("grow_p2", None, 150), settled_cycles("grow_p2", None, 60), settled_cycles("natural", 2, 9)
        (('grow_p2', 4), ('natural', 1), ('natural', 2))
    """
    if cycles is not None:
        return odds, cycles
    found = None if odds == "natural" else default_cycles(steps_per_epoch)
    return ("natural", 1) if found is None else (odds, found)


def _check_run(odds: Odds, cycles: int, steps_per_epoch: int, run: RunLength) -> None:
    """Refuse a run of less than two cycles: all it saw would be a drift from short to long or back."""
    steps, needed = run.steps(steps_per_epoch), math.ceil(2 * steps_per_epoch / cycles)
    if is_ordered(odds) and steps < needed:
        raise ConfigError(
            f"max_steps: the run has {steps:,} steps, but two cycles of odds {odds} have {needed:,}: with fewer, "
            "lengths would only drift one way; train longer, raise curriculum.cycles, or set curriculum.odds: natural"
        )


def too_few_steps(odds: Odds, steps_per_epoch: int) -> str:
    """Say why odds of the config are not kept to."""
    return (
        f"natural, since an epoch has {steps_per_epoch:,} steps and {odds} needs 100 for {FEWEST_CYCLES} cycles "
        "(or curriculum.cycles set)"
    )


def _tokens(limit: str | int, lengths: Sequence[int], sequences_per_row: int) -> float:
    """Return a limit of the window in what `lengths` counts."""
    if isinstance(limit, int):
        return float(limit * sequences_per_row)
    import numpy as np

    part = percentile(limit)
    assert part is not None
    return float(np.percentile(np.asarray(lengths), part))


def _as_met(sources: Sequence[Hashable]) -> list[str]:
    """Return numbers in place of names, by their first rows: a file that was moved is the same source."""
    places: dict[Hashable, str] = {}
    return [places.setdefault(source, str(len(places))) for source in sources]


def _digest(values: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(list(values)).encode()).hexdigest()
