from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from byte_tokenizer import OPENS, PLAIN, chat_tokenizer

from lengthwise.config import ConfigError
from lengthwise.engines.base import ContextOverflow, EngineDead, EngineError, Sampling
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
    breaks_off: bool = False
    """The connection is lost after the body, which was announced as longer."""
    trickles: bool = False


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


def usage_of(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


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
        self.answer_by_content: dict[str, Reply] = {}
        self.most_at_once = 1000
        self.num_at_once = 0
        self.lock = threading.Lock()
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
                with server.lock:
                    server.num_at_once += 1
                    too_many = server.num_at_once > server.most_at_once
                try:
                    if too_many:
                        self.answer(error(429, **{"Retry-After": "0.2"}))
                        return
                    if server.most_at_once < 1000:
                        time.sleep(0.05)
                    content = server.requests[-1]["messages"][-1]["content"]
                    known = [r for start, r in server.answer_by_content.items() if content.startswith(start)]
                    number = min(len(server.requests), len(server.script)) - 1
                    self.answer(known[0] if known else server.script[number])
                finally:
                    with server.lock:
                        server.num_at_once -= 1

            def answer(self, reply: Reply) -> None:
                if reply.stalls:
                    server.closing.wait(30)
                    self.close_connection = True
                    return
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body) + 100 * reply.breaks_off))
                self.end_headers()
                if reply.trickles:
                    with suppress(OSError):
                        for byte in body:
                            self.wfile.write(bytes([byte]))
                            if server.closing.wait(0.1):
                                break
                    self.close_connection = True
                    return
                self.wfile.write(body)
                self.close_connection = self.close_connection or reply.breaks_off

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


def ask_in_turn(server: Server, number: int, **options: Any) -> list[str]:
    """Return the texts of several requests of one engine."""
    engine = Engine("m", config(server, **options))

    async def use() -> list[str]:
        return [(await engine.generate(PROMPT, Sampling()))[0].text for _ in range(number)]

    return with_engine(engine, use)


# --- what is sent ---------------------------------------------------------------------------------


def test_a_plain_request_says_no_more_than_it_must(server):
    ask(server, temperature=0.5, top_p=0.9)
    assert server.requests == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Tell me a story."}],
            "temperature": 0.5,
            "top_p": 0.9,
        }
    ]


def test_every_field_of_a_sampling_is_sent(server):
    schema = {"type": "array", "items": {"type": "string"}}
    ask(
        server,
        max_tokens=7,
        top_k=20,
        repetition_penalty=1.1,
        stop=("END",),
        seed=3,
        json_schema=schema,
        options={"extra_body": {"min_p": 0.1}, "chat_template_kwargs": {"enable_thinking": False}},
    )
    sent = server.requests[0]
    assert (sent["max_tokens"], sent["stop"], sent["seed"]) == (7, ["END"], 3)
    assert (sent["top_k"], sent["repetition_penalty"], sent["min_p"]) == (20, 1.1, 0.1)
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert sent["response_format"]["type"] == "json_schema"
    assert sent["response_format"]["json_schema"]["schema"] == schema
    assert "continue_final_message" not in sent


def test_a_vllm_server_is_told_not_to_sample_as_the_models_file_says(server):
    server.models["data"][0]["owned_by"] = "vllm"
    ask(server, top_k=20, options={"extra_body": {"min_p": 0.1}})
    sent = server.requests[0]
    assert (sent["top_k"], sent["min_p"], sent["repetition_penalty"]) == (20, 0.1, 1.0)


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


def test_several_completions_are_requests_with_counts_and_seeds_of_their_own(server):
    server.script = [chat(text, usage=usage_of(9, len(text))) for text in ("a", "bb", "ccc")]
    replies = ask(server, n=3, seed=7)
    assert sorted(r.text for r in replies) == ["a", "bb", "ccc"]
    assert all(r.num_tokens == r.usage.completion_tokens == len(r.text) for r in replies)
    assert [r.usage.prompt_tokens for r in replies] == [9, 9, 9]  # what each request cost
    seeds = sorted(sent["seed"] for sent in server.requests)
    assert len(set(seeds)) == 3 and 7 in seeds
    assert not any("n" in sent for sent in server.requests)
    ask(server, n=3, seed=7)
    assert sorted(sent["seed"] for sent in server.requests[3:]) == seeds


def test_equal_completions_are_refused(server):
    with pytest.raises(EngineError, match="at temperature 0 would be equal"):
        ask(server, n=2, temperature=0.0)
    assert server.requests == []


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


def test_a_reply_without_text_is_an_empty_one(server):
    server.script = [chat(None)]  # type: ignore[arg-type]
    assert ask(server)[0].text == ""


def test_a_server_that_never_tells_its_usage_stops_the_run_with_the_remedy(server):
    server.script = [chat(usage=None)]
    with pytest.raises(EngineDead, match=r"no usage.*set engine\.tokenizer"):
        ask(server)


def test_a_usage_missing_once_is_asked_for_again(server):
    server.script = [chat("a"), chat("b", usage=None), chat("c")]
    assert ask_in_turn(server, 2) == ["a", "c"]


@pytest.mark.parametrize(
    "choices",
    [
        [],
        None,
        {"message": {"content": "x"}},
        7,
        [{"index": 0}],
        [{"index": 0, "message": {"content": 3}}],
        [{"index": 0, "message": {"content": "x", "reasoning": 3}}],
    ],
)
def test_an_answer_without_a_choice_is_asked_for_again_and_its_tokens_are_not_lost(server, choices):
    useless = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
    server.script = [Reply(useless | {"usage": usage_of(5, 30)}), chat("well", usage=usage_of(5, 4))]
    (reply,) = ask(server)
    assert (reply.text, reply.num_tokens) == ("well", 4)
    assert reply.usage == Usage(prompt_tokens=10, completion_tokens=34)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 5, "completion_tokens": -4},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": "5", "completion_tokens": "4"},
        {"prompt_tokens": True, "completion_tokens": True},
    ],
)
def test_a_usage_that_cannot_be_is_none(server, usage):
    server.script = [chat(usage=usage)]
    with pytest.raises(EngineDead, match="no usage"):
        ask(server)


def test_a_finish_reason_that_is_none_is_a_break(server):
    server.script = [chat(finish_reason=["stop"])]  # type: ignore[arg-type]
    assert ask(server)[0].finish_reason == "abort"


def test_reasoning_that_a_server_leaves_out_of_its_count_is_added(server):
    usage = {**usage_of(5, 9), "completion_tokens_details": {"reasoning_tokens": 94}}
    server.script = [chat("Yes.", reasoning_content="hmm", usage=usage)]
    (reply,) = ask(server)
    assert (reply.num_tokens, reply.num_reasoning_tokens, reply.num_answer_tokens) == (103, 94, 9)
    assert reply.usage.completion_tokens == 103


# --- thinking -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "finish_reason", "text", "reasoning"),
    [
        ("<think>aaaa</think>\n\nbbbb", "stop", "bbbb", "aaaa"),
        ("aaaa</think>bbbb", "stop", "bbbb", "aaaa"),  # the server's template has opened it
        ("<think>aaaa", "length", "", "aaaa"),
        ("about <think> and </think>", "stop", "about <think> and </think>", None),
        ("plain", "stop", "plain", None),
    ],
)
def test_thinking_in_the_text_is_taken_out(server, content, finish_reason, text, reasoning):
    server.script = [chat(content, finish_reason=finish_reason, usage=usage_of(5, 10))]
    (reply,) = ask(server)
    assert (reply.text, reply.reasoning, reply.finish_reason) == (text, reasoning, finish_reason)
    shares = {"bbbb": 5, "": 10}  # of the characters: no tokenizer, and the server does not say
    assert (reply.num_tokens, reply.num_reasoning_tokens) == (10, shares.get(text, 0))


def test_a_model_that_is_said_to_think_is_not_sent_the_stop_strings(server):
    server.script = [chat("<think>the END?</think>Yes END more")]
    (reply,) = ask(server, stop=("END",), options={"reasoning_tags": ["<think>", "</think>"]})
    assert (reply.text, reply.reasoning) == ("Yes ", "the END?")
    assert "stop" not in server.requests[0]
    ask(server, stop=("END",))  # nobody knows whether it thinks
    assert server.requests[1]["stop"] == ["END"]


def test_tags_may_be_given_or_switched_off(server):
    server.script = [chat("[T]hm[/T]yes")]
    assert ask(server)[0].text == "[T]hm[/T]yes"
    assert ask(server, options={"reasoning_tags": ["[T]", "[/T]"]})[0].text == "yes"
    server.script = [chat("<think>hm</think>yes")]
    assert ask(server, options={"reasoning_tags": None})[0].text == "<think>hm</think>yes"
    server.script = [chat("hm, cut")]  # the server's template always opens it
    (reply,) = ask(server, options={"reasoning_tags": ["", "</think>"]})
    assert (reply.text, reply.reasoning) == ("", "hm, cut")


# --- with the model's tokenizer -------------------------------------------------------------------


def test_with_a_tokenizer_all_counts_are_known(server, tmp_path):
    chat_tokenizer(tmp_path, OPENS)  # a token is a byte, or a tag
    options = {"tokenizer": str(tmp_path), "context_length": 100}
    server.script = [chat("hmm</think>Yes.", usage=None)]
    (reply,) = ask(server, options=options, prompt=user("Hi"))
    assert (reply.text, reply.reasoning) == ("Yes.", "hmm")
    assert (reply.num_tokens, reply.num_reasoning_tokens) == (8, 4)
    assert reply.usage == Usage(prompt_tokens=25, completion_tokens=8)  # counted here, so that limits hold
    server.script = [chat("hmm", finish_reason="length", usage=usage_of(9, 3))]
    (cut,) = ask(server, options=options, prompt=user("Hi"))
    assert (cut.text, cut.finish_reason, cut.num_reasoning_tokens) == ("", "length", 3)
    server.script = [chat("Yes.", reasoning_content="hmm", usage=usage_of(9, 9))]
    (apart,) = ask(server, options=options, prompt=user("Hi"))
    assert (apart.text, apart.reasoning, apart.num_reasoning_tokens) == ("Yes.", "hmm", 5)


def test_with_a_tokenizer_what_does_not_fit_is_not_sent(server, tmp_path):
    chat_tokenizer(tmp_path, PLAIN)
    options = {"tokenizer": str(tmp_path), "context_length": 60}
    prompt = user("x" * 42)  # with <|user|> 50 tokens
    assert ask(server, options=options, prompt=prompt, max_tokens=10)[0].text == "hello"
    with pytest.raises(
        ContextOverflow, match="prompt of 50 tokens and max_tokens 11 do not fit the context of 60"
    ):
        ask(server, options=options, prompt=prompt, max_tokens=11)
    assert len(server.requests) == 1


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
    assert f"no answer after 1 retries: {server.url}: HTTP 500" in str(caught.value)
    assert not isinstance(caught.value, EngineDead)
    assert len(server.requests) == 2


def test_an_account_without_money_stops_the_run(server):
    server.script = [chat("a"), error(402, "insufficient balance")]
    with pytest.raises(EngineDead, match="HTTP 402: insufficient balance"):
        ask_in_turn(server, 2)


@pytest.mark.parametrize(
    "models",
    [
        {"data": 5},
        {"data": [{"id": None, "max_model_len": 9}]},
        {"data": [{"id": "m", "max_model_len": "9"}]},
    ],
)
def test_an_odd_list_of_models_is_none(server, models):
    server.models = {"object": "list", **models}
    if models["data"] == 5:
        with pytest.raises(EngineError, match="no model list"):
            ask(server, options={"context_length": 100})
    else:
        assert ask(server, options={"context_length": 100})[0].text == "hello"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_not_retried(server, status):
    server.script = [error(status, "bad top_p")]
    with pytest.raises(EngineError, match=f"HTTP {status}.*bad top_p") as caught:
        ask(server)
    assert not isinstance(caught.value, ContextOverflow)
    assert isinstance(caught.value, EngineDead) == (status in (401, 403, 404))  # so would every other be
    assert len(server.requests) == 1


def test_a_key_that_expires_stops_the_run(server):
    server.script = [chat("a"), error(401, "expired")]
    with pytest.raises(EngineDead, match="refuses the key with HTTP 401: .*expired.*OPENAI_API_KEY"):
        ask_in_turn(server, 2)
    assert len(server.requests) == 2


def test_what_is_forbidden_to_one_prompt_fails_it_alone(server):
    server.script = [chat("a"), error(403, "flagged")]
    with pytest.raises(EngineError, match="HTTP 403") as caught:
        ask_in_turn(server, 2)
    assert not isinstance(caught.value, EngineDead)
    assert len(server.requests) == 2


def test_a_model_that_is_gone_for_a_moment_is_asked_for_again(server):
    server.script = [chat("a"), error(404, "no such model"), chat("b")]
    assert ask_in_turn(server, 2) == ["a", "b"]


def test_an_adapter_that_is_not_served_fails_its_caller_alone(server):
    server.script = [error(404, "no such model")]
    engine = Engine("m", config(server))
    with pytest.raises(EngineError, match="HTTP 404") as caught:
        with_engine(engine, lambda: engine.generate(PROMPT, Sampling(), adapter="tuned"))
    assert not isinstance(caught.value, EngineDead)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_page_of_a_proxy_is_read_as_the_fault_it_is(server, status):
    page = b"<html><head><title>x</title></head><body><h1>Bad Gateway</h1></body></html>"
    server.script = [Reply(page, status, {"Content-Type": "text/html"})]
    with pytest.raises(EngineError, match=f"HTTP {status} .*Bad Gateway") as caught:
        ask(server)
    assert "<" not in str(caught.value).replace(server.url, "")


@pytest.mark.parametrize("half", [b'{"id": "x", "choices": [{"ind', b""])
def test_a_connection_lost_in_the_body_is_asked_for_again(server, half):
    server.script = [Reply(half, breaks_off=True), chat("whole")]
    assert ask(server)[0].text == "whole"


def test_a_server_that_trickles_is_given_up_in_time(server):
    server.script = [Reply(b" " * 1000, trickles=True), chat("whole")]
    assert ask(server, options={"timeout_seconds": 1.0})[0].text == "whole"


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
        Reply([1, 2]),
        Reply(3),
        Reply(None),
    ],
    ids=["html", "cut", "other", "list", "number", "null"],
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


def test_a_server_that_fails_a_request_hands_it_to_the_next(servers):
    first, second = servers(), servers()
    first.script, second.script = [error(500)], [chat("second")]
    assert ask(first, second)[0].text == "second"
    assert (len(first.requests), len(second.requests)) == (1, 1)


def test_a_server_that_comes_late_is_found_and_used(servers):
    late, first = servers(), servers()
    late.models_status = 503
    engine = Engine("m", config(late, first, max_in_flight=1))
    first.script = [Reply(stalls=True)]

    async def use() -> str:
        stuck = asyncio.create_task(engine.generate(PROMPT, Sampling()))
        await asyncio.sleep(0.05)
        late.models_status, late.script = 200, [chat("late")]
        (reply,) = await engine.generate(PROMPT, Sampling())  # waits: the first is busy, the other down
        stuck.cancel()
        return reply.text

    assert with_engine(engine, use) == "late"
    check, request = late.requests  # one token first, to see that it answers
    assert check["max_tokens"] == 1 and "max_tokens" not in request


def test_a_server_that_answers_nothing_stops_the_run_and_not_each_sample(server):
    server.script = [chat("a"), error(500)]
    engine = Engine("m", config(server, max_retries=6, dead_after_seconds=2.0))

    async def use() -> list[Any]:
        await engine.generate(PROMPT, Sampling())
        return await asyncio.gather(
            *[engine.generate(PROMPT, Sampling()) for _ in range(40)], return_exceptions=True
        )

    ends = with_engine(engine, use)
    assert all(isinstance(end, EngineDead) for end in ends), ends
    assert f"no server has worked for 2 s (engine.dead_after_seconds): {server.url}: HTTP 500" in str(ends[0])
    assert "Finished calls are kept" in str(ends[0])


def test_requests_that_no_server_can_answer_fail_alone(server):
    """The server is well, as its checks show: the run goes on to its end."""
    poison = user("poison")
    server.answer_by_content = {"poison": error(500), "Tell": chat("a"), "Say": chat("yes")}
    engine = Engine("m", config(server, max_retries=2, dead_after_seconds=3600.0))

    async def use() -> list[Any]:
        calls = [engine.generate(poison, Sampling()) for _ in range(3)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        return [*ends, (await engine.generate(PROMPT, Sampling()))[0].text]

    *failed, text = with_engine(engine, use)
    assert all(type(end) is EngineError for end in failed), failed
    assert text == "a"


def test_a_storm_of_refusals_shrinks_what_is_under_way_and_loses_nothing(server):
    server.most_at_once = 2
    engine = Engine("m", config(server, max_retries=0))

    async def use() -> list[str]:
        replies = await asyncio.gather(*[engine.generate(PROMPT, Sampling()) for _ in range(24)])
        return [reply.text for (reply,) in replies]

    assert with_engine(engine, use) == ["hello"] * 24
    assert engine._servers._endpoints.all[0].window < 12


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
    with pytest.raises(ConfigError) as caught:
        ask(server, model="n")
    assert f"model: {server.url} does not serve 'n'; it serves m" in str(caught.value)


def test_no_server_at_all_is_named():
    url = dead_url()
    with pytest.raises(EngineError) as caught:
        ask(url, options={"max_retries": 0})
    assert "no server answers (is it up, is the port right?" in str(caught.value)
    assert url in str(caught.value) and "connection attempts failed" in str(caught.value)


def test_a_server_that_is_still_loading_is_waited_for(server):
    server.models_status = 503
    threading.Timer(0.5, setattr, (server, "models_status", 200)).start()
    assert ask(server, options={"wait_seconds": 20.0})[0].text == "hello"
    server.models_status = 503
    with pytest.raises(EngineError, match=r"engine\.wait_seconds, now 0.*HTTP 503"):
        ask(server)


def test_a_server_behind_another_protocol_is_no_traceback(server):
    with pytest.raises(EngineError, match="no server answers.*SSL"):
        ask(server.url.replace("http:", "https:"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout_seconds": 0}, "timeout_seconds is 0: give seconds above 0"),
        ({"max_in_flight": 0}, "max_in_flight is 0: it must be at least 1"),
        ({"reasoning_tags": "<think>"}, "reasoning_tags is '<think>': give auto, null, or a list"),
        ({"reasoning_tags": ["a"]}, "reasoning_tags is ['a']"),
        ({"base_urls": ["http://127.0.0.1:PORT/v1"]}, "'http://127.0.0.1:PORT/v1' is no address"),
        ({"base_urls": ["localhost:8000/v1"]}, "'localhost:8000/v1' is no address"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ValueError) as caught:
        Config(**options)
    assert words in str(caught.value)


def test_a_wrong_key_is_said_at_the_start(server):
    server.models, server.models_status = {"error": {"message": "bad key"}}, 401
    with pytest.raises(ConfigError, match="HTTP 401.*bad key"):
        ask(server)


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_a_page_instead_of_a_model_list_is_an_error_of_the_start(server, kind):
    server.models = Reply(b"<html>welcome</html>", headers={"Content-Type": kind})
    with pytest.raises(EngineError, match="/v1"):
        ask(server)


def test_a_server_without_a_model_list_needs_the_context_length(server):
    server.models, server.models_status = {"error": {"message": "not found"}}, 404
    with pytest.raises(ConfigError, match=r"set engine\.context_length .*most end in /v1"):
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
