"""What a run's header and its dry run say of a length curriculum, before anything is trained."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

from posttrain.curriculum import (
    Curriculum,
    CyclicalOptions,
    DecompositionOptions,
    LengthBucketsOptions,
    curriculum_name,
)
from posttrain.curriculum_order import too_few_steps

if TYPE_CHECKING:
    from posttrain.batch_order import BatchOrder
    from posttrain.curricula.competence_window import CompetenceWindow
    from posttrain.curricula.cyclical_order import CyclicalOrder
    from posttrain.curricula.decomposed_order import DecomposedOrder
    from posttrain.curricula.length_buckets import LengthBuckets
    from posttrain.token_budget import Batch

NUM_CLASSES = 6
"""Classes of length by which a run's lengths are shown, equal in batches."""
_SHOWN_SOURCES = 10
_INDENT = " " * 12


def context_line(lengths: Sequence[int]) -> str:
    """Say how long rows are, and how much context a token of them sees.

    Example:
        >>> context_line([2, 4])
        'context     mean length 3.0 tokens; average context seen 1.2 (sum of l(l-1) over 2 sum of l)'
    """
    from posttrain.curricula.run_lengths import average_context

    return (
        f"context     mean length {sum(lengths) / len(lengths):,.1f} tokens; average context seen "
        f"{average_context(lengths):,.1f} (sum of l(l-1) over 2 sum of l)"
    )


def curriculum_lines(
    options: Curriculum, order: BatchOrder, *, lengths: Sequence[int], sources: Sequence[Hashable], seed: int
) -> Iterator[str]:
    """Say in which order lengths come: when each class of length is used up, and whether sources go with lengths.

    Args:
        options: the config's field, read.
        order: what it came to.
        lengths: shape [N], tokens of each row; of a pair, of its longer sequence.
        sources: shape [N], where each row is from.
        seed: of the run's order.
    """
    from posttrain.curricula.competence_window import CompetenceWindow
    from posttrain.curricula.cyclical_order import CyclicalOrder
    from posttrain.curricula.decomposed_order import DecomposedOrder
    from posttrain.curricula.length_buckets import LengthBuckets

    name = curriculum_name(options)
    if isinstance(order, LengthBuckets):
        assert isinstance(options, LengthBucketsOptions)
        yield from _bucket_lines(name, options, order, lengths, seed)
        yield from source_lines(_buckets_of_rows(order, seed), sources)
    elif isinstance(order, DecomposedOrder):
        assert isinstance(options, DecompositionOptions)
        yield from _decomposed_lines(name, options, order)
        yield from source_lines([length.bit_length() - 1 for length in lengths], sources)
    elif isinstance(order, CompetenceWindow):
        yield from _window_lines(name, order, lengths, seed)
    elif isinstance(order, CyclicalOrder):
        assert isinstance(options, CyclicalOptions)
        yield from _cyclical_lines(name, options, order, lengths, seed)


def source_lines(buckets: Sequence[int], sources: Sequence[Hashable]) -> Iterator[str]:
    """Say how lengths and sources go together; nothing where there is one source or one length.

    Args:
        buckets: shape [N], the class of length of each row.
        sources: shape [N], where each row is from.
    """
    from posttrain.curricula.source_mix import LARGE, contingency, cramers_v

    names, table = contingency(buckets, sources)
    strength = cramers_v(table)
    if strength is None:
        return
    table = table[:, table.sum(axis=0) > 0]
    yield f"sources     Cramer's V of length and source {strength:.2f}; rows of each, shortest class first:"
    for name, counts in itertools.islice(zip(names, table.tolist(), strict=True), _SHOWN_SOURCES):
        yield f"{_INDENT}{name}: {', '.join(f'{count:,}' for count in counts)}"
    if len(names) > _SHOWN_SOURCES:
        yield f"{_INDENT}and {len(names) - _SHOWN_SOURCES} more sources"
    if strength > LARGE:
        yield (
            f"WARNING     it is above {LARGE}: an order by length is largely one by source here. The cycles have equal "
            "shares of each, but within a cycle the model drifts from one to the other"
        )


def _bucket_lines(
    name: str, options: LengthBucketsOptions, order: LengthBuckets, lengths: Sequence[int], seed: int
) -> Iterator[str]:
    if order.odds != options.odds:
        yield f"curriculum  {name}: {too_few_steps(options.odds, order.steps_per_epoch)}"
    else:
        passes = order.passes_per_cycle
        shown = f"{passes[-1]:,}" if passes[0] == passes[-1] else f"{passes[-1]:,} or {passes[0]:,}"
        plural = "s" if order.cycles > 1 else ""
        yield f"curriculum  {name}: {order.odds}, {order.cycles} cycle{plural} an epoch of {shown} batches"
    ranges = _ranges(order, lengths, seed)
    for (shortest, longest), number, share in zip(
        ranges, order.bucket_sizes(0), order.emptying_shares().tolist(), strict=True
    ):
        yield (
            f"{_INDENT}{shortest:,} to {longest:,} tokens: {number:,} batches, used up after {share:.1%} of a cycle"
        )


def _decomposed_lines(name: str, options: DecompositionOptions, order: DecomposedOrder) -> Iterator[str]:
    from posttrain.curricula.length_odds import bucket_weights, emptying_shares

    schedule = order.schedule
    if schedule.curriculum != options.odds:
        yield f"curriculum  {name}: {too_few_steps(options.odds, order.steps_per_epoch)}"
    else:
        yield (
            f"curriculum  {name}: {schedule.curriculum}, {schedule.cycles} cycle"
            f"{'s' if schedule.cycles > 1 else ''} an epoch of {order.steps_per_epoch // schedule.cycles:,} steps of "
            f"{schedule.tokens_per_step:,} tokens"
        )
    counts = list(schedule.steps_per_cycle.values())
    weights = bucket_weights(schedule.curriculum, counts, schedule.weighting)
    unused = [f"{1 << power:,}" for power, number in schedule.steps_per_cycle.items() if not number]
    if unused:
        yield f"WARNING     no sequence of {', '.join(unused)} tokens is trained on: too few for a step in each cycle"
    for power, number, share in zip(
        schedule.steps_per_cycle, counts, emptying_shares(counts, weights).tolist(), strict=True
    ):
        yield (
            f"{_INDENT}{1 << power:,} tokens: {number:,} steps of {schedule.sequences_per_step(power):,} sequences, "
            f"used up after {share:.1%} of a cycle"
        )
    left_out = schedule.num_tokens_left_out
    if left_out:
        total = left_out + order.steps_per_epoch * schedule.tokens_per_step
        yield (
            f"{_INDENT}{sum(schedule.num_left_out.values()):,} sequences ({left_out:,} tokens, {left_out / total:.1%}) "
            "fill no step in every cycle: each epoch leaves out that many, of a length with steps other ones each time"
        )


def _window_lines(name: str, order: CompetenceWindow, lengths: Sequence[int], seed: int) -> Iterator[str]:
    scale = order.budget.lengths[0] // lengths[0]  # the order counts both sequences of a pair
    yield (
        f"curriculum  {name}: rows up to {order.start / scale:,.0f} tokens at first, up to {order.end / scale:,.0f} "
        f"after {order.until:.0%} of the run's {order.num_steps:,} steps ({order.shape}); longer ones are deferred"
    )
    early = order.num_early(seed)
    if early:
        yield f"{_INDENT}{early:,} of {order.num_passes:,} batches come before their time, since no shorter one is left"
    yield from _run_lines(_run_passes(order, order.num_passes, seed), lengths)


def _cyclical_lines(
    name: str, options: CyclicalOptions, order: CyclicalOrder, lengths: Sequence[int], seed: int
) -> Iterator[str]:
    by = options.column if options.score == "column" else options.score
    line = f"curriculum  {name}: {order.preference} rows by {by}, shares of them from {order.start:g} to 1 and back"
    if order.values is None:
        yield f"{line}; the base model's losses are computed before the first step, and kept for a resume"
        return
    yield f"{line}, {len(order.sizes(seed))} mini-epochs in {order.num_steps:,} steps"
    yield from _run_lines(_run_passes(order, order.num_passes, seed), lengths)


def _run_lines(passes: Sequence[Sequence[Batch]], lengths: Sequence[int]) -> Iterator[str]:
    """Say when each class of length is used up, and which lengths each tenth of a run has."""
    from posttrain.curricula.run_lengths import class_spans, mean_lengths

    for span in class_spans(passes, lengths, NUM_CLASSES):
        yield (
            f"{_INDENT}{span.shortest:,} to {span.longest:,} tokens: {span.num_passes:,} batches, from "
            f"{span.first:.1%} on, used up after {span.last:.1%} of the run"
        )
    tenths = ", ".join(f"{value:,.0f}" for value in mean_lengths(passes, lengths, 10))
    yield f"{_INDENT}mean length, over tokens, in each tenth of the run: {tenths}"


def _run_passes(order: BatchOrder, num_passes: int, seed: int) -> list[list[Batch]]:
    """Return the forward passes of a whole run."""
    epochs = range(-(-num_passes // order.num_batches))
    return list(itertools.chain.from_iterable(order.epoch(seed, epoch) for epoch in epochs))[:num_passes]


def _ranges(order: LengthBuckets, lengths: Sequence[int], seed: int) -> list[tuple[int, int]]:
    """Return the shortest and the longest row of each bucket in the first cycle of the first epoch."""
    found: dict[int, list[int]] = {}
    for cycle, rank, batches in order.labelled(seed, 0):
        if cycle == 0:
            found.setdefault(rank, []).extend(lengths[row] for row in itertools.chain.from_iterable(batches))
    return [(min(found[rank]), max(found[rank])) for rank in sorted(found)]


def _buckets_of_rows(order: LengthBuckets, seed: int) -> list[int]:
    """Return the bucket of each row in the first epoch."""
    found = [0] * len(order.budget.lengths)
    for _, rank, batches in order.labelled(seed, 0):
        for row in itertools.chain.from_iterable(batches):
            found[row] = rank
    return found
