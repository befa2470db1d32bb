from __future__ import annotations

import math

import pytest

from posttrain.curricula.run_lengths import average_context, class_spans, mean_lengths
from posttrain.curricula.source_mix import contingency, cramers_v


def test_average_context_is_what_a_token_sees():
    """Counted token by token: the k-th token of a row has k tokens before it."""
    lengths = [1, 2, 7, 30]
    seen = [before for length in lengths for before in range(length)]
    assert average_context(lengths) == pytest.approx(sum(seen) / len(seen))


def test_mean_lengths_are_over_tokens():
    assert mean_lengths([[[0]], [[1]], [[0, 1]]], [2, 6], 3) == [2, 6, 5]
    assert mean_lengths([[[0]]], [2], 10) == [2]


def test_classes_have_an_equal_number_of_batches():
    lengths = [5, 50, 7, 70, 6, 60]
    spans = class_spans([[[row]] for row in range(6)], lengths, 2)
    assert [(span.shortest, span.longest, span.num_passes) for span in spans] == [(5, 7, 3), (50, 70, 3)]
    assert [(span.first, span.last) for span in spans] == [(0, 5 / 6), (1 / 6, 1)]
    assert len(class_spans([[[0]]], lengths, 6)) == 1


def test_contingency_counts_rows():
    names, table = contingency([2, 0, 2, 2], ["b", "a", "b", "a"])
    assert names == ["b", "a"] and table.tolist() == [[0, 0, 2], [1, 0, 1]]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([[10, 0], [0, 10]], 1),
        ([[10, 10], [20, 20]], 0),
        ([[30, 10], [10, 30]], 0.5),
        ([[10, 0, 0], [0, 10, 0], [0, 0, 10]], 1),
        ([[10, 20, 30], [30, 20, 10]], math.sqrt(20 / 120)),  # chi^2 of 5 + 0 + 5, twice
        ([[10, 0, 20], [20, 0, 10]], 1 / 3),
        ([[5, 5]], None),
        ([[5, 0], [7, 0]], None),
    ],
)
def test_cramers_v(table, expected):
    assert cramers_v(table) == (None if expected is None else pytest.approx(expected))
