"""Who is asked next: windows, pauses, and servers that are down, on a clock that the test moves."""

from __future__ import annotations

import pytest

from lengthwise.engines.endpoints import BAD_ANSWERS_IN_A_ROW, LONGEST_PAUSE_SECONDS, Endpoint, Endpoints


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pool(clock: Clock, *urls: str, ceiling: int = 16) -> Endpoints:
    return Endpoints(urls or ("a",), ceiling=ceiling, clock=clock)


def fill(endpoints: Endpoints) -> int:
    """Start requests until nobody takes one more; return how many that were."""
    number = 0
    while (endpoint := endpoints.choose()) is not None:
        endpoints.started(endpoint)
        number += 1
    return number


def answer(endpoints: Endpoints, endpoint: Endpoint) -> None:
    endpoints.started(endpoint)
    endpoints.answered(endpoint)
    endpoints.ended(endpoint)


def test_the_least_busy_server_is_next_and_the_one_to_avoid_last(clock):
    endpoints = pool(clock, "a", "b")
    a, b = endpoints.all
    assert endpoints.choose() is a
    endpoints.started(a)
    assert endpoints.choose() is b
    assert endpoints.choose(avoid=b) is a
    endpoints.unreachable(a, "gone")
    assert endpoints.choose(avoid=b) is b


def test_no_more_than_the_ceiling_are_under_way(clock):
    assert fill(pool(clock, "a", "b", ceiling=3)) == 6


# --- the window -----------------------------------------------------------------------------------


def test_an_overload_halves_what_is_under_way_once_for_all_its_requests(clock):
    endpoints = pool(clock, ceiling=100)
    (a,) = endpoints.all
    sent = [endpoints.started(a) for _ in range(40)]
    clock.now += 1
    for started in sent[:10]:
        endpoints.overloaded(a, started, "429")
    assert a.window == 20
    clock.now += 1
    later = endpoints.started(a)
    endpoints.overloaded(a, later, "429")
    assert a.window == 10
    for _ in range(20):
        clock.now += 1
        endpoints.overloaded(a, clock.now, "429")
    assert a.window == 1


def test_the_window_grows_by_one_with_each_round_of_answers(clock):
    endpoints = pool(clock, ceiling=100)
    (a,) = endpoints.all
    for _ in range(20):
        started = endpoints.started(a)
    endpoints.overloaded(a, started, "429")
    for _ in range(20):
        endpoints.ended(a)
    assert a.window == 10
    for _ in range(10):
        answer(endpoints, a)
    assert a.window == pytest.approx(11, abs=0.05)
    for _ in range(10_000):
        answer(endpoints, a)
    assert a.window == 100  # never above the ceiling


def test_a_recovered_server_starts_with_one_request_and_doubles(clock):
    endpoints = pool(clock, ceiling=16)
    (a,) = endpoints.all
    endpoints.unreachable(a, "gone")
    endpoints.recovered(a)
    sizes = []
    for _ in range(5):
        sizes.append(fill(endpoints))
        for _ in range(sizes[-1]):
            endpoints.answered(a)
            endpoints.ended(a)
    assert sizes == [1, 2, 4, 8, 8]  # from half the old window on it grows by 1 a round, here to 8.99


# --- pauses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "paused"), [(7.0, 7.0), (0.0, 0.5), (1e6, LONGEST_PAUSE_SECONDS), (None, 0.5)]
)
def test_a_pause_is_as_long_as_the_server_asks_within_reason(clock, asked, paused):
    endpoints = pool(clock)
    (a,) = endpoints.all
    endpoints.overloaded(a, endpoints.started(a), "429", asked)
    endpoints.ended(a)
    assert endpoints.choose() is None  # also after "0": a server that refuses is not asked in a tight loop
    assert endpoints.seconds_to_next_pause_end() == paused
    clock.now += paused
    assert endpoints.choose() is a
    assert endpoints.seconds_to_next_pause_end() is None


def test_pauses_of_a_server_that_names_none_double_and_end_with_an_answer(clock):
    endpoints = pool(clock)
    (a,) = endpoints.all

    def pause() -> float:
        started = endpoints.started(a)
        endpoints.overloaded(a, started, "429")
        endpoints.ended(a)
        seconds = endpoints.seconds_to_next_pause_end()
        assert seconds is not None
        clock.now += seconds
        return seconds

    assert [pause() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    a.num_pauses = 5000
    assert pause() == 30
    answer(endpoints, a)
    assert pause() == 0.5


def test_while_one_server_pauses_the_other_works(clock):
    endpoints = pool(clock, "a", "b")
    a, b = endpoints.all
    endpoints.overloaded(a, endpoints.started(a), "429", 60.0)
    assert endpoints.choose() is b


# --- down -----------------------------------------------------------------------------------------


def test_bad_answers_in_a_row_bring_a_server_down_and_one_between_does_not(clock):
    endpoints = pool(clock)
    (a,) = endpoints.all
    for _ in range(3):
        assert [endpoints.bad(a, "500") for _ in range(BAD_ANSWERS_IN_A_ROW - 1)] == [False] * 4
        answer(endpoints, a)
    downs = [endpoints.bad(a, "500") for _ in range(BAD_ANSWERS_IN_A_ROW + 2)]
    assert downs == [False] * 4 + [True, False, False]  # told once
    assert endpoints.choose() is None
    endpoints.recovered(a)
    assert endpoints.choose() is a
    assert endpoints.bad(a, "500") is False


def test_an_unreachable_server_is_down_at_once(clock):
    endpoints = pool(clock, "a", "b")
    a, b = endpoints.all
    assert endpoints.unreachable(a, "refused") is True
    assert endpoints.unreachable(a, "refused") is False
    assert endpoints.choose() is b


def test_an_answer_still_under_way_brings_a_server_back(clock):
    endpoints = pool(clock)
    (a,) = endpoints.all
    endpoints.started(a)
    endpoints.unreachable(a, "refused")
    endpoints.answered(a)
    assert endpoints.choose() is a and not a.is_down


def test_a_slow_answer_also_halves_the_window(clock):
    endpoints = pool(clock)
    (a,) = endpoints.all
    started, *_ = [endpoints.started(a) for _ in range(8)]
    clock.now += 600
    assert endpoints.slow(a, started, "no answer in 600 s") is False
    assert a.window == 4


# --- dead -----------------------------------------------------------------------------------------


def test_all_are_dead_from_when_the_last_began_to_fail(clock):
    endpoints = pool(clock, "a", "b")
    a, b = endpoints.all
    endpoints.unreachable(a, "refused")
    clock.now += 50
    assert endpoints.seconds_dead() is None
    endpoints.unreachable(b, "refused")
    clock.now += 10
    assert endpoints.seconds_dead() == 10
    endpoints.recovered(a)
    assert endpoints.seconds_dead() is None


def test_nothing_is_dead_that_has_a_request_under_way(clock):
    endpoints = pool(clock)
    (a,) = endpoints.all
    endpoints.started(a)
    endpoints.started(a)
    endpoints.overloaded(a, clock.now, "429")
    endpoints.ended(a)
    clock.now += 1000
    assert endpoints.seconds_dead() is None  # it may take so long because the answer is long
    endpoints.ended(a)
    assert endpoints.seconds_dead() == 1000


def test_refusals_alone_for_long_are_as_good_as_dead(clock):
    endpoints = pool(clock)
    (a,) = endpoints.all
    for _ in range(10):
        endpoints.overloaded(a, endpoints.started(a), "429 quota", 30.0)
        endpoints.ended(a)
        clock.now += 30
    assert endpoints.seconds_dead() == 300
    answer(endpoints, a)
    assert endpoints.seconds_dead() is None
