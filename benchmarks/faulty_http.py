"""An OpenAI-compatible server on 127.0.0.1 that fails in every way servers have been seen to fail.

Which fault strikes a prompt is a function of the seed and the prompt alone. A passing fault strikes the first request
of its prompt, a lasting one every request; the rest are odd replies, which a model is to blame for.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lengthwise.engines.scripted import prose
from lengthwise.records import digest

MODEL = "faulty"
CONTEXT = 4096

PASSING = (
    "429 with seconds",
    "429 with a date",
    "500",
    "502 as HTML",
    "503 as HTML",
    "404 of a proxy",
    "reset before the answer",
    "reset in the body",
    "no JSON",
    "HTML with status 200",
    "no choices",
    "no usage",
    "hang",
    "trickle",
)
LASTING = {
    "500 always": "engine: EngineError",
    "400 too long": "engine: ContextOverflow",
    "422 always": "engine: EngineError",
    "aborted": "engine: EngineError",
}
"""Fault to the reason for which its inputs have to fail."""
REPLIES = ("empty", "cut", "thinking", "thinking cut")
FAULTS = (*PASSING, *LASTING, *REPLIES)

_AFTER_PROOF = ("404 of a proxy", "no usage")
"""Faults that are fatal before the first good answer, since then they mean a wrong set-up."""
_PAGE = b"<html><head><title>Oops</title></head><body><h1>Oops</h1><hr>nginx</body></html>"


def fault_of(prompt: str, seed: int, faulty_frac: float) -> str | None:
    """Return the fault that strikes a prompt; the faults are equally frequent."""
    draw = int(digest([seed, prompt])[:12], 16)
    return FAULTS[draw // 10_000 % len(FAULTS)] if draw % 10_000 < 10_000 * faulty_frac else None


@dataclass
class Record:
    """What all servers of a run have done, by fault and by prompt."""

    served: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    """Good answers by prompt: more than one is work done twice."""
    held_seconds: list[float] = field(default_factory=list)
    """How long the client waited for answers that never came."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class FaultyServer:
    """One server. `kill` closes its port and its connections; `start` opens the same port again."""

    def __init__(
        self, record: Record, *, seed: int, faulty_frac: float, capacity: int, dies_after: int | None = None
    ):
        """Set up; `capacity` requests are served at once, `dies_after` so many requests it dies."""
        self.record, self.seed, self.faulty_frac, self.capacity = record, seed, faulty_frac, capacity
        self.dies_after = dies_after
        self.num_at_once = 0
        self.num_requests = 0
        self.is_up = False
        self.port = 0

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Listen; on the port of before if there was one."""
        server = self

        class Http(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: Any) -> None:
                pass  # a client that hangs up is what this is about

        class Handler(_Handler):
            owner = server

        self._connections: set[socket.socket] = set()
        self._http = Http(("127.0.0.1", self.port), Handler)
        self.port = self._http.server_address[1]
        self.is_up = True
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def kill(self) -> None:
        """Die as a killed process does."""
        if not self.is_up:
            return
        self.is_up = False
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._connections):
            _reset(connection)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultyServer

    def setup(self) -> None:
        super().setup()
        self.owner._connections.add(self.connection)

    def finish(self) -> None:
        self.owner._connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        model = {"id": MODEL, "object": "model", "max_model_len": CONTEXT}
        self.send(200, {"object": "list", "data": [model]})

    def do_POST(self) -> None:
        server, record = self.owner, self.owner.record
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        with record.lock:
            server.num_at_once += 1
            server.num_requests += 1
            full = server.num_at_once > server.capacity
            is_last = server.num_requests == server.dies_after
        try:
            if is_last:
                threading.Thread(target=server.kill, daemon=True).start()
                time.sleep(5)
            elif full:
                record.served["429 over capacity"] += 1
                self.send(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.1"})
            else:
                time.sleep(0.01)
                self.answer(body, prompt)
        finally:
            with record.lock:
                server.num_at_once -= 1

    def answer(self, body: Mapping[str, Any], prompt: str) -> None:
        record = self.owner.record
        fault = fault_of(prompt, self.owner.seed, self.owner.faulty_frac)
        with record.lock:
            record.requests[prompt] += 1
            is_first = record.requests[prompt] == 1
            is_proven = record.answers.total() >= 20
        if (fault in PASSING and not is_first) or (fault in _AFTER_PROOF and not is_proven):
            fault = None
        if fault is not None:
            with record.lock:
                record.served[fault] += 1
            if fault in (*PASSING, "500 always", "400 too long", "422 always"):
                self.fail(fault)
                return
        reply = chat_reply(body, fault)
        with record.lock:
            record.answers[prompt] += 1
        self.send(200, reply)

    def fail(self, fault: str) -> None:
        match fault:
            case "429 with seconds":
                self.send(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.3"})
            case "429 with a date":
                date = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
                self.send(429, {"error": {"message": "slow down"}}, {"Retry-After": date})
            case "500" | "500 always":
                self.send(500, {"error": {"message": "internal error"}})
            case "502 as HTML" | "503 as HTML" | "404 of a proxy":
                self.send(int(fault[:3]), _PAGE)
            case "reset before the answer":
                self.reset()
            case "reset in the body":
                self.send(200, b'{"id": "x", "choices": [{"index"', {"Content-Length": "5000"})
                self.reset()
            case "no JSON":
                self.send(200, b"{ cut", {"Content-Type": "application/json"})
            case "HTML with status 200":
                self.send(200, _PAGE)
            case "no choices":
                usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
                self.send(200, {"id": "x", "model": MODEL, "choices": [], "usage": usage})
            case "no usage":
                self.send(200, chat_reply({}, None) | {"usage": None})
            case "hang":
                self.hold(drips=False)
            case "trickle":
                self.hold(drips=True)
            case "400 too long":
                words = (
                    f"This model's maximum context length is {CONTEXT} tokens. However, you requested more."
                )
                self.send(400, {"error": {"message": words}})
            case "422 always":
                self.send(422, {"error": {"message": "cannot be processed"}})

    def send(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        kind = "text/html" if data is _PAGE else "application/json"
        self.send_response(status)
        for name, text in (
            {"Content-Type": kind, "Content-Length": str(len(data))} | dict(headers or {})
        ).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def reset(self) -> None:
        self.wfile.flush()
        _reset(self.connection)
        self.close_connection = True

    def hold(self, *, drips: bool) -> None:
        """Give no answer, or a byte at a time, until the client hangs up or a minute has passed."""
        started = time.monotonic()
        if drips:
            self.send(200, b" ", {"Content-Length": "100000"})
        while time.monotonic() - started < 60:
            readable, _, _ = select.select([self.connection], [], [], 0.1)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                break
            if drips:
                self.wfile.write(b" ")
        with self.owner.record.lock:
            self.owner.record.held_seconds.append(time.monotonic() - started)
        self.close_connection = True


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def chat_reply(body: Mapping[str, Any], fault: str | None) -> dict[str, Any]:
    """Return a chat completion of about the asked length, or an odd one."""
    num_words = min(body.get("max_tokens") or 60, 60)
    text, finish_reason = prose(7, num_words), "stop"
    match fault:
        case "empty":
            text = ""
        case "cut":
            finish_reason = "length"
        case "thinking":
            text = f"<think>\n{prose(8, 30)}\n</think>\n\n{text}"
        case "thinking cut":
            text, finish_reason = f"<think>\n{prose(8, 30)}", "length"
        case "aborted":
            finish_reason = "abort"
    usage = {"prompt_tokens": 10, "completion_tokens": len(text.split())}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
        ],
        "usage": usage | {"total_tokens": sum(usage.values())},
    }
