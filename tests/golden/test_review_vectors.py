"""Errors of a predictor of ratings against one more reader, by hand (CycleReviewer, 2411.00816)."""

from __future__ import annotations

import pytest

from lengthwise.review_metrics import bounded_rating, leave_one_out, proxy_errors


def test_three_ratings_and_a_prediction_of_six() -> None:
    assert leave_one_out([4, 6, 8]) == [7, 6, 5]
    assert proxy_errors([4, 6, 8], 6) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_an_individual_person() -> None:
    assert proxy_errors([4, 6, 8]) == ((9 + 0 + 9) / 3, (3 + 0 + 3) / 3)


# The released parser reads one character: "10" is 1, and what is missing is 0.
@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("10", 10),
        ("10: strong accept", 10),
        ("Rating: 8 (accept)", 8),
        ("6.5", 6.5),
        ("3/10", 3),
        ("", None),
        ("none", None),
        ("0", None),
        ("-3", None),
        ("11", None),
    ],
)
def test_a_rating_is_read_whole_or_not_at_all(text: str, rating: float | None) -> None:
    assert bounded_rating(text, 1, 10) == rating
