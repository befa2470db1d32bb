"""What length does to a judge's preference, by hand and against statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lengthwise.length_bias import length_controlled_win_rate, score_length_correlation


def judged(n: int, *, model: float, length: float, longer: float, seed: int = 0):
    """Preferences drawn from the model: log-odds `model` + `length` tanh(d / std(d)), replies `longer` longer."""
    rng = np.random.default_rng(seed)
    baseline = rng.integers(500, 3000, n).astype(float)
    ours = baseline + rng.normal(longer, 800, n)
    d = ours - baseline
    chances = 1 / (1 + np.exp(-(model + length * np.tanh(d / d.std(ddof=1)))))
    return (rng.random(n) < chances).astype(float), ours, baseline


def test_equal_lengths_change_nothing() -> None:
    rates = length_controlled_win_rate([1, 1, 1, 0] * 50, [7] * 200, [7] * 200)
    assert rates.raw.estimate == 75.0
    assert rates.controlled.estimate == pytest.approx(75.0, abs=0.01)
    # Without a length term it is the mean, and so is its standard error: 100 sqrt(0.1875 / 199).
    assert rates.controlled.stderr == pytest.approx(100 * math.sqrt(0.1875 / 199), rel=1e-3)
    assert (rates.length_coefficient, rates.suspicious) == (0.0, False)


def test_a_hand_computed_pair_of_lengths() -> None:
    """Two lengths d = +-4: the odds of each half are its own, and the mean of the two log-odds is theta."""
    wins = [1.0] * 90 + [0.0] * 10 + [1.0] * 40 + [0.0] * 60
    rates = length_controlled_win_rate(wins, [9] * 100 + [5] * 100, [5] * 100 + [9] * 100, ridge=1e-9)
    theta = (math.log(9) + math.log(40 / 60)) / 2
    assert rates.raw.estimate == pytest.approx(65.0)
    assert rates.controlled.estimate == pytest.approx(100 / (1 + math.exp(-theta)), abs=1e-4)
    phi = (math.log(9) - math.log(40 / 60)) / 2 / math.tanh(4 / np.std([4] * 100 + [-4] * 100, ddof=1))
    assert rates.length_coefficient == pytest.approx(phi, abs=1e-4)


def test_the_fit_is_statsmodels_logit() -> None:
    import statsmodels.api as sm

    wins, ours, baseline = judged(400, model=0.4, length=1.5, longer=600)
    difficulty = np.random.default_rng(1).normal(0, 1, 400)
    rates = length_controlled_win_rate(
        wins.tolist(), ours.tolist(), baseline.tolist(), difficulties=difficulty.tolist(), ridge=1e-9
    )
    d = ours - baseline
    design = np.column_stack([np.ones(400), np.tanh(d / d.std(ddof=1)), difficulty])
    fit = sm.GLM(wins, design, family=sm.families.Binomial()).fit()
    assert rates.length_coefficient == pytest.approx(fit.params[1], abs=1e-5)
    neutral = design * [1, 0, 1]
    assert rates.controlled.estimate == pytest.approx(100 * fit.predict(neutral).mean(), abs=1e-4)


def test_the_standard_error_is_that_of_a_bootstrap() -> None:
    wins, ours, baseline = judged(300, model=0.3, length=1.0, longer=400)
    found = length_controlled_win_rate(wins.tolist(), ours.tolist(), baseline.tolist()).controlled
    rng, draws = np.random.default_rng(3), []
    for _ in range(300):
        rows = rng.integers(0, 300, 300)
        again = length_controlled_win_rate(wins[rows].tolist(), ours[rows].tolist(), baseline[rows].tolist())
        draws.append(again.controlled.estimate)
    assert found.stderr == pytest.approx(np.std(draws), rel=0.15)


def test_a_win_by_length_alone_is_flagged() -> None:
    wins, ours, baseline = judged(2000, model=0.0, length=2.0, longer=1000)
    rates = length_controlled_win_rate(wins.tolist(), ours.tolist(), baseline.tolist())
    assert rates.raw.estimate > 70
    assert rates.controlled.stderr is not None
    assert abs(rates.controlled.estimate - 50) < 3 * rates.controlled.stderr
    assert rates.shift == pytest.approx(rates.raw.estimate - rates.controlled.estimate)
    assert rates.suspicious
    fair, ours, baseline = judged(2000, model=0.5, length=0.0, longer=1000)
    assert not length_controlled_win_rate(fair.tolist(), ours.tolist(), baseline.tolist()).suspicious


def test_soft_preferences_and_lost_causes() -> None:
    soft = length_controlled_win_rate([0.75] * 10, list(range(10)), [5] * 10)
    assert soft.controlled.estimate == pytest.approx(75, abs=0.2)
    won = length_controlled_win_rate([1.0] * 10, list(range(10)), [5] * 10)
    assert 99 < won.controlled.estimate <= 100
    # Length alone tells every preference: the ridge keeps the coefficient finite.
    told = length_controlled_win_rate([1, 1, 1, 0, 0, 0], [9, 8, 7, 3, 2, 1], [5] * 6)
    assert math.isfinite(told.length_coefficient) and told.length_coefficient > 3
    assert told.controlled.estimate == pytest.approx(50, abs=0.5)


def test_clusters_widen_it() -> None:
    wins, ours, baseline = (v.tolist() for v in judged(100, model=0.3, length=1.0, longer=400))
    alone = length_controlled_win_rate(wins, ours, baseline).controlled
    twice = length_controlled_win_rate(
        wins * 2, ours * 2, baseline * 2, clusters=list(range(100)) * 2
    ).controlled
    assert twice.stderr == pytest.approx(alone.stderr, rel=0.01)
    assert twice.method.endswith("clustered (100 clusters, 99 degrees of freedom)")


@pytest.mark.parametrize(
    ("preferences", "lengths", "message"),
    [
        ([1.5, 0.0], [1, 2], "a preference lies in 0..1"),
        ([1.0, 0.0], [1], "lengths has 1 values for 2 items"),
        ([1.0, 0.0], [5, 5], "cannot be told apart"),
        ([], [], "preferences is empty"),
    ],
)
def test_nonsense_is_refused(preferences, lengths, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        length_controlled_win_rate(preferences, lengths, [1] * len(lengths))


def test_spearman_by_hand() -> None:
    # Ranks 1..5 against 1, 2, 5, 4, 3: sum of d^2 is 8, rho 1 - 6 * 8 / (5 * 24) = 0.6.
    found = score_length_correlation([1, 2, 3, 4, 5], [10, 20, 50, 40, 30])
    assert found.estimate == pytest.approx(0.6)
    half = 1.959964 * math.sqrt((1 + 0.18) / 2)
    assert (found.low, found.high) == pytest.approx(
        (math.tanh(math.atanh(0.6) - half), math.tanh(math.atanh(0.6) + half)), abs=1e-6
    )


def test_spearman_is_scipys_with_ties_and_by_cluster() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 6, 60).astype(float)
    scores = lengths + rng.integers(-3, 4, 60)
    alone = score_length_correlation(scores.tolist(), lengths.tolist())
    assert alone.estimate == pytest.approx(spearmanr(scores, lengths).statistic)
    shared = score_length_correlation(scores.tolist(), lengths.tolist(), clusters=[i // 3 for i in range(60)])
    assert shared.estimate == pytest.approx(alone.estimate)
    assert shared.method.endswith("clustered (20 clusters)")
    assert shared.low is not None and shared.high is not None and shared.low < alone.estimate < shared.high


def test_a_perfect_or_missing_correlation_has_no_interval() -> None:
    perfect = score_length_correlation([1, 2, 3, 4], [1, 4, 9, 16])
    assert (perfect.estimate, perfect.low) == (pytest.approx(1.0), None)
    with pytest.raises(ValueError, match="needs both to vary"):
        score_length_correlation([1, 1, 1], [1, 2, 3])
