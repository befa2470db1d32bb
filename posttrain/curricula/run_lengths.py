"""Which lengths a run trains on at which part of it, read off its batches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from posttrain.token_budget import Batch


def average_context(lengths: Sequence[int]) -> float:
    """Return how many earlier tokens a token sees on average: sum of l (l - 1) over 2 sum of l (arXiv 2405.13226).

    Mean length counts rows, this counts tokens: long rows have most of them.

    Args:
        lengths: tokens of each row, at least 1.

    Example:
        >>> average_context([2, 4])  # (0 + 1) + (0 + 1 + 2 + 3) over 6 tokens
        1.1666666666666667
    """
    tokens = np.asarray(lengths, dtype=np.float64)
    return float((tokens * (tokens - 1)).sum() / (2 * tokens.sum()))


def mean_lengths(passes: Sequence[Sequence[Batch]], lengths: Sequence[int], num_parts: int) -> list[float]:
    """Return the mean over tokens of the length of their row, in each part of a run; fewer parts for fewer passes.

    The mean is over tokens, since batches of a budget have about equally many tokens and not rows.

    Args:
        passes: of each forward pass of the run the batch of each process.
        lengths: tokens of each row.
        num_parts: equal parts of the run.

    Example:
        >>> mean_lengths([[[0]], [[1]]], [2, 6], 2)
        [2.0, 6.0]
    """
    found = []
    for part in np.array_split(np.arange(len(passes)), min(num_parts, len(passes))):
        rows = itertools.chain.from_iterable(batch for i in part for batch in passes[i])
        tokens = np.array([lengths[row] for row in rows], dtype=np.float64)
        found.append(float((tokens**2).sum() / tokens.sum()))
    return found


@dataclass(frozen=True, slots=True)
class ClassSpan:
    """When the batches of one class of length come in a run."""

    shortest: int
    """Tokens of the shortest row."""
    longest: int
    num_passes: int
    first: float
    """Share of the run before the first of them."""
    last: float
    """Share of the run after the last of them."""


def class_spans(
    passes: Sequence[Sequence[Batch]], lengths: Sequence[int], num_classes: int
) -> list[ClassSpan]:
    """Return when each class of length comes: classes of an equal number of forward passes, by their longest row.

    Args:
        passes: of each forward pass of the run the batch of each process.
        lengths: tokens of each row.
        num_classes: as many, or as many as there are passes.

    Example:
        >>> [(span.longest, span.first, span.last) for span in class_spans([[[1]], [[0]]], [2, 6], 2)]
        [(2, 0.5, 1.0), (6, 0.0, 0.5)]
    """
    in_pass = [[lengths[row] for batch in batches for row in batch] for batches in passes]
    by_length = np.argsort([max(found) for found in in_pass], kind="stable")
    spans = []
    for places in np.array_split(by_length, min(num_classes, len(passes))):
        of_class = [in_pass[place] for place in places]
        spans.append(
            ClassSpan(
                shortest=min(map(min, of_class)),
                longest=max(map(max, of_class)),
                num_passes=len(places),
                first=int(places.min()) / len(passes),
                last=(int(places.max()) + 1) / len(passes),
            )
        )
    return spans
