"""Which lengths teach which meta length token: the windows of Ruler's code, of its paper, and of the flexible match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.lengths import TLG_TARGETS, tlg_match
from lengthwise.meta_length_windows import TRAINING_WINDOWS, mlt_of


@pytest.mark.parametrize(
    ("windows", "words", "label"),
    [
        *(
            ("code", words, None)
            for words in (0, 5, 16, 25, 36, 45, 56, 75, 86, 135, 156, 295, 306, 495, 506, 695)
        ),
        *(("code", words, "10") for words in (6, 10, 15)),
        *(("code", words, "30") for words in (26, 35)),
        *(("code", words, "50") for words in (46, 55)),
        *(("code", words, "80") for words in (76, 85)),
        *(("code", words, "150") for words in (136, 145, 155)),
        *(("code", words, "300") for words in (296, 305)),
        *(("code", words, "500") for words in (496, 505)),
        *(("code", words, "700") for words in (696, 705)),
        *(("code", words, None) for words in (706, 800)),
        *(("code", words, ">800") for words in (801, 50_000)),
        *(("paper", words, None) for words in (136, 145, 156)),
        *(("paper", words, "150") for words in (146, 155)),
        ("paper", 15, "10"),
        *(("fm", words, "10") for words in (1, 20)),
        ("fm", 0, None),
        *(("fm", words, "30") for words in (21, 40)),
        *(("fm", words, "50") for words in (41, 60)),
        *(("fm", words, "80") for words in (61, 100)),
        *(("fm", words, "150") for words in (101, 200)),
        *(("fm", words, "300") for words in (201, 400)),
        *(("fm", words, "500") for words in (401, 600)),
        *(("fm", words, "700") for words in (601, 800)),
        ("fm", 801, ">800"),
    ],
)
def test_edges_are_open_below_and_closed_above(windows, words, label):
    assert mlt_of(words, windows) == label


def test_each_choice_has_all_targets():
    assert all(tuple(windows) == TLG_TARGETS for windows in TRAINING_WINDOWS.values())


@given(st.integers(0, 2000), st.sampled_from(sorted(TRAINING_WINDOWS)))
def test_no_two_windows_share_a_length_and_what_teaches_a_token_matches_it(words, windows):
    fits = [label for label, (low, high) in TRAINING_WINDOWS[windows].items() if low < words <= high]
    assert len(fits) <= 1
    for label in fits:
        precise, flexible = tlg_match(label, words)
        assert flexible and (precise or windows == "fm")
