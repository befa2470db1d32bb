"""The server that writes answers beside a training: its command, its refusals, its life."""

from __future__ import annotations

import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from lengthwise.config import ConfigError
from lengthwise.engines.base import EngineError
from posttrain.rollout_server import RolloutServer, check_rollout_server, free_port, running

FAKE = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass
HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""


def test_the_command_shares_the_model_out_to_its_devices_and_takes_weights():
    server = RolloutServer(devices="2, 3", options={"enable_prefix_caching": True})
    command = server.command(model=Path("/models/m"), dtype="bfloat16", max_model_len=4096, port=8123)
    flags = " ".join(command.arguments)
    for flag in (
        "--model=/models/m", "--port=8123", "--dtype=bfloat16", "--max-model-len=4096", "--tensor-parallel-size=2",
        '--weight-transfer-config={"backend": "nccl"}', "--logprobs-mode=processed_logprobs", "--enable-prefix-caching",
    ):  # fmt: skip
        assert flag in flags, flag
    assert command.environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert command.environment["VLLM_SERVER_DEV_MODE"] == "1"
    assert command.health_url == "http://127.0.0.1:8123/health"


def test_trl_asks_its_own_server_for_the_same():
    """Where TRL changes what it needs of a server, this fails."""
    vllm_serve = pytest.importorskip("trl.scripts.vllm_serve")
    theirs = vllm_serve.build_command(vllm_serve.ScriptArguments(model="m"))
    for flag in ("--weight-transfer-config", "--logprobs-mode", "processed_logprobs", '{"backend": "nccl"}'):
        assert flag in theirs, flag


def test_without_cuda_it_is_refused_with_what_works_there():
    with pytest.raises(ConfigError, match="use_vllm: true and leave vllm_server out"):
        check_rollout_server(RolloutServer(devices="1"), on_cuda=False)
    check_rollout_server(None, on_cuda=False)


def test_devices_that_both_would_use_are_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(ConfigError, match="the trainer may use 1 too"):
        check_rollout_server(RolloutServer(devices="1,2"), on_cuda=True)
    check_rollout_server(RolloutServer(devices="2,3"), on_cuda=True)


@pytest.mark.parametrize(
    "given", [{"devices": ""}, {"devices": "1,"}, {"devices": "1", "options": {"dtype": "auto"}}]
)
def test_wrong_values_are_refused(given):
    with pytest.raises(ValueError, match=r"vllm_server\."):
        RolloutServer(**given)


def test_it_is_waited_for_and_ended():
    port = free_port()
    command = RolloutServer(devices="0").command(model=Path("m"), dtype="auto", max_model_len=8, port=port)
    with running(replace(command, arguments=[sys.executable, "-c", FAKE, str(port)]), 30):
        assert urllib.request.urlopen(command.health_url, timeout=5).status == 200
    with pytest.raises(OSError):
        urllib.request.urlopen(command.health_url, timeout=5)


def test_one_that_dies_says_why():
    command = RolloutServer(devices="0").command(
        model=Path("m"), dtype="auto", max_model_len=8, port=free_port()
    )
    dies = [sys.executable, "-c", "raise SystemExit('ValueError: no such model')"]
    with (
        pytest.raises(EngineError, match="no such model"),
        running(replace(command, arguments=dies), 30),
    ):
        raise AssertionError("it never started")
