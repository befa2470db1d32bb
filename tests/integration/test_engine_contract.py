"""One contract for every engine: what a builder or a task may rely on, whoever answers."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from random_adapters import write_adapter

from lengthwise.devices import num_cores
from lengthwise.engines import build_engine, scripted
from lengthwise.engines.base import ContextOverflow, Engine, EngineError, Likelihood, Sampling
from lengthwise.engines.reasoning import ReasoningTags
from lengthwise.models import EMBEDDED, resolve_model
from lengthwise.records import Completion, Message, Prompt, Usage, user

CONTEXT = 192
STORY = user("Tell me about the sea.")
QUESTION = user("What is the capital of France?")
GREEDY = Sampling(temperature=0.0, max_tokens=16)
YES_OR_NO = {
    "type": "object",
    "properties": {"answer": {"enum": ["yes", "no"]}},
    "required": ["answer"],
    "additionalProperties": False,
}
REAL = [pytest.mark.real_model, pytest.mark.timeout(900)]


def respond(prompt: Prompt, sampling: Sampling, draw: int) -> str:
    """Play the model for the engines that have none: a short answer to the question, prose to all else."""
    if sampling.json_schema is not None:
        return json.dumps({"answer": "yes" if draw % 2 else "no"})
    if prompt[-1].role == "assistant":
        return " Paris."
    if "capital" in prompt[-1].content:
        return "The capital of France is Paris."
    return scripted.prose(draw, 40)


@dataclass
class Served:
    """A started engine, with the event loop it lives on."""

    name: str
    engine: Engine
    log: Path
    run: Callable[[Coroutine[Any, Any, Any]], Any]

    @property
    def is_real(self) -> bool:
        return self.name in ("hf", "vllm", "vllm_server")

    @property
    def is_served(self) -> bool:
        """Whether requests go over HTTP: one for each completion."""
        return self.name in ("openai_http", "vllm_server")

    @property
    def num_logged(self) -> int:
        return len(self.log.read_text().splitlines())

    def ask(self, prompt: Prompt, sampling: Sampling) -> list[Completion]:
        return self.run(self.engine.generate(prompt, sampling))


@pytest.fixture(
    scope="module",
    params=[
        "scripted",
        "openai_http",
        pytest.param("hf", marks=REAL),
        pytest.param("vllm", marks=REAL),
        pytest.param("vllm_server", marks=[*REAL, pytest.mark.slow]),
    ],
)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    name: str = request.param
    log = tmp_path_factory.mktemp(name) / "requests.jsonl"
    spec: dict[str, Any] = {"name": name, "request_log": str(log)}
    with ExitStack() as stack:
        if name == "scripted":
            engine: Engine = scripted.Engine(
                "m", scripted.Config(context_length=CONTEXT, request_log=str(log)), responder=respond
            )
        elif name == "openai_http":
            url = stack.enter_context(http_server(scripted_model()))
            engine = build_engine(spec | {"base_urls": [url], "prefill": True, "max_retries": 1}, "m")
        else:
            more = {
                "vllm": {"cpu_kv_cache_gib": 1},
                "vllm_server": {"cpu_kv_cache_gib": 1, "num_servers": min(2, num_cores())},
            }.get(name, {})
            engine = build_engine(spec | {"max_model_len": CONTEXT} | more, EMBEDDED)
        # One loop for the whole module: an engine lives on the loop it was started on.
        if name == "hf":
            stack.enter_context(one_thread())
        runner = stack.enter_context(asyncio.Runner())
        stack.callback(lambda: runner.run(engine.stop()))
        runner.run(engine.start())
        yield Served(name, engine, log, runner.run)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: on a busy machine two wait for each other and are several times as slow."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- a server for the HTTP engine -----------------------------------------------------------------


def scripted_model() -> scripted.Engine:
    return scripted.Engine("m", scripted.Config(context_length=CONTEXT), responder=respond)


class http_server:
    """Serve a scripted engine behind the OpenAI protocol; gives the base URL."""

    def __init__(self, engine: scripted.Engine):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                model = {"id": engine.model, "object": "model", "max_model_len": engine.context_length}
                self.answer(200, {"object": "list", "data": [model]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    self.answer(200, chat_reply(engine, body))
                except ContextOverflow as error:
                    self.answer(400, {"error": {"message": f"maximum context length: {error}"}})

            def answer(self, status: int, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Http(ThreadingHTTPServer):
            request_queue_size = 128  # as many connections as requests at once

        self._http = Http(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def chat_reply(engine: scripted.Engine, body: dict[str, Any]) -> dict[str, Any]:
    """Answer one chat request with the scripted engine."""
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    sampling = Sampling(
        temperature=body["temperature"],
        top_p=body["top_p"],
        max_tokens=body.get("max_tokens"),
        stop=tuple(body.get("stop", ())),
        seed=body.get("seed"),
        json_schema=schema,
    )
    assert (body["messages"][-1]["role"] == "assistant") == body.get("continue_final_message", False)
    prompt = tuple(Message(**message) for message in body["messages"])
    replies = asyncio.run(engine.generate(prompt, sampling))
    usage = sum((reply.usage for reply in replies), Usage())
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": engine.model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": reply.text},
                "finish_reason": reply.finish_reason,
            }
            for index, reply in enumerate(replies)
        ],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
    }


# --- the contract ---------------------------------------------------------------------------------


def test_a_reply_that_is_cut_says_so(served):
    (reply,) = served.ask(STORY, Sampling(temperature=0.0, max_tokens=5))
    assert (reply.finish_reason, reply.num_tokens) == ("length", 5)
    assert reply.text.strip()
    assert reply.model == served.engine.model


def test_a_reply_that_ends_by_itself_says_so(served):
    (reply,) = served.ask(QUESTION, Sampling(temperature=0.0, max_tokens=60))
    assert reply.finish_reason == "stop"
    assert reply.num_tokens < 60
    assert "Paris" in reply.text and "<|im_end|>" not in reply.text


def test_as_many_completions_as_asked_for(served):
    replies = served.ask(STORY, Sampling(n=3, temperature=1.0, max_tokens=8, seed=1))
    assert len(replies) == 3
    assert len({reply.text for reply in replies}) > 1
    assert [reply.num_tokens for reply in replies] == [8, 8, 8]
    assert [reply.usage.completion_tokens for reply in replies] == [8, 8, 8]
    assert replies[0].usage.prompt_tokens > 0
    read_again = replies[0].usage.prompt_tokens if served.is_served else 0  # a request for each
    assert [reply.usage.prompt_tokens for reply in replies[1:]] == [read_again] * 2


def test_counts_agree(served):
    (reply,) = served.ask(STORY, GREEDY)
    assert reply.usage.completion_tokens == reply.num_tokens
    assert reply.token_ids is None or len(reply.token_ids) == reply.num_tokens
    counted = served.engine.count_tokens(STORY)
    if served.name == "openai_http":  # counts without the tokenizer, rather too high
        assert counted >= reply.usage.prompt_tokens > 0
    else:
        assert counted == reply.usage.prompt_tokens


def test_a_stop_string_ends_the_reply_before_it(served):
    (whole,) = served.ask(STORY, GREEDY)
    stop = whole.text.split()[2]
    before = whole.text[: whole.text.index(stop)]
    (cut,) = served.ask(STORY, Sampling(temperature=0.0, max_tokens=16, stop=("never seen", stop)))
    assert (cut.text, cut.finish_reason) == (before, "stop")
    assert cut.num_tokens < whole.num_tokens


def test_stop_strings_hold_for_each_of_several_completions(served):
    sampling = Sampling(n=4, temperature=1.0, max_tokens=10, stop=("v", "m"), seed=2)
    for reply in served.ask(STORY, sampling):  # they stop at different tokens
        assert "v" not in reply.text and "m" not in reply.text
        assert reply.token_ids is None or len(reply.token_ids) == reply.num_tokens
        if reply.token_ids is not None and served.is_real and reply.finish_reason == "stop":
            assert set("vm") & set(decode(reply)[len(reply.text) :])
            assert "<|im_end|>" not in decode(reply)  # no padding counted as text


def decode(reply: Completion, part: slice = slice(None)) -> str:
    from transformers import AutoTokenizer

    assert reply.token_ids is not None
    return AutoTokenizer.from_pretrained(resolve_model(EMBEDDED).path).decode(reply.token_ids[part])


def test_without_max_tokens_the_context_is_the_limit(served):
    engine = served.engine
    prompt = STORY
    while engine.count_tokens(longer := user(prompt[0].content + " The sea is blue.")) < CONTEXT - 10:
        prompt = longer
    (reply,) = served.ask(prompt, Sampling(temperature=0.0))
    if reply.finish_reason == "length":
        assert reply.usage.prompt_tokens + reply.num_tokens == engine.context_length == CONTEXT
    else:
        assert reply.finish_reason == "stop" and reply.num_tokens > 0


def test_a_prompt_beyond_the_context_is_refused_before_the_model_sees_it(served):
    before = served.num_logged
    with pytest.raises(ContextOverflow, match=str(CONTEXT)):
        served.ask(user("word " * (2 * CONTEXT)), Sampling(max_tokens=1))  # so far that an estimate sees it
    assert served.num_logged == before


def test_max_tokens_beyond_the_context_is_refused_and_not_cut(served):
    with pytest.raises(ContextOverflow, match=str(CONTEXT)):
        served.ask(STORY, Sampling(max_tokens=CONTEXT))


def test_a_prefill_is_continued_and_not_repeated(served):
    assert served.engine.capabilities.prefill
    start = "The capital of France is"
    (reply,) = served.ask((*QUESTION, Message(role="assistant", content=start)), GREEDY)
    assert start not in reply.text
    assert "Paris" in reply.text[:20]


def test_the_same_seed_gives_the_same_text(served):
    sampling = Sampling(temperature=1.0, max_tokens=12, seed=7)
    first, second = (served.ask(STORY, sampling)[0] for _ in range(2))
    assert first.text == second.text
    (other,) = served.ask(STORY, Sampling(temperature=1.0, max_tokens=12, seed=8))
    assert other.text != first.text


def test_the_identity_is_that_of_the_weights(served):
    identity = served.engine.weights_identity()
    assert identity == served.engine.weights_identity()
    assert identity != EMBEDDED
    if served.is_real:
        assert identity == resolve_model(EMBEDDED).identity


def test_many_requests_at_once_each_get_their_own_reply(served):
    number = 8 if served.name == "hf" else 32
    prompts = [user(f"Repeat the number {index}.") for index in range(number)]
    before = served.num_logged

    async def ask_all() -> list[list[Completion]]:
        return await asyncio.gather(
            *[served.engine.generate(prompt, Sampling(temperature=0.0, max_tokens=6)) for prompt in prompts]
        )

    replies = served.run(ask_all())
    assert [len(completions) for completions in replies] == [1] * number
    assert all(0 < reply.num_tokens <= 6 for (reply,) in replies)
    assert len({reply.text for (reply,) in replies}) > number / 4
    assert served.num_logged == before + 2 * number


def test_one_bad_request_spares_its_siblings(served):
    async def ask_all() -> list[Any]:
        requests = [
            served.engine.generate(STORY, Sampling(temperature=0.0, max_tokens=6)),
            served.engine.generate(user("word " * (CONTEXT + 1)), GREEDY),
            served.engine.generate(STORY, Sampling(temperature=0.0, max_tokens=6)),
        ]
        return await asyncio.gather(*requests, return_exceptions=True)

    first, refused, last = served.run(ask_all())
    assert isinstance(refused, ContextOverflow)
    assert first[0].num_tokens == last[0].num_tokens == 6


def test_a_cancelled_request_leaves_the_engine_usable(served):
    async def cancel_one() -> None:
        task = asyncio.create_task(served.engine.generate(STORY, Sampling(temperature=0.0, max_tokens=20)))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    served.run(cancel_one())
    assert served.ask(STORY, Sampling(temperature=0.0, max_tokens=4))[0].num_tokens == 4


def test_a_schema_is_followed_where_the_engine_says_so(served):
    if not served.engine.capabilities.json_schema:
        pytest.skip(f"{served.name} follows no schema and says so")
    (reply,) = served.ask(
        user("Is the sea wet? Answer in JSON."),
        Sampling(temperature=0.0, max_tokens=24, json_schema=YES_OR_NO),
    )
    assert reply.finish_reason == "stop"
    assert json.loads(reply.text)["answer"] in ("yes", "no")


def test_several_completions_at_temperature_0_are_refused_by_all_but_the_scripted(served):
    sampling = Sampling(n=2, temperature=0.0, max_tokens=4)
    if served.name == "scripted":
        assert len(served.ask(STORY, sampling)) == 2
    else:
        with pytest.raises(EngineError):
            served.ask(STORY, sampling)


def test_what_stands_before_a_closing_tag_is_no_answer(served, monkeypatch):
    """The real reply to the question, read as if its " is" closed a thinking part."""
    if served.name == "scripted":
        pytest.skip("its thinking is made apart, not split off")
    whole = served.ask(QUESTION, Sampling(temperature=0.0, max_tokens=60))[0]
    before, _, after = whole.text.partition(" is")
    holder, name = (served.engine._tokenizer, "tags") if served.is_real else (served.engine, "_tags")
    if served.name == "vllm_server":
        holder, name = served.engine._client, "_tags"
        monkeypatch.setattr(holder._tokenizer, "tags", ReasoningTags("", " is"))
    monkeypatch.setattr(holder, name, ReasoningTags("", " is"))
    stop = ("The",) if served.is_real else ()  # a server is not known to think
    (reply,) = served.ask(QUESTION, Sampling(temperature=0.0, max_tokens=60, stop=stop))
    assert (reply.reasoning, reply.text) == (before, after)  # the stop string did not stop the thinking
    assert reply.num_tokens == whole.num_tokens
    if reply.token_ids is not None and served.is_real:
        assert decode(reply)[: len(before) + 3] == before + " is"
        assert len(decode(reply, slice(0, reply.num_reasoning_tokens))) == len(before) + 3
    (cut,) = served.ask(QUESTION, Sampling(temperature=0.0, max_tokens=2))
    assert (cut.text, cut.finish_reason, cut.num_reasoning_tokens) == ("", "length", 2)


def test_logprobs_are_given_where_the_engine_says_so(served):
    if not served.engine.capabilities.logprobs:
        pytest.skip(f"{served.name} gives no log-probabilities and says so")
    (reply,) = served.ask(STORY, Sampling(temperature=1.0, max_tokens=8, seed=3, logprobs=True))
    assert reply.logprobs is not None and len(reply.logprobs) == reply.num_tokens
    assert all(math.isfinite(value) and value <= 0 for value in reply.logprobs)


def test_likelihoods_are_told_where_the_engine_says_so(served):
    if not served.engine.capabilities.prompt_logprobs:
        pytest.skip(f"{served.name} tells no likelihoods and says so")

    def likelihood(text: str, prompt: Prompt = QUESTION) -> Likelihood:
        return served.run(served.engine.loglikelihood(prompt, text))

    paris, rome = likelihood("Paris"), likelihood("Rome")
    assert paris.logprob < 0 and math.isfinite(paris.logprob) and paris.logprob != rome.logprob
    assert likelihood("Paris").logprob == pytest.approx(paris.logprob, abs=1e-3)
    if not served.is_real:
        return
    assert paris.logprob > rome.logprob  # the model knows
    (written,) = served.ask(QUESTION, Sampling(temperature=0.0, max_tokens=4, logprobs=True))
    assert written.logprobs is not None
    own = likelihood(written.text)
    assert own.is_greedy and not rome.is_greedy
    assert own.logprob == pytest.approx(sum(written.logprobs), abs=0.15)  # bfloat16, another batch
    assert own.num_prompt_tokens == served.engine.count_tokens(QUESTION) + 4
    with pytest.raises(EngineError):
        likelihood("")
    with pytest.raises(ContextOverflow):
        likelihood(" word" * CONTEXT)
    assert likelihood(" is Paris", (*QUESTION, Message(role="assistant", content="The capital"))).logprob < 0


def test_adapters_answer_by_request_and_leave_the_base_as_it_was(served, tmp_path):
    if served.name != "hf":
        pytest.skip("vLLM's adapters have a module of their own; the others have no weights to adapt")
    base = resolve_model(EMBEDDED).path
    folders = [str(write_adapter(tmp_path / name, base, seed=seed)) for seed, name in enumerate("ab")]
    unfit = str(write_adapter(tmp_path / "unfit", base, seed=0, narrower_by=64))
    sampling = Sampling(temperature=0.0, max_tokens=1, logprobs=True)

    def first_logprob(adapter: str | None) -> float:
        prompt = user("Write one line about the moon.")
        (reply,) = served.run(served.engine.generate(prompt, sampling, adapter=adapter))
        assert reply.logprobs is not None
        return reply.logprobs[0]

    alone = first_logprob(None)
    with pytest.raises(EngineError, match=r"adapter: transformers cannot load .*unfit"):
        first_logprob(unfit)
    assert first_logprob(None) == pytest.approx(alone, abs=1e-3)
    a, b = map(first_logprob, folders)
    assert abs(a - alone) > 0.2 and abs(b - alone) > 0.2 and abs(a - b) > 0.2
    assert first_logprob(None) == pytest.approx(alone, abs=1e-3)
    with pytest.raises(EngineError):
        first_logprob(unfit)
    assert first_logprob(folders[0]) == pytest.approx(a, abs=1e-3)
    with pytest.raises(ValueError, match=r"no folder .*nowhere|cannot load .*nowhere"):
        first_logprob(str(tmp_path / "nowhere"))
    write_adapter(tmp_path / "a", base, seed=1)  # overwritten in place
    assert first_logprob(folders[0]) == pytest.approx(b, abs=1e-3)
    assert served.engine.weights_identity(folders[0]) == served.engine.weights_identity(folders[1])
