from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lengthwise.engines.base import ContextOverflow, EngineError
from lengthwise.engines.openai_messages import (
    brief,
    fault_of_status,
    refusal,
    retry_after_seconds,
    seed_of_choice,
    share_of_reasoning,
)

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "60"}, 1.5),
        ({"retry-after": "Sat, 31 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 31 Jan 2026 14:00:30 +0200"}, 30.0),
        ({"retry-after": "Sat, 31 Jan 2026 11:00:00 GMT"}, 0.0),  # it is over
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers, seconds):
    assert retry_after_seconds(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, "overloaded"),
        (408, "bad"),
        (409, "bad"),
        (500, "bad"),
        (502, "bad"),
        (503, "bad"),
        (529, "bad"),
        (400, None),
        (401, None),
        (404, None),
        (422, None),
    ],
)
def test_what_may_be_asked_again(status, kind):
    fault = fault_of_status(status, "words", {"retry-after": "9"}, NOW)
    assert (fault and fault.kind) == kind
    if fault is not None and kind == "overloaded":
        assert (fault.retry_after_seconds, str(fault)) == (9.0, "HTTP 429 words")


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "This model's maximum context length is 100 tokens", ContextOverflow),
        (400, "the request exceeds the available context size", ContextOverflow),
        (413, "prompt is too long", ContextOverflow),
        (400, "unknown field top_k", EngineError),
        (404, "context: no such route", EngineError),
    ],
)
def test_a_prompt_too_long_is_told_from_other_refusals(status, text, kind):
    error = refusal(status, text, "http://x/v1")
    assert type(error) is kind
    assert "http://x/v1" in str(error) and text in str(error)


def test_pages_become_words():
    page = (
        "<!DOCTYPE html><html><head><style>p {color: red}</style></head>\n<body><h1>502</h1><hr>nginx</body>"
    )
    assert brief(page) == "502 nginx"
    assert brief("x" * 400) == "x" * 300 + " ..."


def test_seeds_of_choices_differ_and_repeat():
    seeds = [seed_of_choice(7, index) for index in range(100)]
    assert seeds[0] == 7 and len(set(seeds)) == 100
    assert seeds == [seed_of_choice(7, index) for index in range(100)]
    assert all(seed is not None and 0 <= seed < 2**31 for seed in seeds)
    assert seed_of_choice(8, 1) != seeds[1]
    assert seed_of_choice(None, 3) is None


def test_shares_of_reasoning():
    assert share_of_reasoning(10, "aaaa", "bbbb") == 5
    assert share_of_reasoning(10, "aaaa", "") == 10
    assert share_of_reasoning(10, "", "") == 0
