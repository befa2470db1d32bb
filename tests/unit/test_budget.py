from __future__ import annotations

import pytest

from lengthwise.budget import LimitReached, Limits, Meter, Prices
from lengthwise.config import ConfigError
from lengthwise.records import Completion, Usage

PRICES = Prices(prompt_per_million=2.0, cached_per_million=0.5, completion_per_million=10.0)


def usage(prompt: int = 0, cached: int = 0, generated: int = 0) -> Usage:
    return Usage(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=generated)


@pytest.mark.parametrize(
    ("spent", "dollars"),
    [
        (usage(), 0.0),
        (usage(prompt=1_000_000), 2.0),
        (usage(prompt=1_000_000, cached=1_000_000), 0.5),
        (usage(prompt=1_000_000, cached=400_000), 1.4),  # 0.6 million at 2, 0.4 million at 0.5
        (usage(generated=123), 0.00123),
        (usage(prompt=1_000_000, cached=400_000, generated=1_000_000), 11.4),
    ],
)
def test_cost(spent, dollars):
    assert PRICES.cost_usd(spent) == pytest.approx(dollars, abs=1e-12)


def test_cached_tokens_cost_as_any_where_no_price_is_given():
    prices = Prices(prompt_per_million=2.0, completion_per_million=10.0)
    assert prices.cost_usd(usage(prompt=1_000_000, cached=1_000_000)) == 2.0


@pytest.mark.parametrize(
    ("limits", "spent", "seconds", "name"),
    [
        (Limits(), usage(generated=10**12), 1e9, None),
        (Limits(max_generated_tokens=100), usage(prompt=1000, generated=99), 0, None),
        (Limits(max_generated_tokens=100), usage(generated=100), 0, "max_generated_tokens"),
        (Limits(max_cost_usd=1.0, prices=PRICES), usage(generated=99_999), 0, None),
        (Limits(max_cost_usd=1.0, prices=PRICES), usage(generated=100_000), 0, "max_cost_usd"),
        (Limits(max_minutes=1.5), usage(), 89.9, None),
        (Limits(max_minutes=1.5), usage(), 90.0, "max_minutes"),
        (Limits(max_minutes=1, max_generated_tokens=5), usage(generated=5), 60, "max_generated_tokens"),
    ],
)
def test_limits(limits, spent, seconds, name):
    clock = iter([0.0]).__next__
    meter = Meter(usage=spent, limits=limits, clock=clock)
    meter.clock = lambda: seconds
    found = meter.reached()
    assert (found and found.name) == name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_generated_tokens": 0}, "max_generated_tokens is 0: it must be above 0"),
        ({"max_minutes": -1.0}, "max_minutes is -1.0"),
        ({"max_cost_usd": 5.0}, r"max_cost_usd is 5, but there are no prices: add prices: \{prompt_per"),
    ],
)
def test_limits_that_make_no_sense(fields, message):
    with pytest.raises(ConfigError, match=message):
        Limits(**fields)


def test_a_negative_price_is_refused():
    with pytest.raises(ConfigError, match="prices.prompt_per_million is -1"):
        Prices(prompt_per_million=-1.0, completion_per_million=1.0)


def test_a_meter_goes_on_from_earlier_starts():
    now = [0.0]
    meter = Meter(
        usage=usage(prompt=100, generated=1000),
        num_calls=7,
        limits=Limits(prices=PRICES, max_minutes=2),
        clock=lambda: now[0],
    )
    assert meter.tokens_per_second == 0.0  # the model still loads
    now[0] = 30.0
    meter.begin_samples()
    meter.add([Completion(text="x", finish_reason="stop", num_tokens=50, usage=usage(10, 4, 50))])
    now[0] = 40.0
    assert meter.to_dict() == {
        "prompt_tokens": 110,
        "cached_tokens": 4,
        "completion_tokens": 1050,
        "num_calls": 8,
    }
    assert meter.tokens_per_second == 5.0  # of this start, the load left out
    assert meter.seconds_left == 80.0  # of this start, the load included
    assert meter.cost_usd == pytest.approx((106 * 2 + 4 * 0.5 + 1050 * 10) / 1e6)
    assert meter.cost_dict(num_kept=4) == {"usd": 0.010714, "usd_per_kept": 0.002678}
    assert meter.cost_dict(num_kept=0) == {"usd": 0.010714, "usd_per_kept": None}
    assert meter.summary(4, "kept row") == (
        "1,050 generated tokens in 8 calls, 0.0107 US dollars (0.002678 per kept row)"
    )


def test_without_prices_there_is_no_cost():
    meter = Meter(usage=usage(generated=3), num_calls=1)
    assert meter.cost_usd is None and meter.cost_dict(3) is None
    assert meter.summary(1, "kept row") == "3 generated tokens in 1 calls"


def test_the_message_says_which_limit_how_far_and_what_goes_on():
    limit = LimitReached("max_cost_usd", "5.01 of 5.00 US dollars were spent")
    limit.how_far = "3 of 9 inputs have ended."
    assert str(limit) == (
        "max_cost_usd is reached: 5.01 of 5.00 US dollars were spent. 3 of 9 inputs have ended. What is "
        "finished is saved: start the same command with a larger max_cost_usd to go on"
    )
