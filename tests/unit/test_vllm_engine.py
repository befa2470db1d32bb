"""How the vLLM engine turns vLLM's errors and outputs into ours; vLLM's own engine is played by a stub."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lengthwise.engines.base import ContextOverflow, EngineDead, EngineError, Sampling
from lengthwise.engines.lora_slots import LoraSlot
from lengthwise.engines.process_log import ProcessLog
from lengthwise.engines.vllm import Config, Engine, _refuse_unknown
from lengthwise.records import Message, Usage, user

pytest.importorskip("vllm")


@dataclass
class Stub:
    """Plays AsyncLLM."""

    error: Exception | None = None
    lora_error: Exception | None = None
    outputs: list[Any] = field(default_factory=list)
    params: list[Any] = field(default_factory=list)
    loras: list[Any] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)

    async def generate(self, prompt, params, request_id, *, lora_request=None):
        self.params.append(params)
        self.loras.append(lora_request)
        if self.error is not None:
            raise self.error
        yield SimpleNamespace(
            outputs=self.outputs, prompt_token_ids=prompt["prompt_token_ids"], num_cached_tokens=None
        )

    async def add_lora(self, request) -> bool:
        if self.lora_error is not None:
            raise self.lora_error
        return True

    async def remove_lora(self, number: int) -> bool:
        self.removed.append(number)
        return True


def part(text: str, tokens: list[int], finish_reason: str = "stop", logprobs: Any = None) -> SimpleNamespace:
    return SimpleNamespace(text=text, token_ids=tokens, finish_reason=finish_reason, logprobs=logprobs)


def started(stub: Stub, *, lora: bool = False) -> Engine:
    engine = Engine("m", Config())
    engine._engine = stub
    engine._tokenizer = SimpleNamespace(  # type: ignore[assignment]
        encode=lambda prompt: [1, 2, 3, 4],
        for_model=lambda sampling: sampling,
        separate=lambda reply, prompt, sampling: reply,
    )
    engine._process_log = ProcessLog(Path("/nowhere"))
    engine.context_length = 20
    engine._uses_lora = lora
    if lora:
        engine._default_slot = LoraSlot("adapter-x", 1, Path("/adapter-x"))
    return engine


def generate(engine: Engine, **sampling: Any):
    return asyncio.run(engine.generate(user("x"), Sampling(**sampling)))


def test_outputs_become_completions_and_the_prompt_counts_once():
    logprobs = [{7: SimpleNamespace(logprob=-0.5)}, {8: SimpleNamespace(logprob=-1.5)}]
    stub = Stub(outputs=[part("a b", [7, 8], "length", logprobs), part("c", [9])])
    first, second = generate(started(stub), n=2, max_tokens=2)
    assert (first.text, first.finish_reason, first.num_tokens) == ("a b", "length", 2)
    assert (first.token_ids, first.logprobs, first.model) == ((7, 8), (-0.5, -1.5), "m")
    assert first.usage == Usage(prompt_tokens=4, completion_tokens=2)
    assert second.usage == Usage(prompt_tokens=0, completion_tokens=1)


def test_a_thinking_model_is_asked_without_stop_strings_and_its_thinking_taken_out():
    engine = started(Stub(outputs=[part("hm</think>a", [7, 8, 9])]))
    engine._tokenizer.for_model = lambda sampling: replace(sampling, stop=())
    engine._tokenizer.separate = lambda reply, prompt, sampling: replace(reply, text="a", reasoning="hm")
    (reply,) = generate(engine, stop=("x",))
    assert (reply.text, reply.reasoning, reply.num_tokens) == ("a", "hm", 3)
    assert engine._engine.params[0].stop == []


def test_samplings_are_translated():
    stub = Stub(outputs=[part("a", [7])])
    generate(
        started(stub), temperature=0.5, top_p=0.9, top_k=5, seed=3, stop=("x",), json_schema={"type": "array"}
    )
    (params,) = stub.params
    assert (params.temperature, params.top_p, params.top_k, params.seed) == (0.5, 0.9, 5, 3)
    assert params.max_tokens == 16  # what is left of the context
    assert params.stop == ["x"] and params.structured_outputs.json == {"type": "array"}


@pytest.mark.parametrize(("max_tokens", "fits"), [(16, True), (17, False)])
def test_what_does_not_fit_the_context_is_refused(max_tokens, fits):
    stub = Stub(outputs=[part("a", [7])])
    if fits:
        generate(started(stub), max_tokens=max_tokens)
    else:
        with pytest.raises(ContextOverflow, match="prompt of 4 tokens and max_tokens 17 .* context of 20"):
            generate(started(stub), max_tokens=max_tokens)
        assert stub.params == []


def test_a_schema_does_not_go_with_a_prefill():
    stub = Stub(outputs=[part("a", [7])])
    prompt = (*user("x"), Message(role="assistant", content='[{"main_point": "'))
    with pytest.raises(EngineError, match="schema from the middle"):
        asyncio.run(started(stub).generate(prompt, Sampling(json_schema={"type": "array"})))
    assert stub.params == []


def test_a_dead_engine_is_told_from_a_refused_request():
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    with pytest.raises(EngineDead, match="Start the same command again"):
        generate(started(Stub(error=EngineDeadError())))
    for error in (
        VLLMValidationError("bad token"),
        ValueError("bad token"),
        EngineGenerateError("bad token"),
    ):
        with pytest.raises(EngineError, match="bad token") as caught:
            generate(started(Stub(error=error)))
        assert not isinstance(caught.value, EngineDead)


def test_a_sampling_that_vllm_refuses_fails_its_caller_only():
    with pytest.raises(EngineError, match="n must be 1 when using greedy sampling"):
        generate(started(Stub()), n=2, temperature=0.0)


@pytest.mark.parametrize("outputs", [[part("", [], "error")], [part("a", [1]), part("", [], "error")]])
def test_an_output_that_is_an_error_is_one(outputs):
    with pytest.raises(EngineError, match="ended the request with an error"):
        generate(started(Stub(outputs=outputs)))


def test_an_adapter_is_loaded_once_before_any_request_uses_it():
    stub = Stub(outputs=[part("a", [7])])
    engine = started(stub, lora=True)
    generate(engine)
    generate(engine)
    assert [lora.lora_name for lora in stub.loras] == ["adapter-x", "adapter-x"]
    assert stub.loras[0] is stub.loras[1]


def test_an_adapter_that_failed_is_taken_out_so_that_its_half_is_never_served():
    stub = Stub(lora_error=Exception("Call to add_lora method failed: sizes"), outputs=[part("a", [7])])
    engine = started(stub, lora=True)
    for attempt in (1, 2):
        with pytest.raises(EngineError, match=r"adapter: vLLM cannot serve adapter-x: .*sizes"):
            generate(engine)
        assert stub.removed == [1] * attempt
    assert stub.params == []


def test_a_death_while_an_adapter_loads_is_a_death():
    from vllm.v1.engine.exceptions import EngineDeadError

    with pytest.raises(EngineDead):
        generate(started(Stub(lora_error=EngineDeadError()), lora=True))


def test_an_adapter_for_an_engine_without_adapters_is_refused():
    engine = started(Stub())
    with pytest.raises((EngineError, ValueError), match=r"set engine\.enable_lora to true"):
        asyncio.run(engine.generate(user("x"), Sampling(), adapter="/some/adapter"))


def test_the_environment_of_the_user_wins(monkeypatch):
    from lengthwise.engines.vllm import _set_environment

    monkeypatch.setattr(os, "environ", {"VLLM_LOGGING_LEVEL": "INFO"})
    _set_environment()
    assert os.environ["VLLM_LOGGING_LEVEL"] == "INFO"


# --- the start, and what is said when it fails ----------------------------------------------------


@pytest.fixture
def starting(tmp_path, monkeypatch) -> Engine:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    engine = Engine("m", Config())
    engine._process_log = ProcessLog(tmp_path / "vllm.log")
    return engine


def fails(printed: str, error: str) -> Callable[[], Any]:
    """Play vLLM's start: a process prints, and the parent raises."""

    def start() -> Any:
        subprocess.run([sys.executable, "-c", f"print({printed!r})"], check=True)
        raise RuntimeError(error)

    return start


IN_A_PROCESS = "Engine core initialization failed. See root cause above. Failed core proc(s): "


@pytest.mark.parametrize(
    ("printed", "error", "words", "is_about_memory"),
    [
        (
            "x\nValueError: no free memory",
            IN_A_PROCESS + "{}",
            "could not load m: ValueError: no free memory.",
            True,
        ),
        (
            "",
            IN_A_PROCESS + "{'EngineCore': -9}",
            "could not load m: Engine core initialization failed",
            True,
        ),
        (
            "OSError: of old",
            "1 validation error\n  max_num_seqs",
            "load m: 1 validation error max_num_seqs.",
            False,
        ),
    ],
)
def test_a_failed_start_is_one_message_with_its_cause(
    starting, capfd, printed, error, words, is_about_memory
):
    with pytest.raises(EngineError) as caught:
        starting._start_processes(fails(printed, error))
    message = str(caught.value)
    assert words in message and "\n" not in message
    assert ("engine.cpu_kv_cache_gib" in message) == is_about_memory
    kept = Path(message.rpartition("The whole log: ")[2].rstrip("."))
    assert printed in kept.read_text()
    said = capfd.readouterr()
    assert said.out == "" and said.err.startswith("vllm: loading m; its log is ")


def test_all_requests_under_way_say_the_same_of_a_death_and_keep_one_log(starting, tmp_path):
    def start() -> object:  # vLLM sets its logger up as it starts
        logging.getLogger("vllm").addHandler(handler)
        return object()

    handler = logging.StreamHandler(io.StringIO())
    starting._start_processes(start)
    logging.getLogger("vllm").error("KeyError: of the engine")
    first, second = starting._dead(), starting._dead()
    assert "the last error in its log is KeyError: of the engine." in str(first)
    assert str(first) == str(second) and "Start the same command again" in str(first)
    assert len(list(tmp_path.glob("lengthwise-vllm-log-*"))) == 1
    starting._engine = None
    asyncio.run(starting.stop())
    logging.getLogger("vllm").error("later")
    logging.getLogger("vllm").removeHandler(handler)
    assert handler.stream.getvalue() == "later\n"


def test_an_engine_that_was_killed_has_logged_nothing(starting):
    starting._start_processes(object)
    assert "it logged no error, so it was killed, as the system does when memory runs out" in str(
        starting._dead()
    )
    asyncio.run(starting.stop())


def test_an_argument_that_vllm_does_not_have_is_named_and_ours_are_all_known():
    from vllm.engine.arg_utils import AsyncEngineArgs

    known = [f.name for f in fields(AsyncEngineArgs)]
    engine = Engine("m", Config(enable_lora=True, options={"max_num_seqs": 8}))
    engine._ref, engine._uses_lora, engine._max_rank = SimpleNamespace(path="m"), True, 16  # type: ignore[assignment]
    for on_cpu in (True, False):
        _refuse_unknown(engine._arguments(on_cpu), known)
    with pytest.raises(
        ValueError, match=r"AsyncEngineArgs has no 'max_num_seq'\. did you mean 'max_num_seqs'\?"
    ):
        _refuse_unknown(["max_num_seq"], known)
