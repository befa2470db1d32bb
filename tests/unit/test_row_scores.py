from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lengthwise.config import ConfigError
from lengthwise.row_formats import TrainRow
from lengthwise.rows import Place, Row
from posttrain.row_scores import SCORES, kept_losses, read_scored_row
from posttrain.train_data import TokenRow

ROW = {"prompt": "Hi", "completion": "Yo"}
MODEL: Any = SimpleNamespace(identity="base")


def read(values):
    return read_scored_row(Row(Place("s", 1), {**ROW, **values}), column="hard")


def test_a_number_in_the_column_is_the_score():
    assert read({"hard": 2}).score == 2.0 and read({"hard": 0.5}).score == 0.5


@pytest.mark.parametrize(
    "values", [{}, {"hard": None}, {"hard": "2"}, {"hard": -1}, {"hard": True}, {"hard": float("nan")}]
)
def test_anything_else_is_no_score(values):
    assert read(values).score is None


def rows(*tokens):
    ids = np.array(tokens, dtype=np.int32)
    return [TokenRow(TrainRow(id="1", source="s", line=1, messages=()), ids, ids)]


def test_losses_are_kept_for_the_very_rows_and_model(tmp_path):
    assert kept_losses(tmp_path, MODEL, rows(1, 2), goes_on=False) is None
    with pytest.raises(ConfigError, match=r"curriculum_scores.json is gone, or was made of other rows"):
        kept_losses(tmp_path, MODEL, rows(1, 2), goes_on=True)
    from posttrain.row_scores import _key

    kept = {**_key(MODEL, rows(1, 2)), "losses": [0.5]}
    (tmp_path / SCORES).write_text(json.dumps(kept))
    assert kept_losses(tmp_path, MODEL, rows(1, 2), goes_on=True) == [0.5]
    assert kept_losses(tmp_path, MODEL, rows(1, 3), goes_on=False) is None
    other: Any = SimpleNamespace(identity="another")
    assert kept_losses(tmp_path, other, rows(1, 2), goes_on=False) is None
