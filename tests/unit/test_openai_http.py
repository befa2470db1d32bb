from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from lengthwise.engines.base import ContextOverflow, EngineError, Sampling
from lengthwise.engines.openai_http import Config, Engine
from lengthwise.records import Completion, Message, Prompt, Usage, user

PROMPT = user("Tell me a story.")


@dataclass
class Reply:
    """What the server answers to one chat request."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    stalls: bool = False


def chat(*texts: str, finish_reason: str | None = "stop", usage: Any = "default", **message: Any) -> Reply:
    if usage == "default":
        usage = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text} | message,
            "finish_reason": finish_reason,
        }
        for index, text in enumerate(texts or ("hello",))
    ]
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "served-m", "choices": choices}
    return Reply(body | ({"usage": usage} if usage else {}))


def error(status: int, message: str = "no", **headers: str) -> Reply:
    return Reply({"error": {"message": message, "type": "t", "code": status}}, status, headers)


class Server:
    """An OpenAI-compatible server that answers from a list; after its end, with the last reply."""

    def __init__(self) -> None:
        self.models: Any = {"object": "list", "data": [{"id": "m", "object": "model", "max_model_len": 100}]}
        self.models_status = 200
        self.script: list[Reply] = [chat()]
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                told = server.models
                self.answer(told if isinstance(told, Reply) else Reply(told, server.models_status))

            def do_POST(self) -> None:
                server.times.append(time.monotonic())
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.requests.append(json.loads(body))
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                number = min(len(server.requests), len(server.script)) - 1
                self.answer(server.script[number])

            def answer(self, reply: Reply) -> None:
                if reply.stalls:
                    server.closing.wait(30)
                    self.close_connection = True
                    return
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Http(ThreadingHTTPServer):
            request_queue_size = 128

        self._http = Http(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def servers() -> Iterator[Callable[[], Server]]:
    opened: list[Server] = []

    def make() -> Server:
        opened.append(Server())
        return opened[-1]

    yield make
    for server in opened:
        server.close()


@pytest.fixture
def server(servers: Callable[[], Server]) -> Server:
    return servers()


def dead_url() -> str:
    """Return a URL where nothing listens."""
    gone = Server()
    gone.close()
    return gone.url


def config(*targets: Server | str, **options: Any) -> Config:
    urls = [target if isinstance(target, str) else target.url for target in targets]
    return Config(**({"base_urls": urls, "max_retries": 1, "timeout_seconds": 20.0} | options))


def with_engine(engine: Engine, use: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        try:
            await engine.start()
            return await use()
        finally:
            await engine.stop()

    return asyncio.run(run())


def ask(
    *targets: Server | str, prompt: Prompt = PROMPT, model: str = "m", options: Any = None, **sampling: Any
) -> list[Completion]:
    engine = Engine(model, config(*targets, **(options or {})))
    return with_engine(engine, lambda: engine.generate(prompt, Sampling(**sampling)))


# --- what is sent ---------------------------------------------------------------------------------


def test_a_plain_request_says_no_more_than_it_must(server):
    ask(server, temperature=0.5, top_p=0.9)
    assert server.requests == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Tell me a story."}],
            "n": 1,
            "temperature": 0.5,
            "top_p": 0.9,
        }
    ]


def test_every_field_of_a_sampling_is_sent(server):
    server.script = [chat("a", "b")]
    schema = {"type": "array", "items": {"type": "string"}}
    ask(
        server,
        n=2,
        max_tokens=7,
        top_k=20,
        repetition_penalty=1.1,
        stop=("END",),
        seed=3,
        json_schema=schema,
        options={"extra_body": {"min_p": 0.1}},
    )
    sent = server.requests[0]
    assert (sent["n"], sent["max_tokens"], sent["stop"], sent["seed"]) == (2, 7, ["END"], 3)
    assert (sent["top_k"], sent["repetition_penalty"], sent["min_p"]) == (20, 1.1, 0.1)
    assert sent["response_format"]["type"] == "json_schema"
    assert sent["response_format"]["json_schema"]["schema"] == schema
    assert "continue_final_message" not in sent


def test_a_prefill_asks_for_the_last_turn_to_be_continued(server):
    prompt = (*PROMPT, Message(role="assistant", content="Once"))
    ask(server, prompt=prompt, options={"prefill": True})
    sent = server.requests[0]
    assert sent["messages"][-1] == {"role": "assistant", "content": "Once"}
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)


def test_a_server_without_seeds_is_not_sent_one(server):
    ask(server, seed=3, options={"seeds": False})
    assert "seed" not in server.requests[0]


def test_capabilities_are_what_the_user_says_of_the_server():
    claims = Engine("m", Config(prefill=True, json_schema=False, seeds=False)).capabilities
    assert (claims.prefill, claims.json_schema, claims.seeds, claims.logprobs) == (True, False, False, False)


def test_the_key_comes_from_the_environment_and_may_be_absent(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    ask(server, options={"api_key_env": "MY_KEY"})
    assert server.headers[-1]["authorization"] == "Bearer secret"
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    ask(server)
    assert server.headers[-1]["authorization"] == "Bearer none"


def test_an_adapter_is_another_served_model(server):
    engine = Engine("m", config(server))
    with_engine(engine, lambda: engine.generate(PROMPT, Sampling(), adapter="tuned"))
    assert server.requests[0]["model"] == "tuned"
    server.models["data"].append({"id": "tuned", "object": "model", "max_model_len": 50})
    engine = Engine("m", config(server), adapter="tuned")
    with_engine(engine, lambda: engine.generate(PROMPT, Sampling()))
    assert server.requests[1]["model"] == "tuned"
    assert (engine.model, engine.context_length) == ("tuned", 50)


# --- what comes back ------------------------------------------------------------------------------


def test_a_reply_is_read_with_its_usage(server):
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    server.script = [chat("hello", usage=usage)]
    assert ask(server) == [
        Completion(
            text="hello",
            finish_reason="stop",
            num_tokens=4,
            model="served-m",
            usage=Usage(prompt_tokens=9, cached_tokens=8, completion_tokens=4),
        )
    ]


def test_the_shares_of_several_choices_add_up(server):
    usage = {"prompt_tokens": 9, "completion_tokens": 11, "total_tokens": 20}
    server.script = [chat("a", "b", "c", usage=usage)]
    replies = ask(server, n=3)
    assert [r.text for r in replies] == ["a", "b", "c"]
    total = sum((r.usage for r in replies), Usage())
    assert total == Usage(prompt_tokens=9, completion_tokens=11)
    assert [r.num_tokens for r in replies] == [4, 4, 3]


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "stop"),
        (None, "abort"),
        ("something_new", "abort"),
    ],
)
def test_finish_reasons_are_mapped(server, told, read):
    server.script = [chat(finish_reason=told)]
    assert ask(server)[0].finish_reason == read


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_kept_apart_from_the_text(server, name):
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 9,
        "total_tokens": 14,
        "completion_tokens_details": {"reasoning_tokens": 6},
    }
    server.script = [chat("42", usage=usage, **{name: "let me think"})]
    (reply,) = ask(server)
    assert (reply.text, reply.reasoning, reply.num_reasoning_tokens) == ("42", "let me think", 6)
    assert reply.num_tokens == 9


def test_missing_text_and_usage_are_no_error(server):
    server.script = [chat(None, usage=None)]  # type: ignore[arg-type]
    (reply,) = ask(server)
    assert (reply.text, reply.num_tokens, reply.usage) == ("", 0, Usage())


def test_no_choice_at_all_is_an_error(server):
    server.script = [
        Reply({"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": []})
    ]
    with pytest.raises(EngineError, match="without a single choice"):
        ask(server)


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_server_that_asks_for_patience_gets_it(server):
    server.script = [error(429, **{"Retry-After": "2"}), chat("at last")]
    assert ask(server)[0].text == "at last"
    # The client's own back-off would have been half a second.
    assert server.times[1] - server.times[0] >= 2.0


@pytest.mark.parametrize("status", [500, 503, 408, 409])
def test_a_passing_failure_is_retried(server, status):
    server.script = [error(status), chat("well")]
    assert ask(server)[0].text == "well"
    assert len(server.requests) == 2


def test_a_stalled_answer_is_given_up_and_asked_for_again(server):
    server.script = [Reply(stalls=True), chat("awake")]
    assert ask(server, options={"timeout_seconds": 1.5})[0].text == "awake"
    assert server.times[1] - server.times[0] >= 1.5


def test_a_failure_that_stays_names_the_server_and_the_retries(server):
    server.script = [error(500)]
    with pytest.raises(EngineError) as caught:
        ask(server)
    assert f"no answer after 1 retries each: {server.url}: HTTP 500" in str(caught.value)
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refusal_is_not_retried(server, status):
    server.script = [error(status, "bad top_p")]
    with pytest.raises(EngineError, match=f"HTTP {status}.*bad top_p") as caught:
        ask(server)
    assert not isinstance(caught.value, ContextOverflow)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 100 tokens. However, you requested 120 tokens",
        "The decoder prompt (length 120) is longer than the maximum model length of 100. Make sure that "
        "`max_model_len` is no smaller than the number of text tokens.",
    ],
)
def test_a_prompt_that_the_server_finds_too_long_is_an_overflow(server, message):
    server.script = [error(400, message)]
    with pytest.raises(ContextOverflow, match="refused the prompt as too long"):
        ask(server)


def test_a_prompt_that_cannot_fit_is_not_sent(server):
    with pytest.raises(ContextOverflow, match=r"context of 100: set engine\.tokenizer"):
        ask(server, prompt=user("word " * 200))
    assert server.requests == []


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"<html>a login page</html>", headers={"Content-Type": "text/html"}),
        Reply(b"{ cut", headers={"Content-Type": "application/json"}),
        Reply({"detail": "not what was asked for"}),
    ],
    ids=["html", "cut", "other"],
)
def test_an_answer_in_another_form_is_an_error_of_the_call(server, reply):
    server.script = [reply]
    with pytest.raises(EngineError):
        ask(server)


# --- several servers ------------------------------------------------------------------------------


def test_a_dead_server_is_passed_over(server):
    engine = Engine("m", config(dead_url(), server))

    async def use() -> list[str]:
        return [(await engine.generate(PROMPT, Sampling()))[0].text for _ in range(3)]

    assert with_engine(engine, use) == ["hello"] * 3
    assert len(server.requests) == 3


def test_a_server_that_dies_later_is_replaced_and_rests(servers):
    first, second = servers(), servers()
    engine = Engine("m", config(first, second))

    async def use() -> list[str]:
        texts = [(await engine.generate(PROMPT, Sampling()))[0].text]
        first.script = [error(500)]
        second.script = [chat("second")]
        texts += [(await engine.generate(PROMPT, Sampling()))[0].text for _ in range(3)]
        return texts

    assert with_engine(engine, use) == ["hello", "second", "second", "second"]
    assert len(first.requests) == 1 + 2  # one retry there, then it is left alone for a while


def test_requests_spread_over_the_servers(servers):
    pair = [servers(), servers()]
    engine = Engine("m", config(*pair))

    async def use() -> Any:
        return await asyncio.gather(*[engine.generate(PROMPT, Sampling()) for _ in range(10)])

    with_engine(engine, use)
    assert [len(server.requests) for server in pair] == [5, 5]


def test_the_smallest_context_of_the_servers_counts(servers):
    first, second = servers(), servers()
    second.models["data"][0]["max_model_len"] = 60
    engine = Engine("m", config(first, second))

    async def use() -> int:
        return engine.context_length

    assert with_engine(engine, use) == 60


# --- at the start ---------------------------------------------------------------------------------


def test_an_unknown_model_is_answered_with_the_served_ones(server):
    with pytest.raises(EngineError) as caught:
        ask(server, model="n")
    assert f"model: {server.url} does not serve 'n'; it serves m" in str(caught.value)


def test_no_server_at_all_is_named():
    url = dead_url()
    with pytest.raises(EngineError) as caught:
        ask(url, options={"max_retries": 0})
    assert f"no server answers (is it up, is the port right?): {url}" in str(caught.value)


def test_a_wrong_key_is_said_at_the_start(server):
    server.models, server.models_status = {"error": {"message": "bad key"}}, 401
    with pytest.raises(EngineError, match="HTTP 401.*bad key"):
        ask(server)


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_a_page_instead_of_a_model_list_is_an_error_of_the_start(server, kind):
    server.models = Reply(b"<html>welcome</html>", headers={"Content-Type": kind})
    with pytest.raises(EngineError, match="/v1"):
        ask(server)


def test_a_server_without_a_model_list_needs_the_context_length(server):
    server.models, server.models_status = {"error": {"message": "not found"}}, 404
    with pytest.raises(EngineError, match=r"set engine\.context_length .*most end in /v1"):
        ask(server)
    assert ask(server, options={"context_length": 500})[0].text == "hello"


def test_a_context_length_that_the_user_gives_wins(server):
    engine = Engine("m", config(server, context_length=10))
    with pytest.raises(ContextOverflow):
        with_engine(engine, lambda: engine.generate(user("word " * 20), Sampling()))


def test_an_empty_list_of_servers_is_refused():
    with pytest.raises(ValueError, match="base_urls: give at least one server"):
        Config(base_urls=[])


def test_counting_without_a_tokenizer_errs_on_the_high_side():
    engine = Engine("m", Config())
    assert engine.count_tokens(user("four words of text")) >= 4
    assert engine.count_tokens(user("六个汉字在此")) >= 6


def test_identities_tell_served_models_apart():
    engine = Engine("m", Config())
    assert engine.weights_identity() != engine.weights_identity("tuned")
    assert engine.weights_identity("tuned") == Engine("m", Config(), adapter="tuned").weights_identity()
