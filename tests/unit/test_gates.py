"""The gates of one text: each refuses what it is for and nothing else, and leaves its value."""

from __future__ import annotations

from typing import Any

import pytest

from data_builders.gates import GatedText, TextGates, stated_length_score, verdicts
from lengthwise.config import ConfigError
from lengthwise.records import LengthTarget

BEES = "Bees fly from bloom to bloom and carry golden pollen."


def failed(answer: str, *, prompt: str = "Write on bees.", gates: dict[str, Any] | None = None, **known: Any):
    text = GatedText(prompt=prompt, answer=answer, **known)
    return [verdict.name for verdict in verdicts(text, TextGates(**(gates or {}))) if not verdict.passed]


@pytest.mark.parametrize(
    ("answer", "known", "names"),
    [
        (BEES, {}, []),
        ("  \n", {}, ["empty"]),
        (BEES, {"finish_reason": "length"}, ["truncation"]),
        (BEES, {"finish_reason": "content_filter"}, ["truncation"]),
        ("Bees fly from bloom", {"finish_reason": "stop"}, []),
        ("Bees fly from bloom", {"gates": {"truncation": "ending"}}, ["truncation"]),
        (BEES, {"finish_reason": "length", "gates": {"truncation": "off"}}, []),
        ("I'm sorry, but I can't help with that.", {}, ["refusal"]),
        ("I'm sorry, but I can't help with that.", {"gates": {"refusals": "off"}}, []),
        ("蜜蜂从一朵花飞到另一朵花。", {}, ["language"]),
        ("蜜蜂从一朵花飞到另一朵花。", {"prompt": "写蜜蜂。"}, []),
        (BEES, {"gates": {"language": "zh"}}, ["language"]),
        ("1 + 1 = 2", {}, []),
        (f"{BEES} " * 30, {}, ["repetition"]),
        (f"{BEES} {BEES} " + " ".join(f"w{i}" for i in range(300)), {}, []),
        (f"{BEES} {BEES}", {"gates": {"repetition": "strict"}}, ["repetition"]),
        (BEES, {"gates": {"min_words": 11}}, ["words"]),
        (BEES, {"gates": {"max_words": 9}}, ["words"]),
        (BEES, {"target": LengthTarget.about(10)}, []),
        (BEES, {"target": LengthTarget.about(100)}, ["length_score"]),
        (BEES, {"target": LengthTarget.about(100), "gates": {"min_length_score": None}}, []),
        (BEES, {"target": LengthTarget.about(3, "tokens"), "num_tokens": 12}, ["length_score"]),
        (BEES, {"target": LengthTarget.about(3, "tokens")}, []),
    ],
)  # fmt: skip
def test_a_gate_refuses_what_it_is_for(answer, known, names):
    assert failed(answer, **known) == names


def test_every_gate_leaves_its_value():
    said = verdicts(GatedText(prompt="", answer=BEES, target=LengthTarget.about(8)), TextGates(min_words=2))
    assert {verdict.name: verdict.value for verdict in said} == {
        "truncation": "unknown", "refusal": False, "language": "en", "repetition": 0.0, "words": 10,
        "length_score": 91.667,
    }  # fmt: skip
    assert {verdict.to_dict()["verdict"] for verdict in said} == {"kept"}


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ("one two three four", LengthTarget.about(8), 50.0),
        ("one two three four", LengthTarget(min=2, relation="at_least"), 100.0),
        ("one two three four", LengthTarget(max=3, relation="at_most"), pytest.approx(100 * (1 - 1 / 9))),
        ("一二三四", LengthTarget.about(4, "characters"), 100.0),
        ("abcd efgh", LengthTarget.about(8, "characters"), 100.0),
        ("one", None, None),
    ],
)
def test_s_l_is_counted_in_the_unit_of_the_target(answer, target, score):
    assert stated_length_score(GatedText(prompt="", answer=answer, target=target)) == score


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_length_score": 101}, "min_length_score is 101"),
        ({"max_repetition": 2}, "max_repetition is 2"),
        ({"min_words": 0}, "min_words is 0"),
        ({"min_words": 9, "max_words": 3}, "min_words is 9, above max_words 3"),
    ],
)
def test_limits_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TextGates(**options)
