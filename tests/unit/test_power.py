"""What a number of items can show, and where it is said."""

from __future__ import annotations

import math

import pytest

from evals.results import results_document, summarise
from evals.results_table import format_table
from lengthwise.power import minimum_detectable_difference, num_items_needed

Z = 1.959964 + 0.841621


def test_the_least_difference_by_hand() -> None:
    assert minimum_detectable_difference(0.05, paired=True) == pytest.approx(Z * 0.05, abs=1e-6)
    assert minimum_detectable_difference(0.05, paired=False) == pytest.approx(
        Z * 0.05 * math.sqrt(2), abs=1e-6
    )
    # 90 %, 1 %: 2.575829 + 1.281552
    assert minimum_detectable_difference(1.0, paired=True, power=0.9, alpha=0.01) == pytest.approx(
        3.857381, abs=1e-5
    )


@pytest.mark.parametrize("stderr", [None, 0.0])
def test_no_spread_shows_nothing(stderr: float | None) -> None:
    assert minimum_detectable_difference(stderr, paired=False) is None


def test_items_needed_by_hand() -> None:
    # 7.84888 * (0.1111 + 0.1667 / 1 + 0.1667 / 1) / 0.0009 = 3875.99
    spread = {"variance": 1 / 9, "reply_variances": (1 / 6, 1 / 6)}
    assert num_items_needed(0.03, **spread) == 3876
    # Ten replies each: 7.84888 * (0.1111 + 0.0333) / 0.0009 = 1259.7
    assert num_items_needed(-0.03, **spread, num_replies=(10, 10)) == 1260


def test_items_needed_and_least_difference_agree() -> None:
    n = num_items_needed(0.1, variance=0.5)
    found = minimum_detectable_difference(math.sqrt(0.5 / n), paired=True)
    assert found == pytest.approx(0.1, rel=0.01)
    assert found <= 0.1


def test_the_power_is_what_it_says() -> None:
    import numpy as np

    from lengthwise.paired import paired_difference

    rng = np.random.default_rng(0)
    n = num_items_needed(0.25, variance=1.0)
    found = 0
    for _ in range(1000):
        p_value = paired_difference(rng.normal(0.25, 1.0, n).tolist(), [0.0] * n).p_value
        assert p_value is not None
        found += p_value < 0.05
    assert 0.76 < found / 1000 < 0.84


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minimum_detectable_difference(1.0, paired=True, power=1.0), "power is 1.0"),
        (lambda: minimum_detectable_difference(1.0, paired=True, alpha=0.9), "alpha 0.9"),
        (lambda: num_items_needed(0.0, variance=1.0), "difference is 0.0"),
        (lambda: num_items_needed(0.1, variance=-1.0), "none may be negative"),
        (lambda: num_items_needed(0.1, variance=1.0, num_replies=(0, 1)), "at least 1 reply"),
    ],
)
def test_nonsense_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_table_says_what_n_can_show() -> None:
    from evals.results import Tally
    from evals.tasks import tlg

    tally = Tally()
    flags = {"empty": False, "truncated": False, "repetition": 0.0}
    for index in range(54):
        metrics = {"pm": float(index < 27), "fm": 1.0}
        tally.add({"id": str(index), "metrics": metrics, "flags": flags, "slices": {}})
    found = {"tlg": summarise(tlg, tally)}
    # stderr sqrt(0.25 / 54) = 0.068; times 2.8016 sqrt(2)
    assert found["tlg"]["overall"]["pm"]["mdd"] == pytest.approx(0.26958, abs=1e-4)
    line = format_table({"tlg": tlg}, found).splitlines()[-1]
    assert line == (
        "tlg: with n = 54, two models must differ by about 0.27 in pm to be told apart "
        "(80 % power, 5 % level, unpaired)"
    )
    row = results_document({"tlg": tlg}, found)["results"]["tlg"]
    assert (row["pm_mdd,none"], row["fm_mdd,none"]) == (found["tlg"]["overall"]["pm"]["mdd"], None)
