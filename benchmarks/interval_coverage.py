"""Prints how often our 95 % intervals hold the truth, on data sets drawn from known distributions.

    python benchmarks/interval_coverage.py [--num_sets 3000] [--num_resamples 999]

Each line is one interval on one distribution: of so many simulated data sets, the share whose interval holds the
true value. Scenarios marked `*` are those for which 93 to 97 % are promised (at least 200 items, shares in 0.1 to
0.9, at least 40 clusters, errors near normal for RMSE); the others show where the promise ends. The seeds are
fixed. Bootstrap intervals take 999 resamples here, where the toolkit takes 10,000: the bounds are then a little
noisier. Exit code 1 if a promise is broken. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lengthwise.bootstrap_intervals import bootstrap_interval, median_interval, rmse_interval
from lengthwise.paired import paired_bootstrap, paired_difference
from lengthwise.statistics import Interval, mean_interval, share_interval, wilson_interval

LEAST, MOST = 0.93, 0.97


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """An interval, and where its data come from."""

    interval: str
    data: str
    truth: float
    draw: Callable[[Any, int], Interval]
    """Draws one data set from a generator and returns its interval; takes the resamples of a bootstrap."""
    promised: bool = True
    is_bootstrap: bool = False

    @property
    def name(self) -> str:
        """Interval and data."""
        return f"{self.interval}: {self.data}"


def coverage(scenario: Scenario, num_sets: int, num_resamples: int) -> tuple[float, float]:
    """Return the share of intervals that hold the truth, and the mean width of an interval.

    A data set without an interval counts as a miss.
    """
    stream = np.random.default_rng(zlib.crc32(scenario.name.encode()))
    hits, width = 0, 0.0
    for _ in range(num_sets):
        found = scenario.draw(stream, num_resamples)
        if found.low is None or found.high is None:
            continue
        hits += found.low <= scenario.truth <= found.high
        width += found.high - found.low
    return hits / num_sets, width / num_sets


def scenarios() -> Iterator[Scenario]:
    """Return all of them."""
    for n in (50, 200, 1000):
        for share in (0.05, 0.1, 0.3, 0.5, 0.7, 0.9):
            yield _wilson(n, share)
    for n, promised in ((20, False), (200, True)):
        yield _mean(n, "normal", lambda g, n: g.normal(2.0, 1.0, n), 2.0, promised)
        yield _mean(n, "exponential", lambda g, n: g.exponential(1.0, n), 1.0, promised)
        # Scores with a floor and a ceiling, many at 0: as S_l of a model that writes too little.
        yield _mean(
            n, "0 or beta(5,2)", lambda g, n: g.beta(5, 2, n) * (g.random(n) < 0.6), 0.6 * 5 / 7, promised
        )
    for num, size in ((10, 20), (40, 5), (100, 4)):
        for alike in (0.1, 0.5):
            yield _clustered_mean(num, size, alike)
            for share in (0.1, 0.5, 0.9):
                yield _clustered_share(num, size, alike, share)
    yield from _bootstraps()
    yield from _differences()


def _wilson(n: int, share: float) -> Scenario:
    return Scenario(
        interval="wilson_interval",
        data=f"n {n}, p {share}",
        truth=share,
        draw=lambda g, _: wilson_interval(int(g.binomial(n, share)), n),
        promised=n >= 200 and 0.1 <= share <= 0.9,
    )


def _mean(n: int, name: str, values: Callable[[Any, int], Any], truth: float, promised: bool) -> Scenario:
    return Scenario(
        interval="mean_interval",
        data=f"n {n}, {name}",
        truth=truth,
        draw=lambda g, _: mean_interval(values(g, n).tolist()),
        promised=promised,
    )


def _clusters(num: int, size: int) -> list[int]:
    return np.repeat(np.arange(num), size).tolist()


def normal_clusters(stream: Any, num: int, size: int, alike: float, truth: float = 1.0) -> list[float]:
    """Return normal values of variance 1 whose correlation within a cluster is `alike`."""
    shared = np.repeat(stream.normal(0, math.sqrt(alike), num), size)
    return (truth + shared + stream.normal(0, math.sqrt(1 - alike), num * size)).tolist()


def share_clusters(stream: Any, num: int, size: int, alike: float, share: float) -> list[float]:
    """Return zeros and ones whose correlation within a cluster is `alike`: beta-binomial clusters."""
    scale = (1 - alike) / alike
    chances = stream.beta(share * scale, (1 - share) * scale, num)
    return (stream.random(num * size) < np.repeat(chances, size)).astype(float).tolist()


def _clustered_mean(num: int, size: int, alike: float) -> Scenario:
    groups = _clusters(num, size)
    return Scenario(
        interval="mean_interval",
        data=f"{num} clusters of {size}, correlation {alike}, normal",
        truth=1.0,
        draw=lambda g, _: mean_interval(normal_clusters(g, num, size, alike), clusters=groups),
        promised=num >= 40,
    )


def _clustered_share(num: int, size: int, alike: float, share: float) -> Scenario:
    groups = _clusters(num, size)
    return Scenario(
        interval="share_interval",
        data=f"{num} clusters of {size}, correlation {alike}, p {share}",
        truth=share,
        draw=lambda g, _: share_interval(share_clusters(g, num, size, alike, share), clusters=groups),
        promised=num >= 40,
    )


def _bootstraps() -> Iterator[Scenario]:
    """Return the percentile intervals of one run."""
    groups = _clusters(40, 5)
    for name, values, truth in (
        ("normal", lambda g: g.normal(1.0, 1.0, 200), 1.0),
        ("log-normal", lambda g: g.lognormal(0.0, 1.0, 200), 1.0),
    ):
        yield Scenario(
            interval="median_interval",
            data=f"n 200, {name}",
            truth=truth,
            draw=lambda g, k, values=values: median_interval(values(g).tolist(), 0, num_resamples=k),
            is_bootstrap=True,
        )
    for name, values, truth, promised in (
        ("normal errors with a bias", lambda g: g.normal(0.5, 1.0, 200), math.sqrt(1.25), True),
        ("Laplace errors", lambda g: g.laplace(0.0, 1.0, 200), math.sqrt(2), False),
        ("log-normal errors", lambda g: g.lognormal(0.0, 1.0, 200), math.e, False),
    ):
        yield Scenario(
            interval="rmse_interval",
            data=f"n 200, {name}",
            truth=truth,
            draw=lambda g, k, values=values: rmse_interval(values(g).tolist(), 0, num_resamples=k),
            promised=promised,
            is_bootstrap=True,
        )
    yield Scenario(
        interval="rmse_interval",
        data="40 clusters of 5, correlation 0.3, normal errors",
        truth=math.sqrt(1.25),
        draw=lambda g, k: rmse_interval(
            normal_clusters(g, 40, 5, 0.3, truth=0.5), 0, clusters=groups, num_resamples=k
        ),
        is_bootstrap=True,
    )
    yield Scenario(
        interval="bootstrap_interval",
        data="n 200, ratio of sums",
        truth=0.5,
        draw=lambda g, k: bootstrap_interval(_ratio, _passed_of(g, 200, 0.5), num_resamples=k),
        is_bootstrap=True,
    )


def _ratio(rows: Any) -> Any:
    return rows[..., 0].sum(-1) / rows[..., 1].sum(-1)


def _passed_of(stream: Any, n: int, share: float) -> Sequence[tuple[float, float]]:
    """Return (passed, checks) of n documents with 15 to 20 checks each, some documents easier than others."""
    checks = stream.integers(15, 21, n)
    passed = stream.binomial(checks, stream.beta(4 * share, 4 * (1 - share), n))
    return list(zip(passed.tolist(), checks.tolist(), strict=True))


def _differences() -> Iterator[Scenario]:
    """Return the intervals of two models on the same 200 items."""

    def pairs(g: Any, shift: float) -> tuple[list[float], list[float]]:
        items = g.normal(0, 1, 200)
        return (items + shift + g.normal(0, 0.7, 200)).tolist(), (items + g.normal(0, 0.7, 200)).tolist()

    for summary in ("mean", "median"):
        yield Scenario(
            interval="paired_difference",
            data=f"n 200, {summary}",
            truth=0.2,
            draw=lambda g, k, s=summary: paired_difference(*pairs(g, 0.2), summary=s, num_resamples=k),
            is_bootstrap=summary == "median",
        )

    def errors(g: Any) -> tuple[list[float], list[float]]:
        items = g.normal(0, 1, 200)
        return (1.2 * items + g.normal(0, 0.5, 200)).tolist(), (items + g.normal(0, 0.5, 200)).tolist()

    yield Scenario(
        interval="paired_difference",
        data="n 200, rmse",
        truth=math.sqrt(1.69) - math.sqrt(1.25),
        draw=lambda g, k: paired_difference(*errors(g), summary="rmse", num_resamples=k),
        is_bootstrap=True,
    )
    yield Scenario(
        interval="paired_difference",
        data="n 200, shares 0.5 and 0.4",
        truth=0.1,
        draw=lambda g, _: paired_difference(
            *((u := g.random(200)) < 0.5, np.where(g.random(200) < 0.5, u, g.random(200)) < 0.4)
        ),
    )
    yield Scenario(
        interval="paired_bootstrap",
        data="n 200, ratio of sums",
        truth=0.1,
        draw=lambda g, k: paired_bootstrap(
            _ratio, _passed_of(g, 200, 0.6), _passed_of(g, 200, 0.5), num_resamples=k
        ),
        is_bootstrap=True,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate all scenarios and print their coverage."""
    parser = argparse.ArgumentParser(description="Coverage of the 95 % intervals.", allow_abbrev=False)
    parser.add_argument(
        "--num_sets",
        type=int,
        default=3000,
        help="simulated data sets, half as many for a bootstrap (default: 3000)",
    )
    parser.add_argument("--num_resamples", type=int, default=999, help="of a bootstrap (default: 999)")
    arguments = parser.parse_args(argv)
    begun, rows, broken = time.process_time(), [], []
    print(f"{'interval':<20}{'data':<52}{'coverage':>9}{'mean width':>12}")
    for scenario in scenarios():
        num_sets = arguments.num_sets // 2 if scenario.is_bootstrap else arguments.num_sets
        share, width = coverage(scenario, num_sets, arguments.num_resamples)
        mark = "*" if scenario.promised else " "
        print(f"{mark} {scenario.interval:<18}{scenario.data:<52}{share:>9.3f}{width:>12.4f}", flush=True)
        rows.append(
            {"scenario": scenario.name, "coverage": share, "promised": scenario.promised, "sets": num_sets}
        )
        if scenario.promised and not LEAST <= share <= MOST:
            broken.append(scenario.name)
    promised = [row["coverage"] for row in rows if row["promised"]]
    figures = {
        "benchmark": "interval_coverage",
        "num_sets": arguments.num_sets,
        "num_resamples": arguments.num_resamples,
        "promised": len(promised),
        "least": min(promised),
        "most": max(promised),
        "broken": broken,
        "cpu_seconds": round(time.process_time() - begun, 1),
        "rows": rows,
    }
    print(json.dumps(figures))
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
