"""The Pareto front against its definition."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.pareto import pareto_front


def dominates(a, b):
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6))))
def test_it_is_what_nothing_dominates_cheapest_first(points):
    expected = {i for i, p in enumerate(points) if not any(dominates(other, p) for other in points)}
    found = pareto_front(points)
    assert set(found) == expected and len(found) == len(expected)
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(5, 1)], [0]),
        ([(1, 1), (1, 1), (1, 0)], [0, 1]),  # equals both stay
        ([(1, 0.9), (2, 0.9), (2, 0.95)], [0, 2]),  # the same quality for more
        ([(1, -math.inf), (0, 0)], [1]),
    ],
)
def test_ends_and_ties(points, front):
    assert pareto_front(points) == front


def test_nan_has_no_place():
    with pytest.raises(ValueError, match="NaN"):
        pareto_front([(1, math.nan)])
