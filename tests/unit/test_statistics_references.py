"""Our intervals and tests against those of scipy and statsmodels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from lengthwise.bootstrap_intervals import bootstrap_interval, median_interval, rmse_interval
from lengthwise.paired import holm, mcnemar_p_value, paired_bootstrap, paired_difference
from lengthwise.statistics import mean_interval, share_interval, wilson_interval
from lengthwise.summaries import as_summary, item_value, summary_interval, summary_of


def sample(n: int, seed: int = 0) -> list[float]:
    return np.random.default_rng(seed).gamma(2.0, 3.0, n).tolist()


def ratio(rows: Any) -> Any:
    return rows[..., 0].sum(-1) / rows[..., 1].sum(-1)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(0, 7), (3, 7), (7, 7), (41, 200), (900, 1000)])
def test_wilson_is_statsmodels(successes: int, n: int, confidence: float) -> None:
    from statsmodels.stats.proportion import proportion_confint

    found = wilson_interval(successes, n, confidence=confidence)
    expected = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [2, 5, 200])
def test_the_mean_is_scipys_t(n: int) -> None:
    values = sample(n)
    found, expected = mean_interval(values), stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_clustered_means_are_least_squares_with_a_cluster_covariance() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    groups = rng.integers(0, 25, 120)
    values = rng.normal(0, 1, 25)[groups] + rng.normal(0, 1, 120)
    fit = sm.OLS(values, np.ones(120)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    found = mean_interval(values.tolist(), clusters=groups.tolist())
    assert found.stderr == pytest.approx(fit.bse[0])
    assert (found.low, found.high) == pytest.approx(tuple(fit.conf_int()[0]))
    assert found.method == "t, clustered (25 clusters, 24 degrees of freedom)"
    plain = mean_interval(values.tolist())
    assert plain.stderr is not None and found.stderr is not None
    assert found.stderr > 1.5 * plain.stderr


@pytest.mark.parametrize("num", [39, 40, 41, 400])
def test_t_with_one_less_than_the_clusters_at_every_number(num: int) -> None:
    values = sample(2 * num)
    found = mean_interval(values, clusters=[i // 2 for i in range(2 * num)])
    assert found.high is not None and found.stderr is not None
    assert (found.high - found.estimate) / found.stderr == pytest.approx(stats.t.ppf(0.975, num - 1))
    assert found.method == f"t, clustered ({num} clusters, {num - 1} degrees of freedom)"


def test_paired_t_is_scipys() -> None:
    a, b = sample(30, 1), sample(30, 2)
    found, expected = paired_difference(a, b), stats.ttest_rel(a, b)
    bounds = expected.confidence_interval(0.95)
    assert (found.p_value, found.low, found.high) == pytest.approx((expected.pvalue, bounds.low, bounds.high))


@pytest.mark.parametrize("seed", range(4))
def test_mcnemar_is_statsmodels_exact(seed: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    rng = np.random.default_rng(seed)
    a, b = rng.random(60) < 0.7, rng.random(60) < 0.5
    counts = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    assert mcnemar_p_value(a.tolist(), b.tolist()) == pytest.approx(mcnemar(counts, exact=True).pvalue)


def test_holm_is_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    p_values = np.random.default_rng(5).random(12) ** 3
    assert holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


# Shares in clusters


def test_a_share_without_clusters_is_wilsons() -> None:
    values = [1.0, 0.0, 1.0, 1.0]
    assert share_interval(values) == wilson_interval(3, 4)
    assert share_interval(values, clusters=list("abcd")) == wilson_interval(3, 4)


def test_a_share_in_clusters_is_wilsons_of_fewer_items() -> None:
    # Three clusters, (1, 1), (0, 1), (0, 0): stderr^2 1/12, n' = 3, t(0.975, 2) = 4.3027.
    # (0.5 +- 4.3027 sqrt(1/12 + 18.513/36) ... ) / (1 + 18.513/3), as Wilson's formula has it.
    found = share_interval([1.0, 1.0, 0.0, 1.0, 0.0, 0.0], clusters=list("aabbcc"))
    assert found.stderr == pytest.approx(12**-0.5)
    assert (found.low, found.high) == pytest.approx((0.0361, 0.9639), abs=1e-4)
    assert found.method == "wilson, clustered (3 clusters, 2 degrees of freedom)"


def test_copies_add_no_certainty_to_a_share() -> None:
    values = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    once, twice = wilson_interval(6, 8), share_interval(values * 2, clusters=list(range(8)) * 2)
    assert once.low is not None and once.high is not None
    assert twice.low is not None and twice.high is not None
    assert twice.low < once.low and once.high < twice.high  # t's quantile, and C - 1


def test_a_share_where_all_agree_counts_its_clusters() -> None:
    found = share_interval([1.0] * 12, clusters=[i // 3 for i in range(12)])
    t = stats.t.ppf(0.975, 3)
    assert (found.low, found.high) == pytest.approx((1 / (1 + t**2 / 4), 1.0))
    assert share_interval([1.0, 1.0], clusters=["a", "a"]).low is None
    with pytest.raises(ValueError, match="a share lies in 0..1"):
        share_interval([0.5, 1.5])


# The bootstrap


def test_rmse_of_several_replies_takes_the_mean_square_of_an_item_first() -> None:
    # Item a: mean of 1 and 49 is 25; item b: 7. sqrt((25 + 7) / 2).
    found = summary_interval([("a", "a", 1.0), ("a", "a", -7.0), ("b", "b", 7**0.5)], "rmse")
    assert found is not None
    assert (found.estimate, found.n) == (pytest.approx(4.0), 2)
    assert item_value([1.0, -7.0], "rmse") == 5.0
    assert summary_of([1.0, 7.0], "rmse") == 5.0
    assert summary_interval([], "rmse") is None


def test_bca_is_scipys_but_for_the_wider_tails() -> None:
    values = np.asarray(sample(200))
    wide = stats.t.ppf(0.975, 199) * (200 / 199) ** 0.5  # what a normal quantile of 95 % becomes
    expected = stats.bootstrap(
        (values,),
        lambda x, axis: np.sqrt((x**2).mean(axis=axis)),
        n_resamples=4999,
        confidence_level=2 * stats.norm.cdf(wide) - 1,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = rmse_interval(values.tolist(), 0, num_resamples=4999)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-3)
    assert found.method == "bootstrap BCa, 4999 resamples, seed 0"


def test_two_clusters_reach_to_the_outermost_draws() -> None:
    # Draws of two items: both the first, both the second, or one each.
    for values in ([1.0, 7.0], [7.0, 1.0]):
        found = rmse_interval(values, 0, num_resamples=99)
        assert (found.low, found.estimate, found.high) == (1.0, 5.0, 7.0)


def test_rmse_is_drawn_by_cluster() -> None:
    rng = np.random.default_rng(1)
    values = (rng.normal(0, 1, 40)[:, None] + rng.normal(0, 0.2, (40, 5))).ravel().tolist()
    groups = [i // 5 for i in range(200)]
    alone, shared = rmse_interval(values, 0), rmse_interval(values, 0, clusters=groups)
    assert alone.stderr is not None and shared.stderr is not None
    assert shared.stderr > 1.8 * alone.stderr
    assert shared.method == "bootstrap BCa, 10000 resamples, seed 0, clustered (40 clusters)"
    assert rmse_interval(values, 0, clusters=["a"] * 200).low is None
    # The same clusters of uneven size, given as rows of a composite, whose draws come one at a time.
    cut, kept = values[:-3], groups[:-3]
    rows = [(v * v, 1.0) for v in cut]
    one = bootstrap_interval(lambda x: ratio(x) ** 0.5, rows, clusters=kept, num_resamples=499)
    other = rmse_interval(cut, 0, clusters=kept, num_resamples=499)
    assert (one.estimate, one.low, one.high) == pytest.approx(
        (other.estimate, other.low, other.high), rel=0.02
    )


def test_bounds_of_few_clusters_are_wider() -> None:
    # Of five values the plain percentile bounds are quantiles 0.025 and 0.975; ours those of t with 4 degrees.
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    found = median_interval(values, 0)
    assert (found.low, found.high) == (1.0, 16.0)


def test_rmse_of_two_models() -> None:
    a, b = [3.0, -4.0, 1.0, 2.0, -2.0, 5.0], [1.0, -1.0, 1.0, 0.0, 2.0, 1.0]
    found = paired_difference(a, b, summary="rmse", num_resamples=999)
    assert found.estimate == pytest.approx((59 / 6) ** 0.5 - (8 / 6) ** 0.5)
    assert found.low is not None and found.high is not None and found.low < found.estimate < found.high
    assert found.method == "paired bootstrap BCa, 999 resamples, seed 0"
    assert paired_difference(a, b, summary="rmse", num_resamples=999) == found
    signs = paired_difference([-v for v in a], b, summary="rmse", num_resamples=999)
    assert signs == found
    same = paired_difference(a, a, summary="rmse", num_resamples=999)
    assert (same.estimate, same.low, same.p_value) == (0.0, None, 1.0)


def test_a_mean_by_the_paired_bootstrap_is_near_the_t_interval() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(0.3, 1, 300)
    b = a + rng.normal(0.1, 0.5, 300)
    exact = paired_difference(b.tolist(), a.tolist())
    drawn = paired_bootstrap(lambda x: x[..., 0].mean(-1), b[:, None].tolist(), a[:, None].tolist())
    assert drawn.estimate == pytest.approx(exact.estimate)
    assert (drawn.low, drawn.high) == pytest.approx((exact.low, exact.high), abs=0.005)
    assert drawn.method == "paired bootstrap BCa, 10000 resamples, seed 0"


def test_products_and_ratios_are_drawn_whole() -> None:
    rows = [(1.0, 0.2), (0.0, 0.4), (1.0, 0.9), (0.5, 0.5)] * 5
    product = bootstrap_interval(lambda x: x[..., 0].mean(-1) * x[..., 1].mean(-1), rows, num_resamples=99)
    assert product.estimate == pytest.approx(0.625 * 0.5)
    worse = [(v, w / 2) for v, w in rows]
    halved = paired_bootstrap(
        lambda x: x[..., 0].mean(-1) * x[..., 1].mean(-1), worse, rows, num_resamples=99
    )
    assert halved.estimate == pytest.approx(-0.5 * 0.625 * 0.5)
    assert halved.high is not None and halved.high < 0


def test_a_draw_without_a_value_leaves_no_bounds() -> None:
    # Two documents, one without checks: a draw of that one twice divides by 0.
    found = bootstrap_interval(ratio, [(1.0, 2.0), (0.0, 0.0)], num_resamples=99)
    assert (found.estimate, found.low, found.high) == (0.5, None, None)
    assert "no bounds: undefined in" in found.method
    paired = paired_bootstrap(ratio, [(1.0, 2.0), (0.0, 0.0)], [(2.0, 2.0), (0.0, 0.0)], num_resamples=99)
    assert (paired.estimate, paired.low, paired.p_value) == (-0.5, None, None)


@pytest.mark.parametrize(
    ("statistic", "rows", "message"),
    [
        (ratio, [(0.0, 0.0)], "expected one number"),
        (lambda x: x[..., 0], [(1.0, 2.0), (2.0, 3.0)], "expected one number"),
        (ratio, [(1.0, 2.0), (2.0,)], "rows of different lengths"),
        (ratio, [(1.0, float("nan"))], r"rows\[0\]\[1\] is nan"),
        (ratio, [], "rows is empty"),
    ],
)
def test_what_is_no_composite_is_refused(statistic: Any, rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(statistic, rows, num_resamples=9)


def test_a_summary_that_nobody_knows_is_the_mean() -> None:
    assert [as_summary(name) for name in ("rmse", "mode", None)] == ["rmse", "mean", "mean"]
