from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engines_that_count import Counting

from lengthwise.budget import LimitReached, Limits, Meter
from lengthwise.caller import Caller, CallTimeout, call_seed
from lengthwise.engines.base import EngineError, Sampling
from lengthwise.engines.scripted import Engine
from lengthwise.journal import Journal
from lengthwise.records import Usage, user

GREEDY = Sampling(temperature=0.0, max_tokens=20)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.jsonl")
    yield opened
    opened.close()


def caller(journal: Journal, engine: Engine | None = None, **fields: Any) -> Caller:
    return Caller(**({"engine": engine or Counting(), "journal": journal, "sample_id": "s0"} | fields))


def call(handle: Caller, *steps: str, attempt: int = 0, sampling: Sampling = GREEDY, prompt: str = "Write."):
    async def ask():
        return [await handle(user(prompt), sampling, step=step, attempt=attempt) for step in steps]

    return asyncio.run(ask())


def test_a_finished_call_is_replayed_without_the_engine(journal):
    engine = Counting()
    first = caller(journal, engine)
    (before,) = call(first, "plan")
    again = caller(journal, engine, meter=Meter(usage=journal.usage, num_calls=journal.num_calls))
    (after,) = call(again, "plan")
    assert after == before
    assert len(engine.asked) == 1
    # A replayed call was paid for once, and is no speed of this start's.
    assert again.meter.fresh_tokens == 0
    assert again.meter.to_dict() == first.meter.to_dict()
    assert again.calls == first.calls


def test_a_replay_survives_the_process(journal):
    call(caller(journal), "plan", "write")
    journal.close()
    engine = Counting()
    call(caller(Journal(journal.path), engine), "plan", "write", "polish")
    assert len(engine.asked) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"fields": {"sample_id": "s1"}},
        {"fields": {"run_seed": 1}},
        {"fields": {"role": "writer"}},
        {"fields": {"adapter": "other"}},
        {"fields": {"engine": Counting("another model")}},
        {"step": "write"},
        {"attempt": 1},
        {"sampling": replace(GREEDY, temperature=0.5)},
        {"sampling": replace(GREEDY, stop=("x",))},
        {"sampling": replace(GREEDY, json_schema={"type": "array"})},
        {"prompt": "Write more."},
    ],
    ids=str,
)
def test_another_call_is_not_a_replay(journal, change):
    engine = Counting()
    call(caller(journal, engine), "plan")
    fields = {"engine": engine} | change.get("fields", {})
    options = {key: change[key] for key in ("attempt", "sampling", "prompt") if key in change}
    call(caller(journal, **fields), change.get("step", "plan"), **options)
    assert len(journal) == 2


def test_seeds_differ_by_sample_step_and_attempt_and_are_stable(journal):
    seeds = {}
    for run_seed in (0, 1):
        for sample_id in ("s0", "s1"):
            for attempt in (0, 1):
                engine = Counting()
                handle = caller(journal, engine, run_seed=run_seed, sample_id=sample_id)
                call(handle, "plan", "write", attempt=attempt)
                for step, asked in zip(("plan", "write"), engine.asked, strict=True):
                    seeds[run_seed, sample_id, step, attempt] = asked.seed
    assert len(set(seeds.values())) == 16
    assert all(0 <= seed < 2**31 for seed in seeds.values())
    # A literal: the seed of a call is the same in every version, else a resumed run would ask anew.
    assert seeds[0, "s0", "plan", 0] == call_seed(0, ["s0", "model", "plan", 0]) == 1849693260


def test_a_seed_that_the_method_gave_is_kept(journal):
    engine = Counting()
    call(caller(journal, engine), "plan", sampling=replace(GREEDY, seed=5))
    assert engine.asked[0].seed == 5


def test_calls_say_what_was_asked_and_how_it_ended(journal):
    handle = caller(journal, role="writer")
    sampling = Sampling(n=2, temperature=0.5, top_p=0.9, max_tokens=7)
    call(handle, "plan", attempt=3, sampling=sampling, prompt="Write about 20 words.")
    assert handle.calls == [
        {
            "role": "writer",
            "step": "plan",
            "attempt": 3,
            "model": "m",
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 7,
            "seed": call_seed(0, ["s0", "writer", "plan", 3]),
            "finish_reasons": ["length", "length"],
            "prompt_tokens": 4,  # once, not for each of the two
            "completion_tokens": 14,
            "num_tokens": 14,
        }
    ]
    assert handle.meter.usage == Usage(prompt_tokens=4, completion_tokens=14)
    assert handle.meter.fresh_tokens == 14


def test_a_failed_call_is_not_kept(journal):
    handle = caller(journal, Counting(faults={"error": 1.0}))
    with pytest.raises(EngineError):
        call(handle, "plan")
    assert len(journal) == 0
    assert handle.calls == []
    assert handle.meter.num_calls == 0


def test_a_call_that_takes_too_long_is_given_up_and_not_kept(journal):
    handle = caller(journal, Counting(faults={"hang": 1.0}), timeout_seconds=0.05)
    with pytest.raises(CallTimeout, match="no answer within 0.05 s"):
        call(handle, "plan")
    assert len(journal) == 0 and handle.meter.num_calls == 0


class BreaksOff(Counting):
    """Its first reply ends in the middle."""

    async def generate(self, prompt, sampling, *, adapter=None):
        (reply,) = await super().generate(prompt, sampling, adapter=adapter)
        return [replace(reply, finish_reason="abort") if len(self.asked) == 1 else reply]


def test_a_reply_that_was_broken_off_is_paid_for_and_asked_for_again(journal):
    engine = BreaksOff()
    handle = caller(journal, engine)
    with pytest.raises(EngineError, match="broke the reply off"):
        call(handle, "plan")
    assert (len(journal), handle.meter.num_calls) == (0, 1)
    (reply,) = call(handle, "plan")[0]
    assert (reply.finish_reason, len(journal), len(engine.asked)) == ("length", 1, 2)


def test_a_caller_shows_its_engine(journal):
    handle = caller(journal, Counting("name", context_length=99, json_schema=False))
    assert (handle.model, handle.context_length, handle.count_tokens(user("a b c"))) == ("name", 99, 3)
    assert handle.capabilities.seeds and not handle.capabilities.json_schema


def test_a_used_up_limit_stops_new_calls_but_no_replay(journal):
    engine = Counting()
    (before,) = call(caller(journal, engine), "plan")
    meter = Meter(usage=journal.usage, limits=Limits(max_generated_tokens=20))
    handle = caller(journal, engine, meter=meter)
    assert call(handle, "plan") == [before]
    with pytest.raises(LimitReached, match="max_generated_tokens is reached: 20 of 20 tokens"):
        call(handle, "write")
    assert len(engine.asked) == 1


# --- likelihoods of given continuations -----------------------------------------------------------


def likelihoods(handle: Caller, *continuations: str, step: str = "choice"):
    async def ask():
        return [await handle.loglikelihood(user("Which?"), text, step=step) for text in continuations]

    return asyncio.run(ask())


def test_a_likelihood_is_replayed_exactly_and_paid_for_once(journal):
    first = caller(journal, engine := Counting())
    before = likelihoods(first, "Paris", "Rome")
    journal.close()
    reopened = Journal(journal.path)
    again = caller(reopened, engine, meter=Meter(usage=reopened.usage, num_calls=reopened.num_calls))
    assert likelihoods(again, "Paris", "Rome") == before  # log-probabilities bit by bit
    assert engine.continuations == ["Paris", "Rome"]
    assert before[0] != before[1]
    assert first.meter.usage == Usage(prompt_tokens=4)  # twice "Which?" with one word
    assert again.meter.to_dict() == first.meter.to_dict()
    assert again.calls == first.calls
    assert [entry["loglikelihood"] for entry in first.calls] == ["Paris", "Rome"]


def test_a_likelihood_is_no_answer_to_a_generation_of_the_same_step(journal):
    handle = caller(journal, engine := Counting())
    likelihoods(handle, "Paris", step="generate")
    call(handle, "generate", prompt="Which?")
    likelihoods(handle, "Rome", step="generate")
    assert (len(engine.asked), engine.continuations) == (1, ["Paris", "Rome"])


def test_no_likelihood_is_asked_for_beyond_a_limit(journal):
    spent = Meter(usage=Usage(completion_tokens=5), limits=Limits(max_generated_tokens=5))
    with pytest.raises(LimitReached):
        likelihoods(caller(journal, engine := Counting(), meter=spent), "Paris")
    assert engine.continuations == []
