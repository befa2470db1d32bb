"""The field `curriculum` of a config: what it may say, and what is refused before anything is read."""

from __future__ import annotations

import pytest

from lengthwise.config import ConfigError
from posttrain.batching import Batching
from posttrain.curriculum import (
    CyclicalOptions,
    DecompositionOptions,
    LengthBucketsOptions,
    WindowOptions,
    check_curriculum,
    check_of_conversations,
    check_of_pairs,
    curriculum_name,
    default_cycles,
    read_curriculum,
)

BUDGET = Batching(name="token_budget")


def test_a_name_chooses_and_the_options_are_its_own():
    assert read_curriculum(None) is None
    assert read_curriculum({"name": "length_buckets", "odds": "grow_p2", "cycles": 4}) == (
        LengthBucketsOptions(odds="grow_p2", cycles=4)
    )
    assert read_curriculum({"name": "dataset_decomposition"}) == DecompositionOptions(
        odds="grow_p2", min_log2=8
    )
    assert read_curriculum({"name": "competence_window", "start": 64}) == WindowOptions(start=64)
    found = read_curriculum({"name": "cyclical", "score": "column", "column": "difficulty"})
    assert found == CyclicalOptions(score="column", column="difficulty")
    assert curriculum_name(CyclicalOptions()) == "cyclical"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "length_bucket"}, "curriculum.name is 'length_bucket': did you mean 'length_buckets'"),
        ({"name": "random"}, "there are length_buckets, dataset_decomposition, competence_window, cyclical"),
        ({"odds": "grow_p2"}, "it needs a name"),
        (
            {"name": "length_buckets", "odds": "grow_p3"},
            "odds is 'grow_p3', expected .*did you mean 'grow_p2'",
        ),
        ({"name": "length_buckets", "until": 0.5}, "unknown key 'until'"),
        ({"name": "length_buckets", "odds": "grow_p2", "cycles": 1}, "cycles is 1: it must be at least 4"),
        ({"name": "length_buckets", "odds": "shrink_p2", "cycles": 3}, "cycles is 3: it must be at least 4"),
        ({"name": "length_buckets", "cycles": 0}, "cycles is 0: it must be at least 1; leave it out"),
        ({"name": "length_buckets", "num_buckets": 1}, "num_buckets is 1"),
        ({"name": "dataset_decomposition", "cycles": 1}, "cycles is 1: it must be at least 2"),
        ({"name": "dataset_decomposition", "min_log2": 0}, "a second token to predict"),
        ({"name": "dataset_decomposition", "min_log2": 9, "max_log2": 8}, "max_log2 is 8"),
        ({"name": "competence_window", "until": 0.0}, "until is 0.0: it must be above 0"),
        ({"name": "competence_window", "until": 1.5}, "until is 1.5"),
        ({"name": "competence_window", "start": "10%"}, "start is '10%': give p0 to p100"),
        ({"name": "competence_window", "end": "p101"}, "end is 'p101'"),
        ({"name": "competence_window", "start": 0}, "start is 0"),
        ({"name": "competence_window", "shape": "cosine"}, "expected 'linear' or 'log' or 'sqrt'"),
        ({"name": "cyclical", "score": "column"}, "column is None: give a column"),
        ({"name": "cyclical", "column": "x"}, "score is length and column is 'x'"),
        ({"name": "cyclical", "start": 1.0}, "start is 1.0: it must lie between 0 and 1"),
        ({"name": "cyclical", "alpha": 0}, "alpha is 0"),
    ],
)
def test_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        read_curriculum(given)


@pytest.mark.parametrize(
    ("curriculum", "batching", "trainer", "words"),
    [
        (LengthBucketsOptions(), Batching(name="packed"), {}, "rows are packed"),
        (WindowOptions(), Batching(), {"packing": True}, "rows are packed"),
        (CyclicalOptions(), Batching(), {}, "batching.name is padded.* set batching: {name: token_budget}"),
    ],
)
def test_settings_beside_it_that_are_refused(curriculum, batching, trainer, words):
    with pytest.raises(ValueError, match=words):
        check_curriculum(curriculum, batching, trainer)


def test_settings_beside_it_that_are_right():
    check_curriculum(None, Batching(name="packed"), {"packing": True})
    check_curriculum(LengthBucketsOptions(), BUDGET, {})


def test_plain_texts_have_no_turns_to_choose():
    with pytest.raises(ValueError, match="train_on is 'last': leave train_on out"):
        check_of_conversations(DecompositionOptions(), "last")
    check_of_conversations(DecompositionOptions(), "all")
    check_of_conversations(LengthBucketsOptions(), "last")


def test_pairs_are_neither_cut_nor_scored():
    with pytest.raises(ValueError, match="pairs must not be cut: choose length_buckets"):
        check_of_pairs(DecompositionOptions())
    with pytest.raises(ValueError, match="curriculum.score is loss, but pairs"):
        check_of_pairs(CyclicalOptions(score="loss"))
    check_of_pairs(CyclicalOptions())


def test_one_cycle_is_no_drift_where_no_length_is_preferred():
    assert read_curriculum({"name": "length_buckets", "odds": "uniform", "cycles": 1}) is not None


def test_cycles_go_by_the_steps_of_an_epoch():
    assert [default_cycles(steps) for steps in (5000, 400, 399, 100, 99, 1)] == [8, 8, 4, 4, None, None]
