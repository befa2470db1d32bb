"""From a config's curriculum to an order of batches: cycles by the number of steps, refusals before a model loads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lengthwise.config import ConfigError
from posttrain.batching import Batching
from posttrain.curriculum import (
    CyclicalOptions,
    DecompositionOptions,
    LengthBucketsOptions,
    WindowOptions,
)
from posttrain.curriculum_lines import context_line, curriculum_lines, source_lines
from posttrain.curriculum_order import RunLength, curriculum_order, order_identity, settled_cycles
from posttrain.token_budget import TokenBudget

BUDGET = Batching(name="token_budget")


def lengths(num_rows: int) -> list[int]:
    drawn = np.random.default_rng(0).lognormal(5.4, 0.9, num_rows)
    return np.clip(drawn, 5, 4577).astype(int).tolist()


def make(curriculum, rows, *, max_tokens=2000, num_epochs=1.0, max_steps=-1, batching=BUDGET, **more) -> Any:
    budget = TokenBudget(lengths=rows, max_tokens=max_tokens)
    run = RunLength(max_steps=max_steps, num_epochs=num_epochs)
    return curriculum_order(
        curriculum, batching, budget, **{"sources": ["a"] * len(rows), "run": run, "seed": 0, **more}
    )


def lines(curriculum, rows, sources=None, **settings) -> list[str]:
    sources = sources or ["a"] * len(rows)
    order = make(curriculum, rows, sources=sources, **settings)
    return list(curriculum_lines(curriculum, order, lengths=rows, sources=sources, seed=0))


@pytest.mark.parametrize(
    ("odds", "cycles", "steps", "found"),
    [
        ("grow_p2", None, 400, ("grow_p2", 8)),
        ("grow_p2", None, 399, ("grow_p2", 4)),
        ("shrink_p2", None, 99, ("natural", 1)),
        ("grow_p2", 5, 20, ("grow_p2", 5)),
        ("natural", None, 1000, ("natural", 1)),
        ("natural", 3, 1000, ("natural", 3)),
    ],
)
def test_odds_and_cycles(odds, cycles, steps, found):
    assert settled_cycles(odds, cycles, steps) == found


def test_a_short_epoch_falls_back_to_natural_and_says_so():
    found = lines(LengthBucketsOptions(odds="grow_p2"), lengths(300))
    assert "natural, since an epoch has 61 steps and grow_p2 needs 100 for 4 cycles" in found[0]


def test_the_table_says_when_each_bucket_is_used_up():
    found = lines(LengthBucketsOptions(odds="grow_p2"), lengths(3000))
    assert found[0].startswith("curriculum  length_buckets: grow_p2, 8 cycles an epoch of 76 batches")
    assert len(found) == 7
    shares = [float(line.rsplit("after ", 1)[1].split("%")[0]) for line in found[1:]]
    assert shares == pytest.approx([32.8, 49.0, 64.6, 79.2, 91.7, 100], abs=2)  # 12 or 13 batches a bucket
    assert found[1].split()[0] == "13" and "1,141 to 3,214 tokens: 12 batches" in found[-1]


def test_a_run_of_less_than_two_cycles_is_refused():
    options = LengthBucketsOptions(odds="grow_p2", cycles=4)
    make(options, lengths(3000), max_steps=300)
    with pytest.raises(ConfigError, match="max_steps: the run has 100 steps, but two cycles of odds grow_p2"):
        make(options, lengths(3000), max_steps=100)
    make(LengthBucketsOptions(odds="natural"), lengths(3000), max_steps=100)


def powers(number: int) -> list[int]:
    return [16] * number + [32] * number + [64] * number


def test_sequences_of_powers_of_two_become_batches_of_constant_tokens():
    options = DecompositionOptions(cycles=2, min_log2=4)
    order = make(options, powers(40), max_tokens=50)  # rounded up to the longest sequence
    assert order.max_tokens == 64 and order.num_batches == 70
    found = lines(options, powers(40), max_tokens=50)
    assert (
        found[0] == "curriculum  dataset_decomposition: grow_p2, 2 cycles an epoch of 35 steps of 64 tokens"
    )
    assert found[1].strip().startswith("16 tokens: 5 steps of 4 sequences, used up after")
    assert len(found) == 4  # nothing is left out


def test_sequences_that_fill_no_step_are_counted():
    found = lines(DecompositionOptions(cycles=2, min_log2=4), powers(41), max_tokens=64)
    assert found[-1].strip().startswith("3 sequences (112 tokens, 2.4%) fill no step in every cycle")


def test_a_batch_that_the_longest_sequences_do_not_fill_is_refused():
    batching = Batching(name="token_budget", max_tokens=96)
    with pytest.raises(ConfigError, match="batching.max_tokens is 96, .* set it to 128"):
        make(DecompositionOptions(cycles=2, min_log2=4), powers(40), batching=batching)


def test_texts_too_few_for_the_cycles_are_refused():
    with pytest.raises(ConfigError, match="data: 112 tokens are 1 steps of 64, and no length"):
        make(DecompositionOptions(cycles=2, min_log2=4), powers(1), max_tokens=64)


def test_a_window_takes_percentiles_and_tokens_and_shows_its_table():
    rows = lengths(600)
    order = make(WindowOptions(), rows, num_epochs=2)
    assert (order.start, order.end) == (np.percentile(rows, 10), max(rows))
    assert make(WindowOptions(start=77, end="p90"), rows).start == 77
    found = lines(WindowOptions(), rows, num_epochs=2)
    assert found[0].startswith("curriculum  competence_window: rows up to 71 tokens at first, up to ")
    assert "used up after 100.0% of the run" in found[-2] and "in each tenth of the run" in found[-1]
    with pytest.raises(ConfigError, match="curriculum: start is 5000 and end is"):
        make(WindowOptions(start=5000), rows)


def test_a_cyclical_run_names_its_scores():
    rows = lengths(400)
    found = lines(CyclicalOptions(), rows, num_epochs=2)
    assert found[0].startswith(
        "curriculum  cyclical: easy rows by length, shares of them from 0.25 to 1 and back"
    )
    found = lines(CyclicalOptions(score="loss"), rows, num_epochs=2)
    assert "losses are computed before the first step" in found[0] and len(found) == 1
    options = CyclicalOptions(score="column", column="difficulty", preference="hard")
    found = lines(options, rows, num_epochs=2, scores=[1.0] * 400)
    assert "hard rows by difficulty" in found[0]
    with pytest.raises(ConfigError, match="curriculum: the run has 1 epochs"):
        make(CyclicalOptions(), rows)


def test_what_a_resumed_run_must_share():
    rows = lengths(3000)
    one: Any = order_identity(make(LengthBucketsOptions(odds="grow_p2"), rows))
    assert one["order"] == "LengthBuckets" and one["cycles"] == 8 and len(one["sources"]) == 64
    moved = order_identity(make(LengthBucketsOptions(odds="grow_p2"), rows, sources=["elsewhere"] * 3000))
    assert moved == one
    split = order_identity(make(LengthBucketsOptions(odds="grow_p2"), rows, sources=["a"] * 2999 + ["b"]))
    assert split != one
    scores: Any = [
        order_identity(
            make(CyclicalOptions(score="column", column="x"), rows, num_epochs=2, scores=[v] * 3000)
        )
        for v in (1.0, 2.0)
    ]
    assert scores[0] != scores[1] and scores[0]["num_steps"] > 0
    deco: Any = order_identity(make(DecompositionOptions(cycles=2, min_log2=4), powers(40), max_tokens=64))
    assert (deco["cycles"], deco["tokens_per_step"], deco["weighting"]) == (2, 64, "released")


class TestSources:
    def test_a_source_of_long_rows_is_warned_of(self):
        found = list(source_lines([0, 0, 0, 1, 1, 1], ["a", "a", "a", "b", "b", "b"]))
        assert found[0].startswith("sources     Cramer's V of length and source 1.00")
        assert [line.strip() for line in found[1:3]] == ["a: 3, 0", "b: 0, 3"]
        assert found[3].startswith("WARNING     it is above 0.3")

    def test_an_even_mix_is_not(self):
        found = list(source_lines([0, 1, 0, 1], ["a", "a", "b", "b"]))
        assert found[0].startswith("sources     Cramer's V of length and source 0.00") and len(found) == 3

    def test_one_source_has_nothing_to_say(self):
        assert list(source_lines([0, 1], ["a", "a"])) == []

    def test_it_is_printed_with_the_buckets(self):
        rows = lengths(3000)
        found = lines(
            LengthBucketsOptions(odds="grow_p2"), rows, sources=["x" if n > 300 else "y" for n in rows]
        )
        assert any(line.startswith("WARNING     it is above 0.3") for line in found)


def test_the_context_line():
    """l (l - 1) / 2 tokens are seen by a row of l: 1 and 6, by 6 tokens."""
    assert context_line([2, 4]).startswith("context     mean length 3.0 tokens; average context seen 1.2")


def test_limits_of_a_window_are_those_of_a_pairs_longer_sequence():
    """The rows of pairs count both of their sequences: 20 to 400 tokens are sequences of 10 to 200."""
    rows = list(range(20, 401, 2))
    options = WindowOptions(start=50, end=150)
    order = make(options, rows, sequences_per_row=2, num_epochs=4.0)
    assert (order.start, order.end) == (100, 300)
    found = list(curriculum_lines(options, order, lengths=[n // 2 for n in rows], sources=rows, seed=0))
    assert "rows up to 50 tokens at first, up to 150 after" in found[0]
    assert "10 to" in found[1 if "before their time" not in found[1] else 2]
