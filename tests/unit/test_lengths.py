from __future__ import annotations

import math

import pytest

from lengthwise.lengths import (
    COUNTERS,
    TLG_LEVELS,
    TLG_TARGETS,
    TLG_WINDOWS,
    count_all,
    length_bin,
    lifebench_length_score,
    log_length_ratio,
    longbench_length_score,
    longen_score,
    tlg_level,
    tlg_match,
)
from lengthwise.records import LengthTarget


def test_count_all_names_every_counter_and_no_tokens() -> None:
    assert set(count_all("one two")) == {"cjk_alpha", "cjk_ws", "cjk_alnum", "regex_w", "whitespace"}
    assert count_all("one two") == dict.fromkeys(COUNTERS, 2)
    assert count_all("") == dict.fromkeys(COUNTERS, 0)


def test_a_cjk_character_separates_words_under_cjk_ws() -> None:
    assert COUNTERS["cjk_ws"]("one中two") == 3
    assert COUNTERS["cjk_ws"]("one，two") == 3


@pytest.mark.parametrize("required", [0, -5, math.nan])
def test_a_required_length_must_be_positive(required: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        longbench_length_score(required, 100)
    with pytest.raises(ValueError, match="must be positive"):
        log_length_ratio(100, required)


def test_a_produced_length_is_not_negative() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        longbench_length_score(100, -1)


def test_log_length_ratio() -> None:
    assert log_length_ratio(1000, 1000) == 0
    assert log_length_ratio(2000, 1000) == pytest.approx(math.log(2))
    assert log_length_ratio(500, 1000) == pytest.approx(-math.log(2))
    assert log_length_ratio(0, 1000) is None


def test_precise_window_lies_inside_the_flexible_one() -> None:
    for (pm_low, pm_high), (fm_low, fm_high) in TLG_WINDOWS.values():
        assert fm_low <= pm_low < pm_high <= fm_high


def test_every_target_has_one_level() -> None:
    assert [target for level in TLG_LEVELS.values() for target in level] == list(TLG_TARGETS)
    assert [tlg_level(target) for target in TLG_TARGETS] == [0, 0, 0, 0, 1, 1, 1, 2, 2]


def test_unknown_tlg_target_names_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'800'.*>800"):
        tlg_match("800", 900)
    with pytest.raises(ValueError, match="'60' is not a TLG target"):
        tlg_level("60")


def test_longen_range_is_taken_as_given() -> None:
    target = LengthTarget(min=4000, max=6000, relation="range")
    assert [longen_score(target, n) for n in (2000, 3000, 4000, 6000, 7500, 9000)] == [0, 0.5, 1, 1, 0.5, 0]


def test_lifebench_bounds_forgive_the_right_side() -> None:
    at_most = LengthTarget(max=1000, relation="at_most")
    at_least = LengthTarget(min=1000, relation="at_least")
    assert lifebench_length_score(at_most, 10) == lifebench_length_score(at_least, 9999) == 100
    assert lifebench_length_score(at_most, 1500) == pytest.approx(100 * math.exp(-1))
    assert lifebench_length_score(at_least, 900) == pytest.approx(100 * math.exp(-0.5))
    with pytest.raises(ValueError, match="no ranges"):
        lifebench_length_score(LengthTarget(min=1, max=2, relation="range"), 1)


@pytest.mark.parametrize(
    ("length", "name"),
    [
        (0, "[0,500)"),
        (499, "[0,500)"),
        (500, "[500,2k)"),
        (1999, "[500,2k)"),
        (2000, "[2k,4k)"),
        (4000, "[4k,inf)"),
        (20_000, "[4k,inf)"),
        (30_000, "[4k,inf)"),
    ],
)
def test_length_bin(length: int, name: str) -> None:
    assert length_bin(length) == name


def test_length_bin_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="-1"):
        length_bin(-1)
