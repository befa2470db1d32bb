"""The promise of a 95 % interval, on a part of the distributions of benchmarks/interval_coverage.py."""

from __future__ import annotations

import pytest

from benchmarks.interval_coverage import LEAST, MOST, Scenario, coverage, scenarios

CHOSEN = (
    "n 200, p 0.1",
    "n 200, p 0.5",
    "n 200, p 0.9",
    "n 200, exponential",
    "40 clusters of 5, correlation 0.1, normal",
    "40 clusters of 5, correlation 0.5, normal",
    "40 clusters of 5, correlation 0.1, p 0.1",
    "100 clusters of 4, correlation 0.5, p 0.5",
    "n 200, mean",
    "n 200, shares 0.5 and 0.4",
)
BOOTSTRAPS = ("n 200, normal errors with a bias", "n 200, normal", "n 200, rmse")


def chosen(data: tuple[str, ...], *, is_bootstrap: bool) -> list[Scenario]:
    return [s for s in scenarios() if s.promised and s.data in data and s.is_bootstrap == is_bootstrap]


@pytest.mark.parametrize("scenario", chosen(CHOSEN, is_bootstrap=False), ids=lambda s: s.name)
def test_an_interval_with_a_formula_holds_the_truth_as_often_as_it_says(scenario: Scenario) -> None:
    share, width = coverage(scenario, 2000, 0)
    assert LEAST <= share <= MOST
    assert width > 0


@pytest.mark.parametrize("scenario", chosen(BOOTSTRAPS, is_bootstrap=True), ids=lambda s: s.name)
def test_a_bootstrap_interval_holds_the_truth_as_often_as_it_says(scenario: Scenario) -> None:
    # The band itself needs the benchmark's 1500 sets and 999 resamples; 500 sets have a standard error of 0.01, of
    # which two are left here, and 399 resamples cost half a point.
    share, _ = coverage(scenario, 500, 399)
    assert LEAST - 0.02 <= share <= MOST + 0.02


def test_intervals_that_ignore_clusters_would_be_seen() -> None:
    """The simulation can fail: the same data without their clusters hold the truth far too seldom."""
    from benchmarks.interval_coverage import normal_clusters
    from lengthwise.statistics import mean_interval

    blind = Scenario(
        interval="mean_interval",
        data="clusters ignored",
        truth=1.0,
        draw=lambda g, _: mean_interval(normal_clusters(g, 40, 5, 0.5)),
    )
    assert coverage(blind, 500, 0)[0] < 0.85
