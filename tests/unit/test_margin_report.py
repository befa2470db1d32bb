"""The report on a trained model's margins, from pairs of known lengths."""

from __future__ import annotations

import numpy as np
import pytest

from posttrain.batching import real_token_frac
from posttrain.margin_report import margin_report
from posttrain.pair_data import PairData, TokenPair
from posttrain.pair_formats import PairRow


def pair(prompt: int, chosen: int, rejected: int) -> TokenPair:
    """Return a pair of answers of so many tokens; the prompt is a token that names it."""
    row = PairRow(id=f"p{prompt}", source="rows.jsonl", line=prompt, prompt=(), chosen=(), rejected=())
    return TokenPair(
        row,
        np.array([prompt], dtype=np.int32),
        np.full(chosen, 7, dtype=np.int32),
        np.full(rejected, 8, dtype=np.int32),
    )


PAIRS = [pair(1, 9, 3), pair(2, 8, 4), pair(3, 2, 6), pair(4, 5, 5)]


def test_a_model_that_prefers_by_length_shows():
    found = margin_report(PAIRS, [3.0, 2.0, -2.0, 0.5], is_held_out=True)
    assert found.accuracy.estimate == 0.75 and found.margin.estimate == 0.875
    assert found.longer_wins.estimate == (1 + 1 + 0 + 0.5) / 4
    assert [part.largest_gap for part in found.by_gap] == [-4, 0, 4, 6]
    assert [part.margin.estimate for part in found.by_gap] == [-2.0, 0.5, 2.0, 3.0]
    lines = list(found.lines())
    assert lines[0].startswith("margins     4 held-out pairs: 75.0%")
    assert "is right in 62.5%" in lines[0] and len(lines) == 5
    assert found.to_dict()["by_gap"][0]["smallest_gap"] == -4


def test_pairs_that_were_trained_on_are_called_that():
    assert "trained on" in next(margin_report(PAIRS, [1.0] * 4, is_held_out=False).lines())


def test_no_pairs_and_margins_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="no margins"):
        margin_report([], [], is_held_out=True)
    with pytest.raises(ValueError):
        margin_report(PAIRS, [1.0, float("nan"), 0.0, 0.0], is_held_out=True)


def test_a_pair_takes_two_rows_of_a_batch_and_its_shorter_answer_is_padded():
    data = PairData(PAIRS, [], [])
    assert data.lengths == [20, 18, 14, 12]
    assert data.real_lengths == [14, 14, 10, 12]
    assert real_token_frac(data.lengths, [[0, 1], [2, 3]], data.real_lengths) == 50 / (2 * 20 + 2 * 14)
