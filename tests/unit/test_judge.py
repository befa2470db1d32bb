"""A judge's attempts: what it is asked, how often, and what becomes of its faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lengthwise.caller import Caller
from lengthwise.config import ConfigError
from lengthwise.engines.base import EngineDead, Sampling
from lengthwise.engines.scripted import Config, Engine
from lengthwise.journal import Journal
from lengthwise.judge import RETRY_TEMPERATURE, Judge, JudgeSettings, Unscored, Verdict, judge_id, short_name
from lengthwise.records import Prompt, user
from lengthwise.templates import PromptTemplate

FORM = {"grade": range(1, 6)}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.jsonl")
    yield journal
    journal.close()


class Replies:
    """Answers with the given texts, one a call, and notes how it was asked."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = list(texts), []

    def __call__(self, prompt: Prompt, sampling: Sampling, draw: int) -> str:
        self.asked.append(sampling)
        return self.texts[len(self.asked) - 1]


def judge(
    journal: Journal, replies: Any = None, settings: dict[str, Any] | None = None, **engine: Any
) -> Judge:
    made = JudgeSettings(model="org/Judge", **(settings or {}))
    return Judge(
        id="judge.12345678",
        settings=made,
        caller=Caller(
            engine=Engine("org/Judge", Config(**engine), responder=replies),
            journal=journal,
            sample_id="t/1/0",
            role="judge:judge",
            timeout_seconds=made.timeout_seconds,
        ),
    )


def ask(handle: Judge) -> Verdict | Unscored:
    return asyncio.run(handle.ask(user("Grade it."), FORM, step="grade"))


def test_a_judge_is_greedy_and_held_to_a_schema(journal):
    replies = Replies('{"grade": 4}')
    found = ask(judge(journal, replies))
    assert isinstance(found, Verdict) and found.values == {"grade": 4}
    (sampling,) = replies.asked
    assert sampling.temperature == 0
    assert sampling.max_tokens == 1024
    assert sampling.json_schema["properties"] == {"grade": {"type": "integer", "enum": [1, 2, 3, 4, 5]}}


def test_an_engine_without_schemas_is_asked_without(journal):
    replies = Replies('```json\n{"grade": 4}\n```')
    assert isinstance(ask(judge(journal, replies, json_schema=False)), Verdict)
    assert replies.asked[0].json_schema is None


def test_a_further_attempt_has_another_seed_and_some_temperature(journal):
    replies = Replies("no", '{"grade": 9}', '{"grade": 2}')
    handle = judge(journal, replies)
    found = ask(handle)
    assert isinstance(found, Verdict) and found.values == {"grade": 2}
    assert [s.temperature for s in replies.asked] == [0, RETRY_TEMPERATURE, RETRY_TEMPERATURE]
    assert len({s.seed for s in replies.asked}) == 3
    assert [attempt.get("fault", "").partition(":")[0] for attempt in found.attempts] == [
        "malformed",
        "out of range",
        "",
    ]
    assert found.attempts[1]["text"] == '{"grade": 9}'
    assert handle.num_calls == 3


def test_after_the_last_attempt_it_is_unscored_with_the_last_fault(journal):
    found = ask(judge(journal, Replies("no", "{}"), {"max_attempts": 2}))
    assert isinstance(found, Unscored) and found.reason == "missing key"
    assert len(found.attempts) == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("malformed", "malformed"),
        ("missing_key", "missing key"),
        ("out_of_range", "out of range"),
        ("refusal", "refusal"),
        ("empty", "empty"),
        ("truncated", "truncated"),
        ("thinking_cut", "truncated"),
        ("error", "engine error"),
        ("rate_limit", "engine error"),
        ("hang", "timeout"),
    ],
)
def test_each_fault_has_its_reason(journal, fault, reason):
    settings = {"max_attempts": 2, "timeout_seconds": 0.05 if fault == "hang" else 600.0}
    found = ask(judge(journal, settings=settings, faults={fault: 1.0}))
    assert isinstance(found, Unscored) and found.reason == reason
    assert len(found.attempts) == 2


def test_a_dead_engine_stops_the_run(journal):
    with pytest.raises(EngineDead):
        ask(judge(journal, faults={"dead": 1.0}))


def test_a_text_beyond_the_context_is_not_asked_again(journal):
    handle = judge(journal, context_length=2)
    found = ask(handle)
    assert isinstance(found, Unscored) and found.reason == "no room"
    assert handle.num_calls == 1


def test_a_verdict_fits_what_the_context_leaves(journal):
    replies = Replies('{"grade": 4}')
    assert isinstance(ask(judge(journal, replies, context_length=100)), Verdict)
    assert replies.asked[0].max_tokens == 98


def test_a_finished_verdict_is_replayed(journal):
    first = ask(judge(journal, Replies("no", '{"grade": 2}')))
    again = ask(judge(journal, Replies()))
    assert first == again


def test_another_wording_is_another_judge():
    one, other = PromptTemplate("p", "Grade it."), PromptTemplate("p", "Grade it!")
    assert judge_id("j", [one]) != judge_id("j", [other])
    assert judge_id("j", [one]) == judge_id("j", [PromptTemplate("renamed", "Grade it.")])
    label, _, digest = judge_id("qwen2.5-7b", [one]).rpartition(".")
    assert label == "qwen2.5-7b" and len(digest) == 8


@pytest.mark.parametrize(
    ("model", "adapter", "name"),
    [
        ("embedded:smollm2-135m", None, "smollm2-135m-instruct"),
        ("org/Some, Judge", None, "some-judge"),
        ("outputs/sft/mine/", None, "mine"),
        ("org/Judge", "me/lora", "judge+lora"),
    ],
)
def test_short_names(model, adapter, name):
    assert short_name(model, adapter) == name
    assert "," not in short_name(model, adapter)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "a,b"}, "name 'a,b'"),
        ({"name": "a@b"}, "name 'a@b'"),
        ({"max_attempts": 0}, "max_attempts must be at least 1"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"timeout_seconds": 0}, "timeout_seconds must be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        JudgeSettings(model="m", **settings)


def test_the_grades_of_the_scripted_judge_fit_the_form(journal):
    found = ask(judge(journal))
    assert isinstance(found, Verdict)
    assert json.loads(found.attempts[0]["text"]).keys() == {"grade"}
