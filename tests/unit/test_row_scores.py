from __future__ import annotations

import pytest

from lengthwise.rows import Place, Row
from posttrain.row_scores import read_scored_row

ROW = {"prompt": "Hi", "completion": "Yo"}


def read(values):
    return read_scored_row(Row(Place("s", 1), {**ROW, **values}), column="hard")


def test_a_number_in_the_column_is_the_score():
    assert read({"hard": 2}).score == 2.0 and read({"hard": 0.5}).score == 0.5


@pytest.mark.parametrize(
    "values", [{}, {"hard": None}, {"hard": "2"}, {"hard": -1}, {"hard": True}, {"hard": float("nan")}]
)
def test_anything_else_is_refused(values):
    with pytest.raises(
        ValueError, match="curriculum.column is 'hard', and the row has .* a number of at least 0"
    ):
        read(values)
