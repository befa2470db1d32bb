from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lengthwise.engines import build_engine, open_engine
from lengthwise.engines.base import ContextOverflow, EngineDead, EngineError, Sampling, require
from lengthwise.engines.scripted import FAULTS, Config, Engine, obedient, prose
from lengthwise.records import Completion, Message, Prompt, Usage, user

WISH = user("Write a story of 100 words.")


def generate(engine: Engine, prompt: Prompt = WISH, **sampling: Any) -> list[Completion]:
    return asyncio.run(engine.generate(prompt, Sampling(**sampling)))


def one(engine: Engine, prompt: Prompt = WISH, **sampling: Any) -> Completion:
    (completion,) = generate(engine, prompt, **sampling)
    return completion


def fixed(text: str, **options: Any) -> Engine:
    return Engine("m", Config(**options), responder=lambda prompt, sampling, draw: text)


def test_the_same_request_gets_the_same_reply_from_any_engine():
    first = generate(Engine("m"), n=2, seed=1)
    assert first == generate(Engine("m"), n=2, seed=1)
    assert first[0].text != first[1].text
    assert one(Engine("m"), seed=2).text != first[0].text
    assert one(Engine("m"), user("Tell of 100 words."), seed=1).text != first[0].text


def test_an_obedient_reply_has_the_wished_length():
    reply = one(Engine("m"), seed=1)
    assert len(reply.text.split()) == reply.num_tokens == 100
    assert reply.finish_reason == "stop"
    assert reply.usage == Usage(prompt_tokens=6, completion_tokens=100)


def test_a_prompt_counts_once():
    replies = generate(Engine("m"), n=3, seed=1)
    assert [r.usage.prompt_tokens for r in replies] == [6, 0, 0]
    assert [r.usage.completion_tokens for r in replies] == [100] * 3


def test_max_tokens_cuts_and_says_so():
    engine = fixed("One two  three\nfour.")
    cut = one(engine, max_tokens=3)
    assert (cut.text, cut.finish_reason, cut.num_tokens) == ("One two  three\n", "length", 3)
    whole = one(engine, max_tokens=4)
    assert (whole.text, whole.finish_reason, whole.num_tokens) == ("One two  three\nfour.", "stop", 4)


def test_without_max_tokens_the_context_is_the_limit():
    reply = one(fixed("a b c d e f", context_length=9), user("one two three four five"))
    assert (reply.text.split(), reply.finish_reason, reply.num_tokens) == (["a", "b", "c", "d"], "length", 4)


def test_the_first_stop_string_ends_the_reply():
    reply = one(fixed("one two END three STOP"), stop=("STOP", "END"))
    assert (reply.text, reply.finish_reason, reply.num_tokens) == ("one two ", "stop", 2)
    before = one(fixed("one two END three"), stop=("END",), max_tokens=1)
    assert (before.text, before.finish_reason) == ("one ", "length")
    assert one(fixed("one two"), stop=("END",)).text == "one two"


@pytest.mark.parametrize(("max_tokens", "fits"), [(4, True), (5, False), (None, True)])
def test_a_prompt_that_leaves_no_room_is_refused(max_tokens, fits, tmp_path):
    log = tmp_path / "requests.jsonl"
    engine = fixed("a b", context_length=10, request_log=str(log))
    if fits:
        assert one(engine, max_tokens=max_tokens).finish_reason == "stop"
    else:
        with pytest.raises(ContextOverflow, match="6 words and max_tokens 5 .* context of 10"):
            one(engine, max_tokens=max_tokens)
        assert not log.exists()  # refused before anything was asked
    with pytest.raises(ContextOverflow):
        one(engine, user("word " * 10))


def test_the_request_log_shows_each_request_and_its_end(tmp_path):
    log = tmp_path / "logs" / "requests.jsonl"
    engine = Engine("m", Config(request_log=str(log)))
    one(engine, seed=1)
    one(engine, seed=2)
    asyncio.run(engine.stop())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["started", "finished"] * 2
    assert lines[0]["request"] == lines[1]["request"] != lines[2]["request"]


# --- faults ---------------------------------------------------------------------------------------


def test_each_fault_looks_like_what_it_stands_for():
    assert one(Engine("m", Config(faults={"empty": 1.0}))).text == ""
    assert one(Engine("m", Config(faults={"empty": 1.0}))).num_tokens == 0
    assert one(Engine("m", Config(faults={"refusal": 1.0}))).text.startswith("I'm sorry")
    truncated = one(Engine("m", Config(faults={"truncated": 1.0})))
    assert (truncated.finish_reason, truncated.num_tokens) == ("length", 50)
    malformed = one(Engine("m", Config(faults={"malformed": 1.0})), json_schema={"type": "array"})
    with pytest.raises(json.JSONDecodeError):
        json.loads(malformed.text)
    for name, words in (("error", "answered 500"), ("rate_limit", "answered 429")):
        with pytest.raises(EngineError, match=words) as caught:
            one(Engine("m", Config(faults={name: 1.0})))
        assert not isinstance(caught.value, EngineDead)
    with pytest.raises(EngineDead):
        one(Engine("m", Config(faults={"dead": 1.0})))
    with pytest.raises(asyncio.TimeoutError):
        hanging = Engine("m", Config(faults={"hang": 1.0}))
        asyncio.run(asyncio.wait_for(hanging.generate(WISH, Sampling()), 0.05))


def test_a_thinking_reply_has_its_thinking_apart():
    plain = one(Engine("m"))
    thinking = one(Engine("m", Config(faults={"thinking": 1.0})))
    assert (thinking.text, thinking.finish_reason) == (plain.text, "stop")
    assert (thinking.num_reasoning_tokens, thinking.num_tokens) == (20, plain.num_tokens + 20)
    assert thinking.reasoning is not None and len(thinking.reasoning.split()) == 20
    short = one(Engine("m", Config(faults={"thinking": 1.0})), max_tokens=30)
    assert (short.finish_reason, len(short.text.split()), short.num_tokens) == ("length", 10, 30)


@pytest.mark.parametrize(("options", "num_tokens"), [({}, 19), ({"max_tokens": 5}, 5)])
def test_thinking_that_is_cut_leaves_an_empty_answer(options, num_tokens):
    cut = one(Engine("m", Config(faults={"thinking_cut": 1.0})), **options)
    assert (cut.text, cut.finish_reason) == ("", "length")
    assert cut.num_reasoning_tokens == cut.num_tokens == num_tokens
    assert cut.reasoning is not None and len(cut.reasoning.split()) == num_tokens


def test_faults_strike_their_share_and_the_same_requests_each_time():
    engine = Engine("m", Config(faults={"empty": 0.2, "refusal": 0.1}))

    def kinds() -> list[str]:
        texts = [one(engine, seed=seed).text for seed in range(1000)]
        return ["empty" if not t else "refusal" if t.startswith("I'm sorry") else "fine" for t in texts]

    first = kinds()
    assert first == kinds()
    assert first.count("empty") == pytest.approx(200, abs=40)
    assert first.count("refusal") == pytest.approx(100, abs=30)


def test_another_seed_may_escape_a_fault():
    engine = Engine("m", Config(faults={"empty": 0.5}))
    texts = [one(engine, seed=seed).text for seed in range(20)]
    assert "" in texts and any(texts)


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"typo": 0.1}, f"faults: 'typo' is unknown: choose from {', '.join(FAULTS)}"),
        ({"empty": 1.5}, "faults: 'empty' is 1.5: give a share from 0 to 1"),
        ({"empty": "many"}, "faults: 'empty' is 'many': give a share from 0 to 1"),
        ({"empty": 0.7, "error": 0.7}, "faults: the shares add up to 1.4: at most 1 in all"),
    ],
)
def test_faults_that_make_no_sense_are_refused(faults, message):
    with pytest.raises(ValueError) as error:
        Config(faults=faults)
    assert message in str(error.value)


# --- responders -----------------------------------------------------------------------------------


def test_a_schema_gets_a_plan():
    array = json.loads(obedient(user("Write 900 words."), Sampling(json_schema={"type": "array"}), 1))
    assert [section["num_words"] for section in array] == [300, 300, 300]
    wrapped = json.loads(obedient(user("Write 900 words."), Sampling(json_schema={"type": "object"}), 1))
    assert wrapped == {"sections": array}


def test_prose_has_the_length_asked_for_and_does_not_loop():
    text = prose(7, 2000)
    words = text.split()
    assert len(words) == 2000
    assert len({tuple(words[i : i + 10]) for i in range(1991)}) == 1991
    assert prose(7, 5).endswith(".") and prose(8, 5) != prose(7, 5)
    assert prose(0, 0) == ""


def shout(prompt: Prompt, sampling: Sampling, draw: int) -> str:
    return prompt[-1].content.upper()


def test_a_responder_can_be_named(monkeypatch):
    engine = Engine("m", Config(responder=f"{__name__}:shout"))
    assert one(engine, user("hey")).text == "HEY"


@pytest.mark.parametrize("name", ["no_such_module:f", "lengthwise.engines.scripted:no_such", "nothing"])
def test_an_unknown_responder_is_named(name):
    with pytest.raises(ValueError, match=f"engine.responder: '{name}' is not `module:function`"):
        Engine("m", Config(responder=name))


# --- capabilities, opening by name ----------------------------------------------------------------


def test_a_job_that_needs_what_the_engine_lacks_is_refused():
    require(Engine("m"), frozenset({"prefill", "json_schema", "seeds"}), "builder agent_write")
    without = Engine("m", Config(json_schema=False))
    with pytest.raises(ValueError) as error:
        require(without, frozenset({"json_schema", "prefill"}), "builder agent_write")
    assert "builder agent_write needs an engine with json_schema, which scripted does not offer" in str(
        error.value
    )
    with pytest.raises(ValueError, match="telepathy"):
        require(without, frozenset({"telepathy"}), "builder agent_write")


def test_the_remedy_does_not_promise_what_no_engine_has():
    """`require` names an engine that offers what is missing, if there is one."""
    with pytest.raises(ValueError) as error:
        require(Engine("m"), frozenset({"logprobs"}), "task x")
    assert "vllm" in str(error.value)
    with pytest.raises(ValueError) as error:
        require(Engine("m"), frozenset({"telepathy"}), "task x")
    assert "telepathy" not in str(error.value).partition("vllm offers")[2]


def test_open_engine_starts_and_stops_what_the_config_names(tmp_path):
    log = tmp_path / "log"

    async def run() -> Completion:
        spec = {"name": "scripted", "context_length": 50, "request_log": str(log)}
        async with open_engine(spec, "m", "adapter") as engine:
            assert (engine.model, engine.context_length) == ("m+adapter", 50)
            (reply,) = await engine.generate((Message(role="user", content="hi"),), Sampling(max_tokens=3))
            return reply

    assert asyncio.run(run()).num_tokens == 3


def test_an_unknown_option_or_engine_is_refused():
    with pytest.raises(ValueError, match="context_lenght"):
        build_engine({"name": "scripted", "context_lenght": 50}, "m")
    with pytest.raises(ValueError, match="scriptd"):
        build_engine({"name": "scriptd"}, "m")


def test_identities_tell_models_and_adapters_apart():
    engine = Engine("m")
    identities = {
        engine.weights_identity(),
        engine.weights_identity("a"),
        Engine("n").weights_identity(),
        Engine("m", adapter="a").weights_identity(),
    }
    assert len(identities) == 4
    assert engine.weights_identity() == Engine("m").weights_identity()
