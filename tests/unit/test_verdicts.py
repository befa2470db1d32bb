"""How a judge's reply is read: what is forgiven, and what is a fault."""

from __future__ import annotations

import json

import pytest

from lengthwise.verdicts import JudgeFault, json_schema_of, parse_verdict

FORM = {"why": None, "grade": range(1, 6), "winner": ("A", "B", "tie")}
GOOD = {"why": "short", "grade": 4, "winner": "A"}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        f"```json\n{json.dumps(GOOD)}\n```",
        f"Here is my verdict.\n```\n{json.dumps(GOOD, indent=2)}\n```\nThank you.",
        json.dumps({**GOOD, "confidence": "high"}),
        json.dumps({**GOOD, "grade": 4.0}),
    ],
)
def test_a_verdict_is_read_through_its_wrapping(text):
    assert parse_verdict(text, "stop", FORM) == GOOD


def test_raw_line_breaks_in_a_text_are_read():
    text = '{"why": "one\ntwo", "grade": 1, "winner": "tie"}'
    assert parse_verdict(text, None, FORM) == {"why": "one\ntwo", "grade": 1, "winner": "tie"}


@pytest.mark.parametrize(
    ("text", "finish_reason", "kind"),
    [
        ("", "stop", "empty"),
        (" \n", "stop", "empty"),
        (json.dumps(GOOD), "length", "truncated"),
        (json.dumps(GOOD), "content_filter", "refusal"),
        ("I'm sorry, but I cannot help with that request.", "stop", "refusal"),
        ('{"why": "short", "grade": 4', "stop", "malformed"),
        ("I would give it a 4.", "stop", "malformed"),
        (f"The verdict: {json.dumps(GOOD)}", "stop", "malformed"),
        (f"```\n{json.dumps(GOOD)}\n```\n```\n{json.dumps(GOOD)}\n```", "stop", "malformed"),
        ("[4]", "stop", "malformed"),
        ('{"why": "a", "grade": 4, "grade": 5, "winner": "A"}', "stop", "malformed"),
        (json.dumps({"why": "short", "winner": "A"}), "stop", "missing key"),
        (json.dumps({**GOOD, "grade": "4"}), "stop", "wrong type"),
        (json.dumps({**GOOD, "grade": True}), "stop", "wrong type"),
        (json.dumps({**GOOD, "grade": 3.5}), "stop", "wrong type"),
        (json.dumps({**GOOD, "grade": None}), "stop", "wrong type"),
        (json.dumps({**GOOD, "grade": float("nan")}), "stop", "wrong type"),
        (json.dumps({**GOOD, "why": 1}), "stop", "wrong type"),
        (json.dumps({**GOOD, "grade": 0}), "stop", "out of range"),
        (json.dumps({**GOOD, "grade": 6}), "stop", "out of range"),
        (json.dumps({**GOOD, "winner": "a"}), "stop", "out of range"),
        ("[" * 100_000, "stop", "malformed"),
    ],
)
def test_what_is_no_verdict_has_a_name(text, finish_reason, kind):
    with pytest.raises(JudgeFault) as caught:
        parse_verdict(text, finish_reason, FORM)
    assert caught.value.kind == kind


def test_the_schema_says_what_the_parser_wants():
    assert json_schema_of(FORM) == {
        "type": "object",
        "properties": {
            "why": {"type": "string"},
            "grade": {"type": "integer", "enum": [1, 2, 3, 4, 5]},
            "winner": {"type": "string", "enum": ["A", "B", "tie"]},
        },
        "required": ["why", "grade", "winner"],
        "additionalProperties": False,
    }
