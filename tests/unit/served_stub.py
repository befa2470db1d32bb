"""Plays vLLM's server: `python served_stub.py MODE --port=N --served-model-name=M ...`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        models = [{"id": NAME, "object": "model", "max_model_len": 512}]
        self.answer({} if self.path == "/health" else {"object": "list", "data": models})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "die" in body["messages"][-1]["content"]:
            print("ValueError: asked to die", flush=True)
            os._exit(3)
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        said = json.dumps({"port": PORT, "seed": body.get("seed")})
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": said},
            "finish_reason": "stop",
        }
        self.answer(
            {"id": "x", "object": "chat.completion", "model": NAME, "choices": [choice], "usage": usage}
        )

    def answer(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


mode, *flags = sys.argv[1:]
options = dict(flag[2:].partition("=")[::2] for flag in flags if flag.startswith("--"))
PORT, NAME = int(options.get("port", 0)), options.get("served-model-name", "")
print(" ".join(flags), flush=True)
if mode == "fails":
    print("INFO loading\n(EngineCore pid=7) ValueError: no such dtype\nRuntimeError: See root cause above.")
    raise SystemExit(1)
if mode == "refuses":
    print("usage: api_server.py\napi_server.py: error: unrecognized arguments: --max-num-seq=8\n")
    raise SystemExit(2)
if mode == "killed":
    signal.raise_signal(signal.SIGKILL)
if mode == "hangs":
    time.sleep(600)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "forks":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", *flags])
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
